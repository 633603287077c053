"""Embeddings made for tests."""

import numpy as np
import pandas as pd

from miewid_core.beyond_paper.identify.embeddings import LABELS, Embeddings


def embedded(individuals, seed, prefix="k", species="ant"):
    count = len(individuals)
    rows = pd.DataFrame({"annotation_id": [f"{prefix}{i}" for i in range(count)]})
    rows = rows.assign(species=species, individual=individuals, encounter="", chip="")
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return Embeddings(rows[LABELS], vectors, "w", "p")

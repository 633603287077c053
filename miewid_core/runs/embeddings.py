"""The one cache of embeddings: kept as arrays, by the network and the chips they were made of."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from miewid_core import evaluation
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.files import digest, read_checked, write_checked
from miewid_core.machine import default_device
from miewid_core.model import Preprocess


def kept_vectors(
    identity: str,
    load: Callable[[], tuple[nn.Module, Preprocess]],
    store: ChipStore,
    annotations: pd.DataFrame,
    cache: Path,
) -> np.ndarray:
    """Embeddings (N, D) float32 of `annotations`, computed once for each network and its chips.

    `identity`: hash of the network's weights and preprocessing. `load`: gives the network, where it
    is needed.
    """
    keys = store.build(annotations).tolist()
    path = cache / f"{digest(identity, *keys)[:16]}.safetensors"
    with contextlib.suppress(FileNotFoundError, ValueError):  # missing, damaged: made anew
        return read_checked(path)[0]["array"]
    vectors = evaluation.embed(*load(), ChipDataset(store, keys), device=default_device())
    write_checked(path, {"array": vectors})
    return vectors

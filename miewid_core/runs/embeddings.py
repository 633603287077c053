"""The one cache of embeddings: kept as arrays, by what they were made of, and with their rows."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from miewid_core import evaluation, model
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.files import digest, file_digest, kept_array
from miewid_core.machine import default_device

LABELS = ["annotation_id", "species", "individual", "encounter", "chip"]


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Embeddings and their origin; any two with the same `weights` and `preprocessing` compare.

    `rows`: LABELS of each annotation as text, "" where unknown; `chip` is the hash of its photo,
    box and size. `vectors`: (N, D) float32, not normalised. `weights` and `preprocessing`: SHA-256
    of the weights file, and of size, mean and deviation. Raises ValueError where these don't fit.
    """

    rows: pd.DataFrame
    vectors: np.ndarray
    weights: str
    preprocessing: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows do not fit vectors {self.vectors.shape}")
        ids = self.rows["annotation_id"]
        twice = ids[ids.duplicated()].tolist()
        if twice:
            raise ValueError(f"several embeddings of one annotation: {_some(twice)}")
        bad = ids[~np.isfinite(self.vectors).all(axis=1)].tolist()
        if bad:
            raise ValueError(f"embeddings are not finite for {_some(bad)}")

    def of(self, chosen: pd.Series | np.ndarray) -> "Embeddings":
        """Those of the rows where `chosen` (N,) bool is true."""
        chosen = np.asarray(chosen, dtype=bool)
        rows = self.rows[chosen].reset_index(drop=True)
        return dataclasses.replace(self, rows=rows, vectors=self.vectors[chosen])

    def refuse_other(self, other: "Embeddings") -> None:
        """Raise ValueError where `other` is of another network or preprocessing."""
        for name in ("weights", "preprocessing"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                raise ValueError(
                    f"queries and database can't be compared: {name} are {there[:16]}, not "
                    f"{here[:16]}; embed both with one network"
                )


def embed(
    weights: Path | str,
    annotations: pd.DataFrame,
    chips_dir: Path,
    cache: Path,
    resizing: str = "",
) -> Embeddings:
    """Embeddings of `annotations` (catalog rows) by a weights file, as for `model.load`.

    `resizing`: "plugin" to search an index that the Wildbook plugin made (see `model.Preprocess`),
    "" for the network's own.
    """
    network, preprocess = model.load(weights, default_device())
    preprocess = dataclasses.replace(preprocess, resizing=resizing or preprocess.resizing)
    store = ChipStore(chips_dir, preprocess.size, preprocess.resizing)
    rows = annotations[LABELS[:-1]].assign(chip=store.build(annotations)).reset_index(drop=True)
    hashes = file_digest(Path(weights)), preprocessing_digest(preprocess)
    vectors = kept_vectors(
        digest(*hashes), lambda: (network, preprocess), store, annotations, Path(cache)
    )
    return Embeddings(rows, vectors, *hashes)


def kept_vectors(
    identity: str,
    load: Callable[[], tuple[nn.Module, model.Preprocess]],
    store: ChipStore,
    annotations: pd.DataFrame,
    cache: Path,
) -> np.ndarray:
    """Embeddings (N, D) float32 of `annotations`, computed once for each network and its chips.

    `identity`: hash of the network's weights and preprocessing. `load`: gives the network, where it
    is needed.
    """
    keys = store.build(annotations).tolist()

    def made() -> np.ndarray:
        return evaluation.embed(*load(), ChipDataset(store, keys), device=default_device())

    return kept_array(cache / f"{digest(identity, *keys)[:16]}.safetensors", made)


def preprocessing_digest(preprocess: model.Preprocess) -> str:
    """SHA-256 of what is done to a photo before the network sees it."""
    return digest(json.dumps(preprocess.record(), sort_keys=True))


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")

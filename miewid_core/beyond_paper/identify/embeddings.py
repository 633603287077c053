"""Embeddings by a weights file, with their origin, and searches in them: only one origin compares.

Every search here is by cosine, among the annotations of the query's species.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from miewid_core.chips import ChipStore
from miewid_core.evaluation import BLOCK, one_vs_all
from miewid_core.files import CACHE, digest, file_digest
from miewid_core.machine import default_device
from miewid_core.model import Preprocess
from miewid_core.readers.weights import load_model
from miewid_core.runs.run import kept_vectors

LABELS = ["annotation_id", "species", "individual", "encounter", "chip"]


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Embeddings and their origin; any two with the same `weights` and `preprocessing` compare.

    `rows`: LABELS of each annotation as text, "" where unknown; `chip` is the hash of its photo,
    box and size. `vectors`: (N, D) float32, not normalised. `weights` and `preprocessing`: SHA-256
    of the weights file, and of size, mean and deviation. Raises ValueError where not finite.
    """

    rows: pd.DataFrame
    vectors: np.ndarray
    weights: str
    preprocessing: str

    def __post_init__(self) -> None:
        bad = self.rows["annotation_id"][~np.isfinite(self.vectors).all(axis=1)]
        if len(bad):
            raise ValueError(f"embeddings are not finite for {', '.join(bad[:5])}")

    def of(self, chosen: pd.Series | np.ndarray) -> "Embeddings":
        """Those of the rows where `chosen` (N,) bool is true."""
        chosen = np.asarray(chosen, dtype=bool)
        rows = self.rows[chosen].reset_index(drop=True)
        return dataclasses.replace(self, rows=rows, vectors=self.vectors[chosen])

    def those_in(self, annotations: pd.DataFrame) -> "Embeddings":
        """Those of the rows that are among `annotations`."""
        return self.of(self.rows["annotation_id"].isin(annotations["annotation_id"]))

    def ranks(self) -> pd.DataFrame:
        """One row per annotation: all others of its species ranked (`evaluation.one_vs_all`)."""
        names = ("individual", "species", "encounter", "annotation_id")
        return one_vs_all(self.vectors, *(self.rows[name] for name in names))

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
    cache: Path = CACHE / "embeddings",
    resizing: str = "",
) -> Embeddings:
    """Embeddings of `annotations` (catalog rows) by a weights file, as for `load_model`.

    `resizing`: "plugin" to search an index that the Wildbook plugin made (see `model.Preprocess`),
    "" for the network's own.
    """
    network, preprocess = load_model(weights, default_device())
    preprocess = dataclasses.replace(preprocess, resizing=resizing or preprocess.resizing)
    store = ChipStore(chips_dir, preprocess.size, preprocess.resizing)
    rows = annotations[LABELS[:-1]].assign(chip=store.build(annotations)).reset_index(drop=True)
    hashes = file_digest(Path(weights)), preprocessing_digest(preprocess)
    vectors = kept_vectors(
        digest(*hashes), lambda: (network, preprocess), store, annotations, Path(cache)
    )
    return Embeddings(rows, vectors, *hashes)


def preprocessing_digest(preprocess: Preprocess) -> str:
    """SHA-256 of what is done to a photo before the network sees it."""
    return digest(json.dumps(preprocess.record(), sort_keys=True))


def by_species(
    queries: Embeddings, database: Embeddings
) -> Iterator[tuple[Embeddings, Embeddings]]:
    """The queries of each species, and what they search: those of it, or all for the unknown ""."""
    for species in queries.rows["species"].unique():
        searched = (database.rows["species"] == species) | (species == "")
        yield queries.of(queries.rows["species"] == species), database.of(searched)


def search(database: Embeddings, queries: Embeddings, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `database` nearest to each of M queries, nearest first.

    Returns cosines (M, k) and row numbers (M, k); k is at most the number of rows. A query that is
    among the rows finds itself. Raises ValueError for embeddings of another origin.
    """
    database.refuse_other(queries)
    k = min(k, len(database.rows))
    if not k or queries.rows.empty:
        return np.empty((len(queries.rows), k), np.float32), np.empty((len(queries.rows), k), int)
    index = NearestNeighbors(n_neighbors=k, metric="cosine").fit(database.vectors)
    distances, rows = index.kneighbors(queries.vectors)
    return 1 - distances, rows


def nearest(
    vectors: np.ndarray, rows: pd.DataFrame, others: np.ndarray, of_others: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """For each of `vectors` (Q, D) the nearest of `others` of its individual, and of any other one.

    Returns places (2, Q) among the `others` (N, D), and cosines (2, Q), NaN where there is none.
    `rows`, `of_others`: their annotation_id, individual, encounter. What an individual's encounter
    shows itself doesn't count: frames of one sighting, labelled together, vouch for one another.
    """
    both = pd.concat([rows, of_others])
    named = both["encounter"] != ""
    sightings = both["encounter"].where(named, "photo " + both["annotation_id"])
    codes = [pd.factorize(labels)[0] for labels in (both["individual"], sightings)]
    unit, of_unit = normalize(vectors), normalize(others)
    places, cosines = np.zeros((2, len(rows)), int), np.full((2, len(rows)), np.nan)
    for start in range(0, len(rows), BLOCK) if len(others) else ():
        block = slice(start, start + BLOCK)
        cosine = unit[block] @ of_unit.T
        own, together = (code[: len(rows)][block, None] == code[len(rows) :] for code in codes)
        for kind, wanted in enumerate((own & ~together, ~own)):
            scores = np.where(wanted, cosine, -np.inf)
            places[kind, block] = scores.argmax(axis=1)
            best = scores.max(axis=1)
            cosines[kind, block] = np.where(np.isinf(best), np.nan, best)
    return places, cosines

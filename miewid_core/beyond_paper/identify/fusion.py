"""Another matcher's scores beside cosine: each calibrated to a probability, then their mean.

This is WildFusion (Cermak et al. 2024). The reader's table says how alike two photos are by any
other measure, such as the number of matched local features.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sklearn.preprocessing import normalize

from miewid_core.beyond_paper.identify.embeddings import Embeddings
from miewid_core.beyond_paper.identify.review import refuse

COLUMNS = ["query", "candidate", "score"]
LEAST = 20  # right pairs, and wrong ones, below which nothing is calibrated
READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype=dict.fromkeys(COLUMNS[:2], str)),
    ".parquet": pd.read_parquet,
}


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The calibrations of cosine and of the other `scores`, a Series by (query, candidate)."""

    cosine: IsotonicRegression
    other: IsotonicRegression
    scores: pd.Series

    def of(self, pairs: pd.DataFrame) -> np.ndarray:
        """Fused scores (N,) in [0, 1] of `pairs`: query, match (annotation ids), score (cosine).

        Of a pair that the table lacks, the calibrated cosine counts alone.
        """
        ids = pd.MultiIndex.from_frame(pairs[["query", "match"]])
        fused, other = self.cosine.predict(pairs["score"]), self.scores.reindex(ids).to_numpy()
        there = ~np.isnan(other)
        fused[there] = (fused[there] + self.other.predict(other[there])) / 2
        return fused


def from_file(
    path: str, tested: Embeddings, database: Embeddings, queries: Embeddings
) -> Fusion | None:
    """The fusion for `candidates.rank` by the reader's file; None where `path` is "".

    The pairs of `tested` photos that are in `database` calibrate; see `read_scores`, `calibrate`.
    """
    if not path:
        return None
    names = pd.concat([of.rows["annotation_id"] for of in (tested, database, queries)])
    return calibrate(read_scores(path, set(names)), tested.those_in(database.rows), database)


def read_scores(path: Path | str, annotation_ids: set[str]) -> pd.DataFrame:
    """The pairs of a CSV or Parquet file: COLUMNS, annotation ids as text and a finite score.

    `annotation_ids`: of all photos that a pair may name. Raises ValueError for a file that is none
    of these or lacks a column, and by row for photos that aren't known, scores that are no finite
    number, a photo paired with itself, and pairs that are listed twice.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS or not path.is_file():
        raise ValueError(f"scores: {path} is no CSV or Parquet file that exists")
    table = READERS[path.suffix.lower()](path)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(
            f"scores: {path.name} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}"
        )
    pairs = table[COLUMNS].astype({"query": object, "candidate": object})
    pairs[COLUMNS[:2]] = pairs[COLUMNS[:2]].fillna("").astype(str)
    numbers = pd.to_numeric(pairs["score"], errors="coerce").replace([np.inf, -np.inf], np.nan)
    faults = {
        "score is no finite number": numbers.isna(),
        "query is no photo's annotation id": ~pairs["query"].isin(annotation_ids),
        "candidate is no photo's annotation id": ~pairs["candidate"].isin(annotation_ids),
        "a photo is paired with itself": pairs["query"] == pairs["candidate"],
        "this pair is listed before": pairs.duplicated(COLUMNS[:2]),
    }
    refuse(f"scores: {path.name}", "row " + (pairs.index + 1).astype(str).to_series(), faults)
    return pairs.assign(score=numbers)


def calibrate(scores: pd.DataFrame, tested: Embeddings, database: Embeddings) -> Fusion:
    """Both calibrations, isotonic, fitted on the pairs of known photos in a table of `read_scores`.

    Queries of these pairs are `tested`, from which the network hasn't learned; candidates are
    of `database`, of the query's species and of another encounter. Raises ValueError where there
    are fewer than LEAST right or wrong pairs.
    """
    tested.refuse_other(database)
    pairs = scores
    for name, of in (("query", tested), ("candidate", database)):
        rows = of.rows.assign(place=range(len(of.rows))).add_prefix(f"{name}_")
        pairs = pairs.merge(rows, left_on=name, right_on=f"{name}_annotation_id")
    burst = pairs["query_encounter"] == pairs["candidate_encounter"]
    burst &= pairs["query_encounter"] != ""
    pairs = pairs[(pairs["query_species"] == pairs["candidate_species"]) & ~burst]
    right = pairs["query_individual"] == pairs["candidate_individual"]
    if min(right.sum(), (~right).sum()) < LEAST:
        raise ValueError(
            f"scores: {right.sum():,} right and {(~right).sum():,} wrong pairs of known photos are "
            f"too few to calibrate; at least {LEAST} of each are needed"
        )
    one, two = normalize(tested.vectors), normalize(database.vectors)
    cosines = (one[pairs["query_place"]] * two[pairs["candidate_place"]]).sum(axis=1)
    fitted = [
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, right)
        for values in (cosines, pairs["score"])
    ]
    return Fusion(*fitted, scores.set_index(COLUMNS[:2])["score"])

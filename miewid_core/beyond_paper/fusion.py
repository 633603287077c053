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

from miewid_core.beyond_paper.identify import Rerank, search
from miewid_core.runs.embeddings import Embeddings

COLUMNS = ["query", "candidate", "score"]
LEAST = 20  # right pairs, and wrong ones, below which nothing is calibrated
SHOWN = 5  # problems in an error
READERS = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


def read_scores(path: Path | str, annotation_ids: set[str]) -> pd.DataFrame:
    """The pairs of a CSV or Parquet file: COLUMNS, annotation ids as text and a finite score.

    `annotation_ids`: of all photos that a pair may name. Raises ValueError for a file that is none
    of these or lacks a column, and by row for photos that aren't known, scores that are no finite
    number, a photo paired with itself, and pairs that are listed twice.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS or not path.is_file():
        raise ValueError(f"scores: {path} is no CSV or Parquet file that exists")
    text = {"dtype": dict.fromkeys(COLUMNS[:2], str)} if path.suffix.lower() == ".csv" else {}
    table = READERS[path.suffix.lower()](path, **text)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(
            f"scores: {path.name} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}"
        )
    pairs = table[COLUMNS].astype({"query": object, "candidate": object})
    pairs[COLUMNS[:2]] = pairs[COLUMNS[:2]].fillna("").astype(str)
    numbers = pd.to_numeric(pairs["score"], errors="coerce").replace([np.inf, -np.inf], np.nan)
    faults = {
        "score {score!r} is no finite number": numbers.isna(),
        "no photo has the annotation id {query!r}": ~pairs["query"].isin(annotation_ids),
        "no photo has the annotation id {candidate!r}": ~pairs["candidate"].isin(annotation_ids),
        "{query!r} is paired with itself": pairs["query"] == pairs["candidate"],
        "{query!r} and {candidate!r} are listed before": pairs.duplicated(COLUMNS[:2]),
    }
    _refuse(path, pairs, faults)
    return pairs.assign(score=numbers)


def _refuse(path: Path, pairs: pd.DataFrame, faults: dict[str, pd.Series]) -> None:
    """Raise ValueError with the rows that have a fault; rows count from 1, below the header."""
    found = [
        (row, words.format(**pairs.iloc[row].to_dict()))
        for words, wrong in faults.items()
        for row in np.flatnonzero(wrong)[: SHOWN + 1]
    ]
    if found:
        count = sum(int(wrong.sum()) for wrong in faults.values())
        lines = [f"row {row + 1}: {words}" for row, words in sorted(found)[:SHOWN]]
        more = [f"and {count - SHOWN} more"] if count > SHOWN else []
        raise ValueError("\n".join([f"scores: {count} problems in {path.name}:", *lines, *more]))


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The calibrations of cosine and of the other `scores`, a Series by (query, candidate)."""

    cosine: IsotonicRegression
    other: IsotonicRegression
    scores: pd.Series

    def ranked(
        self, cosines: np.ndarray, rows: np.ndarray, queries: pd.Series, known: pd.Series
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fused scores (M, n) in [0, 1] and row numbers (M, n), best first.

        `cosines`, `rows`: of `identify.search` over all n known photos; `queries`, `known`:
        annotation ids. Of a pair that the table lacks, the calibrated cosine counts alone. Ties
        keep the order of cosines.
        """
        candidates = known.to_numpy()[rows]
        pairs = [queries.repeat(rows.shape[1]).to_numpy(), candidates.ravel()]
        other = self.scores.reindex(pd.MultiIndex.from_arrays(pairs)).to_numpy()
        fused = self.cosine.predict(cosines.ravel())
        there = ~np.isnan(other)
        fused[there] = (fused[there] + self.other.predict(other[there])) / 2
        fused = fused.reshape(rows.shape)
        order = np.argsort(-fused, axis=1, kind="stable")
        return np.take_along_axis(fused, order, 1), np.take_along_axis(rows, order, 1)


def reranking(
    path: str, tested: Embeddings, database: Embeddings, queries: Embeddings
) -> Rerank | None:
    """What `identify.candidates` reranks by, from the reader's file; None where `path` is "".

    The pairs of `tested` photos that are in `database` calibrate; see `read_scores`, `calibrate`.
    """
    if not path:
        return None
    names = pd.concat([of.rows["annotation_id"] for of in (tested, database, queries)])
    scores = read_scores(path, set(names))
    known = tested.of(tested.rows["annotation_id"].isin(database.rows["annotation_id"]))
    return calibrate(scores, known, database).ranked


def shortlist(
    tested: Embeddings, database: Embeddings, queries: Embeddings, k: int = 20
) -> pd.DataFrame:
    """The pairs that another matcher should score: query, candidate.

    Each of `queries` and of `tested`, the known photos that calibrate, with the k photos of
    `database` nearest by cosine and of its species.
    """
    parts = []
    for asking in (tested, queries):
        for species, rows in asking.rows.groupby("species").groups.items():
            own = asking.of(asking.rows.index.isin(rows))
            others = database.of((database.rows["species"] == species) | (species == ""))
            nearest = search(others, own, k + 1)[1]
            ids = own.rows["annotation_id"].repeat(nearest.shape[1]).to_numpy()
            match = others.rows["annotation_id"].to_numpy()[nearest.ravel()]
            parts.append(pd.DataFrame({"query": ids, "candidate": match}))
    pairs = pd.concat(parts, ignore_index=True)
    pairs = pairs[pairs["query"] != pairs["candidate"]]
    return pairs.groupby("query", sort=False).head(k).reset_index(drop=True)


def calibrate(scores: pd.DataFrame, tested: Embeddings, database: Embeddings) -> Fusion:
    """Both calibrations, isotonic, fitted on the pairs of known photos in a table of `read_scores`.

    Queries of these pairs are `tested`, from which the network hasn't learned; candidates are
    of `database`, of the query's species and of another encounter. Raises ValueError where there
    are fewer than LEAST right or wrong pairs.
    """
    tested.refuse_other(database)
    places = [
        pd.Series(range(len(of.rows)), of.rows["annotation_id"]).reindex(scores[name])
        for of, name in ((tested, "query"), (database, "candidate"))
    ]
    both = places[0].notna().to_numpy() & places[1].notna().to_numpy()
    one, two = (place.to_numpy()[both].astype(int) for place in places)
    queries = tested.rows.iloc[one].reset_index(drop=True)
    candidates = database.rows.iloc[two].reset_index(drop=True)
    burst = (queries["encounter"] == candidates["encounter"]) & (queries["encounter"] != "")
    counted = (queries["species"] == candidates["species"]) & ~burst
    right = (queries["individual"] == candidates["individual"])[counted].to_numpy()
    if min(right.sum(), (~right).sum()) < LEAST:
        raise ValueError(
            f"scores: {right.sum():,} right and {(~right).sum():,} wrong pairs of known photos are "
            f"too few to calibrate; at least {LEAST} of each are needed (see `fusion.shortlist`)"
        )
    units = [normalize(of.vectors) for of in (tested, database)]
    cosines = (units[0][one] * units[1][two]).sum(axis=1)[counted]
    others = scores["score"].to_numpy()[both][counted]
    fitted = [
        IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, right)
        for values in (cosines, others)
    ]
    return Fusion(*fitted, scores.set_index(COLUMNS[:2])["score"])

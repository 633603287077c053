"""Who they may be: the known individuals most like each photo to identify."""

from pathlib import Path

import pandas as pd

from miewid_core.beyond_paper.identify.embeddings import Embeddings, by_species, search
from miewid_core.beyond_paper.identify.fusion import Fusion, from_file
from miewid_core.beyond_paper.identify.network import Network
from miewid_core.chips import ChipStore
from miewid_core.figures import Panel

COLUMNS = ["query", "rank", "individual", "match", "score"]


def rank(
    known: Embeddings, queries: Embeddings, k: int = 5, fusion: Fusion | None = None
) -> pd.DataFrame:
    """The k individuals most like each query, each by its photo that is nearest by cosine.

    Returns COLUMNS, one row per query and candidate, best first: query and match are annotation
    ids, rank counts from 1, score is the cosine in [-1, 1]. With a `fusion` photos are ranked by
    its score in [0, 1] instead. A query of unknown species "" is compared with all. Raises
    ValueError for embeddings that can't be compared (see `search`).
    """
    parts = [_of_species(others, own, k, fusion) for own, others in by_species(queries, known)]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    order = pd.Series(range(len(queries.rows)), queries.rows["annotation_id"])
    return found.sort_values("query", key=order.get, kind="stable", ignore_index=True)


def _of_species(
    known: Embeddings, queries: Embeddings, k: int, fusion: Fusion | None
) -> pd.DataFrame:
    # however many photos k - 1 individuals have, one photo more belongs to another one
    enough = int(known.rows["individual"].value_counts().head(k - 1).sum()) + 1
    scores, rows = search(known, queries, len(known.rows) if fusion else enough)
    found = pd.DataFrame({"query": queries.rows["annotation_id"].repeat(scores.shape[1])})
    nearest = known.rows.iloc[rows.ravel()]
    found["individual"] = nearest["individual"].to_numpy()
    found["match"], found["score"] = nearest["annotation_id"].to_numpy(), scores.ravel()
    if fusion:  # ties keep the order of cosines
        found["score"] = fusion.of(found)
        found = found.sort_values("score", ascending=False, kind="stable")
    found = found.drop_duplicates(["query", "individual"])
    found["rank"] = found.groupby("query").cumcount() + 1
    return found.loc[found["rank"] <= k, COLUMNS]


def found_by(
    network: Network,
    photos: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    tested: Embeddings,
    scores: str = "",
) -> pd.DataFrame:
    """The ten candidates of each query by a network, with another matcher's `scores` or without.

    `photos`: all catalog rows, of which `known` are searched. `tested`, embeddings by the measured
    network, calibrate the scores (see `fusion`).
    """
    asked, database = network.embed(queries), network.embed(photos).those_in(known)
    return rank(database, asked, 10, from_file(scores, tested, database, asked))


def panels(
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    chips_dir: Path,
    size: int = 128,
) -> list[list[Panel]]:
    """For each query its chip and those of its candidates, right or wrong where that is known.

    `found`: of `rank`. `queries`, `known`: catalog rows; individual "" is no truth.
    """
    store, shown = ChipStore(chips_dir, size), known.set_index("annotation_id")
    rows, every = [], set(known["individual"])
    for query in queries.itertuples():
        own = found[found["query"] == query.annotation_id]
        annotations = pd.concat([queries.loc[[query.Index]], shown.loc[own["match"]]])
        chips = [store.read(key) for key in store.build(annotations)]
        new = query.individual and query.individual not in every
        named = "new animal" if new else f"query {query.name or Path(query.path).name}"
        captions, right = [f"{query.species}\n{named}"], [None]
        for name, score, individual in zip(
            annotations["name"][1:], own["score"], own["individual"], strict=True
        ):
            captions.append(f"{name}\n{score:.2f}")
            right.append(individual == query.individual if query.individual else None)
        rows.append(list(zip(chips, captions, right, strict=True)))
    return rows

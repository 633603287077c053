"""A network on a catalog taken whole as the test set, as its makers may have published one."""

import pandas as pd

from miewid_core.beyond_paper.identify.embeddings import embed
from miewid_core.evaluation import hits
from miewid_core.files import CACHE
from miewid_core.paper.comparison import beside_paper
from miewid_core.paper.intervals import by_species, with_heads
from miewid_core.readers.load import load_catalog
from miewid_core.readers.weights import weights_file

KS = 1, 5, 10, 20


def measures(ranks: pd.DataFrame) -> pd.DataFrame:
    """Top-k and mAP in percent, by species and as their "mean", of `evaluation.one_vs_all`'s ranks.

    Columns species, queries, individuals, then top_1, top_5, top_10, top_20 and mAP, each with _low
    and _high, its 95 % interval over individuals. Queries are annotations with a true match.
    """
    counted = ranks[ranks["relevant"] > 0]
    values = {f"top_{k}": hits(ranks, k).astype(float) for k in KS}
    table = pd.DataFrame()
    for name, own in (values | {"mAP": counted["average_precision"]}).items():
        found = by_species(own, counted)
        found[["value", "low", "high"]] *= 100
        heads = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
        found = found.set_index(["species", "queries", "individuals"]).rename(columns=heads)
        table = found if table.empty else table.join(found)
    return table.reset_index()


def whole_catalog(catalog: str, weights: str, resizing: str = "", **reading: object) -> str:
    """What the command `evaluate` prints: a table of `measures` beside the paper's Table 2.

    Each annotation is a query, and searches all others of its species by cosine (section 3.4).
    `weights`: as for `load_model`; `resizing`: as for `identify.embeddings.embed`; `reading`: as
    for `load_catalog`, which raises CatalogError for a row with a problem.
    """
    rows = load_catalog(catalog, **reading)
    table = measures(embed(weights_file(weights), rows, CACHE / "chips", resizing=resizing).ranks())
    alone = len(rows) - table["queries"].iloc[-1]
    table = table if len(table) > 2 else table[:-1]
    table = beside_paper(table, 2, {"multi": "multi_species"})
    table.loc[table["species"] == "mean", "paper_multi"] = None  # which is that of other species
    table = table.dropna(axis=1, how="all").rename(columns={"paper_multi": "top-1 in Table 2"})
    heads = {name: name.replace("_", "-") for name in table if not name.endswith(("_low", "_high"))}
    text = with_heads(table, heads).to_string(index=False, float_format="{:.1f}".format, na_rep="")
    return f"{text}\nCandidates alone, as their individual has no other photo: {alone:,}."

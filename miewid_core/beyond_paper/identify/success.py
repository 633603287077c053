"""How well identification works on the animals that are known: in tables and in words."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core.beyond_paper import gallery_size
from miewid_core.beyond_paper.identify.embeddings import Embeddings
from miewid_core.beyond_paper.identify.network import FINAL, UNKNOWN
from miewid_core.figures import spelt
from miewid_core.files import ROOT
from miewid_core.paper import database_size, intervals
from miewid_core.paper.comparison import compare
from miewid_core.readers.weights import weights_file

INSPECTED = (1, 2, 3, 5, 10, 15, 20)  # candidate individuals, the nearest first
PHOTOS, INDIVIDUALS = "photos of each individual", "individuals"
FEW = 10  # individuals below which a bootstrap interval is no longer worth its name


def table(tested: Embeddings, learned: Collection[str] = ()) -> pd.DataFrame:
    """How often a known individual is among the first INSPECTED individuals, in percent.

    Individuals are ranked by their nearest photo, as on the review page. Columns species, queries,
    individuals; top1, top1_low, top1_high (95 % interval), chance1 (of as many individuals drawn at
    random), and so on for the others. Where individuals are known to be `learned` by the network,
    also top1_seen and top1_new: of these, and of the others. The last row is the mean over species.
    Each of the photos `tested` queries the others of its species (section 3.4).
    """
    found = gallery_size.ahead(tested.vectors, tested.rows)
    ranks = found.assign(first_match_rank=found["ahead"] + 1, candidates=found["others"] + 1)
    ranks["relevant"] = found["ahead"].notna().astype(int)  # of the candidates one is right
    tables = []
    for k in INSPECTED:
        seen = learned if k == 1 and learned else None
        found = compare({f"top{k}": ranks}, k=k, seen=seen).drop(columns=f"top{k}_trainings")
        found = found.set_index(["species", "queries", "individuals"])
        tables.append(found.rename(columns={"chance": f"chance{k}"}))
    return pd.concat(tables, axis=1).reset_index()


def missed(table: pd.DataFrame) -> pd.DataFrame:
    """How many searches for known animals are missed by how many candidates are looked at.

    The rest of the mean of `table`: columns inspected, missed, low, high (percent with its 95 %
    interval). A missed animal is counted twice, or as another one.
    """
    mean = table.iloc[-1]
    found = [mean[[f"top{k}", f"top{k}_high", f"top{k}_low"]] for k in INSPECTED]
    shares = pd.DataFrame(100 - np.array(found, float), columns=["missed", "low", "high"])
    shares.insert(0, "inspected", INSPECTED)
    return shares


def needed(tested: Embeddings, seed: int) -> pd.DataFrame:
    """Top-1 by the photos of each individual in the database, and by the number of individuals.

    Columns varied (PHOTOS or INDIVIDUALS), number, queries, top1, low, high (percent, 95 % interval
    of the mean over species). At most so many photos of each, drawn at random
    (`database_size.ranks`); of individuals up to as many as every species has (`gallery_size`).
    Nothing is trained: of networks trained on fewer animals it says nothing.
    """
    # sorted as the test set is, so that the draws are notebook 08's
    rows = tested.rows.sort_values("annotation_id")
    vectors, rows = tested.vectors[rows.index], rows.reset_index(drop=True)
    columns = ["varied", "number", "queries", "top1", "low", "high"]
    most = int(rows.groupby("individual").size().max()) if len(rows) else 0
    limits = sorted({*(limit for limit in (1, 2, 3, 5, 10) if limit < most), most})
    if most < 2:
        return pd.DataFrame(columns=columns)
    ranks = database_size.ranks(vectors, rows, limits, seed=seed)
    counted, parts = ~np.isnan(ranks[:, 0, 0]), []
    for place, limit in enumerate(limits):
        right = pd.Series((ranks[counted, :, place] <= 1).mean(axis=1), rows.index[counted])
        table = intervals.by_species(right, rows).iloc[-1:].rename(columns={"value": "top1"})
        table[["top1", "low", "high"]] *= 100
        parts.append(table.assign(varied=PHOTOS, number=limit))
    curve = gallery_size.curve([gallery_size.ahead(vectors, rows)])
    curve = curve[curve["species"] == "mean"].rename(columns={"size": "number", "top_1": "top1"})
    return pd.concat([*parts, curve.assign(varied=INDIVIDUALS)], ignore_index=True)[columns]


def headline(table: pd.DataFrame, page: Path, weights: str = "", role: str = "") -> str:
    """What `table` says in a sentence, with the place of the review `page`.

    `weights`: of the measured network, as given to `choose`; `role`: of the one that identifies.
    """
    page = page.resolve()
    page = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    mean, place = table.iloc[-1], f"Decide on the page `{page.as_posix()}`."
    if role == FINAL:
        place += f" Its candidates are by the {FINAL}, which was trained on all known photos."
    if np.isnan(mean["top1"]):
        return (
            "No individual has two encounters among the photos that the network hasn't learned, so "
            f"how well it works isn't known. {place}"
        )
    if weights and not weights_file(weights).with_name("rows.csv").is_file():
        place = f"{UNKNOWN} {place}"
    network = "network of your weights" if weights else "multi-species network"
    first, ten = (
        "{:.0f} % ({:.0f} to {:.0f})".format(*mean[[f"top{k}{end}" for end in intervals.ENDS]])
        for k in (1, 10)
    )
    return (
        f"Among the tested individuals the {'measured ' * (role == FINAL)}{network} puts the right "
        f"one first in {first} of {mean['queries']:,} searches, and among the first ten in {ten}. "
        f"{place}"
    )


def details(table: pd.DataFrame, known: int) -> str:
    """What a `headline` rests on, and of how many `known` individuals a page's searches are."""
    mean, count = table.iloc[-1], table["top1"][:-1].notna().sum()
    return (
        f"Means over {count} species, with 95 % intervals. Ten individuals drawn at random would "
        f"hold the right one in {mean['chance10']:.0f} %. {mean['individuals']:,} individuals were "
        f"tested; the page searches all photos of {known:,}, which was not measured."
    )


def in_words(table: pd.DataFrame) -> str:
    """What the species with few individuals in a `table` can't tell."""
    lines = []
    for row in table[:-1][table["individuals"][:-1] < FEW].itertuples():
        n, words = row.individuals, "no individual has two encounters among the tested photos."
        if row.queries:
            failures = 100 * (1 - 0.05 ** (1 / n))  # that n successes don't exclude, at 95 %
            words = (
                f"{row.top1:.0f} % of {row.queries} searches, guessing {row.chance1:.0f} %. So few "
                f"individuals tell little: even {n} successes with {n} leave room for "
                f"{failures:.0f} % of failures, and a search is easier than it will be later."
            )
        lines.append(f"- **{spelt(row.species)}**: {words}")
    return "\n".join(lines) or f"Each species has {FEW} tested individuals or more."

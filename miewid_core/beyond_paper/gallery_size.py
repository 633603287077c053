"""Top-1 against the number of candidate individuals, so that species of any size compare."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from miewid_core import progress
from miewid_core.figures import BLUE, PAGE, THIN, Figure, plain_numbers, spelt, styled
from miewid_core.paper.database_size import databases
from miewid_core.paper.intervals import by_species, with_heads, with_interval
from miewid_core.ranking import TIE

POINTS = 25  # of a species' curve


def ahead(embeddings: np.ndarray, annotations: pd.DataFrame) -> pd.DataFrame:
    """For each query, how many other individuals have a candidate ahead of its best true match.

    `annotations`: annotation_id, species, individual; `embeddings` (N, D). Columns these; `others`,
    the other individuals of its species; `ahead` <NA> where a query has no true match. What ties
    with the true match (up to `ranking.TIE`) is ahead.
    """
    counts = np.full((len(annotations), 2), np.nan)
    for database in databases(embeddings, annotations):
        starts = np.unique(database.first)
        for queries, true, wrong in database.blocks():
            best = true.max(axis=1, keepdims=True)
            nearer = np.logical_or.reduceat(wrong >= best - np.float32(TIE), starts, axis=1)
            own = np.where(np.isneginf(best[:, 0]), np.nan, nearer.sum(axis=1))
            counts[database.rows[queries], 0] = len(starts) - 1
            counts[database.rows[queries], 1] = own
    table = annotations[["annotation_id", "species", "individual"]].reset_index(drop=True)
    table[["others", "ahead"]] = pd.DataFrame(counts).astype("Int64")
    return table


def top_1(ahead: pd.DataFrame, size: int) -> pd.Series:
    """Expected top-1 in percent of each query that counts, in a gallery of `size` individuals.

    The gallery holds the query's individual and size - 1 random others, each with all annotations.
    The answer is right if none of them is ahead: C(n - a, size - 1) / C(n, size - 1) for a of n
    others ahead (hypergeometric). Queries of species with fewer individuals have NaN.
    """
    counted = ahead[ahead["ahead"].notna()]
    others, wrong = (counted[name].to_numpy(dtype=int) for name in ("others", "ahead"))
    right = hypergeom.pmf(0, others, wrong, np.minimum(size - 1, others))
    right[wrong == 0] = 1  # of no others at all scipy knows nothing
    return pd.Series(np.where(size <= others + 1, 100 * right, np.nan), counted.index)


def common_size(ahead: pd.DataFrame) -> int:
    """The most individuals that every species has: the size at which all can be compared."""
    return int(ahead.groupby("species")["others"].max().min()) + 1


def curve(aheads: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Top-1 in percent by gallery size: of each species from 2 individuals to all that it has.

    `aheads`: of `ahead`, one for each training of the network.
    Columns size, species, queries, top_1, low, high (95 % interval, as in `intervals.by_species`).
    The last row of a species is its top-1 of `compare`. Up to the common size the last row of each
    size is the "mean" over species.
    """
    counted, common = aheads[0][aheads[0]["ahead"].notna()], common_size(aheads[0])
    full = counted.groupby("species")["others"].max() + 1
    spaced = np.geomspace(2, max(2, full.max()), POINTS).round().astype(int)
    parts = []
    for size in progress(sorted({*spaced.tolist(), *full.tolist(), common}), "gallery sizes"):
        right = pd.concat([top_1(ahead, size) for ahead in aheads], axis=1).dropna() / 100
        table = by_species(right, counted).assign(size=size)
        table[["value", "low", "high"]] *= 100
        table = table[table["value"].notna()]
        parts.append(table if size <= common else table[:-1])
    columns = ["size", "species", "queries", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns].rename(columns={"value": "top_1"})


def equal(curve: pd.DataFrame) -> pd.DataFrame:
    """Top-1 in percent of each species among all its individuals, and at the common size.

    `curve`: of `curve`. Columns species, queries, individuals (all), top_1, equal_individuals, and
    equal_top_1 with its 95 % interval equal_low, equal_high; last their "mean".
    """
    common = curve.loc[curve["species"] == "mean", "size"].max()
    table = curve[curve["size"] == common].set_index("species")
    whole = curve[curve["species"] != "mean"].groupby("species").last()
    found = table[["queries"]].assign(
        individuals=whole["size"].astype("Int64"),
        top_1=whole["top_1"],
        equal_individuals=common,
    )
    found.loc["mean", "top_1"] = whole["top_1"].mean()
    return found.join(table[["top_1", "low", "high"]].add_prefix("equal_")).reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `equal` for a reader, the largest species first."""
    rows = table.rename(columns={"equal_low": "low", "equal_high": "high"})
    heads = {"species": "species", "individuals": "individuals", "top_1": "top-1 among all (%)"}
    heads |= {"equal_top_1": f"top-1 among {rows['equal_individuals'].iloc[0]} (%)"}
    # the mean has no number of individuals
    return with_heads(rows.sort_values("individuals", ascending=False, kind="stable"), heads)


def in_words(table: pd.DataFrame) -> str:
    """How species compare at equal gallery size, from a table of `equal`."""
    ends = table[:-1].sort_values("equal_top_1", kind="stable").iloc[[0, -1]]
    apart = ends["equal_high"].iloc[0] < ends["equal_low"].iloc[1]  # their intervals share nothing
    differ = "Gallery size alone doesn't explain" if apart else "Gallery size may explain"
    worst, best = ends["species"].map(spelt)
    low, high = with_interval(ends, "equal_top_1", "equal_low", "equal_high", unit=" %")
    return (
        f"{differ} how species differ: among {ends['equal_individuals'].iloc[0]} individuals of "
        f"each, top-1 goes from {low} for {worst} to {high} for {best}."
    )


@styled()
def gallery_figure(curve: pd.DataFrame, title: str) -> Figure:
    """Top-1 against candidate individuals, a line each species, and their mean.

    `curve`: of `curve`. The mean ends at the gallery that every species fills, where the dashed
    line is; its band is the 95 % interval. The worst and the best species there are named.
    """
    species = {name: own for name, own in curve.groupby("species", sort=False) if name != "mean"}
    mean = curve[curve["species"] == "mean"]
    common = mean["size"].max()
    drawn = Figure(title, 3.8, PAGE)
    axes = drawn.subplots()
    for own in species.values():
        axes.plot(own["size"], own["top_1"], "-o", markevery=[-1], markersize=2, **THIN)
    axes.fill_between(mean["size"], mean["low"], mean["high"], color=BLUE, alpha=0.25, linewidth=0)
    label = f"mean of {len(species)} species, 95 % interval"
    axes.plot(mean["size"], mean["top_1"], "-o", color=BLUE, markevery=[-1], label=label)
    look = {"color": "black", "linewidth": 0.7, "linestyle": "--"}
    axes.axvline(common, **look, label="largest gallery that every species fills")
    axes.set(xscale="log", ylim=(0, 102), xlim=(1.9, 1.7 * curve["size"].max()))
    axes.set(xlabel="candidate individuals (log scale)", ylabel="top-1 accuracy (%)")
    plain_numbers(axes.xaxis)
    ranked = curve[(curve["size"] == common) & (curve["species"] != "mean")].sort_values("top_1")
    named = dict(zip(("top", "bottom"), ranked["species"].iloc[[0, -1]], strict=True))
    for side, name in named.items():
        axes.lines[[*species].index(name)].set_color("black")
        end, offset = species[name].iloc[-1], {"top": (2, -2), "bottom": (2, 2)}[side]
        place = {"textcoords": "offset points", "va": side}
        axes.annotate(spelt(name), (end["size"], end["top_1"]), offset, **place)
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn

"""Top-1 against the number of candidate individuals, so that species of any size compare."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from miewid_core import progress
from miewid_core.figures import BLUE, PAGE, THIN, Figure, plain_numbers, spelt, styled
from miewid_core.paper.database_size import databases
from miewid_core.paper.intervals import by_species, with_heads
from miewid_core.ranking import TIE

POINTS = 25  # of a species' curve
NAMED = 12  # species in the figure


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


def readable(table: pd.DataFrame, nearest: Sequence[str]) -> pd.DataFrame:
    """A table of `equal` for a reader, the largest species first.

    `nearest`: for each row, how many of the nearest annotations find 90 % (of `top_k.needed`).
    """
    rows = table.assign(nearest=nearest).rename(columns={"equal_low": "low", "equal_high": "high"})
    heads = {"species": "species", "individuals": "individuals", "nearest": "k for 90 %"}
    heads |= {"top_1": "top-1 among all (%)"}
    heads |= {"equal_top_1": f"top-1 among {rows['equal_individuals'].iloc[0]} (%)"}
    # the mean has no number of individuals
    return with_heads(rows.sort_values("individuals", ascending=False, kind="stable"), heads)


def in_words(table: pd.DataFrame) -> str:
    """How species compare at equal gallery size, from a table of `equal`."""
    species, mean = table[:-1].sort_values("equal_top_1", kind="stable"), table.iloc[-1]
    worst, best = species.iloc[0], species.iloc[-1]
    apart = worst["equal_high"] < best["equal_low"]  # their intervals share nothing
    ends = [f"{row['equal_top_1']:.1f} % ({spelt(row['species'])})" for row in (worst, best)]
    differ = "Gallery size alone doesn't explain" if apart else "Gallery size may explain"
    return (
        f"{differ} how species differ: among {mean['equal_individuals']} individuals of each, "
        f"multi-species top-1 goes from {ends[0]} to {ends[1]}. On average it is then "
        f"{mean['equal_top_1']:.1f} % (95 % interval {mean['equal_low']:.1f} to "
        f"{mean['equal_high']:.1f}) instead of {mean['top_1']:.1f} % among all."
    )


@styled()
def gallery_figure(curve: pd.DataFrame, title: str) -> Figure:
    """Top-1 against candidate individuals, a line each species, and their mean.

    The NAMED largest are named on the right, joined to their ends.
    `curve`: of `curve`. The mean ends at the gallery that every species fills, where the dashed
    line is; its band is the 95 % interval.
    """
    species = {name: own for name, own in curve.groupby("species", sort=False) if name != "mean"}
    mean = curve[curve["species"] == "mean"]
    drawn = Figure(title, 3.8, PAGE)
    axes = drawn.subplots()
    for own in species.values():
        axes.plot(own["size"], own["top_1"], "-o", markevery=[-1], markersize=2, **THIN)
    axes.fill_between(mean["size"], mean["low"], mean["high"], color=BLUE, alpha=0.25, linewidth=0)
    label = f"mean of {len(species)} species, 95 % interval"
    axes.plot(mean["size"], mean["top_1"], "-o", color=BLUE, markevery=[-1], label=label)
    look = {"color": "black", "linewidth": 0.7, "linestyle": "--"}
    axes.axvline(mean["size"].max(), **look, label="largest gallery that every species fills")
    axes.set(xscale="log", ylim=(0, 102), xlim=(1.9, 2.6 * curve["size"].max()))
    axes.set(xlabel="candidate individuals (log scale)", ylabel="top-1 accuracy (%)")
    plain_numbers(axes.xaxis)
    largest = sorted(species.values(), key=lambda own: -own["size"].iloc[-1])[:NAMED]
    ends = sorted((own.iloc[-1] for own in largest), key=lambda end: end["top_1"])
    height, right = -np.inf, 1.25 * curve["size"].max()
    for above, end in zip(reversed(range(len(ends))), ends, strict=True):
        # a line of text above the one below, with room for those above
        height = max(min(end["top_1"], 99 - 6 * above), height + 6)
        place = {"xy": (end["size"], end["top_1"]), "xytext": (right, height)}
        arrow = {"arrowstyle": "-", "relpos": (0, 0.5), "linestyle": ":"} | THIN
        axes.annotate(spelt(end["species"]), **place, va="center", arrowprops=arrow)
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn

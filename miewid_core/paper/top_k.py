"""Top-k curves over all species (appendix A.2)."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from miewid_core import progress
from miewid_core.figures import BLUE, ORANGE, PAGE, THIN, Figure, spelt, styled
from miewid_core.paper.comparison import Ranking, compare, training_spread
from miewid_core.paper.intervals import NO_SPREAD, with_interval

KS = tuple(range(1, 51))
SHOWN = (1, 5, 10, 20, 50)  # in tables
LEVELS = (80, 90, 95)  # percent of searches
COLUMNS = ["model", "species", "queries", "individuals", "k", "top_k", "low", "high", "chance"]
LOOKS = {  # of the models told apart, by colour, lightness and dashes
    "multi-species": {"color": BLUE, "ls": "-"},
    "single-species, equal steps": {"color": ORANGE, "ls": "--"},
    "leave-one-out": {"color": "black", "ls": ":", "linewidth": 1.4},
}


def top_k(
    rankings: Mapping[str, Ranking], train: pd.DataFrame, ks: Sequence[int] = KS
) -> pd.DataFrame:
    """Top-k in percent of each of `rankings`, by species, then their "mean": appendix A.2.

    Species by decreasing number of their annotations in `train`, as in Figure 1. Columns model (the
    ranking's name), species, queries, individuals, k, top_k, low, high (95 % interval) and chance,
    as of `compare`: a ranking may lack species of the first, means are over those that all have.
    Networks trained once spread between trainings as the first one's do, if it has several. An
    interval closes where k leaves no choice.
    """
    once = [model for model, own in rankings.items() if isinstance(own, pd.DataFrame)]
    first, *_ = rankings
    parts = []
    for k in progress(ks, "top-k"):
        sd = NO_SPREAD if first in once else training_spread(rankings[first], k)
        table = compare(rankings, k=k, training_sd=dict.fromkeys(once, sd))
        for model in rankings:
            ends = {f"{model}_{end}": end for end in ("low", "high")}
            parts.append(table.rename(columns=ends).assign(model=model, k=k, top_k=table[model]))
    table = pd.concat(parts).reindex(columns=COLUMNS).dropna(subset="top_k")
    certain = table["chance"] > 100 - 1e-9
    table[["low", "high"]] = table[["low", "high"]].mask(certain, 100.0)
    sizes = train["species"].value_counts()
    sizes["mean"] = -1  # stands last
    order = {"key": lambda names: names.map(sizes).fillna(0), "ascending": False}
    return table.sort_values("species", kind="stable", ignore_index=True, **order)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The means of a table of `top_k` for a reader, a row for each k of SHOWN."""
    means = table[(table["species"] == "mean") & table["k"].isin(SHOWN)]
    models = dict([*means.groupby("model", sort=False)])
    scores = {
        f"{name} (%)": with_interval(own, "top_k", "low", "high") for name, own in models.items()
    }
    first = next(iter(models.values()))
    return pd.DataFrame({"k": first["k"], **scores, "random ranking (%)": first["chance"]})


def needed(table: pd.DataFrame, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """How many of the nearest annotations find so many percent, on average over species.

    For a reader: a row each model, a column each of `levels`, "10 (7 to 15)". The ends are the
    first k at which the upper and the lower end of its interval are there.
    """
    models = table[table["species"] == "mean"].groupby("model", sort=False)
    rows = [[model, *(_first_k(own, level) for level in levels)] for model, own in models]
    return pd.DataFrame(rows, columns=["network", *(f"{level:g} %" for level in levels)])


def _first_k(own: pd.DataFrame, level: float) -> str:
    enough, least, most = (
        next((f"{k}" for k in own.loc[own[name] >= level, "k"]), f"over {own['k'].max()}")
        for name in ("top_k", "high", "low")
    )
    return f"{enough} ({least} to {most})"


def in_words(table: pd.DataFrame) -> str:
    """How many annotations the first model needs, from a table of `top_k`."""
    model, first_k = needed(table, [90]).iloc[0]
    return (
        f"The {model} network's {first_k.replace('(', '(95 % interval ')} nearest annotations hold "
        "the right individual in 90 % of searches, on average over species."
    )


@styled()
def top_k_panels(table: pd.DataFrame, title: str) -> Figure:
    """A small panel of top-k against k per species, and a large one of their mean (appendix A.2).

    `table`: of `top_k`, of models that LOOKS names. The band is the first one's 95 % interval, no
    lower than what a random ranking reaches, or a smaller k.
    """
    species = [name for name in table["species"].unique() if name != "mean"]
    shared = set.intersection(*table.groupby("model")["species"].agg(set)) - {"mean"}
    columns, height = (4, 1.35) if len(species) <= 12 else (7, 1.1)
    rows = -(-len(species) // columns)
    drawn = Figure(title, 0.7 + height * (2 + rows), PAGE)
    above, below = drawn.subfigures(2, 1, height_ratios=[2, rows])
    panels = {"mean": above.subplots()}
    grid = below.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    panels |= dict(zip(species, grid, strict=False))
    for axes in grid[len(species) :]:
        axes.remove()
    for name in species[-columns:]:  # the lowest of each column
        panels[name].tick_params(labelbottom=True)
    for name, axes in panels.items():
        own = table[table["species"] == name]
        for model, points in own.groupby("model", sort=False):
            look = LOOKS[model]
            if model == table["model"].iloc[0]:
                band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
                least = np.minimum(points["chance"], points["top_k"])  # none is worse than random
                low = points["low"].clip(least).cummax()  # nor than fewer photos are
                axes.fill_between(points["k"], low, points["high"], **band)
            axes.plot(points["k"], points["top_k"], label=model, **look)
        chance = own.drop_duplicates("k")
        axes.plot(chance["k"], chance["chance"], label="random ranking", **THIN)
        words = f"mean of {len(shared)} species" if name == "mean" else spelt(name)
        words = textwrap.fill(words, 95 if name == "mean" else 95 // columns)  # 95 fill a page
        queries, individuals = own.iloc[0][["queries", "individuals"]]
        axes.set_title(f"{words}\n{queries:,} / {individuals:,}", loc="left", fontsize=7)
        last = table["k"].max()
        axes.set(ylim=(0, 102), xlim=(0, last + 1), xticks=[1, *range(20, last + 1, 20)])
    panels["mean"].legend(loc="lower right")
    below = "k, nearest annotations looked at (above each panel: queries / individuals)"
    drawn.supxlabel(below, fontsize=7.5)
    drawn.supylabel(f"top-k (%), {table['model'].iloc[0]} with 95 % interval", fontsize=7.5)
    return drawn

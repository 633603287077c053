"""Curves over all species: database size (Figure 3), top-k (appendix A.2), gallery size."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from tqdm import tqdm

from miewid_core.figures import BLUE, ORANGE, PAGE, THIN, Figure, styled
from miewid_core.paper.comparison import compare

KS = tuple(range(1, 51))
LOOKS = {  # of the models told apart, by colour, lightness and dashes
    "multi-species": {"color": BLUE, "ls": "-"},
    "single-species, equal steps": {"color": ORANGE, "ls": "--"},
    "leave-one-out": {"color": "black", "ls": ":", "linewidth": 1.4},
}


def top_k(
    rankings: Mapping[str, pd.DataFrame], train: pd.DataFrame, ks: Sequence[int] = KS
) -> pd.DataFrame:
    """Top-k in percent of each of `rankings`, by species, then their "mean": appendix A.2.

    Species by decreasing number of annotations in `train`, as in Figure 1. Columns model (the
    ranking's name), species, queries, individuals, k, top_k, low, high, chance, as of `compare`.
    """
    tables = {k: compare(rankings, k=k) for k in tqdm(ks, "top-k")}
    parts = [
        table.rename(columns={f"{model}_low": "low", f"{model}_high": "high"}).assign(
            model=model, k=k, top_k=table[model]
        )
        for model in rankings
        for k, table in tables.items()
    ]
    columns = ["model", "species", "queries", "individuals", "k", "top_k", "low", "high", "chance"]
    table = pd.concat([part[columns] for part in parts]).dropna(subset="top_k")
    sizes = table["species"].map(train["species"].value_counts()).fillna(0)
    sizes = sizes.mask(table["species"] == "mean", -1).reset_index(drop=True)
    order = sizes.sort_values(ascending=False, kind="stable").index
    return table.iloc[order].reset_index(drop=True)


def in_words(table: pd.DataFrame, level: float = 90) -> str:
    """From which k on each model's mean is at least `level` percent, and their order at k = 1."""
    parts = []
    for model, own in table[table["species"] == "mean"].groupby("model", sort=False):
        last = own["k"].max()
        # first k at which the mean, the interval's upper and its lower end are there
        k, low, high = (
            next((f"{k}" for k in own.loc[own[name] >= level, "k"]), f"more than {last}")
            for name in ("top_k", "high", "low")
        )
        parts.append(f"{k} with {model} (95 % interval {low} to {high})")
    means = table[(table["species"] == "mean") & (table["k"] == 1)].sort_values("top_k")[::-1]
    order = [f"{row.model} ({row.top_k:.1f} %)" for row in means.itertuples()]
    return (
        f"{level:g} % of the queries (mean over species) find their individual among the nearest "
        f"annotations up to k = {', '.join(parts)}. At k = 1 the order is {', '.join(order)}."
    )


@styled()
def top_k_panels(table: pd.DataFrame, title: str) -> Figure:
    """A small panel of top-k against k per species, and a large one of their mean (appendix A.2).

    `table`: of `top_k`, of models that LOOKS names. Bands are 95 % intervals.
    """
    species = [name for name in table["species"].unique() if name != "mean"]
    shared = set.intersection(*table.groupby("model")["species"].agg(set)) - {"mean"}
    drawn, mean, panels = _panel_grid(title, len(species))
    for name, axes in zip(["mean", *species], [mean, *panels], strict=True):
        own = table[table["species"] == name]
        for model, points in own.groupby("model", sort=False):
            look = LOOKS[model]
            band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
            axes.fill_between(points["k"], points["low"], points["high"], **band)
            axes.plot(points["k"], points["top_k"], label=model, **look)
        chance = own.drop_duplicates("k")
        axes.plot(chance["k"], chance["chance"], label="random ranking", **THIN)
        words = f"mean of {len(shared)} species" if name == "mean" else name
        _head_panel(axes, words, own.iloc[0][["queries", "individuals"]])
    last = table["k"].max()
    mean.set(ylim=(0, 102), xlim=(0, last + 1), xticks=[1, *range(20, last + 1, 20)])
    mean.legend(loc="lower right")
    drawn.supxlabel("k, nearest annotations looked at (above: queries / individuals)", fontsize=7.5)
    drawn.supylabel("top-k accuracy (%), with 95 % interval", fontsize=7.5)
    return drawn


def _panel_grid(title: str, count: int) -> tuple[Figure, Axes, list[Axes]]:
    """A page with a panel of two by two cells and `count` of one cell each, with the same axes.

    Among small panels only the first of a row and the last of a column have numbers.
    """
    columns = 4 if count <= 12 else 7
    rows = max(2, -(-(count + 4) // columns))
    drawn = Figure(title, 0.7 + rows * (1.35 if columns == 4 else 1.1), PAGE)
    grid = drawn.add_gridspec(rows, columns)
    places = itertools.product(range(rows), range(columns))
    small = [place for place in places if max(place) > 1][:count]
    large = drawn.add_subplot(grid[:2, :2])
    panels = [drawn.add_subplot(grid[place], sharex=large, sharey=large) for place in small]
    for (row, column), axes in zip(small, panels, strict=True):
        first = column == (2 if row < 2 else 0)
        axes.tick_params(labelleft=first, labelbottom=(row + 1, column) not in small)
    return drawn, large, panels


def _head_panel(axes: Axes, words: str, numbers: pd.Series) -> None:
    """Name a panel, within its width, and give its numbers, which the x axis explains."""
    spec = axes.get_subplotspec()
    letters = 95 * len(spec.colspan) // spec.get_gridspec().ncols  # 95 fill a page
    name = textwrap.fill(words.replace("_", " "), letters)
    axes.set_title("{}\n{:,} / {:,}".format(name, *numbers), loc="left", fontsize=7)

"""Top-k curves over all species (appendix A.2)."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from tqdm import tqdm

from miewid_core.figures import BLUE, ORANGE, PAGE, THIN, Figure, styled
from miewid_core.paper.comparison import Ranking, compare, training_spread, with_interval

KS = tuple(range(1, 51))
SHOWN = (1, 5, 10, 20, 50)  # in tables
COLUMNS = ["model", "species", "queries", "individuals", "k", "top_k", "low", "high", "chance"]
COLUMNS += ["seen", "new"]
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
    At each k of SHOWN also seen and new: of the individuals in `train`, and of the others. Networks
    trained once spread between trainings as the first one's do, if it has several. An interval
    closes where k leaves no choice.
    """
    once = [model for model, own in rankings.items() if isinstance(own, pd.DataFrame)]
    first, *_ = rankings
    parts = []
    for k in tqdm(ks, "top-k"):
        sd = 0.0 if first in once else training_spread(rankings[first], k)
        known = dict.fromkeys(once, sd)
        table = compare(rankings, train if k in SHOWN else None, k, training_sd=known)
        for model in rankings:
            ends = {f"{model}_{end}": end for end in ("low", "high", "seen", "new")}
            parts.append(table.rename(columns=ends).assign(model=model, k=k, top_k=table[model]))
    table = pd.concat(parts).reindex(columns=COLUMNS).dropna(subset="top_k")
    certain = table["chance"] > 100 - 1e-9
    table[["low", "high"]] = table[["low", "high"]].mask(certain, 100.0)
    sizes = table["species"].map(train["species"].value_counts()).fillna(0)
    sizes = sizes.mask(table["species"] == "mean", -1).reset_index(drop=True)
    order = sizes.sort_values(ascending=False, kind="stable").index
    return table.iloc[order].reset_index(drop=True)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The means of a table of `top_k` for a reader, a row for each k of SHOWN."""
    means = table[(table["species"] == "mean") & table["k"].isin(SHOWN)]
    models = dict([*means.groupby("model", sort=False)])
    first = next(iter(models))
    shown = {"k": models[first]["k"].tolist()}
    for model, own in models.items():
        shown[f"{model} (%)"] = with_interval(own, "top_k", "low", "high")
        if model == first:
            shown["seen, new individuals"] = [
                f"{row.seen:.1f}, {row.new:.1f}" for row in own.itertuples()
            ]
    return pd.DataFrame(shown | {"random ranking": models[first]["chance"].tolist()})


def in_words(table: pd.DataFrame, level: float = 90) -> str:
    """How many of the nearest annotations show the individual in `level` percent of searches."""
    means, needed = table[table["species"] == "mean"], {}
    for model, own in means.groupby("model", sort=False):
        # first k at which the mean, the interval's upper and its lower end are there
        needed[model] = [
            next((f"{k}" for k in own.loc[own[name] >= level, "k"]), f"more than {own['k'].max()}")
            for name in ("top_k", "high", "low")
        ]
    (first, (enough, *_)), *_ = needed.items()
    said = f"In {level:g} % of searches the {first} network shows the right individual among the "
    said += f"{enough} nearest annotations"
    each = ", ".join(
        f"{k} of {model} ({low} to {high})" for model, (k, low, high) in needed.items()
    )
    species = table["species"].nunique() - 1
    return (
        f"{said}. So many must one look at for that (95 % interval): {each}; means over {species} "
        f"species, {means['queries'].iloc[0]:,} queries."
    )


@styled()
def top_k_panels(table: pd.DataFrame, title: str) -> Figure:
    """A small panel of top-k against k per species, and a large one of their mean (appendix A.2).

    `table`: of `top_k`, of models that LOOKS names. Bands are 95 % intervals, no lower than what a
    random ranking reaches, or a smaller k.
    """
    species = [name for name in table["species"].unique() if name != "mean"]
    shared = set.intersection(*table.groupby("model")["species"].agg(set)) - {"mean"}
    drawn, mean, panels = _panel_grid(title, len(species))
    for name, axes in zip(["mean", *species], [mean, *panels], strict=True):
        own = table[table["species"] == name]
        for model, points in own.groupby("model", sort=False):
            look = LOOKS[model]
            band = {"color": look["color"], "alpha": 0.15, "linewidth": 0}
            least = np.minimum(points["chance"], points["top_k"])  # nothing is worse than random
            low = points["low"].clip(least).cummax()  # nor than fewer photos are
            axes.fill_between(points["k"], low, points["high"], **band)
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

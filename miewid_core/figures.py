"""One function for each kind of figure; the table that each draws is what is saved beside it."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from miewid_core import page
from miewid_core.labels import label_points
from miewid_core.page import BLUE, COLOURS, COLUMN, GREY, ORANGE, PAGE, YELLOW, Figure, styled
from miewid_core.sheets import match_panels, photo_sheet

__all__ = ["match_panels", "photo_sheet"]  # a notebook imports figures alone
save, save_photos, save_table = page.save, page.save_photos, page.save_table

MARKERS = ["o", "s", "^", "D", "v", "P", "X"]  # 7 and 8 share no factor: 56 combinations
MANY = 12  # species: figures of more are as wide as a page
LINES = ["-", "--", ":", "-."]
THIN = {"color": "#AAAAAA", "linewidth": 0.5}
PARTS = {  # column of `splits.summary`: words, colour from dark to light, hatch
    "train_annotations": ("training", BLUE, ""),
    "shared_annotations": ("test, individual also in training", ORANGE, ""),
    "new_annotations": ("test, new individual", YELLOW, "/////"),
    "unused_annotations": ("unused", "white", ""),
}
MODELS = {  # column of `comparison`: words, marker, colour, fill, shift in rows
    "multi": ("all species together", "o", BLUE, BLUE, -0.17),
    "single": ("that species alone", "D", ORANGE, "white", 0.17),
    "left_out": ("all species but that one", "^", ORANGE, "white", 0.17),
}


def _words(species: str) -> str:
    return str(species).replace("_", " ")


def _plain(axis: Axis, log: bool = True) -> None:
    """Ticks with their numbers written out ("10,000"); some within a decade on a short log axis."""
    if log:
        low, high = axis.get_view_interval()
        steps = (1, 2, 3, 5) if high < 15 * low else (1, 2, 5) if high < 150 * low else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _rows(axes: Axes, places: np.ndarray, species: Sequence[str], numbers: Sequence[str]) -> None:
    """Label the rows at `places`, the first on top: species on the left, numbers on the right."""
    axes.set_yticks(places, [_words(name) for name in species])
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, numbers)
    for side in (axes.yaxis, right.yaxis):
        side.set_tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)


def _beside(axes: Axes, words: str) -> None:
    """Head the numbers on the right of the rows."""
    axes.annotate(words, (1, 1), (4, 3), "axes fraction", "offset points", ha="left", va="bottom")


@styled()
def long_tail(tail: pd.DataFrame, title: str) -> Figure:
    """Share of individuals with at least so many annotations, of each species and of all.

    `tail`: species, per_individual, individuals, as of `census.long_tail`. More than six species
    are thin grey lines without names.
    """
    species = dict(list(tail.groupby("species")))
    named = len(species) <= 6
    drawn = Figure(title, 2.7 + 0.07 * len(species) * named)
    axes = drawn.subplots()
    for number, (name, own) in enumerate(species.items()):
        look = {"color": COLOURS[number], "linestyle": LINES[number % 4]} if named else THIN
        label = f"{_words(name)} ({own['individuals'].sum():,})"
        axes.step(*_at_least(own), label=label if named else f"_{label}", **look)
    each = tail["per_individual"].repeat(tail["individuals"])
    label = f"all ({len(each):,}): median {each.median():g}, mean {each.mean():.1f}"
    axes.step(*_at_least(tail), label=label, linewidth=2, color="black")
    if not named:
        axes.plot([], [], label=f"each of {len(species)} species", **THIN)
    axes.set(xscale="log", yscale="log", xlabel="annotations per individual")
    axes.set_ylabel("individuals with\nat least as many (%)")
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def _at_least(tail: pd.DataFrame) -> tuple[pd.Index, pd.Series]:
    """Numbers of annotations, and the percentage of individuals with at least that many."""
    counts = tail.groupby("per_individual")["individuals"].sum()
    return counts.index, 100 * counts[::-1].cumsum()[::-1] / counts.sum()


@styled()
def split_bars(table: pd.DataFrame, title: str) -> Figure:
    """Where the annotations of each species went, in percent (`table`: of `splits.summary`)."""
    drawn = Figure(title, 1.3 + 0.17 * len(table))
    axes = drawn.subplots()
    places, total = np.arange(len(table)), table["annotations"]
    left = np.zeros(len(table))
    for column, (words, colour, hatch) in PARTS.items():
        share = (100 * table[column] / total).to_numpy()
        look = {"color": colour, "hatch": hatch, "edgecolor": "#333333", "linewidth": 0.5}
        axes.barh(places, share, 0.72, left, label=words, **look)
        left += share
    numbers = [f"{n:,} / {m:,}" for n, m in zip(total, table["individuals"], strict=True)]
    _rows(axes, places, table["species"], numbers)
    _beside(axes, "annotations /\nindividuals")
    axes.set(xlim=(0, 100), xlabel="share of the annotations (%)")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


@styled()
def margins(margins: pd.DataFrame, title: str) -> Figure:
    """Margin of an individual against its training annotations, and how many have that many.

    `margins`: one row per individual: annotations, margin (radians).
    """
    drawn = Figure(title, 3)
    above, below = drawn.subplots(2, sharex=True, height_ratios=[2, 1])
    points = margins.groupby("annotations")["margin"].agg(["first", "size"])
    above.plot(points.index, points["first"], "o-", color=BLUE, markersize=3)
    above.set_ylabel("margin (radians)")
    below.vlines(points.index, 0, points["size"], color=BLUE, linewidth=1.5)
    below.set(xscale="log", ylim=(0, None), ylabel="individuals")
    below.set_xlabel(f"training annotations per individual (n = {len(margins):,})")
    _plain(below.xaxis)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    drawn.align_ylabels()
    return drawn


@styled()
def curves(history: pd.DataFrame, title: str) -> Figure:
    """Loss above and learning rate below, by epoch (`history`: run, epoch, loss, rate)."""
    drawn = Figure(title, 3)
    above, below = drawn.subplots(2, sharex=True, height_ratios=[3, 2])
    for number, (run, own) in enumerate(history.groupby("run", sort=False)):
        look = {"color": COLOURS[number % 8], "ls": LINES[number % 4], "label": run}
        above.plot(own["epoch"], own["loss"], **look)
        below.plot(own["epoch"], own["rate"], **look)
    above.set_ylabel("training loss")
    below.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.yaxis.set_major_locator(MaxNLocator(4))
    _plain(below.yaxis, log=False)
    drawn.align_ylabels()
    if history["run"].nunique() > 1:
        drawn.legend(*above.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return drawn


@styled()
def embedding_map(data: pd.DataFrame, title: str) -> Figure:
    """Annotations on two axes of a projection, by species (`data`: x, y, species)."""
    import seaborn  # half a second, which no other figure needs

    counts = data["species"].value_counts().sort_index()
    labels = {name: f"{_words(name)} ({n:,})" for name, n in counts.items()}
    wide = len(labels) > MANY
    columns = 3 if wide else 2
    rows = -(-len(labels) // columns)
    drawn = Figure(title, (5 if wide else 2.8) + 0.14 * rows, PAGE if wide else COLUMN)
    axes = drawn.subplots()
    names = list(labels.values())
    look = {
        "palette": dict(zip(names, itertools.cycle(COLOURS))),
        "markers": dict(zip(names, itertools.cycle(MARKERS))),
        **{"s": 14, "linewidth": 0.2, "edgecolor": "black"},
    }
    shown = data.assign(species=data["species"].map(labels))
    order = {"hue_order": names, "style_order": names}
    seaborn.scatterplot(
        shown, x="x", y="y", hue="species", style="species", **order, **look, ax=axes
    )
    axes.get_legend().remove()
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=columns)
    axes.set(xlabel=f"t-SNE axis 1 (no unit; n = {len(data):,})", ylabel="t-SNE axis 2 (no unit)")
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    return drawn


@styled()
def comparison(table: pd.DataFrame, title: str, k: int) -> Figure:
    """Top-k of two models by species, with 95 % intervals (Figures 1, 2 and 5 to 12).

    `table`: of one of `comparison`'s functions in the order to draw, the mean over species last.
    What is missing (no model of a species alone) is not drawn.
    """
    drawn = Figure(title, 1.35 + 0.18 * len(table), PAGE if len(table) > MANY + 1 else COLUMN)
    axes = drawn.subplots()
    places = np.append(np.arange(len(table) - 1), len(table) - 0.6)  # the mean stands apart
    axes.axhline(len(table) - 1.3, color="black", linewidth=0.6)
    shown = {column: look for column, look in MODELS.items() if column in table}
    for column, (words, marker, colour, fill, shift) in shown.items():
        low, high = table[f"{column}_low"], table[f"{column}_high"]
        axes.hlines(places + shift, low, high, colour, linewidth=1)
        look = {"color": colour, "markerfacecolor": fill, "ls": "", "label": words}
        axes.plot(table[column], places + shift, marker, **look)
    look = {"color": GREY, "markersize": 5, "ls": "", "label": "random ranking"}
    axes.plot(table["chance"], places, "|", **look)
    names = [*table["species"][:-1], f"mean of {table['gain'].notna().sum() - 1} species"]
    counts = table[["queries", "individuals", "train_annotations"]].itertuples(index=False)
    _rows(axes, places, names, [" / ".join(f"{n:,}" for n in row) for row in counts])
    _beside(axes, "queries / individuals /\ntraining annotations")
    axes.set(xlim=(-3, 103), xlabel=f"top-{k} accuracy (%), with 95 % interval")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


@styled()
def gain_by_size(table: pd.DataFrame, title: str) -> Figure:
    """Gain of one model for all, with 95 % interval, against a species' training annotations.

    `table`: as for `comparison`; the mean's gain and interval are a line and a band. Species that
    only one model has are left out.
    """
    shown = table[table["gain"].notna() & (table["species"] != "mean")]
    mean = table[table["species"] == "mean"].iloc[0]
    few, many = len(shown) <= 6, len(shown) > MANY
    drawn = Figure(title, 3 if few else 6 if many else 3.6, COLUMN if few else PAGE)
    axes = drawn.subplots()
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhspan(mean["gain_low"], mean["gain_high"], color=ORANGE, alpha=0.3, linewidth=0)
    words = f"mean of {len(shown)} species: {mean['gain']:+.1f}"
    axes.axhline(mean["gain"], color=ORANGE, linestyle="--", label=words)
    places, bars = shown[["train_annotations", "gain"]], shown[["gain_low", "gain_high"]]
    axes.vlines(places["train_annotations"], *bars.to_numpy().T, BLUE, linewidth=1, alpha=0.6)
    words = "species with 95 % interval" + ("" if many else " (n queries)")
    axes.plot(*places.to_numpy().T, "o", color=BLUE, label=words)
    axes.set(xscale="log", xlabel="training annotations of the species")
    axes.set(ylabel="gain in accuracy (points)")
    axes.margins(x=0.12, y=0.15)
    _plain(axes.xaxis)
    drawn.legend(loc="outside lower left")
    numbers = zip(shown["species"], shown["queries"], strict=True)
    names = [_words(name) if many else f"{_words(name)} ({n:,})" for name, n in numbers]
    label_points(axes, places.to_numpy(), bars.to_numpy(), names)
    return drawn

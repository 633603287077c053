"""Figures of two models: by species side by side, and against what they cost."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from miewid_core.page import BLUE, GREY, ORANGE, PAGE, Figure, styled

LOOKS = [  # of the first and the second model: marker, colour, fill, shift in rows
    ("o", BLUE, BLUE, -0.17),
    ("D", ORANGE, "white", 0.17),
]


@styled()
def by_species(table: pd.DataFrame, words: Mapping[str, str], title: str, k: int = 1) -> Figure:
    """Top-k of two models by species on the left, the first's gain on the right (Figure 4).

    `table`: of `versus.versus`; `words`: the two columns' names in text, the first model's first.
    Bars are 95 % intervals; gains whose interval holds zero are open.
    """
    drawn = Figure(title, 1.5 + 0.18 * len(table), PAGE)
    left, right = drawn.subplots(1, 2, width_ratios=[3, 2])
    places = np.append(np.arange(len(table) - 1), len(table) - 0.6)  # the mean stands apart
    _scores(left, table, words, places)
    left.set(xlim=(-3, 103), xlabel=f"top-{k} accuracy (%)")
    _gains(right, table, places)
    right.set_xlabel("gain of the first (points)")
    names = [*table["species"][:-1].str.replace("_", " "), f"mean of {len(table) - 1} species"]
    counts = table[["queries", "individuals", "train_annotations"]].itertuples(index=False)
    _rows(left, places, names)
    right.yaxis.tick_right()
    _rows(right, places, [" / ".join(f"{n:,}" for n in row) for row in counts])
    head = "queries / individuals /\ntraining annotations"
    right.annotate(head, (1, 1), (4, 3), "axes fraction", "offset points", va="bottom")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def _scores(axes: Axes, table: pd.DataFrame, words: Mapping[str, str], places: np.ndarray) -> None:
    for (column, name), (marker, colour, fill, shift) in zip(words.items(), LOOKS, strict=True):
        bars = table[f"{column}_low"], table[f"{column}_high"]
        axes.hlines(places + shift, *bars, colour, linewidth=1)
        look = {"color": colour, "markerfacecolor": fill, "ls": "", "label": name}
        axes.plot(table[column], places + shift, marker, **look)
    look = {"color": GREY, "markersize": 5, "ls": "", "label": "random ranking"}
    axes.plot(table["chance"], places, "|", **look)


def _gains(axes: Axes, table: pd.DataFrame, places: np.ndarray) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    look = {"linewidth": 1, "label": "95 % interval"}
    axes.hlines(places, table["gain_low"], table["gain_high"], "black", **look)
    shown = (table["gain_low"] > 0) | (table["gain_high"] < 0)
    axes.plot(table["gain"][shown], places[shown], "s", color="black", ls="")
    look = {"color": "black", "markerfacecolor": "white", "ls": ""}
    axes.plot(table["gain"][~shown], places[~shown], "s", **look)


def _rows(axes: Axes, places: np.ndarray, names: list[str]) -> None:
    """Label the rows, the first on top, and part the mean from them."""
    axes.set_yticks(places, names)
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    axes.axhline(places[-1] - 0.7, color="black", linewidth=0.6)
    axes.yaxis.set_tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)


@styled()
def accuracy_against_cost(table: pd.DataFrame, title: str) -> Figure:
    """Mean top-1 with its 95 % interval against multiply-adds and against photos per second.

    `table`: one row for each of two networks, of `versus.beside_costs`. On the right the horizontal
    bar spans the measured rounds.
    """
    drawn = Figure(title, 2.6, PAGE)
    left, right = drawn.subplots(1, 2, sharey=True)
    for row, (marker, colour, fill, _) in zip(table.itertuples(), LOOKS, strict=True):
        words = f"{row.name} ({row.parameters / 1e6:,.1f} M parameters)"
        look = {"color": colour, "markerfacecolor": fill, "markersize": 6, "ls": ""}
        for axes, x in ((left, row.multiply_adds / 1e6), (right, row.photos_per_second)):
            axes.vlines(x, row.top_1_low, row.top_1_high, colour, linewidth=1)
            axes.plot(x, row.top_1, marker, label=words, **look)
        right.hlines(row.top_1, row.slowest, row.fastest, colour, linewidth=1)
    left.set_ylabel(f"top-1 accuracy (%), mean of {row.species}\nspecies with 95 % interval")
    left.set_xlabel("multiply-adds per photo (millions)")
    right.set_xlabel("photos per second (median, slowest to fastest round)")
    for axes in (left, right):
        _log(axes)
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return drawn


def _log(axes: Axes) -> None:
    """A logarithmic x axis with room at both ends and its numbers written out."""
    axes.set_xscale("log")  # first: the limits of a linear axis can lie below zero
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())

"""What a count of individuals does with the threshold, and how far off it is for each species."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from miewid_core.page import BLUE, ORANGE, PAGE, VERMILION, Figure, styled

GOALS = {  # of `ecology.chosen_elsewhere`: marker, colour, fill, shift in rows
    "identities": ("o", BLUE, BLUE, -0.17),
    "count": ("D", ORANGE, "white", 0.17),
}


@styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Ratio, false splits and merges, and ARI against the threshold (`table`: of `ecology.sweep`).

    Bands are the 95 % intervals of the means over species.
    """
    drawn = Figure(title, 2.9, PAGE)
    ratio, errors, ari = drawn.subplots(1, 3)
    own = dict(list(table.groupby("species")))
    mean = own.pop("mean")
    for axes, name in ((ratio, "ratio"), (ari, "ari")):
        for number, rows in enumerate(own.values()):
            label = None if number else f"each of {len(own)} species"
            axes.plot(rows["threshold"], rows[name], color="#AAAAAA", linewidth=0.5, label=label)
        _mean(axes, mean, name, BLUE, "-", "mean")
    _mean(errors, mean, "split_rate", VERMILION, "-", "false splits, mean", 100)
    _mean(errors, mean, "merge_rate", "black", "--", "false merges, mean", 100)
    ratio.axhline(1, color="black", linewidth=0.6)
    ratio.set(yscale="log", ylabel="counted / true individuals")
    _factors(ratio.yaxis)
    errors.set_ylabel("per 100 true individuals")
    ari.set_ylabel("adjusted Rand index")
    changing = mean["threshold"][mean["count"].between(len(own) + 1, mean["annotations"] - 1)]
    low, high = changing.agg(["min", "max"]) if len(changing) else (-1, 1)
    for axes in (ratio, errors, ari):
        axes.set(xlim=(low - 0.02, high + 0.02), xlabel="threshold (cosine)")
    n = f"{mean['individuals'].iloc[0]:,} individuals, {mean['annotations'].iloc[0]:,} annotations"
    lines = [line for axes in (ratio, errors) for line in axes.get_legend_handles_labels()[0]]
    look = {"loc": "outside lower left", "alignment": "left"}
    drawn.legend(handles=lines, ncols=4, title=f"with 95 % intervals; n = {n}", **look)
    return drawn


def _mean(
    axes: Axes, mean: pd.DataFrame, name: str, colour: str, line: str, label: str, times: float = 1
) -> None:
    """A line with its interval as a band."""
    low, high = times * mean[f"{name}_low"], times * mean[f"{name}_high"]
    axes.fill_between(mean["threshold"], low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(mean["threshold"], times * mean[name], line, color=colour, label=label)


def _factors(axis: Axis) -> None:
    """Ticks of a log axis at 1, 2 and 5 times powers of ten, written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@styled()
def counts(chosen: pd.DataFrame, title: str) -> Figure:
    """Counted per true individuals of each species, with interval (of `ecology.chosen_elsewhere`).

    Species by decreasing number of individuals.
    """
    species = chosen.drop_duplicates("species").sort_values("individuals", ascending=False)
    drawn = Figure(title, 1.5 + 0.19 * len(species))
    axes = drawn.subplots()
    if chosen.empty:
        axes.set_axis_off()
        axes.text(0, 0.5, "this needs two species: each has the threshold of the others")
        return drawn
    places = np.arange(len(species))
    axes.axvline(1, color="black", linewidth=0.6)
    for goal, (marker, colour, fill, shift) in GOALS.items():
        rows = chosen[chosen["goal"] == goal].set_index("species").loc[species["species"]]
        axes.hlines(places + shift, rows["ratio_low"], rows["ratio_high"], colour, linewidth=1)
        look = {"color": colour, "markerfacecolor": fill, "ls": "", "label": f"best {goal}"}
        axes.plot(rows["ratio"], places + shift, marker, **look)
    names = species["species"].str.replace("_", " ") + " (" + species["individuals"].map(str) + ")"
    axes.set_yticks(places, names)
    axes.set_ylim(len(species) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set(xscale="log", xlabel="counted / true individuals (n)")
    _factors(axes.xaxis)
    words = "with 95 % interval, threshold of other species for"
    drawn.legend(title=words, loc="outside lower left", ncols=2, alignment="left")
    return drawn

"""Curves over the number of individuals of a species that a network learned (Tables 4 and 5)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from miewid_core.few_shot import METHODS
from miewid_core.page import BLUE, COLUMN, ORANGE, PAGE, VERMILION, Figure, styled

LOOKS = {  # method: marker, line, colour, fill, shift in places
    "species_only": ("D", ":", ORANGE, "white", -0.08),
    "joint": ("o", "-", BLUE, BLUE, 0.0),
    "fine_tuned": ("s", "--", VERMILION, VERMILION, 0.08),
}


@styled()
def few_shot(table: pd.DataFrame, title: str, k: int = 1) -> Figure:
    """Top-k against the number of individuals, a panel for each species and a line each method.

    `table`: of `few_shot.summary`. Bars are one standard deviation over draws; a number drawn only
    once has none.
    """
    species = table["species"].unique()
    columns = min(2, len(species))
    rows = -(-len(species) // columns)
    drawn = Figure(title, 1.3 + 1.9 * rows, PAGE if columns == 2 else COLUMN)
    grid = drawn.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, species, strict=False):
        _panel(axes, table[table["species"] == name], k)
    for axes in grid.flat[len(species) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(f"top-{k} accuracy (%)")
    several = table["deviation"].notna().any()
    bars = "bars: one standard deviation over draws" if several else "one draw of each number"
    look = {"ncols": columns, "title": bars, "loc": "outside lower left"}
    drawn.legend(*_legend(grid.flat[: len(species)]), **look)
    return drawn


def _panel(axes: Axes, own: pd.DataFrame, k: int) -> None:
    counts = sorted(own["individuals"].unique())
    place = dict(zip(counts, range(len(counts)), strict=True))  # even steps, as the paper's rows
    for method, (marker, line, colour, fill, shift) in LOOKS.items():
        rows = own[own["method"] == method].sort_values("individuals")
        at = rows["individuals"].map(place) + shift
        look = {"color": colour, "ls": line, "markerfacecolor": fill, "label": METHODS[method]}
        if len(rows):
            axes.plot(at, rows["top_k"], marker, **look)
            spread = rows["deviation"].fillna(0)
            axes.vlines(at, rows["top_k"] - spread, rows["top_k"] + spread, colour, linewidth=1)
    seen = own.groupby("individuals")["annotations"].max()
    axes.set_xticks(range(len(counts)), [f"{n:,}\n({seen[n]:,.0f})" for n in counts])
    axes.set_xlabel("training individuals (annotations)")
    queries = own["queries"].iloc[0]
    axes.set_title(f"{own['species'].iloc[0].replace('_', ' ')} (n = {queries:,} queries)")
    axes.set_ylim(0, None)


def _legend(panels: np.ndarray) -> tuple[list, list]:
    """Handles and words of all methods that any panel shows, each once."""
    found = {}
    for axes in panels:
        for handle, words in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(words, handle)
    return list(found.values()), list(found)

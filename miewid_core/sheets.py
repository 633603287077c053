"""Sheets of photos: chips in rows, with captions, and marks for right and wrong matches."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from miewid_core.page import BLUE, PAGE, VERMILION, Figure, styled

Panel = tuple[np.ndarray, str, bool | None]  # chip (S, S, 3) uint8, caption, right or wrong


def photo_sheet(chips: Sequence[np.ndarray], captions: Sequence[str], columns: int = 6) -> Figure:
    """Chips (S, S, 3) uint8, captions of up to two lines below; a new first line begins a row."""
    panels = zip(chips, captions, itertools.repeat(None))
    groups = itertools.groupby(panels, key=lambda panel: panel[1].partition("\n")[0])
    rows = []
    for _, group in groups:
        own = list(group)
        rows += [own[start : start + columns] for start in range(0, len(own), columns)]
    return _sheet(rows, columns, "")


def match_panels(panels: Sequence[Sequence[Panel]], title: str) -> Figure:
    """A row for each query: the query, then its nearest annotations, marked right or wrong."""
    return _sheet(panels, max(map(len, panels)), title)


@styled()
def _sheet(rows: Sequence[Sequence[Panel]], columns: int, title: str) -> Figure:
    cell, text, head = PAGE / columns, 0.34, 0.3 if title else 0.05  # inches
    height = head + len(rows) * (cell + text)
    drawn = Figure(title, height, PAGE, photos=True)
    drawn.set_layout_engine("none")
    axes = drawn.add_axes((0, 0, 1, 1))
    for number, row in enumerate(rows):
        for column, panel in enumerate(row):
            _panel(axes, panel, column * cell, head + number * (cell + text), cell)
    axes.set(xlim=(0, PAGE), ylim=(height, 0), aspect="auto")
    axes.set_axis_off()
    return drawn


def _panel(axes: Axes, panel: Panel, x: float, y: float, cell: float) -> None:
    chip, caption, right = panel
    edge, side = cell * 0.03, cell * 0.94
    axes.imshow(chip, extent=(x + edge, x + edge + side, y + side, y))
    if right is not None:
        look = {"edgecolor": BLUE if right else VERMILION, "linestyle": "-" if right else ":"}
        axes.add_patch(Rectangle((x + edge, y), side, side, fill=False, linewidth=2, **look))
        caption = ("right: " if right else "wrong: ") + caption
    most = int(cell / 0.062)  # characters of 7 points
    lines = [_shortened(line, most) for line in caption.split("\n")]
    axes.text(x + edge, y + side + 0.02, "\n".join(lines), va="top")


def _shortened(line: str, most: int) -> str:
    """A line of at most `most` characters, its middle left out: numbers differ at their ends."""
    half = most // 2
    return line if len(line) <= most else f"{line[: half - 1]}…{line[len(line) + half - most :]}"

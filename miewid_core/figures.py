"""One style for all figures, each saved with the table that it draws; sheets of photos."""

import inspect
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

from miewid_core.files import replacing

STYLE = Path(__file__).with_name("miewid.mplstyle")
# Okabe and Ito's colours, told apart with any colour vision. What one figure compares differs in
# marker, line or hatch as well: in grey ORANGE and VERMILION look alike.
BLUE, ORANGE, VERMILION, YELLOW = "#0072B2", "#E69F00", "#D55E00", "#F0E442"
COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#000000", YELLOW]
GREY = "#6E6E6E"
# For lines and dots that only colour would tell apart. There are 7 of each and 8 colours: 56 looks.
LINES = ["-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1, 1, 3))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
COLUMN, PAGE = 3.4, 6.5  # widths in inches
PHOTO_DPI, PHOTO_QUALITY = 130, 55  # of sheets in notebooks, which stay below 600 kB


def styled() -> style.context:
    """The package's style on matplotlib's own defaults, whatever the reader's settings are."""
    return style.context(STYLE, after_reset=True)


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows by itself, without pyplot, whatever matplotlib's backend.

    `title`: a short one, and after " · " what it was measured on, which stands small below it.
    `width`, `height`: inches. `photos`: shown as JPEG, so that a notebook stays small.
    """

    def __init__(self, title: str, height: float, width: float = COLUMN, photos: bool = False):
        super().__init__(figsize=(width, height))
        self.photos = photos
        name, *below = title.split(" · ")  # what it was measured on stands below, small
        self.below = "\n".join(textwrap.fill(part, int(17 * width)) for part in below)
        if title:
            lines = textwrap.fill(name, int(14.5 * width))
            place = {"y": 1 - 0.06 / height} if photos else {}  # a sheet has no layout to move it
            room = "\n" * (self.below.count("\n") + bool(below))  # for the lines below
            above = self.suptitle(lines + room, x=0.01, ha="left", va="top", **place)
            self.add_artist(Annotation(self.below, (0, 0), xycoords=above, va="bottom"))

    def png(self, dpi: float | None = None) -> bytes:
        """The picture, the same bytes each time; `dpi` None: the style's for files.

        256 colours are enough for all but photos, and a third of the size.
        """
        with styled(), io.BytesIO() as whole, io.BytesIO() as small:
            self.savefig(whole, format="png", dpi=dpi, metadata={"Software": None})
            if self.photos:
                return whole.getvalue()
            with Image.open(whole) as image:
                image.convert("RGB").quantize(256).save(small, "png", optimize=True)
            return small.getvalue()

    def jpeg(self, dpi: float = PHOTO_DPI, quality: int = PHOTO_QUALITY) -> bytes:
        """The picture, for a notebook coarse enough to keep it small."""
        with styled(), io.BytesIO() as whole:
            self.savefig(whole, format="jpeg", dpi=dpi, pil_kwargs={"quality": quality})
            return whole.getvalue()

    @property
    def alt(self) -> str:
        """What a reader who doesn't see the figure is told: title, axes, or captions of photos."""
        words = [self.get_suptitle().strip(), self.below]
        for axes in self.axes:
            words += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
            words += [text.get_text() for text in axes.texts if not axes.axison]
        return textwrap.shorten("; ".join(dict.fromkeys(filter(None, words))), 400)

    def _repr_png_(self) -> tuple[bytes, dict[str, str]] | None:
        return None if self.photos else (self.png(self.dpi), {"alt": self.alt})

    def _repr_jpeg_(self) -> tuple[bytes, dict[str, str]] | None:
        return (self.jpeg(), {"alt": self.alt}) if self.photos else None


def save(
    table: pd.DataFrame, name: str, folder: Path, figure: matplotlib.figure.Figure | None = None
) -> list[str]:
    """Write a table and the figure that draws it into `folder`; returns the files' names.

    `name`.csv has all digits, `name`.png is the figure. Without one, `name`.md shows the table with
    at most three decimals.
    """
    shown = (f"{name}.png", figure.png()) if figure else (f"{name}.md", table_text(table).encode())
    csv = f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode()
    for file, content in (shown, csv):
        with replacing(Path(folder) / file) as temporary:
            temporary.write_bytes(content)
    return [shown[0], csv[0]]


def source_text(function: Callable) -> str:
    """A function's source as Markdown."""
    return f"```python\n{inspect.getsource(function)}```"


def table_text(table: pd.DataFrame, decimals: int | None = None) -> str:
    """A table in Markdown, without its index: `decimals` of each number (None: at most three)."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    rows = [
        [_cell(column) for column in table.columns],
        ["---:" if number else "---" for number in numeric],
        *([_cell(value, decimals) for value in row] for row in table.itertuples(index=False)),
    ]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _cell(value: object, decimals: int | None = None) -> str:
    """A value in a Markdown table; what is missing is empty."""
    if pd.isna(value):
        return ""
    if isinstance(value, float) and decimals is not None:
        return f"{value:,.{decimals}f}"
    if isinstance(value, float):
        small = 0 < abs(value) < 0.001
        return f"{value:.2e}" if small else f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, Integral) and not isinstance(value, bool | np.bool_):
        return f"{value:,}"
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


Panel = tuple[np.ndarray, str, bool | None]  # chip (S, S, 3) uint8, caption, right or wrong


@styled()
def match_panels(panels: Sequence[Sequence[Panel]], title: str, columns: int = 1) -> Figure:
    """Rows of chips with captions below: a query, then its nearest annotations.

    `columns`: room for so many in a row, or for as many as the longest has.
    """
    columns = max(columns, *map(len, panels))
    lines = 1 + max(caption.count("\n") for row in panels for _, caption, _ in row)
    cell, text, head = PAGE / columns, 0.12 + 0.11 * lines, 0.42 if title else 0.05  # inches
    height = head + len(panels) * (cell + text)
    drawn = Figure(title, height, PAGE, photos=True)
    drawn.set_layout_engine("none")
    axes = drawn.add_axes((0, 0, 1, 1))
    for number, row in enumerate(panels):
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


THIN = {"color": "#AAAAAA", "linewidth": 0.5}


def spelt(species: str) -> str:
    """A species' name as a figure shows it."""
    return str(species).replace("_", " ")


def plain_numbers(axis: Axis, log: bool = True) -> None:
    """Ticks with their numbers written out ("10,000"); some within a decade on a short log axis."""
    if log:
        low, high = axis.get_view_interval()
        steps = (1, 2, 3, 5) if high < 15 * low else (1, 2, 5) if high < 150 * low else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def label_rows(axes: Axes, places: np.ndarray, species: Sequence[str]) -> None:
    """Name the rows at `places`, the first on top, and part the last one, a mean, from them."""
    axes.set_yticks(places, [spelt(name) for name in species])
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    axes.yaxis.set_tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)


def number_columns(axes: Axes, places: np.ndarray, columns: Mapping[str, Sequence[float]]) -> None:
    """Numbers in columns on the right of rows that `label_rows` named, each below its head."""
    x = 0.0  # points from the right edge of the axes
    right = {"ha": "right", "textcoords": "offset points", "annotation_clip": False}
    for head, numbers in columns.items():
        words = [f"{number:,.0f}" for number in numbers]
        x += 8 + 4 * max(map(len, [*words, *head.split("\n")]))  # a letter is 4 points wide
        for place, number in zip(places, words, strict=True):
            axes.annotate(
                number, (1, place), (x, 0), axes.get_yaxis_transform(), va="center", **right
            )
        axes.annotate(head, (1, 1), (x, 2), "axes fraction", va="bottom", **right)

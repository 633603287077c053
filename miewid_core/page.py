"""A figure in the package's one style, and results written to disk: PNG, CSV, Markdown."""

import io
import textwrap
from pathlib import Path

import matplotlib.figure
import pandas as pd
from matplotlib import style
from PIL import Image

from miewid_core.files import replacing

STYLE = Path(__file__).with_name("miewid.mplstyle")
# Okabe and Ito's colours, told apart with any colour vision. What one figure compares differs in
# lightness, marker or hatch as well, for print in grey.
BLUE, ORANGE, VERMILION, YELLOW = "#0072B2", "#E69F00", "#D55E00", "#F0E442"
COLOURS = [BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", VERMILION, "#000000", YELLOW]
GREY = "#6E6E6E"
COLUMN, PAGE = 3.4, 6.5  # widths in inches
PHOTO_DPI, PHOTO_QUALITY = 75, 60  # of sheets in notebooks, which stay below 300 kB


def styled() -> style.context:
    """The package's style on matplotlib's own defaults, whatever the reader's settings are."""
    return style.context(STYLE, after_reset=True)


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows by itself, without pyplot, whatever matplotlib's backend.

    `width`, `height`: inches. `photos`: shown as JPEG, so that a notebook stays small.
    """

    def __init__(self, title: str, height: float, width: float = COLUMN, photos: bool = False):
        super().__init__(figsize=(width, height))
        self.photos = photos
        if title:  # the data's name, after a dot, stays in one line
            lines = textwrap.fill(title.replace(" · ", " ·\u00a0"), int(14.5 * width))
            place = {"y": 1 - 0.06 / height} if photos else {}  # a sheet has no layout to move it
            self.suptitle(lines, x=0.01, ha="left", va="top", **place)

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

    def _repr_png_(self) -> bytes | None:
        return None if self.photos else self.png(self.dpi)

    def _repr_jpeg_(self) -> bytes | None:
        return self.jpeg() if self.photos else None


def save(figure: Figure, data: pd.DataFrame, name: str, folder: Path) -> None:
    """Write `name`.png and the data that it draws, `name`.csv, into `folder`."""
    with replacing(Path(folder) / f"{name}.png") as temporary:
        temporary.write_bytes(figure.png())
    _save_csv(data, Path(folder) / f"{name}.csv")


def save_photos(figure: Figure, name: str, folder: Path) -> None:
    """Write a picture that shows photos as photos/`name`.jpg below `folder`.

    Git ignores that folder but for the drawn animals': photos are their owners' to publish.
    """
    with replacing(Path(folder) / "photos" / f"{name}.jpg") as temporary:
        temporary.write_bytes(figure.jpeg(figure.dpi, 85))


def save_table(table: pd.DataFrame, name: str, folder: Path) -> None:
    """Write `name`.csv with all digits, and `name`.md with at most three decimals."""
    _save_csv(table, Path(folder) / f"{name}.csv")
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    rows = [
        [_cell(column) for column in table.columns],
        ["---:" if number else "---" for number in numeric],
        *([_cell(value) for value in row] for row in table.itertuples(index=False)),
    ]
    with replacing(Path(folder) / f"{name}.md") as temporary:
        text = "".join("| " + " | ".join(row) + " |\n" for row in rows)
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _save_csv(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def _cell(value: object) -> str:
    """A value in a Markdown table; what is missing is empty."""
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        small = 0 < abs(value) < 0.001
        return f"{value:.2e}" if small else f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")

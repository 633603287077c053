"""Readers of what people have: a CSV, COCO JSON, folder or wildlife-datasets frame."""

import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from PIL import Image

RAW = [
    *["row", "annotation_id", "file", "species", "name", "viewpoint"],
    *["encounter", "date", "x", "y", "w", "h", "theta", "family"],
]
TABLE = {  # a CSV's cells stay text
    **{"dtype": str, "keep_default_na": False, "skip_blank_lines": False},
    "encoding": "utf-8-sig",
}
COCO = ("annotations", "images", "individuals", "categories")
APPLE = {".heic", ".heif"}  # photos that Pillow can't read alone: reported, not passed over
SUPPORTED = (
    'supported are "demo", a .csv, a .json (COCO), a folder species/individual/*.jpg, '
    "or an object with .df and .root (wildlife-datasets)"
)


class Source(NamedTuple):
    """What a reader found.

    `rows` has those of the columns RAW that the source has, cells as given or missing; `row` says
    where its user finds it: the line of a CSV, the id of a COCO annotation, the position in a
    folder or frame. Relative files lie below `root`. `columns` are the source's own, for messages.
    """

    rows: pd.DataFrame
    root: Path
    columns: list[str]


class WildlifeDataset(Protocol):
    """What is used of a wildlife-datasets object: its frame, and the folder of its paths."""

    df: pd.DataFrame
    root: str | Path


def read(source: str | Path | WildlifeDataset) -> Source:
    """Rows of a CSV, COCO JSON, folder tree or frame, unchecked.

    Raises ValueError for a source of another kind, and for one that can't be parsed.
    """
    if hasattr(source, "df") and hasattr(source, "root"):
        return _frame(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a {type(source).__name__} is no catalog; {SUPPORTED}")
    if not str(source).strip():
        raise ValueError(f"no catalog is named; {SUPPORTED}")
    try:
        return _read_path(Path(source))
    except OSError as error:
        raise ValueError(f"{source}: {error.strerror}; {SUPPORTED}") from error


def _read_path(path: Path) -> Source:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; {SUPPORTED}")
    reader = {".csv": _csv, ".json": _coco}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: this kind of file can't be read; {SUPPORTED}")
    return reader(path)


def _csv(path: Path) -> Source:
    """The MiewID repository's columns; every cell stays text, so that a name 007 stays one.

    Cells may be separated by semicolons or tabs, as spreadsheets write them in many countries.
    """
    try:
        with path.open(encoding=TABLE["encoding"]) as opened:
            separator = max(",;\t", key=opened.readline().count)
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, **TABLE)
        columns = _no_column_twice(header.loc[0].tolist())
        rows = pd.read_csv(path, sep=separator, **TABLE)
        if not isinstance(rows.index, pd.RangeIndex):
            raise ValueError("its rows have more cells than its header")
    except ValueError as error:
        raise ValueError(
            f"{path}: no comma-separated table in UTF-8: {error}; save it so"
        ) from error
    rows.columns = rows.columns.str.strip()
    rows = rows.rename(columns={"uuid": "annotation_id"} if "annotation_id" not in rows else {})
    files = [column for column in ("file_path", "file_name") if column in rows]
    if files:
        rows["file"] = rows[files[0]].where(rows[files[0]].str.strip() != "", rows[files[-1]])
    rows["row"] = [f"line {line}" for line in _lines(path, rows)]
    used = columns_of(rows, RAW[1:])
    blank = (rows[used].fillna("") == "").all(axis=1) & bool(used)
    return Source(rows.loc[~blank, [*used, "row"]], path.parent, columns)


def _no_column_twice(columns: list[str]) -> list[str]:
    """The columns; ValueError where one that is used is there twice."""
    used = {*RAW, "uuid", "file_path", "file_name", "path", "identity", "orientation", "bbox"}
    names = pd.Series([str(column).strip() for column in columns], dtype=str)
    twice = names[names.duplicated() & names.isin(used)]
    if len(twice):
        raise ValueError(f"there are two columns {twice.iloc[0]}: rename or remove one")
    return columns


def _lines(path: Path, rows: pd.DataFrame) -> np.ndarray:
    """The line of each row in its file: further down than its place if cells have line breaks."""
    places = np.arange(2, len(rows) + 2)
    if path.read_bytes().count(b"\n") <= len(rows) + 1:
        return places
    each = (cells.str.count("\n").fillna(0) for _, cells in rows.items())  # by place, not by name
    breaks = sum(each, np.zeros(len(rows)))
    return places + breaks.cumsum().shift(fill_value=0).astype(int)


def columns_of(rows: pd.DataFrame, wanted: Iterable[str]) -> list[str]:
    """Those of the wanted columns that there are."""
    return [column for column in wanted if column in rows]


def _coco(path: Path) -> Source:
    """Wildbook's export: names on the annotations, or in a table of individuals."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON in UTF-8: {error}; export it again") from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise ValueError(f"{path}: no COCO export; it needs images and annotations")
    parts = {part: content.get(part) or [] for part in COCO}
    for part, entries in parts.items():
        if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
            raise ValueError(
                f"{path}: {part} is no list of objects, as COCO has it; export it again"
            )
    entries = parts.pop("annotations")
    tables = {part: _by_id(path, part, given) for part, given in parts.items()}
    rows = [_coco_row(place, entry, **tables) for place, entry in enumerate(entries)]
    columns = sorted({key for entry in entries for key in entry})
    return Source(pd.DataFrame(rows, dtype=object), path.parent, columns)


def _by_id(path: Path, part: str, entries: list[dict]) -> dict[str, dict]:
    """Entries by their uuid and by their id, as text; ValueError for an id of two entries."""
    found = {}
    for entry in entries:
        for own in {_text(entry.get("id")), _text(entry.get("uuid"))} - {None}:
            if found.setdefault(own, entry) != entry:
                raise ValueError(f"{path}: {part} has two entries with the id {own}; keep one")
    return found


def _text(value: object) -> str | None:
    """Text of a label in JSON; None for what is none: null, true, a list, an object."""
    is_label = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value) if is_label and value == value else None  # NaN is none either


def _entry(table: dict[str, dict], entry: dict, *links: str) -> dict:
    """What the first of an entry's links that leads somewhere leads to; {} for nothing."""
    return next((table[to] for to in map(_text, map(entry.get, links)) if to in table), {})


def _first(*values: object) -> str | None:
    """The first of the values that is a label."""
    return next((text for text in map(_text, values) if text is not None), None)


def _coco_row(
    place: int, entry: dict, images: dict, individuals: dict, categories: dict
) -> dict[str, str]:
    """Text of what is known of an annotation; an explicit null rotation stays to be reported."""
    image = _entry(images, entry, "image_uuid", "image_id")
    individual = _entry(individuals, entry, "individual_uuid")
    category = _entry(categories, entry, "category_id")
    own = _first(entry.get("uuid"), entry.get("id"))
    known = {
        "row": f"annotation number {place + 1}" if own is None else f"annotation {own}",
        "annotation_id": own,
        "file": _text(image.get("file_name")),
        "species": _first(entry.get("species"), category.get("species"), category.get("name")),
        "name": _first(entry.get("name"), individual.get("name")),
        "viewpoint": _text(entry.get("viewpoint")),
        "encounter": _first(entry.get("encounter"), entry.get("encounter_id")),
        "family": entry.get("family", category.get("family")),
        "date": image.get("date_captured", image.get("datetime")),
        "theta": str(entry.get("theta", 0)),
    }
    return {key: str(value) for key, value in known.items() if value is not None} | _box(
        entry.get("bbox")
    )


def _box(box: object) -> dict[str, str]:
    """Text of x, y, w, h from four numbers or their JSON; anything else is kept, to be reported."""
    if isinstance(box, str):
        try:
            box = json.loads(box)
        except (ValueError, RecursionError):
            return {"x": box} if box else {}
    if pd.api.types.is_list_like(box, allow_sets=False):
        sides = [str(side) for side in box]
        return dict(zip("xywh", sides, strict=True)) if len(sides) == 4 else {"x": str(box)}
    return {} if pd.api.types.is_scalar(box) and pd.isna(box) else {"x": str(box)}


def _folder(root: Path) -> Source:
    """Photos at species/individual/; the labels of photos elsewhere are missing, to be reported.

    So are folders that `rglob` passes over: links, and those that may not be read.
    """
    endings = Image.registered_extensions()
    files = sorted(
        # a name that is no UTF-8 gets a mark, by which it is reported
        PurePosixPath(os.fsencode(file.relative_to(root)).decode(errors="replace"))
        for file in root.rglob("*")
        if (endings.get(suffix := file.suffix.lower()) in Image.OPEN and file.is_file())
        or suffix in APPLE
        or (file.is_dir() and (file.is_symlink() or not os.access(file, os.R_OK | os.X_OK)))
    )
    labels = [file.parts[:2] if len(file.parts) == 3 else ("", "") for file in files]
    rows = pd.DataFrame(labels, columns=["species", "name"], dtype=object)
    rows["file"] = [file.as_posix() for file in files]
    rows["row"] = [f"photo {place}" for place in range(1, len(rows) + 1)]
    return Source(rows, root, ["species", "individual"])


def _frame(dataset: WildlifeDataset) -> Source:
    """The columns that wildlife-datasets describes: path, identity, orientation, bbox, ..."""
    called = {"path": "file", "identity": "name", "orientation": "viewpoint"}
    if not (isinstance(dataset.df, pd.DataFrame) and isinstance(dataset.root, str | os.PathLike)):
        raise ValueError(
            f"a {type(dataset).__name__} has no frame .df and folder .root; {SUPPORTED}"
        )
    called |= {column: column for column in ("species", "encounter", "date", "family")}
    given = dataset.df.reset_index(drop=True)
    given.columns = _no_column_twice([str(column) for column in given])
    rows = given[columns_of(given, called)].rename(columns=called)
    if "bbox" in given:
        boxes = [_box(box) for box in given["bbox"]]
        rows = rows.join(pd.DataFrame(boxes, rows.index, list("xywh"), dtype=object))
    rows["row"] = [f"row {place}" for place in range(len(rows))]
    return Source(rows, Path(dataset.root), list(map(str, given)))

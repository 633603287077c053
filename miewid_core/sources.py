"""Readers of what people have: a CSV, COCO JSON, folder or wildlife-datasets frame; and photos."""

import json
import os
import struct
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from PIL import ExifTags, Image
from tqdm import tqdm

RAW = [
    *["row", "annotation_id", "file", "species", "name", "viewpoint"],
    *["encounter", "date", "x", "y", "w", "h", "theta", "family"],
]
UNREADABLE = (  # what Pillow raises for damaged files, and pathlib for paths that can't be
    *(OSError, ValueError, SyntaxError, EOFError, RuntimeError, struct.error),
    *(Image.DecompressionBombError, Warning),  # huge photos are a warning, made an error below
)
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
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; {SUPPORTED}")
    reader = {".csv": _csv, ".json": _coco}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: this kind of file can't be read; {SUPPORTED}")
    return reader(path)


def _csv(path: Path) -> Source:
    """The MiewID repository's columns; every cell stays text, so that a name 007 stays one."""
    try:
        rows = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, encoding="utf-8-sig"
        )
        if not isinstance(rows.index, pd.RangeIndex):
            raise ValueError("its rows have more cells than its header")
    except ValueError as error:
        raise ValueError(f"{path}: no comma-separated table in UTF-8: {error}") from error
    columns = list(rows)
    rows = rows.rename(columns={"uuid": "annotation_id"} if "annotation_id" not in rows else {})
    files = [column for column in ("file_path", "file_name") if column in rows]
    if files:
        rows["file"] = rows[files[0]].where(rows[files[0]].str.strip() != "", rows[files[-1]])
    rows["row"] = [f"line {line}" for line in range(2, len(rows) + 2)]
    blank = (rows[columns_of(rows, RAW[1:])].fillna("") == "").all(axis=1)
    return Source(rows.loc[~blank, columns_of(rows, RAW)], path.parent, columns)


def columns_of(rows: pd.DataFrame, wanted: Iterable[str]) -> list[str]:
    """Those of the wanted columns that there are."""
    return [column for column in wanted if column in rows]


def _coco(path: Path) -> Source:
    """Wildbook's export: names on the annotations, or in a table of individuals."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON in UTF-8: {error}") from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise ValueError(f"{path}: no COCO export; it needs images and annotations")
    tables = {part: _by_id(content.get(part, [])) for part in ("images", "individuals")}
    categories = _by_id(content.get("categories", []))
    entries = content["annotations"]
    rows = [
        _coco_row(place, entry, categories=categories, **tables)
        for place, entry in enumerate(entries)
    ]
    columns = sorted({key for entry in entries for key in entry})
    return Source(pd.DataFrame(rows, dtype=object), path.parent, columns)


def _by_id(entries: list[dict]) -> dict[str, dict]:
    """Entries by their uuid and by their id, as text."""
    return {str(entry[key]): entry for entry in entries for key in ("id", "uuid") if key in entry}


def _coco_row(
    place: int, entry: dict, images: dict, individuals: dict, categories: dict
) -> dict[str, str]:
    """Text of what is known of an annotation; an explicit null rotation stays to be reported."""
    image = images.get(str(entry.get("image_uuid"))) or images.get(str(entry.get("image_id")), {})
    individual = individuals.get(str(entry.get("individual_uuid")), {})
    category = categories.get(str(entry.get("category_id")), {})
    own = entry.get("uuid", entry.get("id"))
    known = {
        "row": f"annotation number {place + 1}" if own is None else f"annotation {own}",
        "annotation_id": own,
        "file": image.get("file_name"),
        "species": entry.get("species") or category.get("species") or category.get("name"),
        "name": entry.get("name", individual.get("name")),
        "viewpoint": entry.get("viewpoint"),
        "encounter": entry.get("encounter", entry.get("encounter_id")),
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
        except ValueError:
            return {"x": box} if box else {}
    if pd.api.types.is_list_like(box):
        sides = [str(side) for side in box]
        return dict(zip("xywh", sides, strict=True)) if len(sides) == 4 else {"x": str(box)}
    return {} if pd.isna(box) else {"x": str(box)}


def _folder(root: Path) -> Source:
    """Photos at species/individual/; the labels of photos elsewhere are missing, to be reported."""
    endings = Image.registered_extensions()
    files = sorted(
        file.relative_to(root)
        for file in root.rglob("*")
        if endings.get(file.suffix.lower()) in Image.OPEN and file.is_file()
    )
    labels = [file.parts[:2] if len(file.parts) == 3 else ("", "") for file in files]
    rows = pd.DataFrame(labels, columns=["species", "name"])
    rows["file"] = [file.as_posix() for file in files]
    rows["row"] = [f"photo {place}" for place in range(1, len(rows) + 1)]
    return Source(rows, root, ["species", "individual"])


def _frame(dataset: WildlifeDataset) -> Source:
    """The columns that wildlife-datasets describes: path, identity, orientation, bbox, ..."""
    called = {"path": "file", "identity": "name", "orientation": "viewpoint"}
    called |= {column: column for column in ("species", "encounter", "date", "family")}
    given = dataset.df.reset_index(drop=True)
    rows = given[columns_of(given, called)].rename(columns=called)
    if "bbox" in given:
        boxes = [_box(box) for box in given["bbox"]]
        rows = rows.join(pd.DataFrame(boxes, rows.index, list("xywh"), dtype=object))
    rows["row"] = [f"row {place}" for place in range(len(rows))]
    return Source(rows, Path(dataset.root), list(map(str, given)))


def photos(files: pd.Series, root: Path, verify: bool, absolute: bool) -> pd.DataFrame:
    """Per row its photo's path, key, width, height, problem and remedy; each file is read once.

    Indexed as `files`. The key is the path below `root` (posix), width and height are pixels of the
    upright photo, NaN where there is a problem. `verify` decodes the pixels too.
    """
    look = partial(_look, root=root, verify=verify, absolute=absolute)
    unique = files.unique()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # before any thread starts
        seen = list(tqdm(pool.map(look, unique), "photos", len(unique)))
    columns = ["path", "key", "width", "height", "problem", "remedy"]
    looks = pd.DataFrame(seen, index=unique, columns=columns)
    return looks.loc[files].set_index(files.index)


def _look(file: str, root: Path, verify: bool, absolute: bool) -> tuple:
    """A row of `photos`."""
    unseen = (np.nan, np.nan)
    if not file:
        return "", "", *unseen, "no file", "fill in its path"
    if Path(file).is_absolute() and not absolute:
        return "", file, *unseen, "absolute path", "make it relative or pass absolute_paths=True"
    key = file
    try:
        path = (root / file).resolve()
        inside = path.is_relative_to(root)
        key = path.relative_to(root).as_posix() if inside else path.as_posix()
        if not inside and not Path(file).is_absolute():
            remedy = "move the photo there, or write its absolute path"
            return "", key, *unseen, "path leaves the catalog's folder", remedy
        if not path.is_file():
            remedy = "correct its path or put the photo there"
            return "", key, *unseen, f"missing file: {path} is none", remedy
        return str(path), key, *_size(path, verify), "", ""
    except UNREADABLE as error:
        return "", key, *unseen, f"unreadable file: {error}", "replace the photo"


def _size(path: Path, verify: bool) -> tuple[int, int]:
    """Width and height of the upright photo, in pixels; with `verify`, after decoding it."""
    with Image.open(path) as photo:
        width, height = photo.size
        turned = photo.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        if verify:
            photo.draft(None, (max(1, width // 8), max(1, height // 8)))  # quick, JPEG only
            photo.load()
    return (height, width) if turned else (width, height)

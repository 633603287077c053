"""Readers of what people have: a CSV, COCO JSON, folder or wildlife-datasets frame."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from miewid_core.catalog import BOX, PLACE

RAW = [
    *["row", "annotation_id", "file", "species", "name", "viewpoint"],
    *["encounter", "date", *BOX, "theta", "family", "image_width", "image_height"],
    *PLACE,
]
ALIASES = {  # a column's other names, each used where there is none of the first
    "file": ("file_path", "file_name", "path"),
    "name": ("identity",),
    "viewpoint": ("orientation",),
    "annotation_id": ("uuid",),
    "encounter": ("encounter_id",),
    "theta": ("bbox_theta",),
}
TABLE = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False}  # cells stay text
COCO = ("annotations", "images", "individuals", "categories")
APPLE = {".heic", ".heif"}  # photos that Pillow can't read alone
CAMERA_RAW = {
    *[".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".raf", ".orf"],
    *[".rw2", ".pef", ".srw", ".raw", ".3fr", ".iiq", ".x3f", ".gpr"],
}
HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # folders of systems, beside those with a point
SUPPORTED = (
    'supported are "demo", a .csv, a .json (COCO), a folder species/individual/*.jpg, '
    "or an object with .df and .root (wildlife-datasets)"
)


LEVELS = ("species", "name")  # of folders: species/individual/photo.jpg


class Source(NamedTuple):
    """What a reader found.

    `rows` has those of the columns RAW that the source has, cells as given or missing; `row` says
    where its user finds it: the line of a CSV, the id of a COCO annotation, the position in a
    folder or frame. Relative files lie below `root`. `columns` are the source's own, for messages.
    `notices`: what concerns no row but the source: where, what, and what was done.
    """

    rows: pd.DataFrame
    root: Path
    columns: list[str]
    notices: tuple[tuple[str, str, str], ...] = ()


def read(
    source: object,
    photos_dir: str | Path = "",
    levels: tuple[str, ...] = LEVELS,
) -> Source:
    """Rows of a CSV, COCO JSON, folder tree or frame, unchecked.

    `photos_dir`: the folder of a table's photos, where that isn't the source's own. `levels`: what
    the folders of a tree are, from the top. Raises ValueError for a source of another kind, and for
    one that can't be parsed.
    """
    found = _read(source, levels)
    places = _usual(found.root, Path(source).stem if isinstance(source, str | os.PathLike) else "")
    if photos_dir:
        elsewhere = Path(photos_dir).expanduser()
        if not elsewhere.is_dir():
            where = elsewhere.absolute()
            raise ValueError(f"photos_dir is {photos_dir}, but there is no folder {where}")
        if is_folder(source):
            raise ValueError(
                f"photos_dir is {photos_dir}, but {source} is a folder of photos itself"
            )
        # the unidentified photos may lie where the known ones do, or beside their own table
        places = [elsewhere, *(places if not levels else [])]
    names = found.rows["file"].dropna().astype(str).head(20) if "file" in found.rows else []
    names = [name for name in names if not name.startswith("/") and ".." not in Path(name).parts]
    for place in places:
        if any(os.path.isfile(place / name) for name in names):  # noqa: PTH113
            moved = (str(place), f"the photos aren't in {places[0]}", "taken from this folder")
            told = () if place == places[0] else (moved,)
            return found._replace(root=place, notices=(*found.notices, *told))
    return found._replace(root=places[0])


def is_folder(source: object) -> bool:
    """Whether a source is a folder tree of photos."""
    return isinstance(source, str | os.PathLike) and Path(source).expanduser().is_dir()


def _read(source: object, levels: tuple[str, ...]) -> Source:
    if hasattr(source, "df") and hasattr(source, "root"):
        return _frame(source)
    if not isinstance(source, str | os.PathLike):
        raise ValueError(f"a {type(source).__name__} is no catalog; {SUPPORTED}")
    if not str(source).strip():
        raise ValueError(f"no catalog is named; {SUPPORTED}")
    try:
        return _read_path(Path(source).expanduser(), levels)
    except OSError as error:
        raise ValueError(f"{source}: {error.strerror}; {SUPPORTED}") from error


def _read_path(path: Path, levels: tuple[str, ...]) -> Source:
    if path.is_dir():
        return _folder(path, levels)
    if not path.exists():
        looked = "" if path.is_absolute() else f" (looked for {path.absolute()})"
        raise ValueError(f"{path}: no such file or folder{looked}; {SUPPORTED}")
    reader = {".csv": _csv, ".tsv": _csv, ".json": _coco}.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: this kind of file can't be read; {SUPPORTED}")
    return reader(path)


def _usual(root: Path, stem: str) -> list[Path]:
    """Where public data sets have their photos: beside the table, or in folders beside it."""
    beside, above = [root, root / "images", root / "photos"], root.parent
    if root.name != "annotations":
        return beside
    part = above / "images" / stem.removeprefix("instances_")
    return [*beside, part, above / "images", above / "photos", above / part.name]


def _csv(path: Path) -> Source:
    """The MiewID repository's columns, or wildlife-datasets' saved as a table."""
    rows, columns, told = read_table(path)
    rows = _known_columns(rows)
    used = columns_of(rows, RAW[1:])
    blank = (rows[used].fillna("") == "").all(axis=1) & bool(used)
    return Source(rows.loc[~blank, [*used, "row"]], path.parent, columns, told)


def read_table(path: Path) -> tuple[pd.DataFrame, list[str], tuple]:
    """A CSV's rows with their line as `row`, its columns as written, and notices.

    Every cell stays text, so that a name 007 stays one; names of columns come in small letters.
    Tables are read as spreadsheets write them in many countries: with semicolons, tabs or bars,
    decimal commas then, in UTF-16 or Windows-1252. Raises ValueError for what is no table.
    """
    try:
        encoding, told = _encoding(path)
        with path.open(encoding=encoding) as opened:
            first = opened.readline()
        said = re.fullmatch(r'"?sep=(.)"?\s*', first)  # a spreadsheet's own line
        separator = max(",;\t|", key=(said[1] if said else first).count)
        how = {"encoding": encoding, "sep": separator, "skiprows": int(bool(said))} | TABLE
        header = pd.read_csv(path, header=None, nrows=1, **how)
        columns = [str(column).strip() for column in header.loc[0]]
        names = _no_column_twice([re.sub(r"\W+", "_", column.lower()) for column in columns])
        rows = pd.read_csv(path, **how)
        if not isinstance(rows.index, pd.RangeIndex):
            raise ValueError("its rows have more cells than its header")
    except ValueError as error:
        raise ValueError(
            f"{path}: no comma-separated table in UTF-8: {error}; save it so"
        ) from error
    rows.columns = names
    if separator != ",":
        for column in columns_of(rows, [*BOX, "theta", "score"]):
            rows[column] = rows[column].str.replace(r"^\s*(-?\d*),(\d+)\s*$", r"\1.\2", regex=True)
    rows["row"] = [f"line {line}" for line in _lines(path, rows) + how["skiprows"]]
    return rows, columns, told


def _encoding(path: Path) -> tuple[str, tuple]:
    """How a table's text is encoded, and a notice where that is a guess."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", ()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        content.decode("cp1252")
        done = "read as Windows-1252, as spreadsheets write it"
        return "cp1252", (("all", "text that is no UTF-8", done),)
    return "utf-8-sig", ()


def _known_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns by the names of RAW: a column's aliases fill it where it is missing or blank."""
    for column, others in ALIASES.items():
        for other in columns_of(rows, others):
            if column not in rows:
                rows[column] = rows[other]
            elif column == "file":
                rows[column] = rows[column].where(rows[column].str.strip() != "", rows[other])
    if "bbox" in rows and not set(BOX) & set(rows):
        boxes = [_box(box) for box in rows["bbox"]]
        rows = rows.join(pd.DataFrame(boxes, rows.index, BOX, dtype=object))
    return rows


def _no_column_twice(columns: list[str]) -> list[str]:
    """The columns; ValueError where one that is used is there twice."""
    used = {*RAW, "bbox", *(other for others in ALIASES.values() for other in others)}
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
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as some programs write whole numbers
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
    """Text of what is known of an annotation."""
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
        "image_width": image.get("width"),
        "image_height": image.get("height"),
    }
    return {key: str(value) for key, value in known.items() if value is not None} | _box(
        entry.get("bbox")
    )


def _box(box: object) -> dict[str, str]:
    """Text of x, y, w, h from four numbers or their text, as JSON, Python or NumPy write it; {} for
    no box; anything else is kept, to be reported."""
    sides = box
    if isinstance(box, str):
        bare = re.fullmatch(r"[\[(]?([^][()]*)[\])]?", box.strip())
        sides = re.findall(r"[^,\s]+", bare[1]) if bare else box
    if pd.api.types.is_list_like(sides, allow_sets=False) and len(sides) in (0, 4):
        return dict(zip(BOX, map(str, sides), strict=False))
    return {} if pd.api.types.is_scalar(box) and pd.isna(box) else {"x": str(box)}


def _folder(root: Path, levels: tuple[str, ...]) -> Source:
    """Photos at the levels of a tree, such as species/individual/; elsewhere they have no species.

    Folders that are links are entered; one that may not be read is a row, to be reported, and so
    is a photo of a kind that can't be read, unless one of the same name lies beside it. A table
    in the folder that says otherwise of its photos raises ValueError: it is meant, more likely.
    """
    endings = Image.registered_extensions()
    readable = {ending for ending, kind in endings.items() if kind in Image.OPEN} - CAMERA_RAW
    found = sorted(_files(root, readable | APPLE | CAMERA_RAW))
    photos = {file.with_suffix("") for file in found if file.suffix.lower() in readable}
    files = [f for f in found if f.suffix.lower() in readable or f.with_suffix("") not in photos]
    labels = [_labels(file.parts, levels) for file in files]
    rows = pd.DataFrame(labels, columns=["species", "name", "encounter"], dtype=object)
    rows["file"] = [file.as_posix() for file in files]
    rows["row"] = [f"photo {place}" for place in range(1, len(rows) + 1)]
    tables = sorted([*root.glob("annotations/*.json"), *root.glob("*.csv")])
    if tables := [str(table) for table in tables if _tells_otherwise(table, rows)]:
        raise ValueError(f"{root}: give its table of photos, not the folder: {', '.join(tables)}")
    return Source(rows, root, ["species", "individual"])


def _files(root: Path, kinds: set[str]) -> Iterator[PurePosixPath]:
    """Paths below a folder of files with these endings, and of folders that may not be read."""
    above: dict[Path, set[Path]] = {}
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        passed = above[here] = above.get(here.parent, set()) | {here.resolve()}
        for name in list(folders):
            inner = here / name
            if name.startswith(".") or name in HIDDEN or inner.resolve() in passed:
                folders.remove(name)
            elif not os.access(inner, os.R_OK | os.X_OK):
                yield _below(root, inner)
        for file in map(here.joinpath, names):
            if file.suffix.lower() in kinds and (file.is_file() or file.is_symlink()):
                yield _below(root, file)


def _below(root: Path, file: Path) -> PurePosixPath:
    # a name that is no UTF-8 gets a mark, by which it is reported
    return PurePosixPath(os.fsencode(file.relative_to(root)).decode(errors="replace"))


def _labels(parts: tuple[str, ...], levels: tuple[str, ...]) -> tuple[str, str, str]:
    """Species, name and encounter of a photo at a path in a folder tree."""
    if len(parts) == 3 and levels == LEVELS:
        return parts[0], parts[1], ""
    if len(parts) == 3 and levels == ("name",):
        return "", parts[0], parts[1]
    return "", parts[-2] if levels and len(parts) > 1 else "", ""


def _tells_otherwise(table: Path, rows: pd.DataFrame) -> bool:
    """Whether a table in a folder is a catalog of its photos, with other labels than the folders"""
    try:
        found = _read_path(table, LEVELS).rows
    except ValueError:
        return False
    if not {"file", "species", "name"} <= set(found):
        return False
    both = found.merge(rows, on="file", suffixes=("", "_folder"))
    apart = (both["species"] != both["species_folder"]) | (both["name"] != both["name_folder"])
    return apart.any() or (both.empty and table.suffix == ".json")


def _frame(dataset: object) -> Source:
    """The frame `df` of wildlife-datasets or of one like it, its paths below the folder `root`."""
    if not (isinstance(dataset.df, pd.DataFrame) and isinstance(dataset.root, str | os.PathLike)):
        raise ValueError(
            f"a {type(dataset).__name__} has no frame .df and folder .root; {SUPPORTED}"
        )
    given = dataset.df.reset_index(drop=True)
    given.columns = _no_column_twice([str(column) for column in given])
    rows = _known_columns(given)
    rows["row"] = [f"row {place}" for place in range(len(rows))]
    return Source(rows[columns_of(rows, RAW)], Path(dataset.root), list(map(str, given)))

"""Thousands of damaged and odd inputs: each is read right, or refused by an error of ours."""

import copy
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from miewid_core import catalog
from miewid_core.catalog import CatalogError
from miewid_core.photos import ChipError, read_photo
from miewid_core.readers import checks, sources
from miewid_core.readers.load import load_catalog
from tests.readers.made import as_coco, some_rows

pytestmark = [
    pytest.mark.slow,
    # what a reader's own Python shows as a warning stays one
    pytest.mark.filterwarnings("ignore"),
]
FEW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def fuzz(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=FEW)


def check_loaded(source, on_problem):
    """Load a source: what comes out is right, or the error is one of ours."""
    try:
        photos = load_catalog(source, on_problem=on_problem, verify=False)
    except ValueError as error:
        if type(error) not in (ValueError, CatalogError):
            raise
    else:
        check_photos(photos)


def check_read(source):
    """Read a source: text in known columns comes out, or the error is one of ours."""
    try:
        found = sources.read(source)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
    else:
        assert set(found.rows) <= set(sources.RAW)
        cells = found.rows.to_numpy(object).ravel()
        assert all(isinstance(cell, str) or pd.isna(cell) for cell in cells)


def check_photos(photos):
    """A loaded catalog by its documentation."""
    assert photos.columns.tolist() == catalog.COLUMNS
    assert photos["annotation_id"].is_unique
    assert (photos[["annotation_id", "path", "species", "name", "individual"]] != "").all(axis=None)
    numbers = photos[["x", "y", "w", "h", "theta"]].to_numpy()
    assert numbers.dtype == float
    assert np.isfinite(numbers).all()
    assert (photos[["w", "h"]] > 0).all(axis=None)
    upright = photos[photos["theta"] == 0]
    assert (upright[["x", "y"]] >= 0).all(axis=None)
    assert (upright["x"] + upright["w"] <= 40 + 1e-6).all()
    assert (upright["y"] + upright["h"] <= 30 + 1e-6).all()
    assert all(Path(path).is_file() for path in photos["path"])
    labels = photos[["species", "name"]].drop_duplicates()
    assert len(labels) == photos["individual"].nunique()
    json.dumps(photos.attrs.get("dropped", []))


ODD = [
    *["", " ", "nan", "NaN", "inf", "-inf", "None", "null", "unknown", "0", "-0", "1e999", "1,5"],
    *["007", "True", "\u00e9", "e\u0301", "\u200b", "\ufeff", "\0", "\n", "\r", "\t", '"', "'"],
    *["../x", "/", "//", ".", "..", "%", "%2F", "now", "2024-05-31", "99999-01-01", "=1+1", ";"],
    *["ant/007/1.jpg", "ant/007", "9" * 400, "\U0001f98a", "\u202e", "a" * 300, "<b>", "\\", "-1"],
]
odd_cells = st.one_of(st.sampled_from(ODD), st.text(max_size=6), st.floats().map(repr), st.none())


ways = st.sampled_from(["raise", "drop"])


@fuzz(300)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 10), odd_cells), max_size=5),
    ways,
    st.booleans(),
)
def test_tables_and_frames_of_odd_cells(folder, changes, on_problem, is_frame):
    called = {"file_path": "path", "name": "identity", "viewpoint": "orientation"}
    rows = some_rows().astype(object)
    if is_frame:
        rows["bbox"] = rows[["x", "y", "w", "h"]].to_numpy().tolist()
        rows = rows.rename(columns=called).drop(columns=["x", "y", "w", "h", "theta"])
    for row, column, cell in changes:
        rows.iat[row, column % rows.shape[1]] = cell
    rows.to_csv(folder / "a.csv", index=False)
    source = SimpleNamespace(df=rows, root=folder) if is_frame else folder / "a.csv"
    check_loaded(source, on_problem)


places = st.floats(0, 1)
news = st.binary(max_size=3) | st.sampled_from([b"\n", b",", b'"', b"{", b"]"])
edits = st.lists(st.tuples(places, st.integers(0, 3), news), min_size=1, max_size=6)


def edited(content, changes):
    """Bytes with some inserted, or written over others, or in place of all to the end."""
    for place, length, new in changes:
        at = int(place * len(content))
        content = content[:at] + new + content[at + length :]
    return content


WHOLE = [  # files of every kind: their name and bytes
    ("a.csv", some_rows().to_csv(index=False, sep=separator).encode(encoding))
    for separator in (",", ";", "\t")
    for encoding in ("utf-8", "utf-8-sig", "utf-16")
] + [
    ("a.json", json.dumps(as_coco(some_rows(), style)).encode()) for style in ("wildbook", "miewid")
]


@fuzz(2000)
@given(edits, st.sampled_from(WHOLE))
def test_files_of_damaged_bytes(folder, changes, file):
    name, content = file
    (folder / name).write_bytes(edited(content, changes))
    check_read(folder / name)


simple = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(ODD) | st.text()
values = st.recursive(
    simple,
    lambda part: (
        st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=4), part, max_size=3)
    ),
    max_leaves=6,
)


def nodes(value, path=()):
    """Paths to all parts of a JSON value, its own included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    yield path
    for key, part in inner:
        whole = isinstance(part, dict | list)
        yield from nodes(part, (*path, key)) if whole else [(*path, key)]


EXPORTS = {style: as_coco(some_rows(), style) for style in ("wildbook", "miewid")}
PATHS = {style: [path for path in nodes(coco) if path] for style, coco in EXPORTS.items()}


@fuzz(250)
@given(
    st.sampled_from(["wildbook", "miewid"]), st.lists(st.tuples(places, values), max_size=4), ways
)
def test_exports_of_odd_values(folder, style, changes, on_problem):
    coco = copy.deepcopy(EXPORTS[style])
    for place, value in changes:
        *path, key = PATHS[style][int(place * (len(PATHS[style]) - 1))]
        part = coco
        for step in path:
            part = part[step] if isinstance(part, dict | list) and _has(part, step) else None
        if isinstance(part, dict | list) and _has(part, key):
            part[key] = value
    (folder / "a.json").write_text(json.dumps(coco))
    check_read(folder / "a.json")
    check_loaded(folder / "a.json", on_problem)


def _has(part, key):
    return key in part if isinstance(part, dict) else isinstance(key, int) and key < len(part)


def file_of(kind, moving=False):
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    first, second = map(Image.fromarray, pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if kind in ("bmp", "gif", "tga", "ppm") else {"exif": exif}
    options |= {"save_all": True, "append_images": [second]} if moving else {}
    first.save(content, kind, **options)
    return content.getvalue()


KINDS = ["jpeg", "png", "tiff", "gif", "webp", "bmp", "avif", "tga", "ppm"]
FILES = [file_of(kind) for kind in KINDS] + [file_of(kind, True) for kind in ("mpo", "gif", "png")]
near_the_start = st.floats(0, 1).map(lambda place: place**3)
damage = st.lists(st.tuples(near_the_start, st.integers(0, 3), st.binary(max_size=4)), max_size=8)


@fuzz(3000)
@given(st.sampled_from(FILES), damage, st.floats(0.05, 1), st.booleans())
def test_damaged_photos(folder, content, changes, kept, short):
    """A file is found usable, with the size that its pixels have, or refused: by both readers."""
    path = folder / "photo.jpg"
    content = edited(content, changes)
    path.write_bytes(content[: int(kept * len(content))] if short else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # or the fuzzing takes long
        seen = checks.look_at(pd.Series(["photo.jpg"]), folder.resolve(), True, False).iloc[0]
        try:
            pixels = read_photo(path)
        except ChipError:
            return
    assert pixels.dtype == np.uint8
    if seen["problem"] == "" and seen["height"] * seen["width"] <= 2 * 10**6:  # or it is reduced
        assert pixels.shape == (seen["height"], seen["width"], 3)

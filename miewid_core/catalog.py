"""The catalog: annotations read, checked and normalised into one table of known individuals."""

import re
import warnings
from collections.abc import Collection

import numpy as np
import pandas as pd

from miewid_core import demo, photo, sources, spelling
from miewid_core.files import CACHE, digest
from miewid_core.problems import CatalogError, CatalogWarning, called, fatal, listed, note

LABELS = ["species", "name", "individual", "viewpoint", "encounter", "family"]
TEXT = ["annotation_id", "path", *LABELS]
BOX = ["x", "y", "w", "h"]
COLUMNS = [*TEXT, "date", *BOX, "theta"]
SOURCE_NAMES = {"file": "file_path or file_name", "species": "species", "name": "name"}
UNKNOWN = ("unknown", "____")  # wildlife-datasets' and Wildbook's words for no name
SLACK = 1.0  # pixels by which rounding may push a box out of its photo
FULL_TURN = 6.3  # radians: what is more was meant as degrees
ZONE = r"(?<=\d)\s*(?:[zZ]|[+-]\d\d(?::?\d\d)?)$"  # of a time, at its end
YEAR = r"(?:18|19|20)\d\d"  # of photos; pandas also reads "now" and the years -1 and 9999
HALF = re.compile("[\ud800-\udfff]")  # halves of characters, of a file name that is no UTF-8


def load(
    source: object,
    sides_differ: Collection[str] | None = None,
    on_problem: str = "raise",
    verify: bool = True,
    absolute_paths: bool = False,
) -> pd.DataFrame:
    """Read a catalog: "demo", a CSV, a COCO JSON, a folder tree, or an object with .df and .root.

    Returns one row per annotation with COLUMNS: x, y, w, h in pixels of the upright photo, theta
    in radians, date NaT, viewpoint, encounter, family "" if unknown. `individual` is unique over
    species; in species of `sides_differ` each viewpoint is one (section 3.2). Annotation ids are
    the source's, or depend on the row's content alone.

    All problems are found in one pass. "raise" raises CatalogError with them; "drop" leaves those
    rows out, warns, and lists them in `.attrs["dropped"]`. Photos found sound are not decoded again
    until they change; `verify=False` reads only their headers. Files lie in the catalog's folder,
    unless absolute and `absolute_paths` is set. Raises ValueError for what is no catalog at all.
    """
    if on_problem not in ("raise", "drop"):
        raise ValueError(f'on_problem is {on_problem!r}; it can be "raise" or "drop"')
    if isinstance(source, str) and source == "demo":
        sides_differ = demo.SIDES_DIFFER if sides_differ is None else sides_differ
        source = demo.draw(CACHE / "demo")
    given = sources.read(source)
    rows = _normalise(given, source)
    sides = _sides(sides_differ)
    _check_sides(sides, rows, source)
    rows = rows.join(photo.look_at(rows["file"], given.root.resolve(), verify, absolute_paths))
    found = _label_and_file_problems(rows, sides)
    rows, wrong = boxes(rows)
    found += wrong
    rows = _identified(rows, sides)
    found += _repeated(rows, pd.concat(found).index)
    return _usable(rows, pd.concat(found), source, on_problem)


def _normalise(given: sources.Source, source: object) -> pd.DataFrame:
    """All of sources.RAW as text, stripped, "" for none; dates as such; no theta column is 0."""
    if given.rows.empty:
        remedy = "a folder needs species/individual/photo.jpg, a table needs rows"
        raise fatal(source, [("", "no annotations", remedy)])
    missing = [SOURCE_NAMES[name] for name in SOURCE_NAMES if name not in given.rows]
    if missing:
        remedy = f"add it; the columns are {', '.join(given.columns)}"
        raise fatal(source, [(column, f"no column {column}", remedy) for column in missing])
    rows = given.rows.reset_index(drop=True).reindex(columns=sources.RAW).astype(object)
    rows = rows.where(rows.notna(), "").map(_text)
    rows["name"] = rows["name"].mask(rows["name"].str.lower().isin(UNKNOWN), "")
    rows["viewpoint"] = rows["viewpoint"].str.lower().replace(UNKNOWN[0], "")
    if "theta" not in given.rows:
        rows["theta"] = "0"
    return rows.assign(written=rows["date"], date=dates(rows["date"]))


def dates(written: pd.Series) -> pd.Series:
    """Dates and times (datetime64[us]) as a clock on the spot shows them; NaT for what is none.

    A zone at the end is left out: what matters here are the days on which an animal was seen, and
    cameras' own times have no zone.
    """
    timed = written.str.contains("[T:]", regex=True).astype(bool)
    local = written.mask(timed, written.str.replace(ZONE, "", regex=True))
    read = pd.to_datetime(local.mask(local == ""), errors="coerce", format="ISO8601", utc=True)
    return read.dt.tz_localize(None).astype("datetime64[us]")


def _text(cell: object) -> str:
    text = str(cell).strip()
    return text if text.isascii() else HALF.sub("\ufffd", text)


def _sides(given: Collection[str] | None) -> set[str]:
    listed = isinstance(given, Collection) and not isinstance(given, str)
    names = given if listed else [given] * (given is not None)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"sides_differ is {given!r}; give a list of names of species")
    return set(names)


def _check_sides(sides: set[str], rows: pd.DataFrame, source: object) -> None:
    there = ", ".join(sorted(set(rows["species"]) - {""}))
    strange = ", ".join(sorted(sides - set(rows["species"])))
    if strange:
        problem = f"sides_differ names {strange}, which no row has"
        raise fatal(source, [("species", problem, f"the species are {there}")])


def _label_and_file_problems(rows: pd.DataFrame, sides: set[str]) -> list[pd.DataFrame]:
    unsided = rows["species"].isin(sides) & (rows["viewpoint"] == "")
    undated = (rows["written"] != "") & (rows["date"].isna() | ~rows["written"].str.match(YEAR))
    date = "date " + rows["written"] + " can't be read"
    return [
        note(rows, rows["species"] == "", "species", "no species", "fill it in"),
        note(rows, rows["name"] == "", "name", "no name", "fill it in or leave the row out"),
        note(rows, unsided, "viewpoint", "no viewpoint, but sides differ", "left or right?"),
        note(rows, undated, "date", date, "write it as 2024-05-31 or 2024-05-31T12:00:00"),
        note(rows, rows["problem"] != "", "file", rows["problem"], rows["remedy"]),
        *spelling.problems(rows),
    ]


def boxes(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The rows with boxes and rotations as numbers, and what is wrong with them (`note`).

    `rows`: row, file, x, y, w, h and theta as text, width and height of the photo in pixels.
    """
    numbers = rows[[*BOX, "theta"]].apply(pd.to_numeric, errors="coerce").astype(float) + 0.0
    given = (rows[BOX] != "").any(axis=1)
    whole = rows[["width", "height"]].astype(float).set_axis(["w", "h"], axis=1)
    box = numbers[BOX].where(given, whole.assign(x=0.0, y=0.0))
    odd = given & ~np.isfinite(box).all(axis=1)
    empty = (box[["w", "h"]] <= 0).any(axis=1)
    clipped, outside = _clipped(box, whole, numbers["theta"] == 0)
    outside &= ~odd & ~empty & whole["w"].notna()
    shares = given & ~odd & ~empty & (box.abs() <= 1).all(axis=1)
    text = ", ".join(BOX)
    values = "box " + rows["x"] + ", " + rows["y"] + ", " + rows["w"] + ", " + rows["h"]
    size = rows["width"].astype(str) + " x " + rows["height"].astype(str)
    turn = "rotation '" + rows["theta"] + "' is no finite number of radians, at most a full turn"
    odd_turn = ~(numbers["theta"].abs() <= FULL_TURN)
    found = [
        note(rows, odd, text, values + " is not four finite numbers", "give pixels, with a point"),
        note(rows, empty, text, values + " is empty", "give a width and height above 0"),
        note(rows, shares, text, values + " is a single pixel", "give pixels, not parts of 1"),
        note(rows, outside, text, values + " is outside the image of " + size, "correct it"),
        note(rows, odd_turn, "theta", turn, "give radians, 0 for none"),
    ]
    return rows.assign(**clipped, theta=numbers["theta"]), found


def _clipped(
    box: pd.DataFrame, whole: pd.DataFrame, upright: pd.Series
) -> tuple[pd.DataFrame, pd.Series]:
    """Upright boxes cut at the photo's edge, and which boxes are outside by more than SLACK.

    The corners of a rotated box may leave the photo (its chip is white there), its centre may not.
    """
    reach = 2 * np.hypot(whole["w"], whole["h"])  # of what could be meant by a rotated box
    clipped, outside = box.copy(), (box[["w", "h"]].max(axis=1) > reach) & ~upright
    for start, length in (("x", "w"), ("y", "h")):
        first, last, edge = box[start], box[start] + box[length], whole[length]
        middle = first + box[length] / 2
        out = (first < -SLACK) | (last > edge + SLACK) | (first >= edge) | (last <= 0)
        outside |= out.where(upright, (middle < 0) | (middle > edge))
        cut = upright & ((first < 0) | (last > edge))
        clipped[start] = first.mask(cut, first.clip(lower=0))
        clipped[length] = box[length].mask(cut, last.clip(upper=edge) - clipped[start])
    return clipped, outside


def _identified(rows: pd.DataFrame, sides: set[str]) -> pd.DataFrame:
    """The rows with `individual`, and an annotation_id where the source gives none (`made`)."""
    species, name, viewpoint = (
        rows[column].str.replace("%", "%25").str.replace("/", "%2F")  # only ours separate
        for column in ("species", "name", "viewpoint")
    )
    individual = species + "/" + name
    individual = individual.mask(rows["species"].isin(sides), individual + "/" + viewpoint)
    made = rows["annotation_id"] == ""
    content = rows.loc[made, ["key", *BOX, "theta", "species", "name"]]
    ids = [
        digest(key, repr((x, y, w, h)), repr(theta), *labels)[:16]
        for key, x, y, w, h, theta, *labels in content.itertuples(index=False)
    ]
    own = rows["annotation_id"].mask(made, pd.Series(ids, content.index, dtype=object))
    return rows.assign(individual=individual, annotation_id=own, made=made)


def _repeated(rows: pd.DataFrame, wrong: pd.Index) -> list[pd.DataFrame]:
    """Rows that say the same twice, contradict each other, or share an id."""
    rows = rows.assign(animal=rows["species"] + "\n" + rows["name"])
    sound = rows[np.isfinite(rows[[*BOX, "theta"]]).all(axis=1) & (rows["key"] != "")]
    sound = sound.iloc[np.argsort(sound.index.isin(wrong), kind="stable")]  # a right one stays
    content = ["key", *BOX, "theta", "species", "name"]
    twice = sound.duplicated(content)
    first = "same as " + sound.groupby(content)["row"].transform("first")
    named = sound[sound["name"] != ""]
    names = named.groupby(["key", *BOX])["animal"].transform("nunique")
    given = rows[~rows["made"] & ~rows.index.isin(sound.index[twice])]
    again = given["annotation_id"].duplicated(keep=False)
    shared = "id " + given["annotation_id"] + " is given to several annotations"
    return [
        note(sound, twice, "file", first, "keep one of them"),
        note(named, names > 1, "name", "one box of one photo has two names", "keep the right one"),
        note(given, again, "annotation_id", shared, "give each annotation its own"),
    ]


def _usable(
    rows: pd.DataFrame, problems: pd.DataFrame, source: object, on_problem: str
) -> pd.DataFrame:
    """The rows without problems, of species that can be evaluated; or the problems, raised."""
    # what is dropped may leave a species with nothing; what its user is about to repair does not
    lost = rows.index.isin(problems.index)
    judged = rows[~lost if on_problem == "drop" else (rows[["species", "name"]] != "").all(axis=1)]
    problems = pd.concat([problems, _nothing_to_evaluate(judged)]).sort_index(kind="stable")
    photos = rows.loc[~rows.index.isin(problems.index), COLUMNS].reset_index(drop=True)
    if len(problems) and (on_problem == "raise" or photos.empty):
        raise CatalogError(source, problems)
    photos = photos.astype(dict.fromkeys(TEXT, str))
    if on_problem == "drop":
        photos.attrs["dropped"] = problems.to_dict("records")
    if len(problems):
        dropped = f"{called(source)}: dropped {len(rows) - len(photos)} of {len(rows)} rows"
        warnings.warn(f"{dropped}: {listed(problems)}", CatalogWarning, stacklevel=3)
    return photos


def _nothing_to_evaluate(rows: pd.DataFrame) -> pd.DataFrame:
    sighting = rows["encounter"].mask(rows["encounter"] == "", rows["annotation_id"])
    encounters = sighting.groupby([rows["species"], rows["individual"]]).transform("nunique")
    able = (encounters > 1).groupby(rows["species"]).transform("any")
    problem = "species with nothing to evaluate: no individual has annotations of two encounters"
    remedy = "add photos of known individuals or leave the species out"
    return note(rows, ~able, "species", problem, remedy)

"""Read a catalog: rows checked, normalised, problems by row; one table of known individuals out."""

import re
import warnings
from collections.abc import Collection

import pandas as pd

from miewid_core.catalog import (
    BOX,
    COLUMNS,
    TEXT,
    CatalogError,
    CatalogWarning,
    called,
    fatal,
    listed,
)
from miewid_core.files import digest
from miewid_core.readers import photo_checks, sources
from miewid_core.readers.checks import (
    _label_and_file_problems,
    _nothing_to_evaluate,
    _repeated,
    boxes,
)

SOURCE_NAMES = {"file": "file_path or file_name", "species": "species", "name": "name"}
UNKNOWN = ("unknown", "____")  # wildlife-datasets' and Wildbook's words for no name
ZONE = r"(?<=\d)\s*(?:[zZ]|[+-]\d\d(?::?\d\d)?)$"  # of a time, at its end
HALF = re.compile("[\ud800-\udfff]")  # halves of characters, of a file name that is no UTF-8


def load_catalog(
    source: object,
    sides_differ: Collection[str] | None = None,
    on_problem: str = "raise",
    verify: bool = True,
    absolute_paths: bool = False,
) -> pd.DataFrame:
    """Read a catalog: a CSV, a COCO JSON, a folder tree, or an object with .df and .root.

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
    given = sources.read(source)
    rows = _normalise(given, source)
    sides = _sides(sides_differ)
    _check_sides(sides, rows, source)
    rows = rows.join(
        photo_checks.look_at(rows["file"], given.root.resolve(), verify, absolute_paths)
    )
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

"""Read a catalog: rows checked, normalised, problems by row; one table of annotations out."""

import re
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core.catalog import (
    BOX,
    COLUMNS,
    NOTICE,
    TEXT,
    CatalogError,
    CatalogWarning,
    called,
    fatal,
    individuals,
    listed,
    notice,
    sides,
    summed,
)
from miewid_core.files import digest
from miewid_core.readers import checks, photo_checks, sources
from miewid_core.readers.dates import read_dates

SOURCE_NAMES = {"file": "file_path or file_name", "species": "species", "name": "name"}
MISSING = {  # words for no value, in any case, in any column
    *["nan", "none", "null", "(null)", "nil", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "\\n"],
    *["-", "--", "?", "____", "#ref!", "#value!", "#name?", "#null!", "unk", "unknown"],
    *["unidentified", "undefined", "unspecified", "unassigned", "missing", "not available"],
    *["not known", "not identified", "unnamed", "no name", "new_whale", "new_individual"],
}
HALF = re.compile("[\ud800-\udfff]")  # halves of characters, of a file name that is no UTF-8


def load_catalog(
    source: object,
    sides_differ: Collection[str] | None = None,
    on_problem: str = "raise",
    verify: bool = True,
    absolute_paths: bool = False,
    photos_dir: str | Path = "",
    species: str = "",
    named: bool = True,
) -> pd.DataFrame:
    """Read a catalog: a CSV, a COCO JSON, a folder tree, or an object with .df and .root.

    Returns one row per annotation with COLUMNS: x, y, w, h in pixels of the upright photo, theta
    in radians, date NaT, viewpoint, encounter, family "" if unknown. `individual` is unique over
    species; in species of `sides_differ` left and right side are two (section 3.2), and photos of
    neither (front, back, up) are left out. Annotation ids are the source's, or depend on the row's
    content alone.

    All problems are found in one pass. "raise" raises CatalogError with them; "drop" leaves those
    rows out, warns, and lists them in `.attrs["dropped"]`. What can be mended is no problem: rows
    without a name are left out, dates that can't be read are NaT, boxes are cut at a photo's edge;
    `catalog.notices` tells of it. Photos found sound are not decoded again until they change;
    `verify=False` reads only their headers. Files lie in the catalog's folder or in `photos_dir`,
    unless absolute and `absolute_paths` is set. `species`: of rows that have none; a folder has no
    level of species then. With `named=False` names don't matter: they and `individual` are "", and
    ids are the source's or the file's; of a table with names for some, the others are read.
    Raises ValueError for what is no catalog at all.
    """
    if on_problem not in ("raise", "drop"):
        raise ValueError(f'on_problem is {on_problem!r}; it can be "raise" or "drop"')
    levels = (("name",) if species else sources.LEVELS) if named else ()
    given = sources.read(source, photos_dir, levels)
    rows, told = _normalised(given, source, species, named)
    differ = _differing(sides_differ, rows, source)
    rows, more = _chosen(rows, differ, named, source)
    told += more
    root = given.root.resolve()
    files = photo_checks.relative(rows["file"], root, absolute_paths)
    told.append(
        notice(rows, files != rows["file"], "path of another computer", f"looked for below {root}")
    )
    rows = rows.assign(file=files)
    rows = rows.join(photo_checks.look_at(files, root, verify, absolute_paths))
    rows, found, mended = checks.boxes(rows)
    found = [checks.files(rows), *found]
    told += mended
    if named:
        found = [*checks.labels(rows, differ), *found]
        rows, more = _identified(rows, differ)
        found += checks.repeated(rows, pd.concat(found).index)
        told += more
    else:
        rows = _unnamed(rows, pd.concat(found).index)
    return _usable(rows, pd.concat(found), told, source, on_problem, named)


def _normalised(
    given: sources.Source, source: object, species: str, named: bool
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """All of sources.RAW as text, stripped, "" for none; dates as such; theta 0 if none has one."""
    told = [pd.DataFrame(given.notices, columns=NOTICE)]
    rows = given.rows.reset_index(drop=True)
    if rows.empty:
        remedy = "a folder needs species/individual/photo.jpg, a table needs rows"
        raise fatal(source, [("", "no annotations", remedy)])
    needed = ["file", "name", "species"] if named else ["file"]
    missing = [name for name in SOURCE_NAMES if name in needed and name not in rows]
    if species and "species" in missing:
        missing.remove("species")
    if missing:
        remedy = f"add it; the columns are {', '.join(given.columns)}"
        remedies = {"species": f"{remedy}; for one species give its name as a parameter, species"}
        columns = [(SOURCE_NAMES[name], remedies.get(name, remedy)) for name in missing]
        raise fatal(source, [(column, f"no column {column}", what) for column, what in columns])
    rows = rows.reindex(columns=sources.RAW)
    for column in sources.RAW[1:]:
        rows[column], words = _text_of(rows[column])
        for word, places in words.items():
            told.append(notice(rows.loc[places], None, f"{column} {word!r}", "read as missing"))
    rows["viewpoint"] = rows["viewpoint"].str.lower()
    nameless = rows["species"] == ""
    if species and not nameless.any() and (rows["species"] != species).any():
        problem = f"species is {species}, but no row is without one"
        names = ", ".join(sorted(rows["species"].unique()))
        raise fatal(source, [("species", problem, f"leave it out; the species are {names}")])
    rows["species"] = rows["species"].mask(nameless, species)
    rows["theta"] = rows["theta"] if (rows["theta"] != "").any() else "0"
    read = read_dates(rows["date"])
    told.append(notice(rows, read["what"] != "", read["what"], read["done"]))
    return rows.assign(date=read["date"]), told


def _text_of(cells: pd.Series) -> tuple[pd.Series, dict[str, np.ndarray]]:
    """Cells as text, stripped, "" for none; the words for none that were there, and their rows."""
    if not cells.notna().any():
        return pd.Series("", cells.index, dtype=object), {}
    try:
        codes, unique = pd.factorize(cells)
    except TypeError:  # lists and the like
        codes, unique = pd.factorize(cells.map(str).where(cells.notna()))
    texts = [_text(cell) for cell in unique]
    words = {place: text for place, text in enumerate(texts) if text.lower() in MISSING}
    rows = {text: cells.index[codes == place] for place, text in words.items()}
    texts = ["" if place in words else text for place, text in enumerate(texts)]
    return pd.Series(np.array([*texts, ""], object)[codes], cells.index), rows


def _text(cell: object) -> str:
    # a column of whole numbers with gaps is one of fractions in a data frame
    text = str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()
    return text if text.isascii() else HALF.sub("\ufffd", text)


def _differing(given: Collection[str] | None, rows: pd.DataFrame, source: object) -> set[str]:
    """The species of `sides_differ`, all of which the rows have."""
    several = isinstance(given, Collection) and not isinstance(given, str)
    names = given if several else [given] * (given is not None)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"sides_differ is {given!r}; give a list of names of species")
    known = set(rows["species"])
    if strange := ", ".join(sorted(set(names) - known)):
        there = ", ".join(sorted(known - {""}))
        problem = f"sides_differ names {strange}, which no row has"
        raise fatal(source, [("species", problem, f"the species are {there}")])
    return set(names)


def _chosen(
    rows: pd.DataFrame, differ: set[str], named: bool, source: object
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The rows that are annotations of known animals, or of unknown ones; notices of the others."""
    out, told = checks.left_out(rows, named)
    if named:
        seen = rows["species"].isin(differ) & (rows["viewpoint"] != "") & ~out
        neither = seen & (sides(rows["viewpoint"]) == "")
        what = "viewpoint " + rows["viewpoint"] + " is of neither side"
        told.append(
            notice(rows, neither, what, "left out: shows no side of a species whose sides differ")
        )
        out |= neither
    elif not (rows["name"] == "").all() and (rows["name"] == "").any():
        known = (rows["name"] != "") & ~out
        told.append(notice(rows, known, "it has a name", "left out: only the others are unknown"))
        out |= known
    if out.all():
        raise fatal(source, [("name", "no annotation has a name", "fill in who is known")])
    return rows[~out].reset_index(drop=True), told


def _identified(rows: pd.DataFrame, differ: set[str]) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    """The rows with `individual`, ids, and encounters in their scope; notices.

    `made`: whether the source gave no annotation_id.
    """
    meetings, told = checks.encounters(rows)
    rows = rows.assign(individual=individuals(rows, differ), encounter=meetings)
    told += [*checks.similar(rows), *checks.doubled(rows)]
    made = rows["annotation_id"] == ""
    content = rows.loc[made, ["key", *BOX, "theta", "species", "name"]]
    columns = [content[column].tolist() for column in content]  # faster than row by row
    ids = [
        digest(key, repr((x, y, w, h)), repr(theta), *labels)[:16]
        for key, x, y, w, h, theta, *labels in zip(*columns, strict=True)
    ]
    own = rows["annotation_id"].mask(made, pd.Series(ids, content.index, dtype=object))
    return rows.assign(annotation_id=own, made=made), told


def _unnamed(rows: pd.DataFrame, wrong: pd.Index) -> pd.DataFrame:
    """The rows without names, of the species of their folder where they have none."""
    folder = rows["file"].str.partition("/")[0].where(rows["file"].str.contains("/"), "")
    ids = rows["annotation_id"].mask(rows["annotation_id"] == "", rows["file"])
    again = ids[~ids.index.isin(wrong)].groupby(ids).cumcount().reindex(ids.index).fillna(0)
    ids = ids.mask(again > 0, ids + "#" + (again + 1).astype(int).astype(str))  # several boxes
    labels = rows["species"].mask(rows["species"] == "", folder)
    return rows.assign(name="", individual="", species=labels, annotation_id=ids)


def _usable(
    rows: pd.DataFrame,
    problems: pd.DataFrame,
    told: list[pd.DataFrame],
    source: object,
    on_problem: str,
    named: bool,
) -> pd.DataFrame:
    """The rows without problems, of species that can be evaluated; or the problems, raised."""
    # what is dropped may leave a species with nothing; what its user is about to repair does not
    lost = rows.index.isin(problems.index)
    if named:
        judged = rows[~lost if on_problem == "drop" else rows["species"] != ""]
        problems = pd.concat([problems, checks.nothing_to_evaluate(judged)])
    problems = problems.sort_index(kind="stable")
    annotations = rows.loc[~rows.index.isin(problems.index), COLUMNS].reset_index(drop=True)
    if len(problems) and (on_problem == "raise" or annotations.empty):
        raise CatalogError(source, problems)
    annotations = annotations.astype(dict.fromkeys(TEXT, str))
    annotations.attrs["notices"] = summed(told)
    if on_problem == "drop":
        annotations.attrs["dropped"] = problems.to_dict("records")
    if len(problems):
        dropped = f"{called(source)}: dropped {len(rows) - len(annotations)} of {len(rows)} rows"
        warnings.warn(f"{dropped}: {listed(problems)}", CatalogWarning, stacklevel=3)
    return annotations

"""Read a catalog: rows checked, normalised, problems by row; one table of annotations out."""

import contextlib
import re
import warnings
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from dateutil import parser
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from miewid_core.catalog import (
    BOX,
    COLUMNS,
    PLACE,
    TEXT,
    CatalogError,
    CatalogWarning,
    individuals,
    sides,
)
from miewid_core.files import digest
from miewid_core.readers import checks, sources
from miewid_core.readers.checks import Report, called, fatal, listed, summed

NEEDED = {  # columns that a table must have: their names there, and what else can be done
    "file": ("file_path or file_name", ""),
    "species": ("species", "; for one species give its name as a parameter, species"),
    "name": ("name", ""),
}
MISSING = {  # words for no value, in any case, in any column
    *["nan", "none", "null", "(null)", "nil", "na", "n/a", "n.a.", "#n/a", "<na>", "nat", "\\n"],
    *["-", "--", "?", "____", "#ref!", "#value!", "#name?", "#null!", "unk", "unknown"],
    *["unidentified", "undefined", "unspecified", "unassigned", "missing", "not available"],
    *["not known", "not identified", "unnamed", "no name", "new_whale", "new_individual"],
}
SHARED = 1 / 3  # of all encounters: if nothing joins more, they number each animal's visits
BURST, SPREAD = 600, 86_400  # seconds between files of one burst; that files' times must span
NUMBERED = "encounter ids shared by animals that no photo, date or file time shows together"
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
    in radians, date NaT, viewpoint, encounter, family "" if unknown; and PLACE's columns that the
    source fills. `individual` is unique over
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
    report, root = Report(given.notices), given.root.resolve()
    rows = _normalised(given, source, species, named, report)
    differ = _differing(sides_differ, rows, source)
    rows = _chosen(rows, differ, named, source, report)
    files = checks.relative(rows["file"], root, absolute_paths)
    moved = files != rows["file"]
    report.notice(rows, moved, "path of another computer", f"looked for below {root}")
    rows = rows.assign(file=files)
    rows = rows.join(checks.look_at(files, root, verify, absolute_paths))
    if named:
        checks.labels(rows, differ, report)
    report.problem(rows, rows["problem"] != "", "file", rows["problem"], rows["remedy"])
    rows = checks.boxes(rows, report)
    rows = _identified(rows, differ, report) if named else _unnamed(rows, report)
    return _usable(rows, report, source, on_problem, named)


def _normalised(
    given: sources.Source, source: object, species: str, named: bool, report: Report
) -> pd.DataFrame:
    """All of sources.RAW as text, stripped, "" for none; dates as such; theta 0 if none has one."""
    rows = given.rows.reset_index(drop=True)
    if rows.empty:
        remedy = "a folder needs species/individual/photo.jpg, a table needs rows"
        raise fatal(source, ("", "no annotations", remedy))
    there = {*rows, "species"} if species else {*rows}
    missing = [NEEDED[name] for name in (NEEDED if named else ["file"]) if name not in there]
    if missing:
        remedy = f"add it; the columns are {', '.join(given.columns)}"
        raise fatal(source, *[(name, f"no column {name}", remedy + more) for name, more in missing])
    rows = rows.reindex(columns=sources.RAW)
    for column in sources.RAW[1:]:
        text = _as_text(rows[column])
        none = text.isin([word for word in text.unique() if word.lower() in MISSING])
        words = f"{column} " + text[none].map(repr)
        report.notice(rows[none], None, words, "read as missing")
        rows[column] = text.mask(none, "")
    rows["viewpoint"] = rows["viewpoint"].str.lower()
    nameless = rows["species"] == ""
    if species and not nameless.any() and (rows["species"] != species).any():
        problem = f"species is {species}, but no row is without one"
        names = ", ".join(sorted(rows["species"].unique()))
        raise fatal(source, ("species", problem, f"leave it out; the species are {names}"))
    rows["species"] = rows["species"].mask(nameless, species)
    rows["theta"] = rows["theta"] if (rows["theta"] != "").any() else "0"
    read = read_dates(rows["date"])
    report.notice(rows, read["what"] != "", read["what"], read["done"])
    return rows.assign(date=read["date"])


def _as_text(cells: pd.Series) -> pd.Series:
    """Cells as text, stripped, "" for none."""
    try:
        codes, unique = pd.factorize(cells)
    except TypeError:  # lists and the like
        codes, unique = pd.factorize(cells.map(str).where(cells.notna()))
    # a column of whole numbers with gaps is one of fractions in a data frame
    whole = [int(c) if isinstance(c, float) and c.is_integer() else c for c in unique]
    texts = [HALF.sub("\ufffd", str(cell).strip()) for cell in whole]
    texts.append("")  # for what is missing, of code -1
    return pd.Series(np.array(texts, object)[codes], cells.index)


def _differing(given: Collection[str] | None, rows: pd.DataFrame, source: object) -> set[str]:
    """The species of `sides_differ`, all of which the rows have."""
    several = pd.api.types.is_list_like(given)
    names = list(given) if several else [given] * (given is not None)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"sides_differ is {given!r}; give a list of names of species")
    known = set(rows["species"])
    if strange := ", ".join(sorted(set(names) - known)):
        there = ", ".join(sorted(known - {""}))
        problem = f"sides_differ names {strange}, which no row has"
        raise fatal(source, ("species", problem, f"the species are {there}"))
    return set(names)


def _chosen(
    rows: pd.DataFrame, differ: set[str], named: bool, source: object, report: Report
) -> pd.DataFrame:
    """The rows that are annotations of known animals, or of unknown ones."""
    known = rows["name"] != ""
    out = rows["file"].str.contains(r"(?:^|/)\._[^/]*$", regex=True).astype(bool)
    report.notice(rows, out, "a file that macOS leaves beside others (._)", "left out")
    if named:
        report.notice(rows, ~known & ~out, "no name", "left out: unknown individual")
        out |= ~known
        seen = rows["species"].isin(differ) & (rows["viewpoint"] != "") & ~out
        neither = seen & (sides(rows["viewpoint"]) == "")
        what = "viewpoint " + rows["viewpoint"] + " is of neither side"
        done = "left out: shows no side of a species whose sides differ"
        report.notice(rows, neither, what, done)
        out |= neither
    elif not known.all():
        done = "left out: only the others are unknown"
        report.notice(rows, known & ~out, "it has a name", done)
        out |= known
    if out.all():
        raise fatal(source, ("name", "no annotation has a name", "fill in who is known"))
    return rows[~out].reset_index(drop=True)


def _identified(rows: pd.DataFrame, differ: set[str], report: Report) -> pd.DataFrame:
    """The rows with `individual`, ids, and encounters in their scope.

    `made`: whether the source gave no annotation_id.
    """
    encounters = _encounters(rows, report)
    rows = rows.assign(individual=individuals(rows, differ), encounter=encounters)
    checks.similar(rows, report)
    checks.doubled(rows, report)
    made = rows["annotation_id"] == ""
    content = rows.loc[made, ["key", *BOX, "theta", "species", "name"]]
    rows.loc[made, "annotation_id"] = [
        digest(key, repr((x, y, w, h)), repr(theta), *labels)[:16]
        for key, x, y, w, h, theta, *labels in content.itertuples(index=False, name=None)
    ]
    rows = rows.assign(made=made)
    checks.repeated(rows, report)
    return rows


def _encounters(rows: pd.DataFrame, report: Report) -> pd.Series:
    """Encounters whose ids are each animal's own where they aren't a herd's.

    An id that several animals have is a herd's where these are joined by a photo of several, by
    dates, or else by files of one burst. It numbers the visits of each animal where they are not
    joined, and have different dates or species, or where so it is with more than a third of all
    ids; then it is counted for each animal alone.
    """
    known = rows[rows["encounter"] != ""]
    known = known.assign(animal=known["species"] + "/" + known["name"])
    total = known["encounter"].nunique()
    known = known[known.groupby("encounter")["animal"].transform("nunique") > 1]
    if known.empty:
        return rows["encounter"]
    known = known.assign(group=_joined(known, rows["changed"]))
    ids = known.groupby("encounter")[["group", "animal", "species"]].nunique()
    dated = known[known["date"].notna()].groupby("encounter")[["group", "animal"]].nunique()
    days, seen = (dated[name].reindex(ids.index, fill_value=0) for name in ("group", "animal"))
    most_on_one_day = (days == 1) & (seen > 1) & (2 * seen >= ids["animal"])
    apart = (ids["group"] > 1) & ~most_on_one_day
    told = (days > 1) | (ids["species"] > 1)
    own = apart & (told | ((apart & ~told).sum() > SHARED * total))
    few = known[known["encounter"].isin(own.index[own])]
    first = few.drop_duplicates("encounter")
    first = first.assign(row="encounter " + first["encounter"])
    report.notice(first, None, NUMBERED, "counted per individual")
    ours = few["animal"] + ": " + few["encounter"]
    return rows["encounter"].mask(rows.index.isin(few.index), ours)


def _joined(rows: pd.DataFrame, changed: pd.Series) -> np.ndarray:
    """Numbers of groups: animals of an encounter are in one if files, dates or bursts join them."""
    rows = rows.assign(day=rows["date"].dt.floor("D"), burst=_bursts(rows, changed))
    animals = rows.groupby(["encounter", "animal"]).ngroup().to_numpy()
    links, nodes = [], animals.max() + 1
    for sign in ("key", "day", "burst"):
        known = (rows[sign].notna() & (rows[sign] != "")).to_numpy()
        seen = rows[known].groupby(["encounter", sign]).ngroup().to_numpy()
        links.append(np.column_stack([animals[known], seen + nodes]))
        nodes += known.sum()
    first, second = np.concatenate(links).T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][animals]


def _bursts(rows: pd.DataFrame, changed: pd.Series) -> pd.Series:
    """Numbers of the bursts in which files were written; NaN where that says nothing.

    A date says more. And copies that were all written within a day say nothing about photos.
    """
    if not changed.max() - changed.min() > SPREAD:
        return pd.Series(np.nan, rows.index)
    order = rows["changed"].sort_values()
    bursts = (order.diff() > BURST).cumsum().reindex(rows.index)
    return bursts.where(rows["date"].isna() & rows["changed"].notna())


def _unnamed(rows: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The rows without names, of the species of their folder where they have none."""
    folder = rows["file"].str.partition("/")[0].where(rows["file"].str.contains("/"), "")
    ids = rows["annotation_id"].mask(rows["annotation_id"] == "", rows["file"])
    again = ids[~report.wrong(ids)].groupby(ids).cumcount().reindex(ids.index, fill_value=0)
    ids = ids.mask(again > 0, ids + "#" + (again + 1).astype(str))  # several boxes
    labels = rows["species"].mask(rows["species"] == "", folder)
    return rows.assign(name="", individual="", species=labels, annotation_id=ids)


def _usable(
    rows: pd.DataFrame, report: Report, source: object, on_problem: str, named: bool
) -> pd.DataFrame:
    """The rows without problems, of species that can be evaluated; or the problems, raised."""
    if named:
        # what is dropped may leave a species with nothing; what its user is about to repair doesn't
        judged = rows[~report.wrong(rows) if on_problem == "drop" else rows["species"] != ""]
        checks.nothing_to_evaluate(judged, report)
    problems = pd.concat(report.problems).sort_index(kind="stable")
    columns = COLUMNS + [name for name in PLACE if (rows[name] != "").any()]
    annotations = rows.loc[~report.wrong(rows), columns].reset_index(drop=True)
    if len(problems) and (on_problem == "raise" or annotations.empty):
        raise CatalogError(f"{called(source)}: {listed(problems)}", problems)
    annotations = annotations.astype(dict.fromkeys(TEXT, str))
    annotations.attrs["notices"] = summed(report.notices)
    if on_problem == "drop":
        annotations.attrs["dropped"] = problems.to_dict("records")
    if len(problems):
        dropped = f"{called(source)}: dropped {len(rows) - len(annotations)} of {len(rows)} rows"
        warnings.warn(f"{dropped}: {listed(problems)}", CatalogWarning, stacklevel=3)
    return annotations


# Dates as cameras, exiftool, spreadsheets and data frames write them; never silently another.
YEAR_FIRST = r"^((?:18|19|20)\d\d)([:/.-])(0?[1-9]|1[0-2])\2(\d\d?)(?!\d)"
YEAR_LAST = re.compile(r"(\d\d?)([/.-])(\d\d?)\2(?:18|19|20)\d\d(?!\d)")
MONTH = "(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
IN_WORDS = re.compile(rf"(?=.*{MONTH}).*\b(?:18|19|20)\d\d\b")
ISO = r"(?:18|19|20)\d\d(?:-\d\d-\d\d|\d{4})(?:[T ].*)?"
ZONE = r"([T ]\d.*?)\s*(?:[zZ]|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"  # of a time, at its end
ZERO = pd.to_datetime(["1899-12-30", "1900-01-01", "1904-01-01", "1970-01-01", "1980-01-01"])
LEFT_OUT = "set to missing: write it as 2024-05-31 or 2024-05-31T12:00:00"


def read_dates(written: pd.Series) -> pd.DataFrame:
    """Per cell (text) its date, what is to be noticed of it, and what was done; "" for nothing.

    Dates and times (datetime64[us]) are those of a clock on the spot, NaT for none: a zone at the
    end is left out. What matters is the day, and cameras' own times have no zone.
    Year first in any form, 03.05.2019 (day first, as whoever writes points does), names of months.
    03/05/2019 can be two days: it is read as other dates of the column show, or else left out. So
    is a year alone, which is no day, a day by which spreadsheets and clocks count from zero, and
    all else.
    """
    texts = pd.Series(written.unique(), dtype=object)
    plain = texts.str.strip("\0 ")
    iso = plain.map(_iso)
    whole = iso.where(iso.str.fullmatch(ISO).astype(bool))
    read = pd.to_datetime(whole, errors="coerce", format="ISO8601").astype("datetime64[us]")
    days = {place: readings(plain[place]) for place in texts.index[read.isna() & (plain != "")]}
    order = _order([plain[place] for place, found in days.items() if found])
    what, done = pd.Series("", texts.index), pd.Series("", texts.index)
    for place, found in days.items():
        if len(found) == 1:
            read[place] = found[0]
        elif found and order is not None:
            read[place] = found[order[0]]
            what[place], done[place] = f"date {texts[place]} can be two days", order[1]
        else:
            wrong = "can be two days" if found else "can't be read as one day"
            what[place], done[place] = f"date {texts[place]} {wrong}", LEFT_OUT
    none = read.isin(ZERO)
    read[none], done[none] = pd.NaT, "set to missing"
    what[none] = "date " + texts[none] + " is how programs write none"
    table = pd.DataFrame({"date": read, "what": what, "done": done}).set_axis(texts)
    return table.loc[written].set_axis(written.index)


def _iso(text: str) -> str:
    """A date that begins with the year as ISO 8601 has it, without a zone; others as they are."""
    text = re.sub(YEAR_FIRST, lambda day: f"{day[1]}-{day[3]:0>2}-{day[4]:0>2}", text)
    return re.sub(ZONE, r"\1", text.removesuffix(".0"))


def readings(text: str) -> list[datetime]:
    """The days, with their times, that a text can mean; two where day and month may be swapped."""
    text, orders = _iso(text.strip("\0 ")), [False]  # of whether the day comes first
    if numbers := YEAR_LAST.match(text):
        orders = [True] if numbers[2] == "." else [True, False]
    elif not (re.match(YEAR_FIRST, text) or IN_WORDS.match(text)):
        return []
    # what a text doesn't say is taken from the default: it must make no difference
    defaults, days = (datetime(2000, 1, 1), datetime(2004, 2, 2)), []
    for day_first in orders:
        how = {"dayfirst": day_first, "ignoretz": True}
        with contextlib.suppress(ValueError, OverflowError, TypeError):
            first, second = (parser.parse(text, default=own, **how) for own in defaults)
            days += [first] if first == second else []
    return list(dict.fromkeys(days))


def _order(texts: list[str]) -> tuple[int, str] | None:
    """Which of two readings is meant, as dates show that can be read one way only; None if none."""
    found = [match for match in map(YEAR_LAST.match, texts) if match and match[2] != "."]
    days = [match.string for match in found if int(match[1]) > 12]
    months = [match.string for match in found if int(match[3]) > 12]
    if bool(days) == bool(months):
        return None
    first, other = ("day", days) if days else ("month", months)
    return int(not days), f"read with the {first} first, as {other[0]}"

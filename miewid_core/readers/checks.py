"""What can be wrong with the rows of a catalog, and the remedy; what is odd, and what was done."""

import contextlib
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from miewid_core import progress
from miewid_core.catalog import BOX, NOTICE, PROBLEM, CatalogError
from miewid_core.files import CACHE, Findings, file_digest
from miewid_core.photos import SAVE_AGAIN, TURNS, UNREADABLE, open_photo, refuse_what_is_no_photo
from miewid_core.readers.sources import CAMERA_RAW

SLACK = 1.0  # pixels by which rounding may push a box out of its photo
FULL_TURN = 6.3  # radians: what is more was meant as degrees
OTHER_SIZE = 2.0  # pixels by which a photo's size may differ from the one in a COCO export
LABELS = ("species", "name", "viewpoint", "encounter", "annotation_id")
# line breaks and other control characters, and what stands for text of a wrong encoding
GARBLED = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]")
NO_SPECIES = "fill it in, put the photo at species/individual/, or give species as a parameter"
NEAR = 0.88  # share of their letters in which two labels agree: one of nine may be another
KINDS = 20  # so many different notices are listed of those with one consequence
Words = str | pd.Series  # the same for all rows, or of each row


class Report:
    """What is wrong with rows (`problems`), and what was odd in them (`notices`).

    Both are noted for the rows where `bad`, for all with None; a text is the same for all of them,
    or each row's own.
    """

    def __init__(self, notices: Iterable[tuple[str, str, str]] = ()) -> None:
        self.problems: list[pd.DataFrame] = []
        self.notices = [pd.DataFrame(notices, columns=NOTICE)]

    def problem(
        self, rows: pd.DataFrame, bad: pd.Series | None, column: str, problem: Words, remedy: Words
    ) -> None:
        """Note what is wrong in a column (`catalog.PROBLEM`), indexed as the rows."""
        noted = rows[["row", "file"]].assign(column=column, problem=problem, remedy=remedy)
        self.problems.append(noted if bad is None else noted[bad.to_numpy(bool)])

    def wrong(self, rows: pd.DataFrame | pd.Series) -> np.ndarray:
        """Whether a problem is noted of each row."""
        return rows.index.isin(pd.concat(self.problems).index)

    def notice(self, rows: pd.DataFrame, bad: pd.Series | None, what: Words, done: Words) -> None:
        """Note what was odd, and what was done about it."""
        self.notices.append(notice(rows, bad, what, done))


def notice(rows: pd.DataFrame, bad: pd.Series | None, what: Words, done: Words) -> pd.DataFrame:
    """Columns NOTICE for each row where `bad`, for all with None."""
    told = rows[["row"]].assign(what=what, done=done)
    return told if bad is None else told[bad.to_numpy(bool)]


def summed(parts: list[pd.DataFrame]) -> list[dict[str, str]]:
    """Notices (NOTICE) with those that say the same of several rows as one, as records."""
    told = pd.concat(parts, ignore_index=True)
    if told.empty:
        return []
    kind = told.groupby("done")["what"].transform(lambda what: pd.factorize(what)[0])
    told["what"] = told["what"].mask(kind >= KINDS, "more of this kind")
    kinds = told.groupby(["what", "done"], sort=False)["row"].agg(["first", "size"]).reset_index()
    more = " and " + (kinds["size"] - 1).map("{:,}".format) + " more"
    kinds["row"] = kinds["first"].mask(kinds["size"] > 1, kinds["first"].astype(str) + more)
    return kinds[NOTICE].to_dict("records")


def fatal(source: object, *problems: tuple[str, str, str]) -> CatalogError:
    """An error about the catalog as a whole: column, problem and remedy of each."""
    whole = pd.DataFrame([("", "", *problem) for problem in problems], columns=PROBLEM)
    return CatalogError(f"{called(source)}: {listed(whole)}", whole)


def called(source: object) -> str:
    """A source's name in messages."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _short(text: str, most: int = 300) -> str:
    """A text without its middle, if that is long."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def listed(problems: pd.DataFrame, most: int = 20) -> str:
    """The number of problems, and the first of them, one a line."""
    lines = [
        ": ".join(filter(None, [row, _short(file), f"{_short(problem)}; {remedy}"]))
        for row, file, _, problem, remedy in problems.head(most)[PROBLEM].itertuples(index=False)
    ]
    if len(problems) > most:
        lines.append(f"... and {len(problems) - most} more, all in .problems or .attrs['dropped']")
    return "\n  ".join([f"{len(problems)} problem{'s'[: len(problems) != 1]}", *lines])


def labels(rows: pd.DataFrame, sides: set[str], report: Report) -> None:
    """Rows without a needed label, with damaged ones, or with what only a computer tells apart."""
    unsided = rows["species"].isin(sides) & (rows["viewpoint"] == "")
    report.problem(rows, rows["species"] == "", "species", "no species", NO_SPECIES)
    report.problem(rows, unsided, "viewpoint", "no viewpoint, but sides differ", "left or right?")
    for column in LABELS:
        bad = [label for label in rows[column].unique() if GARBLED.search(label)]
        few = rows[rows[column].isin(bad)]
        words = f"{column} " + few[column].map(ascii) + " has a line break or a damaged character"
        report.problem(few, None, column, words, "write it without")
    for columns in (["species"], ["species", "name"]):
        few, column = _alike(rows, columns), columns[-1]
        words = f"{column} " + few[column].map(ascii) + " looks like another, but isn't the same"
        report.problem(few, None, column, words, "write both with the same characters")


def _alike(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows whose last column looks like another's; the plainest spelling stays, if it is there."""
    *within, column = columns
    seen = {label: shown(label) for label in rows[column].unique()}
    odd = {look for label, look in seen.items() if look != label}
    few = rows[rows[column].isin([label for label, look in seen.items() if look in odd])]
    few = few.assign(look=few[column].map(seen))
    several = few.groupby([*within, "look"])[column].transform("nunique") > 1
    return few[several & (few["look"] != few[column])]


def shown(label: str) -> str:
    """A label as it is seen: composed letters, single spaces, nothing that has no width."""
    seen = (c for c in unicodedata.normalize("NFC", label) if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).split())


PART = 64  # photos that a thread takes at once
HINTS = 20  # so many missing files are looked for under similar names, which takes time
ABSOLUTE = "make it relative, give photos_dir, or absolute_paths=True if you trust the catalog"
FETCH = "fetch it from where it is kept: git lfs pull, git annex get, dvc pull"
MOVE = "correct its path, put the photo there, or give photos_dir"
OUTSIDE = "move the photo there, or write its absolute path"
HUGE = "scale it down, or save it as a JPEG, which is read at a reduced size"


class Look(NamedTuple):
    """What is known of a row's photo.

    `key`: its path below the root (posix). `width`, `height`: pixels of the upright photo, NaN
    where there is a problem; `turned`: whether the stored one lies on its side (EXIF). `size` in
    bytes, `changed` in seconds since 1970.
    """

    path: str = ""
    key: str = ""
    width: float = np.nan
    height: float = np.nan
    turned: bool = False
    size: int = 0
    changed: float = np.nan
    problem: str = ""
    remedy: str = ""


def look_at(files: pd.Series, root: Path, verify: bool, absolute: bool) -> pd.DataFrame:
    """Per row the `Look` at its photo, indexed as `files`; each file is read once.

    `verify` decodes the pixels too; a photo found sound so is remembered, where the cache can be
    written, and not read again until it changes.
    """
    memory = Findings(CACHE / "checked_photos.json")
    look = partial(_look, root=root, verify=verify, absolute=absolute, memory=memory)
    unique = files.unique()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        # before any thread starts; photos that are too large are refused all the same
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        parts = [unique[start : start + PART] for start in range(0, len(unique), PART)]
        looked = pool.map(lambda part: [look(file) for file in part], parts)
        seen = [found for part in progress(looked, "photos", len(parts)) for found in part]
    with contextlib.suppress(OSError):  # a checkout that can't be written
        memory.save()
    looks = pd.DataFrame(seen, index=unique, columns=Look._fields)
    for file in looks.index[looks["problem"].str.startswith("missing file")][:HINTS]:
        if near := _similar_path(root, file):
            looks.loc[file, "remedy"] = f"there is {near}: write its path exactly so"
    return looks.loc[files].set_index(files.index)


def relative(files: pd.Series, root: Path, absolute: bool) -> pd.Series:
    """Files with paths of another computer, as they lie below `root`, if they do.

    These are absolute paths, cut, unless they are there and `absolute`; and those of Windows.
    """
    named = pd.Series(files.unique(), dtype=object)
    named = named[named.str.contains(r"^(?:/|[A-Za-z]:/)|\\", regex=True)]
    other = [file for file in named if not (absolute and Path(file).is_file())]
    found = [cut for file in other[:HINTS] if (cut := _below(file, root)) is not None]
    if not found:
        return files
    cut = max(set(found), key=found.count)
    moved = {file: "/".join(_parts(file)[cut:]) or file for file in other}
    return files.map(lambda file: moved.get(file, file))


def _parts(file: str) -> tuple[str, ...]:
    return (PurePosixPath if file.startswith("/") else PureWindowsPath)(file).parts


def _below(file: str, root: Path) -> int | None:
    """How many first parts of a path are to be left out to find it below root; None for nowhere."""
    parts = _parts(file)
    cuts = range(1, len(parts)) if PureWindowsPath(file).anchor else (0,)
    there = (cut for cut in cuts if os.path.isfile(root.joinpath(*parts[cut:])))  # noqa: PTH113
    return None if ".." in parts else next(there, None)


def _look(file: str, root: Path, verify: bool, absolute: bool, memory: Findings) -> Look:
    key = os.path.normpath(file)
    for refused, problem, remedy in (
        (not file, "no file", "fill in its path, or the image that its id names"),
        (Path(file).is_absolute() and not absolute, "absolute path", ABSOLUTE),
        (Path(file).suffix.lower() in CAMERA_RAW, "a camera's raw file", "export it as JPEG"),
        (key.split("/")[0] == "..", "path leaves the catalog's folder", OUTSIDE),
    ):
        if refused:
            return Look(key=file and key, problem=problem, remedy=remedy)
    try:
        link = (root / key).is_symlink()
        path = (root / key).resolve()  # links are the user's own: they may lead elsewhere
        inside = path.is_relative_to(root)
        key = path.relative_to(root).as_posix() if inside else key
        if not path.is_file():
            problem, remedy = _missing(path, link)
            return Look(key=key, problem=f"missing file: {problem}", remedy=remedy)
        state = path.stat()
        size = _size(path, state, verify, memory)
        return Look(str(path if inside else root / key), key, *size, state.st_size, state.st_mtime)
    except UNREADABLE as error:
        huge = isinstance(error, Image.DecompressionBombError)
        remedy = HUGE if huge else FETCH if _is_pointer(root / key) else SAVE_AGAIN
        return Look(key=key, problem=f"unreadable file: {error}", remedy=remedy)


def _is_pointer(path: Path) -> bool:
    """Whether Git LFS keeps a file elsewhere."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as opened:
        return opened.read(19) == b"version https://git"
    return False


def _missing(path: Path, link: bool) -> tuple[str, str]:
    """What is where a photo should be, and the remedy."""
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        return f"{path} is a folder that you may not read", "allow yourself to"
    return f"{path} is {'a folder' if path.is_dir() else 'none'}", FETCH if link else MOVE


def _similar_path(root: Path, file: str) -> str:
    """The path below `root` that `file` is but for its case, accents or slashes; "" for none."""
    here = root
    for part in Path(file.replace("\\", "/")).parts:
        listable, look = here.is_dir() and os.access(here, os.R_OK), shown(part).casefold()
        names = [p for p in here.iterdir() if shown(p.name).casefold() == look] if listable else []
        if len(names) != 1:
            return ""
        here = names[0]
    return here.relative_to(root).as_posix() if here.is_file() else ""


def _size(
    path: Path, state: os.stat_result, verify: bool, memory: Findings
) -> tuple[int, int, bool]:
    """Width and height in pixels of the upright photo, whether it is stored on its side.

    With `verify`, after decoding it, which is remembered.
    """
    if known := memory.of(str(path), state):
        return tuple(known)
    with open_photo(path) as photo:
        refuse_what_is_no_photo(photo)
        # Pillow swaps a turned TIFF's sides by itself, on opening it or later
        tiff = photo.format == "TIFF"
        width, height = (photo.tag_v2[256], photo.tag_v2[257]) if tiff else photo.size
        turned = photo.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        if verify:
            photo.draft(None, (max(1, width // 8), max(1, height // 8)))  # quick, JPEG only
            photo.load()
    size = (height, width, turned) if turned else (width, height, turned)
    if verify:
        memory.note(str(path), state, size)
    return size


def boxes(rows: pd.DataFrame, report: Report) -> pd.DataFrame:
    """The rows with boxes and rotations as numbers.

    `rows`: row, file, x, y, w, h, theta, image_width, image_height as text; width and height of the
    upright photo in pixels, and whether it is `turned`. A box is cut at the photo's edge, unless
    less than half of it would be left. A rotation that is no number becomes 0.
    """
    numbers = rows[[*BOX, "theta"]].apply(pd.to_numeric, errors="coerce").astype(float) + 0.0
    zero = (numbers[BOX] == 0).all(axis=1)  # how some programs write that there is none
    given = (rows[BOX] != "").any(axis=1) & ~zero
    whole = rows[["width", "height"]].astype(float).set_axis(["w", "h"], axis=1)
    box = numbers[BOX].where(given, whole.assign(x=0.0, y=0.0))
    lost = ~np.isfinite(numbers["theta"])
    theta = numbers["theta"].mask(lost, 0.0)
    odd = given & ~np.isfinite(box).all(axis=1)
    empty = (box[["w", "h"]] <= 0).any(axis=1)
    sound = given & ~odd & ~empty & whole["w"].notna()
    box, turned, stored = _upright(rows, box, whole, sound, theta == 0)
    clipped, outside, cut = _clipped(box, whole, theta == 0)
    outside &= sound & ~stored
    corners = (box["w"] > box["x"]) & (box["h"] > box["y"])
    corners &= (box["w"] <= whole["w"] + SLACK) & (box["h"] <= whole["h"] + SLACK)
    if outside.any() and corners[outside | cut & sound].all():
        outside |= cut & sound  # x, y, right, bottom, each of which is in the photo
    shares = given & ~odd & ~empty & (box.abs() <= 1).all(axis=1)
    written = "box " + rows["x"].str.cat(rows[["y", "w", "h"]], ", ")
    size = whole["w"].map("{:.0f} x ".format) + whole["h"].map("{:.0f}".format)
    unlike = " is of the photo as it is stored, not of the upright one (EXIF) of "
    corner = "correct it: x, y of the upper left corner, width, height"
    for bad, problem, remedy in (
        (odd, " is not four finite numbers", "give pixels, with a point"),
        (empty, " is empty", "give a width and height above 0"),
        (shares, " is a single pixel", "give pixels, not parts of 1"),
        (outside, " is outside the image of " + size, corner),
        (stored, unlike + size, "give boxes of the upright photo"),
    ):
        report.problem(rows, bad, ", ".join(BOX), written + problem, remedy)
    radians = "rotation '" + rows["theta"] + "' is no finite number of radians, at most a full turn"
    beyond, rotated = theta.abs() > FULL_TURN, theta != 0
    if beyond.sum() > max(1, 0.02 * rotated.sum()):
        beyond = rotated  # these are too many to be slips: all are degrees
    report.problem(rows, beyond, "theta", radians, "give radians, 0 for none")
    report.notice(rows, zero, "box 0, 0, 0, 0", "read as missing: the whole photo")
    stood = "the box is of the photo as it is stored"
    report.notice(rows, turned, stood, "turned with it (EXIF)")
    cut &= sound & ~outside & ~stored
    report.notice(rows, cut, "the box reaches over the photo's edge", "cut at the edge")
    report.notice(rows[lost], None, "rotation " + rows["theta"][lost].map(repr), "set to 0")
    return rows.assign(**clipped, theta=theta)


def _upright(
    rows: pd.DataFrame, box: pd.DataFrame, whole: pd.DataFrame, sound: pd.Series, plain: pd.Series
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """The boxes, those of stored photos turned with them; which were; which contradict the photo.

    Boxes are turned where the sizes that the source gives are those of the stored photos, not of
    the upright ones, unless a box in such a photo shows otherwise, or is rotated (not `plain`).
    """
    size = rows[["image_width", "image_height"]].apply(pd.to_numeric, errors="coerce")
    size = size.set_axis(["w", "h"], axis=1)
    size[~size.gt(0).all(axis=1)] = np.nan
    other = ((size - whole).abs() > OTHER_SIZE).any(axis=1) & sound
    turned = rows["turned"].astype(bool) & sound
    right, bottom = box["x"] + box["w"], box["y"] + box["h"]
    upright = (right <= whole["w"] + SLACK) & (bottom <= whole["h"] + SLACK)
    sideways = (right <= whole["h"] + SLACK) & (bottom <= whole["w"] + SLACK)
    as_upright, as_stored = turned & upright & ~sideways, turned & sideways
    swapped = whole.set_axis(["h", "w"], axis=1)[["w", "h"]]
    lying = other & turned & ((size - swapped).abs() <= OTHER_SIZE).all(axis=1)
    wrong = as_stored & ~upright
    if wrong.any() and not as_upright.any():
        wrong = as_stored  # whoever drew these saw none of the photos upright
    told = turned & upright & ~size["w"].isna() & ~other  # its size was written down upright
    stored, exif = (wrong & ~told) | (other & ~as_upright), pd.Series(1, rows.index)
    if lying.any() and not (lying & as_upright).any():
        # whoever wrote these sizes saw no photo upright, those turned by 180 degrees included
        sized = sound & plain & (lying | ~other) & size["w"].notna()
        exif[sized] = rows.loc[sized, "path"].map(_orientation)
    return _turned(box, size, exif), exif != 1, stored & (exif == 1)


def _orientation(path: Path | str) -> int:
    """A photo's EXIF orientation, 1 (upright) to 8; 1 for none."""
    with contextlib.suppress(UNREADABLE), open_photo(path) as opened:
        found = opened.getexif().get(ExifTags.Base.Orientation)
        return found if found in TURNS else 1
    return 1


def _turned(box: pd.DataFrame, size: pd.DataFrame, exif: pd.Series) -> pd.DataFrame:
    """Boxes in stored photos of a size as they lie in the upright ones; `exif`: 1 for the same."""
    right, below = size["w"] - box["x"] - box["w"], size["h"] - box["y"] - box["h"]
    x = box["x"].mask(exif.isin([2, 3, 7, 8]), right)
    y = box["y"].mask(exif.isin([3, 4, 6, 7]), below)
    upright, lying = box.assign(x=x, y=y), exif >= 5
    upright.loc[lying] = upright.loc[lying, ["y", "x", "h", "w"]].to_numpy()
    return upright


def _clipped(
    box: pd.DataFrame, whole: pd.DataFrame, upright: pd.Series
) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Upright boxes cut at the photo's edge; which have too little in it; which lost some to it.

    The corners of a rotated box may leave the photo (its chip is white there), its centre may not.
    """
    reach = 2 * np.hypot(whole["w"], whole["h"])  # of what could be meant by a rotated box
    clipped, outside = box.copy(), (box[["w", "h"]].max(axis=1) > reach) & ~upright
    cut, left = pd.Series(False, box.index), pd.Series(1.0, box.index)
    for start, length in (("x", "w"), ("y", "h")):
        first, last, edge = box[start], box[start] + box[length], whole[length]
        middle = first + box[length] / 2
        cut |= upright & ((first < -SLACK) | (last > edge + SLACK))
        beyond = upright & ((first < 0) | (last > edge))
        clipped[start] = first.mask(beyond, first.clip(lower=0))
        clipped[length] = box[length].mask(beyond, last.clip(upper=edge) - clipped[start])
        left *= (clipped[length] / box[length]).clip(lower=0)
        out = ((first >= edge) | (last <= 0)).where(upright, (middle < 0) | (middle > edge))
        outside |= out
    return clipped, outside | (upright & cut & ~(left >= 0.5)), cut


def similar(rows: pd.DataFrame, report: Report) -> None:
    """Labels that could be one, but for capitals, accents, spaces, zeros or a letter."""
    for columns in (["species"], ["species", "name"]):
        *within, column = columns
        seen = rows[rows[column] != ""].groupby(columns, sort=False).head(1)[["row", *columns]]
        plain = seen[column].map(_plain)
        if column == "species":
            plain = _without_slips(plain)
        twin = seen.groupby([*within, plain])[column].transform("first")
        what = f"{column} " + seen[column].map(repr) + " is much like " + twin.map(repr)
        done = "kept as two: spell them alike if they are one"
        report.notice(seen, twin != seen[column], what, done)


def _plain(label: str) -> str:
    """A label without capitals, accents, signs between words, and zeros around a number."""
    letters = (c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))
    number = re.fullmatch(r"0*(\d+)(?:\.0+)?", label)
    return number[1] if number else re.sub(r"[\s_.-]+", " ", "".join(letters)).casefold()


def _without_slips(labels: pd.Series) -> pd.Series:
    """Each label, or an earlier one that is spelt nearly so, with the same digits."""
    if len(labels) > 500:  # which would take long
        return labels
    kept: dict[str, str] = {}
    for label in labels:
        numbered = [other for other in kept.values() if _digits(other) == _digits(label)]
        near = get_close_matches(label, numbered, n=1, cutoff=NEAR)
        kept.setdefault(label, near[0] if near else label)
    return labels.map(kept)


def _digits(label: str) -> list[str]:
    return re.findall(r"\d", label)


def doubled(rows: pd.DataFrame, report: Report) -> None:
    """Copies of a photo under another name, of the same box in it."""
    rows = rows[rows["size"].duplicated(keep=False) & (rows["problem"] == "")]
    rows = rows[rows.duplicated(["size", "width", "height", *BOX, "theta"], keep=False)]
    contents = {path: file_digest(path) for path in rows["path"].unique()}
    copies = rows.groupby([rows["path"].map(contents), *BOX, "theta"])
    first, owner = (copies[name].transform("first") for name in ("row", "individual"))
    later = (copies["key"].transform("nunique") > 1) & (rows["row"] != first)
    other = (rows["individual"] != owner).map({True: ", of another animal", False: ""})
    report.notice(rows, later, "the same photo as " + first + other, "kept")


def repeated(rows: pd.DataFrame, report: Report) -> None:
    """Rows that say the same twice, contradict each other, or share an id.

    Of two that say the same the one without another problem stays.
    """
    animal = rows["species"] + "\n" + rows["name"]
    rows = rows.assign(animal=animal, wrong=report.wrong(rows))
    sound = rows[np.isfinite(rows[[*BOX, "theta"]]).all(axis=1) & (rows["key"] != "")]
    sound = sound.sort_values("wrong", kind="stable")
    content = ["key", *BOX, "theta", "species", "name"]
    twice = sound.duplicated(content)
    first = "same as " + sound.groupby(content)["row"].transform("first")
    report.problem(sound, twice, "file", first, "keep one of them")
    named = sound[sound["name"] != ""]
    names = named.groupby(["key", *BOX])["animal"].transform("nunique")
    two = "one box of one photo has two names"
    report.problem(named, names > 1, "name", two, "keep the right one")
    given = rows[~rows["made"] & ~rows.index.isin(sound.index[twice])]
    again = given["annotation_id"].duplicated(keep=False)
    shared = "id " + given["annotation_id"] + " is given to several annotations"
    report.problem(given, again, "annotation_id", shared, "give each annotation its own")


def nothing_to_evaluate(rows: pd.DataFrame, report: Report) -> None:
    """Species of which no individual has annotations of two encounters."""
    sighting = rows["encounter"].mask(rows["encounter"] == "", rows["annotation_id"])
    encounters = sighting.groupby([rows["species"], rows["individual"]]).transform("nunique")
    able = (encounters > 1).groupby(rows["species"]).transform("any")
    problem = "species with nothing to evaluate: no individual has annotations of two encounters"
    remedy = "add photos of known individuals or leave the species out"
    report.problem(rows, ~able, "species", problem, remedy)

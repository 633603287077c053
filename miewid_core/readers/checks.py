"""What can be wrong with the rows of a catalog, and the remedy; what is odd, and what was done."""

import re
import unicodedata

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from miewid_core.catalog import BOX, note, notice
from miewid_core.files import file_digest
from miewid_core.photos import orientation

SLACK = 1.0  # pixels by which rounding may push a box out of its photo
FULL_TURN = 6.3  # radians: what is more was meant as degrees
OTHER_SIZE = 2.0  # pixels by which a photo's size may differ from the one in a COCO export
SHARED = 1 / 3  # of all encounters: if nothing joins more, they number each animal's visits
BURST, SPREAD = 600, 86_400  # seconds between files of one burst; that files' times must span


def labels(rows: pd.DataFrame, sides: set[str]) -> list[pd.DataFrame]:
    """Rows without a needed label, with damaged ones, or with what only a computer tells apart."""
    unsided = rows["species"].isin(sides) & (rows["viewpoint"] == "")
    found = [
        note(rows, rows["species"] == "", "species", "no species", NO_SPECIES),
        note(rows, unsided, "viewpoint", "no viewpoint, but sides differ", "left or right?"),
        *(_garbled(rows, column) for column in LABELS),
    ]
    return [*found, *(_alike(rows, columns) for columns in (["species"], ["species", "name"]))]


NO_SPECIES = "fill it in, put the photo at species/individual/, or give species as a parameter"


def files(rows: pd.DataFrame) -> pd.DataFrame:
    """What is wrong with the photos' files."""
    return note(rows, rows["problem"] != "", "file", rows["problem"], rows["remedy"])


def boxes(
    rows: pd.DataFrame,
) -> tuple[pd.DataFrame, list[pd.DataFrame], list[pd.DataFrame]]:
    """The rows with boxes and rotations as numbers, what is wrong with them, and what was mended.

    `rows`: row, file, x, y, w, h, theta, image_width, image_height as text; width and height of the
    upright photo in pixels, and whether it is `turned`. A box is cut at the photo's edge, unless
    less than half of it would be left. A rotation that is no number becomes 0.
    """
    numbers = rows[[*BOX, "theta"]].apply(pd.to_numeric, errors="coerce").astype(float) + 0.0
    zero = (numbers[BOX] == 0).all(axis=1)  # how some programs write that there is none
    given = (rows[BOX] != "").any(axis=1) & ~zero
    whole = rows[["width", "height"]].astype(float).set_axis(["w", "h"], axis=1)
    box = numbers[BOX].where(given, whole.assign(x=0.0, y=0.0))
    lost = ~np.isfinite(numbers["theta"]) & (rows["theta"] != "") | (rows["theta"] == "")
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
    cut &= sound & ~outside & ~stored
    shares = given & ~odd & ~empty & (box.abs() <= 1).all(axis=1)
    found = [
        _box_note(rows, odd, " is not four finite numbers", "give pixels, with a point"),
        _box_note(rows, empty, " is empty", "give a width and height above 0"),
        _box_note(rows, shares, " is a single pixel", "give pixels, not parts of 1"),
        _box_note(rows, outside, " is outside the image of ", OUTSIDE, sized=True),
        _box_note(rows, stored, STORED, "give boxes of the upright photo", sized=True),
        _degrees(rows, theta),
    ]
    told = [
        notice(rows, zero, "box 0, 0, 0, 0", "read as missing: the whole photo"),
        notice(rows, turned, "the box is of the photo as it is stored", "turned with it (EXIF)"),
        notice(rows, cut, "the box reaches over the photo's edge", "cut at the edge"),
        notice(rows, lost, _quoted("rotation ", rows["theta"], lost), "set to 0"),
    ]
    return rows.assign(**clipped, theta=theta), found, told


OUTSIDE = "correct it: x, y of the upper left corner, width, height"
STORED = " is of the photo as it is stored, not of the upright one (EXIF) of "


def _quoted(word: str, texts: pd.Series, bad: pd.Series) -> pd.Series:
    return word + texts[bad].map(repr).reindex(texts.index)


def _box_note(
    rows: pd.DataFrame, bad: pd.Series, problem: str, remedy: str, sized: bool = False
) -> pd.DataFrame:
    few = rows[bad.to_numpy(bool)]
    words = "box " + few["x"] + ", " + few["y"] + ", " + few["w"] + ", " + few["h"] + problem
    if sized:
        words += few["width"].astype(str).str.removesuffix(".0")
        words += " x " + few["height"].astype(str).str.removesuffix(".0")
    return note(few, None, ", ".join(BOX), words, remedy)


def _degrees(rows: pd.DataFrame, theta: pd.Series) -> pd.DataFrame:
    """Rotations beyond a full turn; all of them, where these are too many to be slips."""
    beyond = theta.abs() > FULL_TURN
    if beyond.sum() > max(1, 0.02 * (theta != 0).sum()):
        beyond = theta != 0
    few = rows[beyond.to_numpy(bool)]
    turn = "rotation '" + few["theta"] + "' is no finite number of radians, at most a full turn"
    return note(few, None, "theta", turn, "give radians, 0 for none")


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
        exif[sized] = rows.loc[sized, "path"].map(orientation)
    return _turned(box, size, exif), exif != 1, stored & (exif == 1)


def _turned(box: pd.DataFrame, size: pd.DataFrame, exif: pd.Series) -> pd.DataFrame:
    """Boxes in stored photos of a size as they lie in the upright ones; `exif`: 1 for the same."""
    right, below = size["w"] - box["x"] - box["w"], size["h"] - box["y"] - box["h"]
    x = box["x"].mask(exif.isin([2, 3, 7, 8]), right)
    y = box["y"].mask(exif.isin([3, 4, 6, 7]), below)
    sides, lying = pd.DataFrame({"x": x, "y": y, "w": box["w"], "h": box["h"]}), exif >= 5
    sides.loc[lying] = sides.loc[lying, ["y", "x", "h", "w"]].to_numpy()
    return sides


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


def left_out(rows: pd.DataFrame, named: bool) -> tuple[pd.Series, list[pd.DataFrame]]:
    """Which rows are no annotations of known animals, and notices of them."""
    files = pd.Series(rows["file"].unique(), dtype=object)
    system = rows["file"].isin(files[files.str.contains(r"(?:^|/)\._[^/]*$", regex=True)])
    nameless = (rows["name"] == "") & ~system & named
    told = [
        notice(rows, system, "a file that macOS leaves beside others (._)", "left out"),
        notice(rows, nameless, "no name", "left out: unknown individual"),
    ]
    return system | nameless, told


def similar(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Labels that could be one, but for capitals, accents, spaces, zeros or a letter."""
    return [_similar(rows, columns) for columns in (["species"], ["species", "name"])]


def _similar(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    *within, column = columns
    labels = rows[rows[column] != ""].groupby(columns, sort=False).head(1)[["row", *columns]]
    labels = labels.assign(plain=labels[column].map(_plain))
    if column == "species":
        labels["plain"] = _without_slips(labels["plain"].tolist())
    twin = labels.groupby([*within, "plain"])[column].transform("first")
    what = f"{column} " + labels[column].map(repr) + " is much like " + twin.map(repr)
    odd = twin != labels[column]
    return notice(labels, odd, what, "kept as two: spell them alike if they are one")


def _plain(label: str) -> str:
    """A label without capitals, accents, signs between words, and zeros around a number."""
    letters = (c for c in unicodedata.normalize("NFKD", label) if not unicodedata.combining(c))
    number = re.fullmatch(r"0*(\d+)(?:\.0+)?", label)
    return number[1] if number else re.sub(r"[\s_.-]+", " ", "".join(letters)).casefold()


def _without_slips(labels: list[str]) -> list[str]:
    """Each label, or the first one that differs from it by one letter or two swapped ones."""
    if len(labels) > 500:  # which would take long
        return labels
    kept: list[str] = []
    for label in dict.fromkeys(labels):
        if not any(_slip(label, other) for other in kept):
            kept.append(label)
    return [next((k for k in kept if k == label or _slip(label, k)), label) for label in labels]


def _slip(one: str, other: str) -> bool:
    """Whether two labels of five letters or more differ by one letter, or by two swapped ones."""
    if min(len(one), len(other)) < 5 or abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    start = min(len(one), len(other)) if start is None else start
    a, b = one[start:], other[start:]
    swapped = a[1::-1] == b[:2] and a[2:] == b[2:]
    slip = a[1:] == b[1:] or a[1:] == b or a == b[1:] or swapped
    return slip and (a[:1] + b[:1]).isalpha()


def doubled(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Copies of a photo under another name, of the same box in it."""
    rows = rows[rows["size"].duplicated(keep=False) & (rows["problem"] == "")]
    rows = rows[rows.duplicated(["size", "width", "height", *BOX, "theta"], keep=False)]
    contents = {path: file_digest(path) for path in rows["path"].unique()}
    rows = rows.assign(content=rows["path"].map(contents))
    copies = rows.groupby(["content", *BOX, "theta"])
    first, owner = (copies[name].transform("first") for name in ("row", "individual"))
    later = (copies["key"].transform("nunique") > 1) & (rows["row"] != first)
    other = (rows["individual"] != owner).map({True: ", of another animal", False: ""})
    return [notice(rows, later, "the same photo as " + first + other, "kept")]


def encounters(rows: pd.DataFrame) -> tuple[pd.Series, list[pd.DataFrame]]:
    """Encounters whose ids are each animal's own where they aren't a herd's, and notices.

    An id that several animals have is a herd's where these are joined by a photo of several, by
    dates, or else by files of one burst. It numbers the visits of each animal where they are not
    joined, and have different dates or species, or where so it is with more than a third of all
    ids; then it is counted for each animal alone.
    """
    known = rows[rows["encounter"] != ""]
    animal = known["species"] + "/" + known["name"]
    shared = animal.groupby(known["encounter"]).nunique() > 1
    known = known.assign(animal=animal)[known["encounter"].isin(shared.index[shared])]
    if known.empty:
        return rows["encounter"], []
    known = known.assign(group=_joined(known, rows["changed"]))
    ids = known.groupby("encounter")
    apart = ids["group"].nunique() > 1
    dated = known[known["date"].notna()].groupby("encounter")
    days, seen = (
        dated[name].nunique().reindex(apart.index).fillna(0) for name in ("group", "animal")
    )
    apart &= ~((days == 1) & (seen > 1) & (2 * seen >= ids["animal"].nunique()))  # most, on one day
    told = (days > 1) | (ids["species"].nunique() > 1)
    silent = apart & ~told
    own = apart & (told | (silent.sum() > SHARED * len(shared)))
    bad = known["encounter"].isin(own.index[own])
    changed = known.loc[bad, "animal"] + ": " + known.loc[bad, "encounter"]
    first = known[bad].drop_duplicates("encounter")
    first = first.assign(row="encounter " + first["encounter"])
    notices = [notice(first, None, NUMBERED, "counted per individual")]
    return rows["encounter"].mask(rows.index.isin(changed.index), changed), notices


NUMBERED = "encounter ids shared by animals that no photo, date or file time shows together"


def _joined(rows: pd.DataFrame, changed: pd.Series) -> np.ndarray:
    """Numbers of groups: animals of an encounter are in one if files, dates or bursts join them."""
    rows = rows.assign(day=rows["date"].dt.floor("D"), burst=_bursts(rows, changed))
    animals = rows.groupby(["encounter", "animal"]).ngroup().to_numpy()
    links, nodes = [], animals.max() + 1
    for sign in ("key", "day", "burst"):
        known = rows[rows[sign].notna() & (rows[sign] != "")]
        seen = known.groupby(["encounter", sign]).ngroup().to_numpy()
        links.append(np.column_stack([animals[rows.index.get_indexer(known.index)], seen + nodes]))
        nodes += len(known)
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


def repeated(rows: pd.DataFrame, wrong: pd.Index) -> list[pd.DataFrame]:
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


def nothing_to_evaluate(rows: pd.DataFrame) -> pd.DataFrame:
    sighting = rows["encounter"].mask(rows["encounter"] == "", rows["annotation_id"])
    encounters = sighting.groupby([rows["species"], rows["individual"]]).transform("nunique")
    able = (encounters > 1).groupby(rows["species"]).transform("any")
    problem = "species with nothing to evaluate: no individual has annotations of two encounters"
    remedy = "add photos of known individuals or leave the species out"
    return note(rows, ~able, "species", problem, remedy)


LABELS = ("species", "name", "viewpoint", "encounter", "annotation_id")
# line breaks and other control characters, and what stands for text of a wrong encoding
GARBLED = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]")


def _garbled(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    bad = [label for label in rows[column].unique() if GARBLED.search(label)]
    few = rows[rows[column].isin(bad)]
    problem = f"{column} " + few[column].map(ascii) + " has a line break or a damaged character"
    return note(few, None, column, problem, "write it without")


def _alike(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows whose last column looks like another's; the plainest spelling stays, if it is there."""
    *within, column = columns
    seen = {label: shown(label) for label in rows[column].unique()}
    odd = {look for label, look in seen.items() if look != label}
    few = rows[rows[column].isin([label for label, look in seen.items() if look in odd])]
    few = few.assign(look=few[column].map(seen))
    several = few.groupby([*within, "look"])[column].transform("nunique") > 1
    few = few[several & (few["look"] != few[column])]
    problem = f"{column} " + few[column].map(ascii) + " looks like another, but isn't the same"
    return note(few, None, column, problem, "write both with the same characters")


def shown(label: str) -> str:
    """A label as it is seen: composed letters, single spaces, nothing that has no width."""
    seen = (c for c in unicodedata.normalize("NFC", label) if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).split())

"""What can be wrong with the rows of a catalog, and the remedy."""

import re
import unicodedata

import numpy as np
import pandas as pd

from miewid_core.catalog import BOX, note

SLACK = 1.0  # pixels by which rounding may push a box out of its photo
FULL_TURN = 6.3  # radians: what is more was meant as degrees
YEAR = r"(?:18|19|20)\d\d"  # of photos; pandas also reads "now" and the years -1 and 9999


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
        *problems(rows),
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


def _nothing_to_evaluate(rows: pd.DataFrame) -> pd.DataFrame:
    sighting = rows["encounter"].mask(rows["encounter"] == "", rows["annotation_id"])
    encounters = sighting.groupby([rows["species"], rows["individual"]]).transform("nunique")
    able = (encounters > 1).groupby(rows["species"]).transform("any")
    problem = "species with nothing to evaluate: no individual has annotations of two encounters"
    remedy = "add photos of known individuals or leave the species out"
    return note(rows, ~able, "species", problem, remedy)


LABELS = ("species", "name", "viewpoint", "encounter", "annotation_id")
# line breaks and other control characters, and what stands for text of a wrong encoding
GARBLED = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]")


def problems(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Labels with control or damaged characters, and names that only a computer can tell apart."""
    found = [_garbled(rows, column) for column in LABELS]
    found += [_alike(rows, ["species"]), _alike(rows, ["species", "name"])]
    return [part for part in found if part is not None]


def _garbled(rows: pd.DataFrame, column: str) -> pd.DataFrame | None:
    labels = [label for label in rows[column].unique() if GARBLED.search(label)]
    if not labels:
        return None
    bad = rows[column].isin(labels)
    problem = f"{column} " + rows[column].map(ascii) + " has a line break or a damaged character"
    return note(rows, bad, column, problem, "write it without")


def _alike(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame | None:
    """Rows whose last column looks like another's; the plainest spelling stays, if it is there."""
    *within, column = columns
    if all(shown(label) == label for label in rows[column].unique()):
        return None
    labels = rows[columns].drop_duplicates()
    seen = labels[column].map(shown)
    twice = labels.assign(seen=seen).duplicated([*within, "seen"], keep=False)
    odd = pd.MultiIndex.from_frame(labels[twice & (seen != labels[column])])
    bad = pd.Series(pd.MultiIndex.from_frame(rows[columns]).isin(odd), rows.index)
    problem = f"{column} " + rows[column].map(ascii) + " looks like another, but isn't the same"
    return note(rows, bad, column, problem, "write both with the same characters")


def shown(label: str) -> str:
    """A label as it is seen: composed letters, single spaces, nothing that has no width."""
    seen = (c for c in unicodedata.normalize("NFC", label) if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).split())

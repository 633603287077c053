"""Labels that look alike and are not the same, and characters that nobody can have meant."""

import re
import unicodedata

import pandas as pd

from miewid_core.problems import note

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

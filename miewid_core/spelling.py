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
    garbled = [_garbled(rows, column) for column in LABELS]
    return [*garbled, _alike(rows, ["species"]), _alike(rows, ["species", "name"])]


def _garbled(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    bad = rows[column].isin([label for label in rows[column].unique() if GARBLED.search(label)])
    label = rows.loc[bad, column].map(ascii)
    problem = f"{column} " + label + " has a line break or a damaged character"
    return note(rows, bad, column, problem, "write it without")


def _alike(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows whose last column looks like another's; the plainest spelling stays, if it is there."""
    labels = rows[columns].drop_duplicates()
    *within, column = columns
    seen = labels[column].map(shown)
    twice = labels.assign(seen=seen).duplicated([*within, "seen"], keep=False)
    odd = pd.MultiIndex.from_frame(labels[twice & (seen != labels[column])])
    bad = pd.Series(pd.MultiIndex.from_frame(rows[columns]).isin(odd), rows.index)
    problem = f"{column} " + rows.loc[bad, column].map(ascii) + " looks like another, but isn't it"
    return note(rows, bad, column, problem, "write both with the same characters")


def shown(label: str) -> str:
    """A label as it is seen: composed letters, single spaces, nothing that has no width."""
    seen = (c for c in unicodedata.normalize("NFC", label) if unicodedata.category(c) != "Cf")
    return " ".join("".join(seen).split())

"""The catalog: one table of annotations of known individuals, and what was noticed about it."""

from collections.abc import Collection

import numpy as np
import pandas as pd

LABELS = ["species", "name", "individual", "viewpoint", "encounter", "family"]
TEXT = ["annotation_id", "path", *LABELS]
BOX = ["x", "y", "w", "h"]
COLUMNS = [*TEXT, "date", *BOX, "theta"]
PLACE = ["station", "latitude", "longitude"]  # text, in a catalog whose source has them
PROBLEM = ["row", "file", "column", "problem", "remedy"]
NOTICE = ["row", "what", "done"]


class CatalogError(ValueError):
    """What is wrong with a catalog: `problems` has row, file, column, problem, remedy."""

    def __init__(self, told: str, problems: pd.DataFrame) -> None:
        super().__init__(told)
        self.problems = problems.reset_index(drop=True)


class CatalogWarning(UserWarning):
    """Rows were dropped from a catalog; the text says which and why."""


def individuals(rows: pd.DataFrame, sides_differ: Collection[str] = ()) -> pd.Series:
    """What an individual is: species/name, and the side in species of `sides_differ` (section 3.2).

    `rows`: species, name, viewpoint. "/" and "%" in labels are escaped: only ours separate.
    """
    species, name = (
        rows[label].str.replace("%", "%25", regex=False).str.replace("/", "%2F", regex=False)
        for label in ("species", "name")
    )
    whole, differ = species + "/" + name, rows["species"].isin(list(sides_differ))
    return whole.mask(differ, whole + "/" + sides(rows["viewpoint"])) if differ.any() else whole


def sides(viewpoint: pd.Series) -> pd.Series:
    """left or right, of viewpoints such as frontleft and right; "" for front, back, up, none."""
    left = viewpoint.str.contains("left") | viewpoint.isin(["l", "lt"])
    right = viewpoint.str.contains("right") | viewpoint.isin(["r", "rt"])
    named = np.select([left & ~right, right & ~left], ["left", "right"], "")
    return pd.Series(named, viewpoint.index, dtype=object)


def notices(annotations: pd.DataFrame) -> pd.DataFrame:
    """What was noticed when a table was read: NOTICE (row, what, and what was done), in words.

    Rows that were dropped because of a problem come last, with the remedy.
    """
    told = pd.DataFrame(annotations.attrs.get("notices", []), columns=NOTICE)
    dropped = pd.DataFrame(annotations.attrs.get("dropped", []), columns=PROBLEM)
    lost = pd.DataFrame(
        {
            "row": dropped["row"],
            "what": dropped["file"] + ": " + dropped["problem"],
            "done": "left out: " + dropped["remedy"],
        }
    )
    return pd.concat([told, lost], ignore_index=True).astype(str)

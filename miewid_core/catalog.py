"""The catalog: one table of annotations of known individuals, and what was noticed about it."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

LABELS = ["species", "name", "individual", "viewpoint", "encounter", "family"]
TEXT = ["annotation_id", "path", *LABELS]
BOX = ["x", "y", "w", "h"]
COLUMNS = [*TEXT, "date", *BOX, "theta"]
PLACE = ["station", "latitude", "longitude"]  # text, in a catalog whose source has them
PROBLEM = ["row", "file", "column", "problem", "remedy"]
NOTICE = ["row", "what", "done"]
KINDS = 20  # so many different notices are listed of those with one consequence
Words = str | pd.Series  # the same for all rows, or of each row


class CatalogError(ValueError):
    """What is wrong with a catalog: `problems` has row, file, column, problem, remedy."""

    def __init__(self, source: object, problems: pd.DataFrame) -> None:
        self.problems = problems.reset_index(drop=True)
        super().__init__(f"{called(source)}: {listed(problems)}")


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


def fatal(source: object, problems: list[tuple[str, str, str]]) -> CatalogError:
    """An error about the catalog as a whole: column, problem and remedy of each."""
    whole = pd.DataFrame(problems, columns=PROBLEM[2:]).assign(row="", file="")
    return CatalogError(source, whole[PROBLEM])


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

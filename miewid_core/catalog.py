"""The catalog: one table of annotations of known individuals, and what can be wrong with it."""

from pathlib import Path

import pandas as pd

LABELS = ["species", "name", "individual", "viewpoint", "encounter", "family"]
TEXT = ["annotation_id", "path", *LABELS]
BOX = ["x", "y", "w", "h"]
COLUMNS = [*TEXT, "date", *BOX, "theta"]
PROBLEM = ["row", "file", "column", "problem", "remedy"]
Words = str | pd.Series  # the same for all rows, or of each row


class CatalogError(ValueError):
    """What is wrong with a catalog: `problems` has row, file, column, problem, remedy."""

    def __init__(self, source: object, problems: pd.DataFrame) -> None:
        self.problems = problems.reset_index(drop=True)
        super().__init__(f"{called(source)}: {listed(problems)}")


class CatalogWarning(UserWarning):
    """Rows were dropped from a catalog; the text says which and why."""


def note(
    rows: pd.DataFrame, bad: pd.Series, column: str, problem: Words, remedy: Words
) -> pd.DataFrame:
    """Columns PROBLEM for each row where `bad`, indexed as the rows."""
    noted = rows[["row", "file"]].assign(column=column, problem=problem, remedy=remedy)
    return noted[bad.to_numpy(bool)]


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

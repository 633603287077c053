"""Are regenerated tables the committed ones? Equal, within their intervals, or named."""

import io
import itertools
import json
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core.files import file_digest
from miewid_core.paper import manifest

MEASURED_FILES = "performance_"  # how their names start: measured times and memory
MEASURED = {"seconds", "photos_per_second", "slowest", "fastest"}  # columns of other tables
ENDS = (
    "low",
    "high",
    "p",
    "deviation",
    "same_sign",
)  # of columns that tell how sure the one beside them is
ROUNDING = 1e-6  # relative: differences below are float32's
SHOWN = 5  # differences of a file that are printed
COLUMNS = ["file", "row", "column", "committed", "now", "within"]


def verify(folder: Path) -> tuple[bool, str]:
    """Whether the tables in `folder` agree with those at git's HEAD, and a report in words.

    Raises ValueError where the folder, git, or a committed manifest is missing.
    """
    folder = Path(folder)
    committed, now = json.loads(_committed(folder, manifest.NAME)), manifest.read(folder)
    found = changes(folder, manifest.digests(committed), manifest.digests(now))
    tables = _tables(manifest.digests(committed)) | _tables(manifest.digests(now))
    agrees = found.groupby("file")["within"].all()
    moved, differ = int(agrees.sum()), int((~agrees).sum())
    summary = f"{len(tables) - len(agrees)} files equal, {moved} within their intervals"
    told = [
        *_listed(found),
        f"Measured times and memory were left out: {MEASURED_FILES}*.csv, and in other tables the "
        f"columns {', '.join(sorted(MEASURED))}.",
        *_doubts(folder, committed, now),
        f"Committed: {made_with(committed)}",
        f"Now: {made_with(now)}",
        f"{summary}, {differ} differ.",
    ]
    return not differ, "\n".join(told)


def changes(folder: Path, committed: dict[str, str], now: dict[str, str]) -> pd.DataFrame:
    """One row for each number, row, column or file that isn't the committed one; see COLUMNS.

    `committed`, `now`: the files that both manifests name. `within`: whether it is a number inside
    the committed 95 % interval of its row.
    """
    found = []
    for name in sorted(_tables(committed)):
        before, path = _committed(folder, name), folder / name
        if not path.is_file():
            found.append((name, "", "", "a file", "missing", False))
        elif path.read_bytes() != before:
            found += [(name, *cell) for cell in compared(before, path.read_bytes())]
    new = sorted(_tables(now) - _tables(committed))
    found += [(name, "", "", "missing", "a file", False) for name in new]
    return pd.DataFrame(found, columns=COLUMNS).astype({"within": bool})


def _tables(names: dict[str, str]) -> set[str]:
    csv = (name for name in names if name.endswith(".csv"))
    return {name for name in csv if not name.startswith(MEASURED_FILES)}


def compared(before: bytes, after: bytes) -> Iterator[tuple[str, str, object, object, bool]]:
    """What differs between two CSV files: row, column, before, after, whether within.

    Rows are matched by their texts, and in their order where these are equal. The ends of an
    interval, its p-value and deviation follow their estimate: they aren't compared.
    """
    old, new = _read(before), _read(after)
    for column in old.columns.symmetric_difference(new.columns, sort=False):
        yield "", column, *_in_one("a column", column in old), False
    shared = [column for column in old if column in new and column not in MEASURED]
    numeric = [name for name in shared if _is_numeric(old[name]) and _is_numeric(new[name])]
    texts = [name for name in shared if name not in numeric]
    old, new = _by_texts(old, texts), _by_texts(new, texts)
    for key in old.index.symmetric_difference(new.index, sort=False):
        label = (old if key in old.index else new)["label"][key]
        yield label, "", *_in_one("a row", key in old.index), False
    both = old.index.intersection(new.index, sort=False)
    labels, old, new = old["label"][both], old.loc[both, numeric], new.loc[both, numeric]
    yield from _numbers(labels.tolist(), old.astype(float), new.astype(float))


def _numbers(
    labels: list[str], old: pd.DataFrame, new: pd.DataFrame
) -> Iterator[tuple[str, str, float, float, bool]]:
    """As `compared`, of numbers in matched rows and columns."""
    known = intervals(old)
    ends = list(itertools.chain(*known.values()))
    for column in old.columns.drop(ends):
        low, high = (old[end] for end in known[column][:2]) if column in known else (np.inf, np.inf)
        differs = ~np.isclose(old[column], new[column], rtol=ROUNDING, atol=1e-9, equal_nan=True)
        within = (low <= new[column]) & (new[column] <= high)
        for i in np.flatnonzero(differs):
            one, other = old[column].iloc[i], new[column].iloc[i]
            yield labels[i], column, one, other, bool(within.iloc[i])


def intervals(table: pd.DataFrame) -> dict[str, list[str]]:
    """Each column with a 95 % interval: its low and high end, then its p-value and deviation.

    `name_low`, `name_high` belong to `name`; without such a column, as plain `low` and `high`, to
    the column on their left.
    """
    columns, found = list(table), {}
    for place, column in enumerate(columns):
        stem = column.removesuffix("low")
        if stem == column or stem[-1:] not in ("", "_") or f"{stem}high" not in columns:
            continue
        name = stem[:-1] if stem[:-1] in columns else columns[max(place - 1, 0)]
        found[name] = [f"{stem}{end}" for end in ENDS if f"{stem}{end}" in columns]
    return found


def _read(content: bytes) -> pd.DataFrame:
    """A saved table; its first line may be a comment with the digest of the rest."""
    skipped = int(content.startswith(b"# "))
    options = {"skiprows": skipped, "encoding": "utf-8-sig", "keep_default_na": False}
    return pd.read_csv(io.BytesIO(content), na_values=[""], low_memory=False, **options)


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def _in_one(what: str, committed: bool) -> tuple[str, str]:
    return (what, "missing") if committed else ("missing", what)


def _by_texts(table: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """The table, its index each row's texts and how often they stood above; a column `label`."""
    joined = [" | ".join(row) for row in table[texts].astype(str).to_numpy().tolist()]
    names = pd.Series(joined, dtype=str)
    firsts = enumerate(table.iloc[:, 0].astype(str), 1)
    labels = [textwrap.shorten(f"{row}: {first}", 40) for row, first in firsts]
    index = pd.MultiIndex.from_arrays([names, names.groupby(names).cumcount()])
    return table.assign(label=labels).set_index(index)


def _listed(found: pd.DataFrame) -> Iterator[str]:
    """Lines for the files that aren't equal."""
    for name, own in found.groupby("file"):
        differs = own[~own["within"]]
        moved = len(own) - len(differs)
        yield f"{name}: {moved} numbers moved within their intervals, {len(differs)} differ"
        for row in differs.head(SHOWN).itertuples():
            where = ", ".join(filter(None, (row.row and f"row {row.row}", row.column)))
            yield f"  {where or 'file'}: committed {_number(row.committed)}, now {_number(row.now)}"
        if len(differs) > SHOWN:
            yield f"  and {len(differs) - SHOWN} more"


def _number(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _doubts(folder: Path, committed: dict[str, dict], now: dict[str, dict]) -> Iterator[str]:
    """Sentences on files that may not be what they seem."""
    same = [name for name in committed if now.get(name) == committed[name]]
    if same:
        yield (
            f"{len(same)} of {len(committed)} notebooks have the committed entry: they did not run "
            "again, or at the same commit on the same machine."
        )
    changed = [
        name
        for name, digest in sorted(manifest.digests(now).items())
        if (folder / name).is_file() and file_digest(folder / name) != digest
    ]
    if changed:
        yield f"Changed since the command line ran their notebooks: {', '.join(changed)}."


def made_with(entries: dict[str, dict]) -> str:
    """The commits, machines and versions of a manifest."""
    found = []
    for entry in entries.values():
        told = entry["versions"]
        processor = f"{told['device']} ({told['instructions']}), threads {told['threads']}"
        commit = (told["commit"] or "unknown")[:7]
        found.append(f"commit {commit}, {processor}, torch {told['torch']}")
    return "; ".join(sorted(set(found))) or f"no {manifest.NAME}"


def _committed(folder: Path, name: str) -> bytes:
    """A file of the folder as it is at HEAD; ValueError where git can't tell."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    try:
        command = ["git", "show", f"HEAD:./{name}"]
        return subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise ValueError("git is not installed: it knows what the committed tables are") from None
    except subprocess.CalledProcessError:
        told = f"git has no committed {name} in {folder}: nothing to compare with there"
        raise ValueError(f"{told}; it must be a folder of figures in a git checkout") from None

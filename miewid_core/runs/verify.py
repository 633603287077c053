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
from miewid_core.runs import manifest

MEASURED_FILES = "performance_"  # how their names start: measured times and memory
MEASURED = {"seconds", "photos_per_second", "relative", "slowest", "fastest"}  # of other tables
SURE = ("low", "high", "p", "deviation", "same_sign")  # how sure the column beside them is
ROUNDING = 1e-6  # relative: differences below are float32's
SHOWN = 5  # differences of a file that are printed
COLUMNS = ["row", "column", "committed", "now", "within"]


def verify(folder: Path) -> tuple[bool, str]:
    """Whether the tables in `folder` agree with those at git's HEAD, and a report in words.

    Raises ValueError where the folder, git, or a committed manifest is missing.
    """
    folder = Path(folder)
    committed, now = json.loads(_committed(folder, manifest.NAME)), manifest.read(folder)
    before, after = (manifest.digests(entries) for entries in (committed, now))
    saved = [name for name in sorted(before | after) if name.endswith(".csv")]
    tables = [name for name in saved if not name.startswith(MEASURED_FILES)]
    lines, moved, differ = [], 0, 0
    for name in tables:
        old = _committed(folder, name) if name in before else b""
        new = (folder / name).read_bytes() if (folder / name).is_file() else b""
        changed = pd.DataFrame(compared(old, new), columns=COLUMNS).astype({"within": bool})
        if len(changed):
            lines += _in_words(name, changed)
            differ += not changed["within"].all()
            moved += changed["within"].all()
    lines += [
        f"Measured times and memory were left out: {MEASURED_FILES}*.csv, and in other tables the "
        f"columns {', '.join(sorted(MEASURED))}.",
        *_doubts(folder, committed, now),
        f"Committed: {made_with(committed)}",
        f"Now: {made_with(now)}",
        f"{len(tables) - moved - differ} files equal, {moved} within their intervals, "
        f"{differ} differ.",
    ]
    return not differ, "\n".join(lines)


def compared(before: bytes, after: bytes) -> Iterator[tuple[str, str, object, object, bool]]:
    """What differs between two CSV files (b"": missing), as COLUMNS.

    `within`: whether it is a number inside the committed 95 % interval of its row. Rows are matched
    by their texts, and in their order where these are equal. How sure a number is isn't compared.
    """
    if not (before and after):
        yield "", "", *(("a file", "missing") if before else ("missing", "a file")), False
        return
    old, new = _read(before), _read(after)
    for column, *who in _in_one("a column", old.columns, new.columns):
        yield "", column, *who, False
    shared = [column for column in old if column in new and column not in MEASURED]
    is_number = pd.api.types.is_numeric_dtype
    numeric = [name for name in shared if is_number(old[name]) and is_number(new[name])]
    texts = [name for name in shared if name not in numeric]
    old, new = _by_texts(old, texts), _by_texts(new, texts)
    for key, *who in _in_one("a row", old.index, new.index):
        yield (old if key in old.index else new)["label"][key], "", *who, False
    both = old.index.intersection(new.index, sort=False)
    old, new = old.loc[both], new.loc[both]
    known = intervals(old[numeric])
    for column in old[numeric].columns.drop([*itertools.chain(*known.values())]):
        low, high = (old[end] for end in known[column][:2]) if column in known else (np.inf, np.inf)
        one, other = old[column].astype(float), new[column].astype(float)
        differs = ~np.isclose(one, other, rtol=ROUNDING, atol=1e-9, equal_nan=True)
        cells = zip(old["label"], one, other, (low <= other) & (other <= high), strict=True)
        for label, *cell in itertools.compress(cells, differs):
            yield label, column, *cell


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
        found[name] = [f"{stem}{end}" for end in SURE if f"{stem}{end}" in columns]
    return found


def _read(content: bytes) -> pd.DataFrame:
    """A saved table; its first line may be a comment with the digest of the rest."""
    skipped = int(content.startswith(b"# "))
    options = {"skiprows": skipped, "encoding": "utf-8-sig", "keep_default_na": False}
    return pd.read_csv(io.BytesIO(content), na_values=[""], low_memory=False, **options)


def _in_one(what: str, old: pd.Index, new: pd.Index) -> Iterator[tuple[object, str, str]]:
    """The names that one of both lacks, what the committed table has there, and what this one."""
    for name in old.symmetric_difference(new, sort=False):
        yield name, *((what, "missing") if name in old else ("missing", what))


def _by_texts(table: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """The table, its index each row's texts and how often they stood above; a column `label`."""
    told = table[texts].astype(object).where(table[texts].notna(), "").astype(str)
    joined = [" | ".join(row) for row in told.to_numpy().tolist()]
    names = pd.Series(joined, dtype=str)
    firsts = enumerate(table.iloc[:, 0].astype(str), 1)
    labels = [textwrap.shorten(f"{row}: {first}", 40) for row, first in firsts]
    index = pd.MultiIndex.from_arrays([names, names.groupby(names).cumcount()])
    return table.assign(label=labels).set_index(index)


def _in_words(name: str, changed: pd.DataFrame) -> Iterator[str]:
    """Lines for a file that isn't the committed one."""
    differs = changed[~changed["within"]]
    moved = len(changed) - len(differs)
    yield f"{name}: {moved} numbers moved within their intervals, {len(differs)} differ"
    for row in differs.head(SHOWN).itertuples():
        where = ", ".join(filter(None, (row.row and f"row {row.row}", row.column))) or "file"
        before, now = (
            cell if isinstance(cell, str) else f"{cell:.6g}" for cell in (row.committed, row.now)
        )
        yield f"  {where}: committed {before}, now {now}"
    if len(differs) > SHOWN:
        yield f"  and {len(differs) - SHOWN} more"


def _doubts(folder: Path, committed: dict[str, dict], now: dict[str, dict]) -> Iterator[str]:
    """Sentences on files that may not be what they seem."""
    if same := sum(now.get(name) == entry for name, entry in committed.items()):
        yield (
            f"{same} of {len(committed)} notebooks have the committed entry: they did not run "
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
    line = "commit {:.7}, {device} ({instructions}), threads {threads}, torch {torch}"
    told = [entry["versions"] for entry in entries.values()]
    found = {line.format(versions["commit"] or "unknown", **versions) for versions in told}
    return "; ".join(sorted(found)) or f"no {manifest.NAME}"


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
        raise ValueError(
            f"git has no committed {name} in {folder}: nothing to compare with there; it must be a "
            "folder of figures in a git checkout"
        ) from None

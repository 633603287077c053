"""What was found out about files, remembered until they change."""

import json
import os
import time
from pathlib import Path

from miewid_core.files import replacing

UNSETTLED = 2_000_000_000  # nanoseconds after a change in which another can get the same time


class Memory:
    """Findings about files, kept in a JSON file by their path, size and time of change.

    One that is missing or damaged is empty: all is found out again.
    """

    def __init__(self, kept: Path) -> None:
        self.kept, self.findings = kept, _read(kept)
        self._before = len(self.findings)

    def of(self, path: str, state: os.stat_result) -> object:
        """What was found out about the file as it is now; None for nothing."""
        return self.findings.get(_mark(path, state))

    def note(self, path: str, state: os.stat_result, finding: object) -> None:
        """Remember a finding, of anything that JSON holds, of a file that was then as `state`."""
        self.findings[_mark(path, state)] = finding

    def save(self) -> None:
        """Write what is new, if anything is; files that are gone, or changed just now, are left."""
        if len(self.findings) > self._before:
            lasting = {mark: self.findings[mark] for mark in self.findings if _lasts(mark)}
            with replacing(self.kept) as temporary:
                temporary.write_text(json.dumps(lasting))


def _mark(path: str, state: os.stat_result) -> str:
    return f"{path}|{state.st_size}|{state.st_mtime_ns}"


def _lasts(mark: str) -> bool:
    path, _, changed = mark.rsplit("|", 2)
    return Path(path).exists() and time.time_ns() - int(changed) > UNSETTLED


def _read(kept: Path) -> dict[str, object]:
    try:
        findings = json.loads(kept.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return findings if isinstance(findings, dict) else {}

"""Where things lie on disk, content hashes, and writes that are whole or absent."""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError


def _root() -> Path:
    """The checkout this package stands in, or the working directory when it is installed apart."""
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


ROOT = _root()
CACHE = Path(os.environ.get("MIEWID_CACHE", ROOT / ".cache")).expanduser()
LEFT = 3600  # seconds without a change after which a temporary file's writer is taken for dead
# what the system, NumPy and safetensors say of a full disk: the last two give no error number
FULL = re.compile("No space left|File too large|[Qq]uota exceeded|requested and .* written")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there replaces `path` at once.

    The folder is made if it is missing. When the block raises, the temporary file is removed and
    an earlier `path` stays as it was; OSError says so where the disk is full. The temporary name
    keeps the suffix of `path`; those that killed processes left there are removed after an hour.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        if not FULL.search(str(error)):
            raise
        told = "there is no room for it: free some and start again, what was there before is kept"
        raise OSError(errno.ENOSPC, told, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@cache  # once per process: some folders hold many files
def _sweep(folder: Path) -> None:
    for part in folder.glob(".part-*"):
        with contextlib.suppress(OSError):  # another process's, or swept by one just now
            if time.time() - part.stat().st_mtime > LEFT:
                part.unlink()


def digest(*parts: bytes | str) -> str:
    """SHA-256 of the parts in order, as 64 hex digits; ("ab", "c") and ("a", "bc") differ."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits, read in blocks."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def kept_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path` (.npy); made where it is missing or not what the .sha256 beside says."""
    noted = path.with_suffix(".sha256")
    with contextlib.suppress(FileNotFoundError):
        if noted.read_bytes() == _noted(path):
            return np.load(path, allow_pickle=False)
    made = make()
    with replacing(path) as temporary:
        np.save(temporary, made)
    with replacing(noted) as temporary:
        temporary.write_bytes(_noted(path))
    return made


def _noted(path: Path) -> bytes:
    """A line as the command sha256sum writes and checks it."""
    return f"{file_digest(path)}  {path.name}\n".encode()


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

"""Where things lie on disk, writes that are whole or absent, and what is kept with a checksum.

Arrays that are kept (chips, checkpoints, embeddings) are safetensors with a CRC-32 of their own: of
a chip it takes 5 % of the time of its augmentation, where a SHA-256 would take 14 %. SHA-256 names
content: of photos, of chips, and of the results of a training, which its run.json lists.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

_ABOVE = Path(__file__).resolve().parent.parent
_IS_CHECKOUT = (_ABOVE / "pyproject.toml").exists()  # else the package is installed
ROOT = _ABOVE if _IS_CHECKOUT else Path.cwd()
_USUAL = ROOT / ".cache" if _IS_CHECKOUT else user_cache_path("miewid", appauthor=False)
CACHE = Path(os.environ.get("MIEWID_CACHE") or _USUAL).expanduser()
# Where notebooks save. The commands that run them say where; one that is run by hand, in Jupyter or
# by papermill, saves where git ignores it, so that the committed results stay.
FIGURES = Path(os.environ.get("MIEWID_FIGURES") or ROOT / "figures" / "by_hand").expanduser()
ABOUT = "MIEWID_NOTEBOOK"  # variable of a kernel that says which notebook runs in it, as JSON
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


def write_checked(path: Path, arrays: Mapping[str, np.ndarray], **facts: str) -> None:
    """Write arrays and facts about them as safetensors, with their checksum among the facts."""
    rows_first = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with replacing(path) as temporary:
        save_file(rows_first, temporary, facts | {"crc32": _checksum(rows_first, facts)})


def read_checked(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and facts of a file by `write_checked`.

    Raises ValueError where anything in it was changed, FileNotFoundError where there is none.
    """
    try:
        with safe_open(path, framework="np") as opened:
            facts = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if facts.pop("crc32", "") != _checksum(arrays, facts):
        raise ValueError(f"{path} is damaged: its checksum is another")
    return arrays, facts


def _checksum(arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> str:
    """CRC-32 of the facts, and of the arrays' names, types, shapes and values; 8 hex digits."""
    total = zlib.crc32(repr(sorted(facts.items())).encode())
    for name, array in sorted(arrays.items()):
        total = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), total)
        total = zlib.crc32(array, total)
    return f"{total:08x}"


class Findings:
    """What was found out about files, kept as JSON by their path, size and time of change.

    Where it is missing or damaged nothing is known, and all is found out again.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.found, self._new = path, {}, False
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
            self.found = dict(json.loads(path.read_bytes()))

    def of(self, file: str, state: os.stat_result) -> object:
        """What was found out about the file as it is now; None for nothing."""
        return self.found.get(_mark(file, state))

    def note(self, file: str, state: os.stat_result, finding: object) -> None:
        """Remember a finding (anything that JSON holds) about the file as it was in `state`."""
        self.found[_mark(file, state)], self._new = finding, True

    def save(self) -> None:
        """Write all findings, if there are new ones."""
        if self._new:
            with replacing(self.path) as temporary:
                temporary.write_text(json.dumps(self.found))


def _mark(file: str, state: os.stat_result) -> str:
    return f"{file}|{state.st_size}|{state.st_mtime_ns}"

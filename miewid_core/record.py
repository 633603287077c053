"""run.json: what a training was, what made it, and the digests of the files that it left."""

import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from miewid_core import __version__
from miewid_core.device import default_device
from miewid_core.files import ROOT, file_digest, replacing

ISA = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
FORMAT = 1  # raise it when an earlier version would take a new run.json wrongly
RESULTS = ("weights.safetensors", "history.csv", "rows.csv")


def write(folder: Path, spec: dict[str, object], title: str, seconds: float) -> None:
    """Write the run.json of a folder that holds all of RESULTS."""
    files = {name: file_digest(folder / name) for name in RESULTS}
    told = {"format": FORMAT, "spec": spec, "title": title, "seconds": round(seconds, 1)}
    with replacing(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(told | {"files": files} | versions(), indent=1))


def read(folder: Path) -> dict:
    """The contents of a folder's run.json.

    One of version 0.1 before there were digests has no `format` and no `files`: it is read all the
    same, as hours of training may lie there. Raises ValueError where it is missing, damaged or of
    a newer version.
    """
    path = Path(folder) / "run.json"
    try:
        found = json.loads(path.read_bytes())
        newer = found.get("format", 0) > FORMAT
        named = found["files"] if "format" in found else {}
        whole = isinstance(found["spec"]["config"], dict) and isinstance(named, dict)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path} is missing: no finished training lies there") from None
    except (ValueError, TypeError, AttributeError, KeyError):
        newer = whole = False
    if newer:
        raise ValueError(f"{path} was written by a newer miewid_core: update this package")
    if not whole:
        raise ValueError(f"{path} is damaged: {_remedy(folder)}")
    return found


def checked(folder: Path, name: str) -> Path:
    """The path of one of RESULTS; ValueError where it is gone or isn't what the training wrote.

    Its bytes are read for this once per process, and again when the file has changed since. Those
    of a run.json without digests are not.
    """
    files, path = read(folder).get("files"), Path(folder) / name
    try:
        state = path.stat()
    except FileNotFoundError:
        raise ValueError(f"{path} is gone: {_remedy(folder)}") from None
    if files is not None:
        digest = _digest(path, state.st_size, state.st_mtime_ns)
        if digest != files.get(name):
            raise ValueError(f"{path} is not what its training wrote: {_remedy(folder)}")
    return path


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


def _remedy(folder: Path) -> str:
    return f"delete the folder {folder}, and it is trained again"


def versions() -> dict[str, str | None]:
    """What the numbers were made with: package versions, device, and the checkout's git commit."""
    device = default_device()
    return {
        "miewid_core": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": version("timm"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": str(torch.get_num_threads()),
        # by which sums on a CPU are rounded: torch's own, and the most that its oneDNN may use
        "instructions": f"{torch.backends.cpu.get_cpu_capability()}, {ISA or 'all'}",
        "commit": _commit(),
    }


def _commit() -> str | None:
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no checkout
    return asked.stdout.strip()

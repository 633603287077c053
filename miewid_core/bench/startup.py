"""How long imports take beyond torch and timm, and a cached notebook under papermill."""

import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from miewid_core.files import ROOT, replacing

CACHED = ROOT / "notebooks" / "04_multi_vs_single.ipynb"
MODULES = ("miewid_core", "miewid_core.model", "miewid_core.paper.study", "miewid_core.figures")


def imports(rounds: int = 3, modules: Sequence[str] = MODULES) -> pd.DataFrame:
    """Seconds that the import of each module takes once torch and timm are imported.

    Columns way (the module), round, seconds, torch_and_timm (theirs, just before), slowest (the
    package of others that takes most).
    """
    rows = []
    for turn in range(rounds):
        for module in modules:
            rows.append((module, turn, *_seconds(module)))
    return pd.DataFrame(rows, columns=["way", "round", "seconds", "torch_and_timm", "slowest"])


def _seconds(module: str) -> tuple[float, float, str]:
    code = f"import torch, timm\nimport {module}"
    command = [sys.executable, "-X", "importtime", "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    lines = re.findall(r"\|\s+(\d+) \|( +)([\w.]+)$", told, flags=re.MULTILINE)
    ready = 1 + [name for *_, name in lines].index("timm")
    # one space: imported by the program, not within another import
    first, own = (
        sum(int(total) for total, indent, _ in part if len(indent) == 1) / 1e6
        for part in (lines[:ready], lines[ready:])
    )
    others = {name: int(t) for t, _, name in lines[ready:] if name.split(".") == [name]}
    others.pop("miewid_core", None)
    return own, first, max(others, key=others.get, default="")


def papermill(rounds: int = 3, notebook: Path = CACHED) -> pd.DataFrame:
    """Seconds that papermill takes for a notebook whose results are cached, start included.

    Columns way, round, seconds, processor (seconds of all cores, which other work slows less). A
    run before, which may train, for one epoch as that is not what is measured, doesn't count.
    """
    rows = []
    with TemporaryDirectory() as folder:
        given = [str(notebook), f"{folder}/out.ipynb", "-p", "figures_dir", folder]
        given += ["-p", "epochs", "1"]
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", *given]
        for turn in range(-1, rounds):
            start, before = time.perf_counter(), _processor()
            subprocess.run(command, check=True, capture_output=True)
            taken = time.perf_counter() - start, _processor() - before
            rows.append((f"papermill {notebook.stem}", turn, *taken))
    return pd.DataFrame(rows[1:], columns=["way", "round", "seconds", "processor"])


def _processor() -> float:
    """Seconds of processor time of all programs that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(size: str, rounds: int, path: Path | None = None) -> pd.DataFrame:
    """Imports, and in "full" a cached notebook; into the CSV `path`, which is kept if it exists."""
    if path and path.exists():
        return pd.read_csv(path)
    parts = [imports(rounds), *([papermill(rounds)] if size == "full" else [])]
    table = pd.concat(parts, ignore_index=True)
    if path:
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    return table

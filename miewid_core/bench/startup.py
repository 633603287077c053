"""How long imports take beyond torch and timm, and a cached notebook under papermill."""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

MODULES = ("miewid_core", "miewid_core.model", "miewid_core.study", "miewid_core.figures")


def imports(rounds: int = 3, modules: Sequence[str] = MODULES) -> pd.DataFrame:
    """Seconds that the import of each module takes once torch and timm are imported.

    Columns way (the module), round, seconds, slowest (the package of others that takes most).
    """
    rows = []
    for turn in range(rounds):
        for module in modules:
            rows.append((module, turn, *_seconds(module)))
    return pd.DataFrame(rows, columns=["way", "round", "seconds", "slowest"])


def _seconds(module: str) -> tuple[float, str]:
    code = f"import torch, timm\nimport {module}"
    command = [sys.executable, "-X", "importtime", "-c", code]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    lines = re.findall(r"\|\s+(\d+) \|( +)([\w.]+)$", told, flags=re.MULTILINE)
    after = lines[1 + [name for *_, name in lines].index("timm") :]
    own = [int(total) for total, indent, _ in after if len(indent) == 1]  # of no other's import
    others = {name: int(t) for t, _, name in after if "." not in name and name != "miewid_core"}
    return sum(own) / 1e6, max(others, key=others.get, default="")


def papermill(notebook: Path, rounds: int = 3) -> pd.DataFrame:
    """Seconds that papermill takes for a notebook whose results are cached, start included."""
    rows = []
    with TemporaryDirectory() as folder:
        for turn in range(rounds):
            command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook)]
            start = time.perf_counter()
            given = ["-p", "figures_dir", folder]
            subprocess.run(
                [*command, f"{folder}/out.ipynb", *given], check=True, capture_output=True
            )
            rows.append((notebook.stem, turn, time.perf_counter() - start))
    return pd.DataFrame(rows, columns=["way", "round", "seconds"])

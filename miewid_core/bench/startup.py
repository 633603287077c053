"""What a reader waits for: imports, a cached notebook, and trainings that notebooks share."""

import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from miewid_core.bench.measuring import here_and_now, kept_table
from miewid_core.files import ROOT
from miewid_core.paper import plan
from miewid_core.paper.study import Study

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

    def parts() -> pd.DataFrame:
        both = [imports(rounds), *([papermill(rounds)] if size == "full" else [])]
        return pd.concat(both, ignore_index=True).assign(**here_and_now())

    return kept_table(path, parts)


def bill(study: Study, preset: str) -> pd.DataFrame:
    """Per notebook, then "all": trainings it asks for, and photos shown in all their epochs.

    Columns notebook, trainings, photos, new_trainings, new_photos (of those that no earlier
    notebook asked for). A notebook that trained for itself would show `photos`.
    """
    known: set[str] = set()
    rows = []
    for name, jobs in plan.asked(study, preset).items():
        own = {job.key: job for job in jobs}
        new = {key: job for key, job in own.items() if key not in known}
        known |= own.keys()
        counts = [(len(some), sum(job.photos for job in some.values())) for some in (own, new)]
        rows.append((name, *counts[0], *counts[1]))
    columns = ["notebook", "trainings", "photos", "new_trainings", "new_photos"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[len(table)] = ["all", *table[columns[1:]].sum()]
    return table


def paper_bill(path: Path | None = None) -> pd.DataFrame:
    """The bill of the paper's own Table 1 and training; kept in the CSV `path`."""
    return kept_table(path, lambda: bill(plan.paper_study(), "paper"))


def factor(table: pd.DataFrame) -> float:
    """How many times as many photos would pass through networks if nothing were shared."""
    whole = table.iloc[-1]
    return float(whole["photos"] / whole["new_photos"])

"""What a reader waits for: imports, a cached notebook, and trainings that notebooks share."""

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
TIMED = """
from time import perf_counter as now
times = [now()]
import torch, timm
times.append(now())
import {}
print(now() - times[1], times[1] - times[0])
"""


def imports(rounds: int = 3, modules: Sequence[str] = MODULES) -> pd.DataFrame:
    """Seconds that the import of each module takes once torch and timm are imported.

    Columns way (the module), round, seconds, torch_and_timm (theirs, just before).
    """
    rows = []
    for turn in range(rounds):
        for module in modules:
            command = [sys.executable, "-c", TIMED.format(module)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append((module, turn, *map(float, told.split())))
    return pd.DataFrame(rows, columns=["way", "round", "seconds", "torch_and_timm"])


def papermill(rounds: int = 3, notebook: Path = CACHED) -> pd.DataFrame:
    """Seconds that papermill takes for a notebook whose results are cached, start included.

    Columns way, round, seconds, processor (seconds of all cores, which other work slows less). A
    run before, which may train, for one epoch as that is not what is measured, doesn't count.
    """
    rows = []
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook)]
        command += [f"{folder}/out.ipynb", "-p", "figures_dir", folder, "-p", "epochs", "1"]
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
    asked = [
        (name, job.key, job.photos)
        for name, jobs in plan.asked(study, preset).items()
        for job in jobs
    ]
    table = pd.DataFrame(asked, columns=["notebook", "key", "photos"])
    table = table.drop_duplicates(["notebook", "key"]).assign(trainings=1)
    new = table[["trainings", "photos"]].where(~table["key"].duplicated(), 0).add_prefix("new_")
    counts = table[["notebook", "trainings", "photos"]].join(new).groupby("notebook").sum()
    counts.loc["all"] = counts.sum()
    return counts.reset_index()


def paper_bill(path: Path | None = None) -> pd.DataFrame:
    """The bill of the paper's own Table 1 and training; kept in the CSV `path`."""
    return kept_table(path, lambda: bill(plan.paper_study(), "paper"))


def factor(table: pd.DataFrame) -> float:
    """How many times as many photos would pass through networks if nothing were shared."""
    return float(table["photos"].iloc[-1] / table["new_photos"].iloc[-1])

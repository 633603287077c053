"""The comparisons by name, and the command that measures them in full.

python -m miewid_core bench [TASK ...] [--rounds 3] [--minutes N] [--again]
python -m miewid_core bench gpu          all that needs a GPU, in less than ten minutes
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from miewid_core.bench import evaluation, measuring, paper_size, peers, photos, startup, step
from miewid_core.files import ROOT

FOLDER = ROOT / "figures" / "performance"  # what was measured in full
GPU = (peers.PRODUCT, peers.GPU_EMBEDDING, peers.EPOCH)
TASKS = {
    task.name: task
    for task in (
        *(evaluation.EVALUATION, step.LOSS, photos.PHOTOS, photos.AUGMENT, step.STEP),
        *(peers.EMBEDDING, peers.PEERS, step.TRIED, evaluation.SCALING),
        *(paper_size.PAPER_SIZE, paper_size.LARGEST, *GPU),
    )
}
NAMES = (*TASKS, "startup")  # it runs programs, which measure themselves
QUICK = ("evaluation", "loss", "photos", "step", "embedding")  # less than half a minute
GPU_MINUTES = 9.0  # in which nothing more is begun after this long, unless told otherwise


def measured(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """What was measured in full, by task, for those that were."""
    paths = {name: folder / f"{name}.csv" for name in NAMES}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}


def agreement(names: Sequence[str], folder: Path) -> pd.DataFrame:
    """`measuring.agreement` of these tasks, each kept as a CSV in `folder`."""
    parts = [measuring.agreement(TASKS[n], folder / f"{n}_agreement.csv") for n in names]
    return pd.concat(parts, ignore_index=True)


def measure(names: Sequence[str], size: str, rounds: int, folder: Path) -> dict[str, pd.DataFrame]:
    """`measuring.compare` of these tasks, each kept as a CSV in `folder`."""
    paths = {name: folder / f"{name}_{size}.csv" for name in names}
    return {n: measuring.compare(TASKS[n], size, rounds, path) for n, path in paths.items()}


def main(arguments: list[str] | None = None, folder: Path = FOLDER, size: str = "full") -> None:
    """Command line: measures into CSVs in `folder`; what they have is not measured again."""
    parser = argparse.ArgumentParser(prog="python -m miewid_core bench")
    parser.add_argument("task", nargs="*", metavar="TASK", help=f"gpu, or of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (3)")
    parser.add_argument("--minutes", type=float, help="begin nothing more after this long")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    given = parser.parse_args(arguments)
    strange = sorted(set(given.task) - {*NAMES, "gpu"})
    if strange:
        parser.error(f"no task {', '.join(strange)}; there are gpu, {', '.join(NAMES)}")
    minutes = given.minutes or (GPU_MINUTES if given.task == ["gpu"] else float("inf"))
    names = [task.name for task in GPU] if given.task == ["gpu"] else given.task or NAMES
    end = time.monotonic() + 60 * minutes
    for name in names:
        path = folder / f"{name}.csv"
        if given.again:
            path.unlink(missing_ok=True)
        sys.stdout.write(f"{name}\n{_told(name, size, given.rounds, path, end)}\n\n")


def _told(name: str, size: str, rounds: int, path: Path, end: float) -> str:
    """Measure a task whose answers agree; returns a table, or why there is none."""
    if name == "startup":
        table = startup.measure(size, rounds, path)
    else:
        if not TASKS[name].cases(size):
            return "not measured here: no GPU"
        measuring.agreement(TASKS[name])
        found = measuring.compare(TASKS[name], size, rounds, path, end)
        if found.empty:
            return "not measured: no time was left"
        table = measuring.summary(found)
    return table.round(3).to_string(index=False)

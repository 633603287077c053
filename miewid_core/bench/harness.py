"""The comparisons by name, and the command that measures them in full.

python -m miewid_core bench [TASK ...] [--rounds 3] [--again]
python -m miewid_core bench gpu          all that needs a GPU, in less than ten minutes
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from miewid_core.bench import evaluation, growth, measuring, peers, photos, step
from miewid_core.files import ROOT
from miewid_core.runs.run import versions

FOLDER = ROOT / "figures" / "performance"  # what was measured in full
GPU = (peers.PRODUCT, peers.GPU_EMBEDDING, peers.EPOCH)
OTHERS = (photos.PHOTOS, step.STEP, peers.EMBEDDING, peers.PEERS, step.TRIED, growth.GROWTH)
TASKS = {task.name: task for task in (evaluation.EVALUATION, step.LOSS, *OTHERS, *GPU)}
QUICK = ("evaluation", "loss", "photos", "step", "embedding")  # less than half a minute


def measured(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """What was measured in full, by task, for those that were."""
    paths = {name: folder / f"{name}.csv" for name in TASKS}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}


def kept(runs_dir: Path) -> Path:
    """The folder of what this commit's code measured in notebooks."""
    return runs_dir / "measured" / str(versions()["commit"])


def agreement(names: Sequence[str], folder: Path) -> pd.DataFrame:
    """`measuring.agreement` of these tasks, each kept as a CSV in `folder`."""
    parts = [
        measuring.kept_table(
            folder / f"{name}_agreement.csv", functools.partial(measuring.agreement, TASKS[name])
        )
        for name in names
    ]
    return pd.concat(parts, ignore_index=True)


def measure(names: Sequence[str], size: str, rounds: int, folder: Path) -> dict[str, pd.DataFrame]:
    """`measuring.compare` of these tasks, each kept as a CSV in `folder`."""
    paths = {name: folder / f"{name}_{size}.csv" for name in names}
    return {n: measuring.compare(TASKS[n], size, rounds, path) for n, path in paths.items()}


def main(arguments: list[str] | None = None, folder: Path = FOLDER, size: str = "full") -> None:
    """Command line: measures tasks whose answers agree into CSVs in `folder`.

    What these have is not measured again.
    """
    gpu = [task.name for task in GPU]
    parser = argparse.ArgumentParser(prog="python -m miewid_core bench")
    parser.add_argument("task", nargs="*", metavar="TASK", help=f"gpu, or of {', '.join(TASKS)}")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (3)")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    given = parser.parse_args(arguments)
    if strange := sorted(set(given.task) - {*TASKS, "gpu"}):
        parser.error(f"no task {', '.join(strange)}; there are gpu, {', '.join(TASKS)}")
    for name in gpu if given.task == ["gpu"] else given.task or TASKS:
        path, told = folder / f"{name}.csv", "not measured here: no GPU"
        if given.again:
            path.unlink(missing_ok=True)
        if TASKS[name].cases(size):
            measuring.agreement(TASKS[name])
            found = measuring.compare(TASKS[name], size, given.rounds, path)
            told = measuring.summary(found).round(3).to_string(index=False)
        sys.stdout.write(f"{name}\n{told}\n\n")

"""The comparisons by name, and how they are measured."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from miewid_core.bench import evaluation, growth, measuring, peers, step
from miewid_core.files import ROOT

FOLDER = ROOT / "figures" / "performance"  # what was measured in full
TASKS = {
    task.name: task
    for task in (
        evaluation.EVALUATION,
        step.LOSS,
        step.STEP,
        peers.PEERS,
        growth.GROWTH,
        peers.GPU,
    )
}
QUICK = ("evaluation", "loss", "step", "peers")  # seconds


def now(rounds: int) -> pd.DataFrame:
    """QUICK measured here, after their answers were compared: task, way, `measuring.summary`'s."""
    parts = []
    for name in QUICK:
        measuring.agreement(TASKS[name])
        own = measuring.summary(measuring.in_turn(TASKS[name], rounds))
        parts.append(own.assign(task=own.get("stage", name)))
    table = pd.concat(parts, ignore_index=True)
    return table[["task", "way", "cpu_seconds", "ratio", "low", "high"]]


def run(
    names: Sequence[str] = (),
    rounds: int = 3,
    again: bool = False,
    folder: Path = FOLDER,
) -> str:
    """Measure tasks (all without any) whose answers agree into CSVs in `folder`; what was found.

    What these have is not measured again, unless `again`. Raises ValueError for an unknown task,
    and where answers differ.
    """
    if strange := sorted(set(names) - {*TASKS}):
        raise ValueError(f"no task {', '.join(strange)}; there are {', '.join(TASKS)}")
    lines = []
    for name in names or TASKS:
        path, told = folder / f"{name}.csv", "not measured here: no GPU"
        if again:
            path.unlink(missing_ok=True)
        if TASKS[name].cases("full"):
            _note(measuring.agreement(TASKS[name]), folder / "agreement.csv")
            found = measuring.compare(TASKS[name], "full", rounds, path)
            time = "seconds" if TASKS[name].gpu else "cpu_seconds"  # a GPU's work is no processor's
            told = measuring.summary(found, time).round(3).to_string(index=False)
        lines += [name, told, ""]
    return "\n".join(lines)


def _note(found: pd.DataFrame, path: Path) -> None:
    """Put what `measuring.agreement` found in the place of what was found of these ways before."""
    found = found.assign(**measuring.here_and_now()).drop(columns="load")
    if path.exists():
        found = pd.concat([pd.read_csv(path), found])
    measuring.write(found.drop_duplicates(["task", "way"], keep="last"), path)

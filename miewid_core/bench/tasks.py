"""The comparisons by name, and how one is carried out."""

from functools import partial
from importlib import import_module
from pathlib import Path

import pandas as pd

from miewid_core.bench import harness
from miewid_core.files import ROOT

FOLDER = ROOT / "figures" / "performance"  # what was measured in full
TASKS = (
    *("evaluation", "loss", "photos", "augment", "step", "embedding", "epoch", "tried", "scaling"),
    "startup",
)


def agreement(name: str, path: Path | None = None) -> pd.DataFrame:
    """How far the answers of each way of a task differ from ours: task, way, difference, allowed.

    What the CSV `path` has is not compared again. Raises ValueError where a difference is more than
    the task allows.
    """
    return harness.kept_table(path, partial(_agreement, name))


def _agreement(name: str) -> pd.DataFrame:
    module = import_module(f"miewid_core.bench.{name}")
    found = module.differences(harness.installed(module.WAYS))
    table = pd.DataFrame(found.items(), columns=["way", "difference"])
    table = table.assign(task=name, allowed=module.ALLOWED)
    wrong = table.loc[table["difference"] > table["allowed"], "way"]
    if len(wrong):
        raise ValueError(f"{name}: other answers than ours by {', '.join(wrong)}:\n{table}")
    return table[["task", "way", "difference", "allowed"]]


def measure(
    name: str, size: str = "quick", rounds: int = 3, path: Path | None = None
) -> pd.DataFrame:
    """Measurements of a task, "quick" or "full" (see `harness.compare`), whose answers agree."""
    module = import_module(f"miewid_core.bench.{name}")
    if name == "startup":  # runs programs, which measure themselves
        return module.measure(size, rounds, path)
    return harness.compare(
        module.prepare, module.WAYS, module.SIZES[size], rounds, module.CALLS, path
    )


def measured() -> dict[str, pd.DataFrame]:
    """What was measured in full, by task, for those that were."""
    paths = {name: FOLDER / f"{name}.csv" for name in TASKS}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}

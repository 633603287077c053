"""How our time and memory grow: evaluation with annotations and species, the loss with classes."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from miewid_core.bench import evaluation, loss
from miewid_core.evaluation import one_vs_all

WAYS = ("ours",)
QUICK = {"annotations": (500, 1000, 2000), "classes": (500, 1000, 2000), "species": (1, 2, 4)}
FULL = {
    "annotations": (2500, 5000, 10_000, 20_000),
    "classes": (2500, 5000, 10_000, 20_000),
    "species": (1, 2, 4, 8, 16, 32),
}
EXPECTED = {  # of time and of memory, and the reason
    "annotations": (2, 1, "every annotation is compared with every other, a block at a time"),
    "classes": (1, 1, "every embedding is multiplied with every sub-center, which has a gradient"),
    "species": (-1, -1, "annotations are compared within their species: so many, n / species"),
}
ALLOWED = 0
CALLS = 1
SIZES = {
    name: [{"axis": axis, "size": size} for axis, sizes in given.items() for size in sizes]
    for name, given in (("quick", QUICK), ("full", FULL))
}
DIM, BATCH, TOTAL = 2152, 112, 16_000  # the paper's; TOTAL annotations, split into species


def prepare(way: str, axis: str, size: int) -> Callable[[], object]:
    """What is timed: one evaluation, or one step of the loss."""
    if axis == "classes":
        loss.prepare(way, 10, DIM, BATCH)()  # starts the threads
        return loss.prepare(way, size, DIM, BATCH)
    count = size if axis == "annotations" else TOTAL
    embeddings, individuals = evaluation.data(count, DIM, "six each")
    species = individuals % (1 if axis == "annotations" else size)
    one_vs_all(embeddings[:60], individuals[:60], species[:60])
    return lambda: one_vs_all(embeddings, individuals, species)


def differences(ways: list[str]) -> dict[str, float]:
    """There is nothing beside ours."""
    return dict.fromkeys(ways, 0.0)


def slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """Per axis the slope in a log-log plot, of medians: axis, seconds, megabytes, expected, reason.

    What is fixed (a call's own costs) flattens the slopes of small sizes.
    """
    rows = []
    for axis, own in measured.groupby("axis", sort=False):
        medians = own.groupby("size")[["seconds", "megabytes"]].median()
        x, time, memory = np.log(medians.index), *np.log(medians.clip(lower=1e-9)).to_numpy().T
        fitted = np.polyfit(x, time, 1)[0], np.polyfit(x, memory, 1)[0]
        rows.append((axis, *fitted, *EXPECTED[axis]))
    columns = ["axis", "seconds", "megabytes", "expected_seconds", "expected_megabytes", "reason"]
    return pd.DataFrame(rows, columns=columns)

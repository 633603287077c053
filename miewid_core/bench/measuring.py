"""Time and peak memory of ways to do one thing, which take turns."""

import contextlib
import dataclasses
import datetime
import importlib.util
import itertools
import multiprocessing
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from miewid_core import progress
from miewid_core.files import CACHE, replacing

FOLDER = CACHE / "bench"  # of the photos, catalogs and embeddings that are measured on
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
PACKAGES = ("pytorch-metric-learning", "faiss", "wildlife-tools")  # of the optional extra `bench`
RESULTS = ["seconds", "cpu_seconds", "megabytes", "machine", "date", "load"]
MEASURED = ["way", "round", *RESULTS]
Case = Mapping[str, object]
Run = Callable[[], object]  # what is timed


@dataclasses.dataclass(frozen=True)
class Task:
    """A comparison of `ways` to do one thing, ours first.

    `prepare(way, **case)` makes what is needed and returns the function that is timed, of which
    `calls` in a process are measured. `sizes`: the cases by "quick" and "full"; a case's "ways"
    restrict them. `answer(way)`: arrays in which a way may differ from ours by `allowed`, relative
    to our largest value, NaN where it computes none; None for one that is only timed. `gpu`: "full"
    needs one.
    """

    name: str
    ways: tuple[str, ...]
    sizes: Mapping[str, Sequence[Case]]
    prepare: Callable[..., Run]
    answer: Callable[[str], Sequence[np.ndarray] | None] | None = None
    allowed: float = 0.0
    calls: int = 1
    gpu: bool = False

    def cases(self, size: str) -> Sequence[Case]:
        """The cases of "quick" or "full"; none where they need a GPU and there is none."""
        lacking = self.gpu and size == "full" and not torch.cuda.is_available()
        return [] if lacking else self.sizes[size]


def missing() -> list[str]:
    """The packages that are not installed, or don't run."""
    lost = [name for name in PACKAGES if not importlib.util.find_spec(name.replace("-", "_"))]
    # wildlife-tools 0.0.9 calls `fillna(method=...)`, which pandas 3 no longer has
    old = int(pd.__version__.split(".")[0]) >= 3 and "wildlife-tools" not in lost
    return [*lost, "wildlife-tools"] if old else lost


def installed(ways: Sequence[str]) -> list[str]:
    """Those of `ways` that need no missing package."""
    lost = missing()
    return [way for way in ways if way not in lost]


def here_and_now() -> dict[str, object]:
    """The columns machine, date and load (of the last minute, by the system) of what is measured.

    `machine`: processor, number of cores that this process may use, and GPU if there is one.
    """
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    machine = [model[1] if model else platform.machine(), f"{cores} core{'s'[: cores != 1]}", *gpu]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"machine": ", ".join(machine), "date": today, "load": round(os.getloadavg()[0], 1)}


def in_turn(task: Task, rounds: int) -> pd.DataFrame:
    """Measure the installed ways at their quick sizes, in this process: rows as of `compare`.

    Without megabytes: what one way frees serves the next.
    """
    rows = []
    for case in task.cases("quick"):
        given = _fields(case)
        runs = {way: task.prepare(way, **given) for way in installed(case.get("ways", task.ways))}
        for number, (way, run) in itertools.product(range(rounds), runs.items()):
            rows.append(given | {"way": way, "round": number} | _times(run))
    return pd.DataFrame(rows)


def _fields(case: Case) -> dict[str, object]:
    return {name: value for name, value in case.items() if name != "ways"}


def _times(run: Run) -> dict[str, float]:
    """Seconds that passed, and seconds of the processor, of all threads."""
    start, worked = time.perf_counter(), time.process_time()
    run()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - worked}


def compare(task: Task, size: str, rounds: int, path: Path) -> pd.DataFrame:
    """Measure the ways of a task (those installed): one row per round, case and way.

    Columns: those of the cases; MEASURED: seconds and cpu_seconds (of all threads) are medians of
    the calls, megabytes is how far a call raises the peak memory, of the GPU where it uses one.
    Each row is added to the CSV `path` at once; what it has is not measured again.
    """
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    known = [_key(row) for row in rows]
    wanted = [
        _fields(case) | {"way": way, "round": number}
        for number in range(rounds)
        for case in task.cases(size)
        for way in installed(case.get("ways", task.ways))
    ]
    with _fresh_processes(task.prepare.__module__) as fresh:
        for row in progress(
            [row for row in wanted if _key(row) not in known], task.name, unit="run"
        ):
            found = fresh.submit(_measure, task.prepare, task.calls, row).result()
            rows.append(row | found | here_and_now())
            write(pd.DataFrame(rows), path)
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _key(row: Case) -> set[tuple[str, str]]:
    return {(key, str(row[key])) for key in row if key not in RESULTS}


def _fresh_processes(module: str) -> ProcessPoolExecutor:
    """Each measurement in a process of its own, which has imported `module` and done no more."""
    # a forked child of a clean server: a child of this process would begin with its peak memory
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["miewid_core.training", module])  # imported once
    return ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)


def _measure(prepare: Callable[..., Run], calls: int, row: Case) -> dict[str, float]:
    """The times and megabytes of `compare`, in the process where they are measured."""
    run = prepare(**{name: value for name, value in row.items() if name != "round"})
    on_gpu = torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux alone can forget the peak of the preparations
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak(on_gpu)
    times = [_times(run) for _ in range(calls)]
    raised = _peak(on_gpu) - before  # now: the medians take memory, too
    return pd.DataFrame(times).median().to_dict() | {"megabytes": raised / 1e6}


def _peak(on_gpu: bool) -> int:
    """The most memory that this process has held, in bytes: the GPU's where it uses one."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def agreement(task: Task) -> pd.DataFrame:
    """How far each way's answers lie from ours: task, way, difference, allowed.

    `difference`: the largest of any array, relative to its largest value in ours; ways without an
    answer have no row. Raises ValueError where one is more than the task allows.
    """
    ours, rows = task.answer and task.answer("ours"), []
    for way in installed(task.ways[1:]) if task.answer else ():
        if (answer := task.answer(way)) is None:
            continue
        pairs = [map(np.asarray, pair) for pair in zip(answer, ours, strict=True)]
        largest = max(np.nanmax(abs(one - own)) / np.nanmax(abs(own)) for one, own in pairs)
        if largest > task.allowed:
            raise ValueError(
                f"{task.name}: other answers than ours by {way}: they differ by {largest:.2e}, "
                f"{task.allowed:.2e} is allowed"
            )
        rows.append((task.name, way, float(largest), task.allowed))
    return pd.DataFrame(rows, columns=["task", "way", "difference", "allowed"])


def ratios(measured: pd.DataFrame, against: str, column: str = "cpu_seconds") -> pd.DataFrame:
    """How many times what the way `against` takes, in the same round: median, low, high.

    Indexed by the cases' columns and way; NaN where `against` takes nothing.
    """
    keys = [name for name in measured if name not in MEASURED]
    own = measured[measured["way"] == against].set_index([*keys, "round"])[column]
    both = measured.join(own.where(own > 0).rename("own"), on=[*keys, "round"])
    both["ratio"] = both[column] / both["own"]
    table = both.groupby([*keys, "way"], sort=False)["ratio"]
    return table.agg(ratio="median", low="min", high="max")


def summary(
    measured: pd.DataFrame, time: str = "cpu_seconds", against: str = "ours"
) -> pd.DataFrame:
    """One row per case and way, of `compare`: medians over the rounds, and ratios to `against`.

    The cases' columns, way, seconds, cpu_seconds; ratio, low, high (of `ratios`) of column `time`;
    where it was measured megabytes, and memory, the ratio of the medians (NaN where `against`
    raises its process's peak by nothing).
    """
    keys = [name for name in measured if name not in MEASURED]
    columns = [name for name in RESULTS[:3] if name in measured]
    table = measured.groupby([*keys, "way"], sort=False)[columns].median()
    if "megabytes" in table:
        memory = ratios(table.reset_index().assign(round=0), against, "megabytes")["ratio"]
        table = table.assign(memory=memory)
    return table.join(ratios(measured, against, time)).reset_index()

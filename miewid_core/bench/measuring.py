"""Time and peak memory of ways to do one thing: each in a process of its own, taking turns."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.util
import multiprocessing
import os
import platform
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from miewid_core.files import replacing

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
NEEDS = {  # way: the package that it measures, of the optional extra `bench`
    "pytorch-metric-learning": "pytorch_metric_learning",
    "faiss": "faiss",
    "wildlife-tools": "wildlife_tools",
}
WHERE = ["machine", "date", "load"]
MEASURED = ["way", "round", "seconds", "megabytes", *WHERE]
Case = Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Task:
    """A comparison of `ways` to do one thing, ours first.

    `prepare(way, **case)` makes what is needed and returns the function that is timed, of which
    `calls` in a process are measured. `sizes`: the cases by "quick" and "full"; a case's "ways"
    restrict them. `differences(ways)`: the largest difference from our answer for each way that
    is compared, at most `allowed`; None where nothing is compared. `gpu`: "full" needs one.
    """

    name: str
    ways: tuple[str, ...]
    sizes: Mapping[str, Sequence[Case]]
    prepare: Callable[..., Callable[[], object]]
    differences: Callable[[list[str]], dict[str, float]] | None = None
    allowed: float = 0.0
    calls: int = 1
    gpu: bool = False

    def cases(self, size: str) -> Sequence[Case]:
        """The cases of "quick" or "full"; none where they need a GPU and there is none."""
        lacking = self.gpu and size == "full" and not torch.cuda.is_available()
        return [] if lacking else self.sizes[size]


def installed(ways: Sequence[str]) -> list[str]:
    """Those of `ways` whose packages are there and run."""
    return [way for way in ways if way not in NEEDS or _runs(NEEDS[way])]


def _runs(package: str) -> bool:
    """wildlife-tools 0.0.9 calls `fillna(method=...)`, which pandas 3 no longer has."""
    old = package == "wildlife_tools" and int(pd.__version__.split(".")[0]) >= 3
    return importlib.util.find_spec(package) is not None and not old


def missing(ways: Sequence[str]) -> str:
    """A line that says which of `ways` are left out; "" if none is."""
    lost = [way for way in ways if way not in installed(ways)]
    return f"Left out, as `make bench` installs them: {', '.join(lost)}." if lost else ""


@functools.cache
def machine() -> str:
    """Processor, number of cores that this process may use, and GPU if there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([model[1] if model else platform.machine(), f"{cores} cores", *gpu])


def here_and_now() -> dict[str, object]:
    """The columns WHERE of what is measured now; `load`: of the last minute, by the system."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"machine": machine(), "date": today, "load": round(os.getloadavg()[0], 1)}


def write(table: pd.DataFrame, path: Path | None) -> pd.DataFrame:
    """The table, written as a CSV if there is a path."""
    if path:
        with replacing(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    return table


def kept_table(path: Path | None, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table in `path` (CSV); made where it is missing, or `path` is None."""
    return pd.read_csv(path) if path and path.exists() else write(make(), path)


def compare(
    task: Task,
    size: str = "quick",
    rounds: int = 3,
    path: Path | None = None,
    end: float = np.inf,
) -> pd.DataFrame:
    """Measure the ways of a task (those installed): one row per round, case and way.

    Columns: those of the cases; way, round, seconds (median of the calls), megabytes (by which a
    call raises the peak memory, of the GPU where it uses one), and WHERE. Rows are added to the CSV
    `path`; what it has is not measured again. Nothing is begun after `time.monotonic()` `end`.
    """
    rows = pd.read_csv(path).to_dict("records") if path and path.exists() else []
    known = {_key(row) for row in rows}
    wanted = [row for row in _plan(task, size, rounds) if _key(row) not in known]
    with _fresh_processes(task.prepare.__module__) as fresh:
        for row in tqdm(wanted, task.name, unit="run"):
            if time.monotonic() > end:
                break
            seconds, megabytes = fresh.submit(_measure, task.prepare, task.calls, row).result()
            rows.append(row | {"seconds": seconds, "megabytes": megabytes} | here_and_now())
            write(pd.DataFrame(rows), path)
    return pd.DataFrame(rows)


def _plan(task: Task, size: str, rounds: int) -> list[dict[str, object]]:
    return [
        {name: value for name, value in case.items() if name != "ways"} | {"way": way, "round": n}
        for n in range(rounds)
        for case in task.cases(size)
        for way in installed(case.get("ways", task.ways))
    ]


def _key(row: Case) -> frozenset:
    result = {"seconds", "megabytes", *WHERE}
    return frozenset((key, str(row[key])) for key in row if key not in result)


def _fresh_processes(module: str) -> ProcessPoolExecutor:
    """Each measurement in a process of its own, which has imported `module` and done no more."""
    # a forked child of a clean server: a child of this process would begin with its peak memory
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["miewid_core.training", module])  # imported once
    return ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)


def _measure(prepare: Callable, calls: int, row: Case) -> tuple[float, float]:
    """Seconds and megabytes of `compare`, in the process where they are measured."""
    run = prepare(**{name: value for name, value in row.items() if name != "round"})
    times, on_gpu = [], torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux alone can forget the peak of the preparations
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak(on_gpu)
    for _ in range(calls):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times), (_peak(on_gpu) - before) / 1e6


def _peak(on_gpu: bool) -> int:
    """The most memory that this process has held, in bytes: the GPU's where it uses one."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def agreement(task: Task, path: Path | None = None) -> pd.DataFrame:
    """How far the answers of each way differ from ours: task, way, difference, allowed, compared.

    `compared` is "ours", "yes" or "no"; only "yes" has a difference. What the CSV `path` has is not
    compared again. Raises ValueError where a difference is more than the task allows.
    """
    return kept_table(path, functools.partial(_agreement, task))


def _agreement(task: Task) -> pd.DataFrame:
    ways = installed(task.ways)
    found = {way: d for way, d in (task.differences or _nothing)(ways).items() if way != "ours"}
    kind = ["ours" if way == "ours" else "yes" if way in found else "no" for way in ways]
    table = pd.DataFrame({"task": task.name, "way": ways, "compared": kind})
    table["difference"] = table["way"].map(found).astype(float)
    table["allowed"] = np.where(table["compared"] == "yes", task.allowed, np.nan)
    wrong = table["difference"] > table["allowed"]
    if wrong.any():
        others = ", ".join(table.loc[wrong, "way"])
        raise ValueError(f"{task.name}: other answers than ours by {others}:\n{table}")
    return table[["task", "way", "difference", "allowed", "compared"]]


def _nothing(ways: list[str]) -> dict[str, float]:
    return {}


def summary(measured: pd.DataFrame, against: str = "ours") -> pd.DataFrame:
    """One row per case and way, of `compare`: medians, and ratios to the way `against`.

    seconds and megabytes are medians over the rounds; ratio is the median, low and high the range,
    of the way's time divided by that of `against` in the same round; memory is the ratio of the
    medians, NaN where a call of `against` raises its process's peak by nothing.
    """
    keys = [name for name in measured if name not in MEASURED]
    own = measured[measured["way"] == against].set_index([*keys, "round"])["seconds"]
    both = measured.join(own.rename("own"), on=[*keys, "round"])
    both["ratio"] = both["seconds"] / both["own"]
    table = both.groupby([*keys, "way"], sort=False).agg(
        seconds=("seconds", "median"),
        ratio=("ratio", "median"),
        low=("ratio", "min"),
        high=("ratio", "max"),
        megabytes=("megabytes", "median"),
    )
    base = table["megabytes"].xs(against, level="way").rename("base")
    base = table.reset_index("way").join(base)["base"].to_numpy()
    table["memory"] = table["megabytes"] / np.where(base > 0, base, np.nan)
    return table.reset_index()

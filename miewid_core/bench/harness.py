"""Time and peak memory of ways to do the same thing: each in a process of its own, taking turns."""

import contextlib
import importlib.util
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from miewid_core.files import replacing

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
NEEDS = {  # way: the package that it measures, of the optional extra `bench`
    "pytorch-metric-learning": "pytorch_metric_learning",
    "faiss": "faiss",
}
MEASURED = ["way", "round", "seconds", "megabytes"]
Prepare = Callable[..., Callable[[], object]]


def installed(ways: Sequence[str]) -> list[str]:
    """Those of `ways` whose packages are there."""
    return [way for way in ways if way not in NEEDS or importlib.util.find_spec(NEEDS[way])]


def missing(ways: Sequence[str]) -> str:
    """A line that says which of `ways` are left out; "" if none is."""
    lost = [way for way in ways if way not in installed(ways)]
    return f"Left out, not installed (the extra `bench`): {', '.join(lost)}." if lost else ""


def kept_table(path: Path | None, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table in `path` (CSV); made where it is missing, or `path` is None."""
    if path and path.exists():
        return pd.read_csv(path)
    made = make()
    if path:
        with replacing(path) as temporary:
            made.to_csv(temporary, index=False)
    return made


def compare(
    prepare: Prepare,
    ways: Sequence[str],
    cases: Sequence[Mapping[str, object]],
    rounds: int = 3,
    calls: int = 1,
    path: Path | None = None,
) -> pd.DataFrame:
    """Measure `ways` (those installed) on each of `cases`: one row per round, case and way.

    `prepare(way, **case)` makes what is needed and returns the function that is timed; `calls`: so
    often in a process, of which the median counts. A case's "ways" restrict them. Columns: those of
    the cases; way, round, seconds (of a call), megabytes (by which it raises the peak memory).
    Rows are added to the CSV `path`; what it has is not measured again.
    """
    rows = pd.read_csv(path).to_dict("records") if path and path.exists() else []
    known = {_key(row) for row in rows}
    plan = [
        {name: value for name, value in case.items() if name != "ways"} | {"way": way, "round": n}
        for n in range(rounds)
        for case in cases
        for way in installed(case.get("ways", ways))
    ]
    plan = [row for row in plan if _key(row) not in known]
    with _fresh_processes(prepare.__module__) as fresh:
        for row in tqdm(plan, prepare.__module__.rpartition(".")[2], unit="run"):
            seconds, megabytes = fresh.submit(_measure, prepare, calls, row).result()
            rows.append(row | {"seconds": seconds, "megabytes": megabytes})
            if path:
                with replacing(path) as temporary:
                    pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
    return pd.DataFrame(rows)


def _key(row: Mapping[str, object]) -> frozenset:
    return frozenset((key, str(row[key])) for key in row if key not in ("seconds", "megabytes"))


def _fresh_processes(module: str) -> ProcessPoolExecutor:
    """Each task in a process of its own, which has imported `module` and done nothing else."""
    # a forked child of a clean server: a child of this process would begin with its peak memory
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["miewid_core.bench.embedding", module])  # heavy, shared
    return ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)


def _measure(prepare: Prepare, calls: int, row: Mapping[str, object]) -> tuple[float, float]:
    """Seconds and megabytes of `compare`, in the process where they are measured."""
    run = prepare(**{name: value for name, value in row.items() if name != "round"})
    times = []
    with contextlib.suppress(OSError):  # Linux alone can forget the peak of the preparations
        Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    for _ in range(calls):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times), (_peak() - before) / 1e6


def _peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def summary(measured: pd.DataFrame, against: str = "ours") -> pd.DataFrame:
    """One row per case and way, of `compare`: medians, and ratios to the way `against`.

    seconds and megabytes are medians over the rounds; ratio is the median, low and high the range,
    of the way's time divided by that of `against` in the same round; memory is the ratio of the
    medians (of at least 1 MB).
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
    held = table["megabytes"].clip(lower=1)
    base = held.xs(against, level="way").rename("base")
    table["memory"] = held / held.reset_index("way").join(base)["base"].to_numpy()
    return table.reset_index()

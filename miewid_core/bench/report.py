"""What was measured in full, as tables, a figure and words."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from miewid_core.bench import measuring
from miewid_core.bench.evaluation import EVALUATION
from miewid_core.bench.peers import CUT
from miewid_core.figures import COLOURS, MARKERS, PAGE, Figure, label_rows, plain_numbers, styled
from miewid_core.paper import plan
from miewid_core.paper.intervals import Estimate, with_interval
from miewid_core.paper.study import Study

# what ours is set beside; the last two search alone
PACKAGES = ("wildlife-tools", "pytorch-metric-learning", "textbook", "scikit-learn", "faiss")
DRAWN = "12 megapixels"
RATIO = ("ratio", "low", "high")  # columns of a ratio of times, and its range over the rounds
SPEEDS = {  # what is done: the task, our way, and the case in which it was measured
    "embedding, photos cut before": ("peers", "ours", {"stage": "embedding", "kind": CUT}),
    "embedding, first pass": ("peers", "ours, first pass", {"stage": "embedding", "kind": DRAWN}),
    "embedding, later passes": ("peers", "ours", {"stage": "embedding", "kind": DRAWN}),
    "training epoch, photos cut before": ("peers", "ours", {"stage": "epoch", "kind": CUT}),
    "training epoch, first pass": ("peers", "ours, first pass", {"stage": "epoch", "kind": DRAWN}),
    "training epoch, later passes": ("peers", "ours", {"stage": "epoch", "kind": DRAWN}),
    "ranking 5,000 annotations": ("evaluation", "ours", {"n": 5000}),
    "ranking 10,000 annotations": ("evaluation", "ours", {"n": 10_000, "case": "six each"}),
    "loss of 20,000 individuals": ("loss", "ours", {"classes": 20_000}),
    "training step": ("step", "ours", {}),
}
BOUNDS = {  # of what is done: the bare arithmetic of the plain way
    "ranking 10,000 annotations": ("product", "the product of all similarities"),
    "loss of 20,000 individuals": ("products", "the products of embeddings and centers"),
}


def speeds(measured: Mapping[str, pd.DataFrame], ways: tuple[str, ...] = PACKAGES) -> pd.DataFrame:
    """How many times the processor time of ours others take: a row for each of SPEEDS and way.

    Columns what, way, ratio, low, high (range over the rounds), memory (ratio of the medians),
    cpu_seconds (ours). `measured`: of `harness.measured`.
    """
    rows = []
    for what, (task, ours, case) in SPEEDS.items():
        if task not in measured:
            continue
        own = measured[task]
        own = own[(own[list(case)] == pd.Series(case)).all(axis=1)]
        times = measuring.ratios(own, ours).groupby("way").first()
        medians = own.groupby("way")[["cpu_seconds", "megabytes"]].median()
        for way in filter(times.index.__contains__, ways):
            memory = medians["megabytes"][way] / max(medians["megabytes"][ours], 1e-9)
            rows.append((what, way, *times.loc[way], memory, medians["cpu_seconds"][ours]))
    columns = ["what", "way", "ratio", "low", "high", "memory", "cpu_seconds"]
    return pd.DataFrame(rows, columns=columns)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `speeds` for a reader: a row for each thing done, a column for each package."""
    texts = table.assign(text=with_range(table))
    texts = texts.pivot(index="what", columns="way", values="text")
    texts = texts.reindex(index=table["what"].unique(), columns=PACKAGES).astype(object).fillna("")
    return texts.rename_axis("ours is so many times as fast as").reset_index()


def with_range(table: pd.DataFrame, decimals: int = 1) -> list[str]:
    """Ratios as text, with the range of the rounds where these differ."""
    ends = table[[*RATIO[1:]]].where(table["low"] < table["high"])
    return with_interval(table.assign(**ends), *RATIO, decimals=decimals)


def absolute(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Our processor seconds, photos per such second, and memory in times wildlife-tools'."""
    table = speeds(measured, ("wildlife-tools",))
    photos = [
        measured[task]["size"].iloc[0] if task == "peers" else np.nan
        for task, *_ in map(SPEEDS.get, table["what"])
    ]
    return table[["what"]].assign(
        **{
            "processor seconds": table["cpu_seconds"],
            "photos per processor second": photos / table["cpu_seconds"],
            "memory, in times wildlife-tools'": 1 / table["memory"],
        }
    )


def answer(measured: Mapping[str, pd.DataFrame]) -> str:
    """How much faster ours is than wildlife-tools, how fast that is, and where it was measured."""
    own = absolute(measured).merge(speeds(measured, ("wildlife-tools",))).set_index("what")
    wanted = list(SPEEDS)[:7]
    if set(wanted) - set(own.index):
        return "How fast this is beside wildlife-tools was not measured in full."
    cut, epoch, ranking = own.loc[[wanted[0], wanted[3], wanted[6]]].to_dict("records")
    case, load = measured["peers"].iloc[-1], measured["peers"]["load"].median()
    lacking = "" if "gpu" in measured else "; a GPU was not measured"
    return (
        f"Like for like, on photos cut before, embedding is {cut['ratio']:.1f} and a training "
        f"epoch {epoch['ratio']:.1f} times as fast as with wildlife-tools. In a second of "
        f"processor time ours embeds {cut['photos per processor second']:.0f} or trains on "
        f"{epoch['photos per processor second']:.0f} such photos; it ranks 5,000 annotations in "
        f"{ranking['cpu_seconds']:.1f} s, {ranking['ratio']:.1f} times as fast. This is preset "
        f"`{case['preset_name']}` on {case['machine']} at a load of {load:.0f}, {case['date']}"
        f"{lacking}."
    )


def small_in_words(now: pd.DataFrame) -> str:
    """In which small measurements (of `harness.now`) ours is not shown to be faster."""
    ranked = f"ranking {EVALUATION.sizes['quick'][0]['n']:,} annotations"
    others, told = now[now["way"].isin(PACKAGES)].replace({"task": {"evaluation": ranked}}), []
    for row, text in zip(others.itertuples(), with_range(others), strict=True):
        gain = Estimate(row.ratio, row.low, row.high).above(1)
        verdict = gain.shown("", "is faster than ours", "is not told apart from ours")
        if verdict:
            told.append(f"{row.task} by {row.way} {verdict}, {text} times our time")
    return (
        f"In small, measured now, ours is faster in {len(others) - len(told)} of {len(others)} "
        f"comparisons{': ' * bool(told)}{'; '.join(told)}."
    )


def bounds(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many times the processor time of the bare work ours takes: what, bare work, ratio."""
    rows = []
    for what, (bare, words) in BOUNDS.items():
        found = speeds(measured, (bare,)).set_index("what")["ratio"]
        if what in found:
            rows.append((what, words, 1 / found[what]))
    return pd.DataFrame(rows, columns=["what", "bare work", "ours takes so many times as long"])


@styled()
def figure(table: pd.DataFrame) -> Figure:
    """How many times as fast ours is (`table`: of `speeds`), with the range of the rounds."""
    whats = table["what"].unique().tolist()
    ahead = (table["low"] > 1).sum()
    faster = f"Ours is faster than these in {ahead} of {len(table)} comparisons in full size"
    drawn = Figure(faster, 1.2 + 0.3 * len(whats), PAGE)
    axes = drawn.subplots()
    axes.axvline(1, color="black", linewidth=0.8)
    looks = zip(PACKAGES, MARKERS, COLOURS, np.linspace(-0.3, 0.3, len(PACKAGES)), strict=False)
    for way, marker, colour, shift in looks:
        own = table[table["way"] == way]
        places = np.array([whats.index(what) for what in own["what"]]) + shift
        axes.hlines(places, own["low"], own["high"], colour, linewidth=1)
        axes.plot(own["ratio"], places, marker, color=colour, label=way)
    label_rows(axes, np.arange(len(whats)), whats)
    axes.set(xscale="log", xlabel="ours is so many times as fast (log scale; range of the rounds)")
    plain_numbers(axes.xaxis)
    drawn.legend(loc="outside lower left", ncols=3)
    return drawn


def tried(measured: pd.DataFrame) -> pd.DataFrame:
    """What was tried for a training step (of `step`): its processor time, relative to ours."""
    table = measuring.summary(measured).query("way not in ('ours', 'textbook')")
    return relative(table.rename(columns={"way": "tried"}), "tried")


def relative(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Columns of a table of `measuring.summary` for a reader, and the time relative to ours."""
    return table[[*columns]].assign(**{"times as long as ours": with_range(table, 2)})


def sources(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where and when each task was measured in full: task, machine, date, rounds, load.

    load: the median of the system's load average; more than there are cores is a busy machine.
    """
    table = pd.concat(measured, names=["task", None]).reset_index("task")
    own = table.groupby(["task", "machine", "date"], sort=False)
    return own.agg(rounds=("round", "nunique"), load=("load", "median")).reset_index()


def sharing(study: Study, preset: str) -> float:
    """How many times as many photos would pass through networks if no training were shared."""
    asked = [{own.key: own.photos for own in jobs} for jobs in plan.asked(study, preset).values()]
    distinct = {key: photos for jobs in asked for key, photos in jobs.items()}
    return sum(sum(jobs.values()) for jobs in asked) / sum(distinct.values())

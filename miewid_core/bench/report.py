"""What was measured in full, as tables, figures and words."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns

from miewid_core.bench import measuring
from miewid_core.bench.growth import LARGEST, MILLION, STAGES, WHOLE
from miewid_core.bench.harness import FOLDER, TASKS
from miewid_core.bench.peers import CUT, WRITTEN
from miewid_core.figures import COLOURS, MARKERS, PAGE, Figure, label_rows, plain_numbers, styled
from miewid_core.paper import plan
from miewid_core.paper.intervals import with_interval
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
    "ranking 67,106 annotations": ("growth", "ours", {"axis": "annotations", "size": LARGEST}),
}
BOUNDS = {  # of what is done: the bare arithmetic of the plain way
    "ranking 10,000 annotations": ("product", "the product of all similarities"),
    "ranking 67,106 annotations": ("product", "the product of all similarities"),
    "loss of 20,000 individuals": ("products", "the products of embeddings and centers"),
}
EXPECTED = {  # slopes of time and of memory, and the reason
    "annotations": (2, 1, "every annotation is compared with every other, a block at a time"),
    "classes": (1, 1, "every embedding is multiplied with every sub-center, which has a gradient"),
    "species": (-1, -1, "annotations are compared within their species: so many, n / species"),
    "load and check": (1, 1, "each annotation is read and checked once"),
    "split": (1, 1, "annotations are sorted and drawn from, species by species"),
    "plan": (1, 1, "each training's annotations are counted"),
    "evaluate": (2, 1, "each test annotation is compared with all others of its species"),
    "report": (1, 1, "each query is counted, and drawn from for an interval"),
}
NAMES = {  # of what else grows, for readers
    "annotations": "rank one species",
    "classes": "loss (individuals)",
    "species": "rank several (species)",
}
LABELLED = {"cpu_seconds": "processor time (s)", "megabytes": "extra memory (MB)"}


def read(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """What was measured in full, by task, for those that were."""
    paths = {name: folder / f"{name}.csv" for name in TASKS}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}


def agreement(folder: Path = FOLDER) -> pd.DataFrame:
    """`measuring.agreement` of all that was measured in full, with machine and date."""
    return pd.read_csv(folder / "agreement.csv")


def speeds(measured: Mapping[str, pd.DataFrame], ways: tuple[str, ...] = PACKAGES) -> pd.DataFrame:
    """How many times the processor time of ours others take: a row for each of SPEEDS and way.

    Columns what, way, ratio, low, high (range over the rounds), memory (ratio of the medians),
    cpu_seconds (ours). `measured`: of `read`.
    """
    columns = ["what", "way", *RATIO, "memory", "cpu_seconds"]
    parts = [pd.DataFrame(columns=columns)]
    for what, (task, ours, case) in SPEEDS.items():
        if task in measured:
            own = measured[task]
            own = own[(own[list(case)] == pd.Series(case)).all(axis=1)]
            table = measuring.summary(own, against=ours).set_index("way")
            table["cpu_seconds"] = table["cpu_seconds"].get(ours)
            found = table.reindex(ways).dropna(subset="ratio").reset_index()
            parts.append(found.assign(what=what)[columns])
    return pd.concat(parts[1:] or parts, ignore_index=True)


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


def lines() -> pd.DataFrame:
    """Lines of code that a user writes: package, embedding, epoch, ranking (docstrings apart)."""
    counts = {
        way: {stage: sum(map(lines_of, written)) for stage, written in stages.items()}
        for way, stages in WRITTEN.items()
        if way != "textbook"  # its loops are of this project
    }
    return pd.DataFrame(counts).T.rename_axis("package").reset_index()


def lines_of(written: object) -> int:
    """Lines of a function or class but for docstrings, comments and empty ones."""
    words = re.sub(r'""".*?"""', "", inspect.getsource(written), flags=re.DOTALL)
    return len(re.findall(r"^ *[^ #\n]", words, re.MULTILINE))


def slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """Ours by axis, in a log-log plot, of medians: the slopes of time and of memory, and expected.

    A call's fixed costs flatten them.
    """
    rows = []
    for axis, own in measured[measured["way"] == "ours"].groupby("axis", sort=False):
        medians = own.groupby("size")[["cpu_seconds", "megabytes"]].median().clip(lower=1e-9)
        if len(medians) > 1:
            time, memory = np.polyfit(np.log(medians.index), np.log(medians), 1)[0]
            expected_time, expected_memory, reason = EXPECTED[axis]
            rows.append((axis, time, expected_time, memory, expected_memory, reason))
    columns = ["what", "slope of time", "expected", "slope of memory", "expected memory", "reason"]
    return pd.DataFrame(rows, columns=columns)


def papers_size(measured: pd.DataFrame) -> pd.DataFrame:
    """Ours at the paper's size and at a million rows, for a reader: times and memory by size."""
    own = measured[(measured["way"] == "ours") & measured["size"].isin([LARGEST, WHOLE, MILLION])]
    own = own.assign(what=own["axis"].replace(NAMES)).groupby(["what", "size"], sort=False)
    table = own[["seconds", *LABELLED]].median().reset_index()
    table["size"] = table["size"].map("{:,}".format)
    return table.set_axis(["what", "annotations", "wall time (s)", *LABELLED.values()], axis=1)


@styled()
def growth_figure(measured: pd.DataFrame) -> Figure:
    """Our time and memory against the size of what grows, log-log: parts of a study, and stages."""
    drawn = Figure("How time and memory grow", 5, PAGE)
    panels = drawn.subplots(2, 2, sharex="col", sharey="row")
    ours = measured[measured["way"] == "ours"]
    is_stage = ours["axis"].isin(STAGES)
    kinds = {"annotations, or what the legend says": ours[~is_stage].replace({"axis": NAMES})}
    kinds |= {"annotations of a catalog": ours[is_stage]}
    looks = {"hue": "axis", "style": "axis", "markers": True, "markersize": 7}
    looks |= {"estimator": "median", "errorbar": None}
    for column, (what, own) in zip(panels.T, kinds.items(), strict=True):
        for axes, (name, label) in zip(column, LABELLED.items(), strict=True):
            sns.lineplot(own, x="size", y=name, ax=axes, **looks)
            axes.set(xscale="log", yscale="log", xlabel=what, ylabel=label)
            plain_numbers(axes.xaxis)
            plain_numbers(axes.yaxis)
            axes.get_legend().remove()
        column[0].legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=2)
    return drawn

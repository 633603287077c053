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
from miewid_core.paper.intervals import sentence, with_interval
from miewid_core.paper.study import Study

# what ours is set beside; the last two search alone
PACKAGES = ("wildlife-tools", "pytorch-metric-learning", "textbook", "scikit-learn", "faiss")
DRAWN, RANKING = "12 megapixels", "ranking 5,000 annotations"
CUT_EMBEDDING, CUT_EPOCH = "embedding, photos cut before", "training epoch, photos cut before"
RATIO = ("ratio", "low", "high")  # columns of a ratio of times, and its range over the rounds
SPEEDS = {  # what is done: the task, our way, and the case in which it was measured
    CUT_EMBEDDING: ("peers", "ours", {"stage": "embedding", "kind": CUT}),
    "embedding, first pass": ("peers", "ours, first pass", {"stage": "embedding", "kind": DRAWN}),
    "embedding, later passes": ("peers", "ours", {"stage": "embedding", "kind": DRAWN}),
    CUT_EPOCH: ("peers", "ours", {"stage": "epoch", "kind": CUT}),
    "training epoch, first pass": ("peers", "ours, first pass", {"stage": "epoch", "kind": DRAWN}),
    "training epoch, later passes": ("peers", "ours", {"stage": "epoch", "kind": DRAWN}),
    RANKING: ("evaluation", "ours", {"n": 5000}),
    "ranking 10,000 annotations": ("evaluation", "ours", {"n": 10_000, "case": "six each"}),
    "ranking 10,000, heavy tail": ("evaluation", "ours", {"n": 10_000, "case": "heavy tail"}),
    "loss of 10,000 individuals": ("loss", "ours", {"classes": 10_000}),
    "loss of 20,000 individuals": ("loss", "ours", {"classes": 20_000}),
    "loss of 37,138 individuals": ("loss", "ours", {"classes": 37_138}),
    "training step": ("step", "ours", {}),
    "ranking 67,106 annotations": ("growth", "ours", {"axis": "annotations", "size": LARGEST}),
}
BOUNDS = {  # of what is done: the bare arithmetic of the plain way
    RANKING: ("product", "the product of all similarities"),
    "ranking 10,000 annotations": ("product", "the product of all similarities"),
    "ranking 10,000, heavy tail": ("product", "the product of all similarities"),
    "ranking 67,106 annotations": ("product", "the product of all similarities"),
    "loss of 10,000 individuals": ("products", "the products of embeddings and centers"),
    "loss of 20,000 individuals": ("products", "the products of embeddings and centers"),
    "loss of 37,138 individuals": ("products", "the products of embeddings and centers"),
}
EXPECTED = {  # slopes of time and of memory at large sizes, and the reason
    "annotations": (2, 1, "every annotation is compared with every other, a block at a time"),
    "classes": (1, 1, "every embedding is multiplied with every sub-center, which has a gradient"),
    "species": (-1, -1, "annotations are compared within their species: so many, n / species"),
    "load and check": (1, 1, "each annotation is read and checked once"),
    "split": (1, 1, "annotations are sorted and drawn from, species by species"),
    "plan": (1, 1, "each training's annotations are counted"),
    "evaluate": (2, 1, "each test annotation is compared with all others of its species"),
    "report": (1, 1, "each query is counted, and drawn from for an interval"),
}
OFF = 0.25  # of a slope: more than this from the expected one is told
NAMES = {  # of tasks and of what grows, for readers: as in SPEEDS
    "evaluation": "ranking",
    "step": "training step",
    "peers": "embedding, training epoch",
    "epoch": "training epoch",
    "annotations": "ranking one species",
    "classes": "loss (individuals)",
    "species": "ranking several (species)",
    "plan": "count of all trainings",
    "evaluate": "ranking a catalog",
    "report": "tables 1 and 2",
    "growth": "the paper's size",
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


def named(table: pd.DataFrame, column: str = "task") -> pd.DataFrame:
    """A table whose tasks, or what grows, have their NAMES."""
    return table.replace({column: NAMES})


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `speeds` for a reader: a row for each thing done, a column for each package."""
    texts = table.assign(text=with_range(table)).pivot(index="what", columns="way", values="text")
    shown = texts.reindex(index=table["what"].unique(), columns=PACKAGES).astype(object).fillna("")
    return shown.rename_axis("ours is so many times as fast as").reset_index()


def with_range(table: pd.DataFrame, decimals: int = 1) -> list[str]:
    """Ratios as text, with the range of the rounds where these differ."""
    ends = table[[*RATIO[1:]]].where(table["low"] < table["high"])
    return with_interval(table.assign(**ends), *RATIO, decimals=decimals)


def absolute(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Our processor seconds, photos per such second, and memory in times that of the packages."""
    own = speeds(measured).groupby("what", sort=False)
    seconds, memory = own["cpu_seconds"].first(), own["memory"].agg(["max", "min"])
    peers = [what for what in seconds.index if SPEEDS[what][0] == "peers"]
    photos = pd.Series(measured["peers"]["size"].iloc[0] if peers else 0.0, peers, float)
    shown = {
        "processor seconds": seconds,
        "photos per second": photos / seconds,
        "least memory / others'": 1 / memory["max"],
        "most memory / others'": 1 / memory["min"],
    }
    return pd.DataFrame(shown).loc[seconds.index].rename_axis("what").reset_index()


def memory_in_words(table: pd.DataFrame) -> str:
    """How often ours takes more memory than a package, and at most (`table`: of `speeds`)."""
    if table.empty:
        return ""
    memory = 1 / table["memory"]
    what, way = table.loc[memory.idxmax(), ["what", "way"]]
    return (
        f"Ours takes more memory in {(memory > 1).sum()} of {len(memory)} comparisons. The largest "
        f"ratio is {memory.max():.1f}: {what}, beside {way}."
    )


def measured_on(measured: Mapping[str, pd.DataFrame]) -> str:
    """How much was measured: photos and their batches, numbers of an embedding."""
    told = []
    if "peers" in measured:
        case = measured["peers"].iloc[0]
        told.append(
            f"{case['size']} photos of {DRAWN} in batches of {case['batch']} (preset "
            f"`{case['preset_name']}`)"
        )
    if "evaluation" in measured:
        told.append(f"embeddings of {measured['evaluation']['dim'].iloc[0]:,} numbers for ranking")
    return sentence(f"measured on {' and '.join(told)}") if told else ""


def answer(measured: Mapping[str, pd.DataFrame]) -> str:
    """How many times as fast as with wildlife-tools the work of a study is."""
    wanted = [CUT_EMBEDDING, CUT_EPOCH, RANKING]
    beside = speeds(measured, ("wildlife-tools",)).set_index("what")
    if set(wanted) - set(beside.index):
        return "How fast this is beside wildlife-tools was not measured in full."
    cut, epoch, ranking = with_range(beside.loc[wanted])
    rounds = measured["peers"]["round"].nunique()
    return (
        f"On photos cut before, embedding is {cut} times as fast as with wildlife-tools, a "
        f"training epoch {epoch} times, and ranking 5,000 annotations {ranking} times (in brackets "
        f"the range of {rounds} round{'s'[: rounds != 1]})."
    )


def conditions(measured: Mapping[str, pd.DataFrame]) -> str:
    """What an `answer` rests on: photos, machine, and how fast ours is there."""
    if "peers" not in measured:
        return ""
    photos = absolute(measured).set_index("what")["photos per second"]
    case = measured["peers"].iloc[-1]
    lacking = "" if "gpu" in measured else " No GPU was measured."
    return (
        f"Ours embeds {photos[CUT_EMBEDDING]:.0f} such photos a processor second or trains on "
        f"{photos[CUT_EPOCH]:.0f}: {case['size']} photos, preset `{case['preset_name']}`, "
        f"{case['machine']}.{lacking}"
    )


def narrowest(table: pd.DataFrame) -> str:
    """In how many comparisons of `speeds` ours is faster in every round, and the least ratio."""
    if table.empty:
        return ""
    least = table.loc[[table["ratio"].idxmin()]]
    what, way = least.iloc[0][["what", "way"]]
    return (
        f"Ours is faster in every round in {(table['low'] > 1).sum()} of {len(table)} comparisons "
        f"and slower in {(table['high'] < 1).sum()}. The least ratio is {with_range(least)[0]}: "
        f"{what}, beside {way}."
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
    faster = f"Ours is faster in every round in {ahead} of {len(table)} comparisons"
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
    """What was tried for a training step (of `step`): its rounds, and time relative to ours."""
    table = measuring.summary(measured).query("way not in ('ours', 'textbook')")
    rounds = table["way"].map(measured.groupby("way")["round"].nunique())
    table = table.assign(tried=table["way"], rounds=rounds)
    return relative(table, "tried", "rounds")


def relative(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Columns of a table of `measuring.summary` for a reader, and the time relative to ours."""
    return table[[*columns]].assign(**{"times as long as ours": with_range(table, 2)})


def now_in_words(now: pd.DataFrame) -> str:
    """What is faster than ours, and what our first pass costs (`now`: of `harness.now`)."""
    others = named(now[now["way"].isin(PACKAGES)])
    faster = others[others["high"] < 1]
    told = [f"{way} ({task})" for task, way in faster[["task", "way"]].to_numpy().tolist()]
    wide = now.pivot(index="task", columns="way", values="ratio")
    wide = wide.loc[["embedding", "epoch"], ["ours, first pass", "textbook"]]
    first, later = (
        " and ".join(f"{value:.1f}" for value in values)
        for values in (wide["ours, first pass"] / wide["textbook"], 1 / wide["textbook"])
    )
    return (
        f"Faster than ours in every round, but for bare products: {', '.join(told) or 'none'}. On "
        f"these small photos our first pass takes {first} times as long as the textbook's "
        f"(embedding, training epoch), a later one {later} times."
    )


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
    """Lines of code that a user writes, docstrings apart: package, and a column for each task."""
    counts = {
        way: {stage: sum(map(lines_of, written)) for stage, written in stages.items()}
        for way, stages in WRITTEN.items()
        if way != "textbook"  # its loops are of this project
    }
    table = pd.DataFrame(counts).T.rename(columns=NAMES)
    return table.rename_axis("package").reset_index()


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
            sizes = "; ".join(map("{:,}".format, medians.index))
            expected_time, expected_memory, reason = EXPECTED[axis]
            what = NAMES.get(axis, axis)
            rows.append([what, sizes, time, expected_time, memory, expected_memory, reason])
    heads = ["slope of time", "expected", "slope of memory", "expected memory", "reason"]
    return pd.DataFrame(rows, columns=["what", "sizes", *heads])


def slopes_in_words(table: pd.DataFrame) -> str:
    """Which of `slopes` are steeper or flatter than expected by more than OFF."""
    told: dict[str, list[str]] = {"steeper": [], "flatter": []}
    for kind, expected in (("time", "expected"), ("memory", "expected memory")):
        growth = table[f"slope of {kind}"] / np.sign(table[expected])  # a fall is a growth, too
        off = growth - table[expected].abs()
        for name, values in (("steeper", off), ("flatter", -off)):
            told[name] += [f"{what} ({kind})" for what in table["what"][values > OFF]]
    parts = [f"{name}: {', '.join(found) or 'none'}" for name, found in told.items()]
    return sentence(f"by more than {OFF} {'; '.join(parts)}")


def papers_size(measured: pd.DataFrame) -> pd.DataFrame:
    """Ours at the paper's size and at a million rows, for a reader: times and memory by size."""
    own = measured[(measured["way"] == "ours") & measured["size"].isin([LARGEST, WHOLE, MILLION])]
    own = named(own.rename(columns={"axis": "what"}), "what").groupby(["what", "size"], sort=False)
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
    kinds = {"annotations, or what the legend says": named(ours[~is_stage], "axis")}
    kinds |= {"annotations of a catalog": named(ours[is_stage], "axis")}
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

"""What was measured in full, as tables, figures and words."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core.bench import measuring
from miewid_core.bench.growth import LARGEST, MILLION, STAGES, WHOLE
from miewid_core.bench.harness import FOLDER, TASKS
from miewid_core.bench.peers import CUT, WRITTEN
from miewid_core.bench.step import TRIED
from miewid_core.figures import COLOURS, MARKERS, PAGE, Figure, label_rows, plain_numbers, styled
from miewid_core.paper import plan
from miewid_core.paper.intervals import with_interval
from miewid_core.paper.study import Study

PACKAGES = {  # what ours is set beside, and its name in tables; those with a star search alone
    "wildlife-tools": "wildlife-tools",
    "pytorch-metric-learning": "pytorch-metric-learning",
    "textbook": "textbook",
    "scikit-learn": "scikit-learn*",
    "faiss": "FAISS*",
}
DRAWN, RANKING = "12 megapixels", "ranking 5,000 annotations"
CUT_EMBEDDING, CUT_EPOCH = "embedding, photos cut before", "training epoch, photos cut before"
RATIO = ("ratio", "low", "high")  # columns of a ratio of times, and its range over the rounds
SPEEDS = {  # what is done: the task, our way, and the case in which it was measured
    CUT_EMBEDDING: ("peers", "ours", {"stage": "embedding", "kind": CUT}),
    "embedding, large photos": ("peers", "ours, first pass", {"stage": "embedding", "kind": DRAWN}),
    "embedding, large photos again": ("peers", "ours", {"stage": "embedding", "kind": DRAWN}),
    CUT_EPOCH: ("peers", "ours", {"stage": "epoch", "kind": CUT}),
    "training epoch, large photos": (
        "peers",
        "ours, first pass",
        {"stage": "epoch", "kind": DRAWN},
    ),
    "training epoch, large photos again": ("peers", "ours", {"stage": "epoch", "kind": DRAWN}),
    RANKING: ("evaluation", "ours", {"n": 5000}),
    "ranking 10,000 annotations": ("evaluation", "ours", {"n": 10_000, "case": "six each"}),
    "ranking 10,000, heavy tail": ("evaluation", "ours", {"n": 10_000, "case": "heavy tail"}),
    "loss of 10,000 individuals": ("loss", "ours", {"classes": 10_000}),
    "loss of 20,000 individuals": ("loss", "ours", {"classes": 20_000}),
    "training step": ("step", "ours", {}),
}
NAMES = {  # of tasks and of what grows, for readers: as in SPEEDS
    "evaluation": "ranking",
    "step": "training step",
    "peers": "embedding, training epoch",
    "epoch": "training epoch",
    "annotations": "ranking one species",
    "plan": "count of all trainings",
    "evaluate": "ranking a catalog",
    "report": "tables 1 and 2",
    "growth": "the paper's size",
}
LABELLED = {"cpu_seconds": "processor seconds", "megabytes": "extra memory (MB)"}


def read(folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """What was measured in full, by task, for those that were."""
    paths = {name: folder / f"{name}.csv" for name in TASKS}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}


def named(table: pd.DataFrame, column: str = "task") -> pd.DataFrame:
    """A table whose tasks, or what grows, have their NAMES."""
    return table.replace({column: NAMES})


def of_case(measured: pd.DataFrame, case: Mapping[str, object]) -> pd.DataFrame:
    """The measurements of one case."""
    return measured[(measured[list(case)] == pd.Series(case)).all(axis=1)]


def speeds(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many times the processor time of ours others take: a row for each of SPEEDS and package.

    Columns what, way, ratio, low, high (range over the rounds), memory (ratio of the medians),
    and ours: seconds (of the clock), cpu_seconds. `measured`: of `read`.
    """
    times = ["seconds", "cpu_seconds"]
    columns = ["what", "way", *RATIO, "memory", *times]
    parts = [pd.DataFrame(columns=columns)]
    for what, (task, ours, case) in SPEEDS.items():
        if task in measured:
            table = measuring.summary(of_case(measured[task], case), against=ours).set_index("way")
            table = table.assign(**{name: table[name].get(ours) for name in times})
            found = table.reindex([*PACKAGES]).dropna(subset="ratio").reset_index()
            parts.append(found.assign(what=what)[columns])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `speeds` for a reader: a row for each thing done, a column for each package."""
    texts = table.assign(text=with_range(table)).pivot(index="what", columns="way", values="text")
    shown = texts.reindex(index=table["what"].unique(), columns=[*PACKAGES]).astype(object)
    shown = shown.fillna("").rename(columns=PACKAGES)
    return shown.rename_axis("ours is so many times as fast as").reset_index()


def with_range(table: pd.DataFrame, decimals: int = 1) -> list[str]:
    """Ratios as text, with the range of the rounds where these differ."""
    ends = table[[*RATIO[1:]]].where(table["low"] < table["high"])
    return with_interval(table.assign(**ends), *RATIO, decimals=decimals)


def absolute(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Our times, photos per processor second, and memory in times that of the packages."""
    own = speeds(measured).groupby("what", sort=False)
    times, memory = own[["seconds", "cpu_seconds"]].first(), own["memory"].agg(["max", "min"])
    peers = [what for what in times.index if SPEEDS[what][0] == "peers"]
    photos = pd.Series(measured["peers"]["size"].iloc[0] if peers else 0.0, peers, float)
    shown = {
        "wall seconds": times["seconds"],
        "processor seconds": times["cpu_seconds"],
        "photos per processor second": (photos / times["cpu_seconds"]).round().astype("Int64"),
        "least memory / others'": 1 / memory["max"],
        "most memory / others'": 1 / memory["min"],
    }
    return pd.DataFrame(shown).loc[times.index].rename_axis("what").reset_index()


def answer(measured: Mapping[str, pd.DataFrame]) -> str:
    """How many times as fast as with wildlife-tools the work of a study is."""
    wanted = [CUT_EMBEDDING, CUT_EPOCH, RANKING]
    beside = speeds(measured).query("way == 'wildlife-tools'").set_index("what")
    if set(wanted) - set(beside.index):
        return "How fast this is beside wildlife-tools was not measured in full."
    cut, epoch, ranking = with_range(beside.loc[wanted])
    rounds, memory = measured["peers"]["round"].nunique(), 1 / beside["memory"]
    return (
        f"On photos cut before and seen before, embedding is {cut} times as fast as with "
        f"wildlife-tools, a training epoch {epoch} times, and ranking 5,000 annotations {ranking} "
        f"times (in brackets the range of {rounds} round{'s'[: rounds != 1]}). It takes "
        f"{memory.min():.1f} to {memory.max():.1f} times the memory."
    )


def conditions(measured: Mapping[str, pd.DataFrame]) -> str:
    """What an `answer` rests on: photos, machine, and how fast ours is there."""
    if "peers" not in measured:
        return ""
    photos = absolute(measured).set_index("what")["photos per processor second"]
    case = measured["peers"].iloc[-1]
    lacking = "" if "gpu" in measured else " No GPU was measured."
    return (
        f"Of photos cut before, ours embeds {photos[CUT_EMBEDDING]} a processor second, or trains "
        f"on {photos[CUT_EPOCH]} ({case['size']} photos, preset `{case['preset_name']}`, "
        f"{case['machine']}).{lacking}"
    )


def ahead(table: pd.DataFrame) -> str:
    """In how many comparisons of `speeds` ours is faster in every round."""
    return (
        f"Ours is faster in every round in {(table['low'] > 1).sum()} of {len(table)} comparisons"
    )


def in_words(table: pd.DataFrame) -> str:
    """In how many comparisons of `speeds` ours is ahead or behind, and in which by the median."""
    faster, slower = (table["low"] > 1).sum(), (table["high"] < 1).sum()
    below = table[table["ratio"].round(2) < 1]
    told = [
        f"{what} beside {way}, {text}"
        for what, way, text in zip(below["what"], below["way"], with_range(below, 2), strict=True)
    ]
    return (
        f"{ahead(table)} and slower in every round in {slower}; in {len(table) - faster - slower} "
        f"the rounds are mixed. Slower by the median: {'; '.join(told) or 'none'}."
    )


@styled()
def figure(table: pd.DataFrame) -> Figure:
    """How many times as fast ours is (`table`: of `speeds`), with the range of the rounds."""
    whats = table["what"].unique().tolist()
    drawn = Figure(ahead(table), 1.2 + 0.3 * len(whats), PAGE)
    axes = drawn.subplots()
    axes.axvline(1, color="black", linewidth=0.8)
    looks = zip(PACKAGES, MARKERS, COLOURS, np.linspace(-0.3, 0.3, len(PACKAGES)), strict=False)
    for way, marker, colour, shift in looks:
        own = table[table["way"] == way]
        places = np.array([whats.index(what) for what in own["what"]]) + shift
        axes.hlines(places, own["low"], own["high"], colour, linewidth=1)
        axes.plot(own["ratio"], places, marker, color=colour, label=PACKAGES[way])
    label_rows(axes, np.arange(len(whats)), whats)
    axes.set(xscale="log", xlabel="ours is so many times as fast (log scale; range of the rounds)")
    plain_numbers(axes.xaxis)
    drawn.legend(loc="outside lower left", ncols=3)
    return drawn


def papers_size(measured: pd.DataFrame) -> pd.DataFrame:
    """Ours at the paper's size and at a million rows, for a reader: times and memory by size."""
    own = measured[(measured["way"] == "ours") & measured["size"].isin([LARGEST, WHOLE, MILLION])]
    own = named(own.rename(columns={"axis": "what"}), "what").groupby(["what", "size"], sort=False)
    table = own[["seconds", *LABELLED]].median().reset_index()
    return table.set_axis(["what", "annotations", "wall seconds", *LABELLED.values()], axis=1)


def beside_products(measured: Mapping[str, pd.DataFrame]) -> str:
    """Ours at the paper's size beside the bare arithmetic of the plain way."""
    ranking = of_case(measured["growth"], {"axis": "annotations", "size": LARGEST})
    loss = of_case(measured["loss"], {"classes": measured["loss"]["classes"].max()})
    parts = ((ranking, "product"), (loss, "products"))
    of_ranking, of_loss = (
        measuring.summary(own, against=bare).set_index("way").loc["ours", "ratio"]
        for own, bare in parts
    )
    return (
        f"Ranking {LARGEST:,} annotations takes {of_ranking:.2f} times as long as the bare product "
        "of all similarities, in which each pair is computed twice, and the loss of "
        f"{loss['classes'].iloc[0]:,} individuals {of_loss:.2f} times as long as its bare products."
    )


def slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """Slopes of our time and memory, medians in a log-log plot: by axis, columns of LABELLED."""
    found = {}
    for axis, own in measured[measured["way"] == "ours"].groupby("axis", sort=False):
        medians = own.groupby("size")[[*LABELLED]].median().clip(lower=1e-9)
        if len(medians) > 1:
            found[axis] = np.polyfit(np.log(medians.index), np.log(medians), 1)[0]
    return pd.DataFrame.from_dict(found, orient="index", columns=[*LABELLED])


@styled()
def growth_figure(measured: pd.DataFrame) -> Figure:
    """Our time and memory by annotations, log-log; the legends have the `slopes`."""
    drawn, ours = Figure("Time and memory by annotations", 4, PAGE), measured.query("way == 'ours'")
    steep = slopes(ours)
    for axes, (name, label) in zip(drawn.subplots(1, 2), LABELLED.items(), strict=True):
        for axis, marker, colour in zip(("annotations", *STAGES), MARKERS, COLOURS, strict=False):
            medians = ours[ours["axis"] == axis].groupby("size")[name].median()
            words = f"{NAMES.get(axis, axis)}: {steep[name][axis]:.1f}"
            axes.plot(medians, marker=marker, color=colour, label=words)
        axes.set(xscale="log", yscale="log", xlabel="annotations", ylabel=label)
        plain_numbers(axes.xaxis)
        plain_numbers(axes.yaxis)
        axes.legend(title="slope", loc="upper left", bbox_to_anchor=(0, -0.2))
    return drawn


def other_slopes(measured: pd.DataFrame) -> str:
    """The `slopes` of what grows with something else than annotations."""
    loss, ranking = slopes(measured).loc[["classes", "species"]].to_numpy()
    return (
        f"Slopes of time and memory: {loss[0]:.1f} and {loss[1]:.1f} of the loss by individuals, "
        f"{ranking[0]:.1f} and {ranking[1]:.1f} of ranking 16,000 annotations by their species."
    )


def in_small(now: pd.DataFrame) -> str:
    """Ours beside the others as measured just now, and our first pass (`now`: of `harness.now`)."""
    others = named(now[now["way"].isin(PACKAGES)]).rename(columns={"task": "what"})
    wide = now.pivot(index="way", columns="task", values="ratio")
    first = wide.loc["ours, first pass"] / wide.loc["textbook"]
    return (
        f"{in_words(others)} When ours sees these small photos for the first time, it takes "
        f"{first['embedding']:.1f} times as long as the textbook to embed, and "
        f"{first['epoch']:.1f} times for a training epoch."
    )


def agreement(folder: Path = FOLDER) -> pd.DataFrame:
    """`measuring.agreement` of all that was measured in full, with machine and date."""
    return pd.read_csv(folder / "agreement.csv")


def farthest(agreement: pd.DataFrame) -> str:
    """The largest difference of an `agreement`, of what is allowed."""
    share = agreement["difference"] / agreement["allowed"]
    task, way, difference, allowed = agreement.loc[share.idxmax()].iloc[:4]
    return (
        f"The largest difference from our answers is {100 * share.max():.0f} % of what is allowed "
        f"({NAMES.get(task, task)} by {way}: {difference:.1e} of {allowed:.0e}, relative to our "
        "largest value)."
    )


def lines() -> str:
    """Lines of code that a user writes, docstrings apart, by package and task."""
    told = [
        f"{way} {', '.join(str(sum(map(lines_of, written))) for written in stages.values())}"
        for way, stages in WRITTEN.items()
        if way != "textbook"  # its loops are of this project
    ]
    return (
        "Lines of code that a user writes for embedding, a training epoch and ranking: "
        f"{'; '.join(told)}."
    )


def lines_of(written: object) -> int:
    """Lines of a function or class but for docstrings, comments and empty ones."""
    words = re.sub(r'""".*?"""', "", inspect.getsource(written), flags=re.DOTALL)
    return len(re.findall(r"^ *[^ #\n]", words, re.MULTILINE))


def tried(measured: pd.DataFrame) -> str:
    """What was tried for a training step (of `step`), and its time relative to ours."""
    table = measuring.summary(measured).query(f"way in {TRIED}")
    told = map(" ".join, zip(table["way"], with_range(table, 2), strict=True))
    return f"A training step takes, relative to ours: {', '.join(told)}."


def sharing(study: Study, preset: str) -> float:
    """How many times as many photos would pass through networks if no training were shared."""
    asked = [{own.key: own.photos for own in jobs} for jobs in plan.asked(study, preset).values()]
    distinct = {key: photos for jobs in asked for key, photos in jobs.items()}
    return sum(sum(jobs.values()) for jobs in asked) / sum(distinct.values())


def sources(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where and when each task was measured in full: task, machine, date, rounds, load.

    load: the median of the system's load average; more than there are cores is a busy machine.
    """
    table = pd.concat(measured, names=["task", None]).reset_index("task")
    own = table.groupby(["task", "machine", "date"], sort=False)
    return own.agg(rounds=("round", "nunique"), load=("load", "median")).reset_index()

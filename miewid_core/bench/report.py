"""What was measured, as tables, figures and words."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from miewid_core.bench import epoch, evaluation, measuring, paper_size, peers
from miewid_core.config import preset
from miewid_core.figures import BLUE, GREY, ORANGE, PAGE, Figure, styled
from miewid_core.model import MiewIDNet
from miewid_core.paper.backbones import multiply_adds

AXES = {
    "annotations": "annotations (N)",
    "classes": "classes (C)",
    "species": f"species, of {evaluation.TOTAL:,} annotations",
} | dict.fromkeys(paper_size.STAGES, "annotations")
EXPECTED = evaluation.EXPECTED | paper_size.STAGES  # slopes of time and memory
NOT_MEASURED = "Not measured yet: `python -m miewid_core bench {}` does."


@dataclasses.dataclass(frozen=True)
class Target:
    """`over` divided by `under` is to be at least (or, of a cost, at most) `bound`."""

    task: str
    over: str
    under: str
    bound: float
    column: str = "seconds"
    at_most: bool = False
    case: Mapping[str, object] = dataclasses.field(default_factory=dict)


RESULTS = ("way", "seconds", "ratio", "low", "high", "megabytes", "memory")
LARGEST = {"n": 20_000}
TARGETS = (
    Target("evaluation", "textbook", "ours", 5, case=LARGEST),
    Target("evaluation", "textbook", "ours", 30, "megabytes", case=LARGEST),
    Target("evaluation", "ours", "product", 1.25, at_most=True, case=LARGEST),
    Target("evaluation", "pytorch-metric-learning", "ours", 1, case={"n": 10_000}),
    Target("evaluation", "wildlife-tools", "ours", 1, case={"n": 10_000}),
    Target("largest_species", "ours", "product", 1.25, at_most=True),
    Target("loss", "ours", "products", 1.25, at_most=True),
    Target("loss", "ours", "textbook", 0.6, "megabytes", at_most=True),
    Target("photos", "textbook", "ours, first pass", 2),
    Target("photos", "textbook", "ours", 20),
    Target("augment", "torchvision", "ours", 1),
    Target("augment", "before resizing", "ours", 1),
    Target("step", "textbook", "ours", 1.4),
    Target("epoch", "textbook", "ours", 4),
    Target("embedding", "textbook", "ours", 1.5),
    Target("embedding", "textbook", "ours, first pass", 1.5),
    Target("peers", "wildlife-tools", "ours", 1),
    Target("peers", "pytorch-metric-learning", "ours", 1),
)
SECONDS = (  # task, which of its rows, and at most how many seconds
    ("startup", {"way": "miewid_core"}, 0.3),
    ("startup", {"way": "papermill 04_multi_vs_single"}, 15.0),
    ("paper_size", {"axis": "load and check", "size": 1_000_000}, 30.0),
    ("paper_size", {"axis": "split", "size": 1_000_000}, 30.0),
)
GPU = [task.name for task in (epoch.EPOCH, epoch.EMBEDDING, epoch.PRODUCT)]
FLOORS = (  # what any way with the same answers has to do: nothing else in its task can be saved
    Target("evaluation", "textbook", "product", 5, case=LARGEST),
    Target("photos", "textbook", "least decoding", 2),
    Target("loss", "textbook", "products", 1),
)


def ratios(measured: pd.DataFrame, target: Target) -> pd.DataFrame:
    """Per case the ratio that `target` is about: the cases' columns, ratio, low, high (rounds)."""
    measured = _rows(measured, target.case)
    keys = [name for name in measured if name not in measuring.MEASURED]
    wide = measured.pivot_table(target.column, [*keys, "round"], "way")
    if not {target.over, target.under} <= set(wide):
        return pd.DataFrame(columns=[*keys, "ratio", "low", "high"])
    ratio = wide[target.over] / wide[target.under].where(lambda values: values > 0)
    found = ratio.dropna().groupby(keys).agg(ratio="median", low="min", high="max")
    return found.reset_index()


def _rows(measured: pd.DataFrame, case: Mapping[str, object]) -> pd.DataFrame:
    """The rows that have the values of `case`."""
    for key, value in case.items():
        measured = measured[measured[key] == value]
    return measured


def targets(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """What was to be reached and what was: one row per target and case.

    Columns task, case, what, required, found, low, high (a ratio; of startup seconds), reached
    ("yes", "no", or why it isn't known). `measured`: of `harness.measured`.
    """
    rows = []
    for target in TARGETS:
        unit = "time" if target.column == "seconds" else "extra memory"
        sign = "<=" if target.at_most else ">="
        what = f"{unit}, {target.over} / {target.under}", f"{sign} {target.bound:g}"
        table = measured.get(target.task, pd.DataFrame())
        found = ratios(table, target) if len(table) else table
        if found.empty:
            why = "not measured here" + (": no GPU" if target.task in GPU else "")
            rows.append((target.task, "", *what, np.nan, np.nan, np.nan, why))
        for case in found.to_dict("records"):
            numbers = [case.pop(name) for name in ("ratio", "low", "high")]
            reached = numbers[0] <= target.bound if target.at_most else numbers[0] >= target.bound
            words = _words(case)
            rows.append((target.task, words, *what, *numbers, "yes" if reached else "no"))
    rows += _seconds(measured)
    columns = ["task", "case", "what", "required", "found", "low", "high", "reached"]
    return pd.DataFrame(rows, columns=columns)


def _seconds(measured: Mapping[str, pd.DataFrame]) -> list[tuple]:
    """Rows of `targets` for what is asked for in seconds, of the tasks that were measured."""
    rows = []
    for task, case, bound in SECONDS:
        if task in measured:
            own = _rows(measured[task], case)["seconds"]
            found = own.median(), own.min(), own.max()
            reached = "yes" if found[0] <= bound else "no" if len(own) else "not measured here"
            words = next(iter(case.values())) if task == "startup" else _words(case)
            rows.append((task, words, "seconds", f"<= {bound:g}", *found, reached))
    return rows


def _words(case: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in case.items())


def in_words(table: pd.DataFrame) -> str:
    """How many targets are reached, by `targets`, and a line for each that is not."""
    known = table[table["reached"].isin(["yes", "no"])]
    lines = [f"{(known['reached'] == 'yes').sum()} of {len(known)} targets are reached."]
    for row in table[table["reached"] != "yes"].itertuples():
        told = f"{row.found:.2f} ({row.low:.2f} to {row.high:.2f})"
        found = told if row.reached == "no" else row.reached
        case = f" ({row.case})" if row.case else ""
        lines.append(f"- {row.task}{case}, {row.what}: {row.required} asked for, {found}.")
    return "\n".join(lines)


def together(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Summaries of all tasks in one table: task, case (in words), way, `measuring.summary`'s."""
    parts = []
    for task, table in measured.items():
        own = measuring.summary(table)
        cases = own.drop(columns=list(RESULTS)).to_dict("records")
        words = [_words(case) for case in cases]
        parts.append(own[list(RESULTS)].assign(task=task, case=words))
    return pd.concat(parts, ignore_index=True)[["task", "case", *RESULTS]]


def on_a_gpu(measured: Mapping[str, pd.DataFrame]) -> str:
    """Rates of our epoch and embedding, and the share of the GPU's matrix products they use."""
    if not measured.keys() >= set(GPU):
        return f"Preset `paper` on a GPU. {NOT_MEASURED.format('gpu')}"
    limit = 2 * epoch.LARGE**3 / _ours(measured["gpu_product"])
    config = preset(epoch.PAPER["preset_name"], pretrained=False)
    once = 2 * multiply_adds(MiewIDNet(config.backbone, False), config.image_size)
    lines = [f"Preset `paper` on {measured['epoch']['machine'].iloc[-1]}:"]
    for task, passes in (("epoch", 3), ("gpu_embedding", 1)):  # backward is twice the forward
        rate = measured[task]["photos"].iloc[0] / _ours(measured[task])
        share = 100 * passes * once * rate / limit
        lines.append(f"- {task}: {rate:,.0f} photos/s, {share:.0f} % of the GPU's products.")
    return "\n".join([*lines, f"- The products alone: {limit / 1e12:,.0f} TFLOP/s in bfloat16."])


def _ours(measured: pd.DataFrame) -> float:
    """Our median seconds."""
    return measured.loc[measured["way"] == "ours", "seconds"].median()


def floors(measured: Mapping[str, pd.DataFrame]) -> str:
    """How many times as fast as the textbook the bare work alone would be, by task and case."""
    lines = []
    for floor in FLOORS:
        for case in ratios(measured[floor.task], floor).to_dict("records"):
            ratio, low, high = (case.pop(name) for name in ("ratio", "low", "high"))
            words = _words(case)
            told = f"{ratio:.2f} ({low:.2f} to {high:.2f}) times as fast as the textbook"
            lines.append(f"- {floor.task} ({words}): {floor.under} alone, {told}.")
    return "\n".join(lines)


def computed() -> str:
    """What comes out of each way of the evaluation."""
    return "\n".join(f"- evaluation, {way}: {what}." for way, what in evaluation.COMPUTES.items())


@styled()
def beside(table: pd.DataFrame, title: str) -> Figure:
    """Time of each other way relative to ours (`table`: of `together`), with its range."""
    shown = table[table["way"] != "ours"]
    cases = shown.groupby(["task", "case"], sort=False)
    groups = [(f"{task}: {case}", own) for (task, case), own in cases]
    drawn = Figure(title, 0.8 + 0.15 * (len(shown) + len(groups)), PAGE)
    axes = drawn.subplots()
    axes.axvline(1, color="black", linewidth=0.8)
    names: dict[int, str] = {}
    place = 0
    for words, own in groups:
        look = {"va": "center", "fontweight": "bold"}
        axes.annotate(words, (0.01, place), xycoords=("axes fraction", "data"), **look)
        places = place + 1 + np.arange(len(own))
        axes.hlines(places, own["low"], own["high"], BLUE, linewidth=1)
        axes.plot(own["ratio"], places, "o", color=BLUE, ls="")
        names |= dict(zip(places.tolist(), own["way"], strict=True))
        place += 1 + len(own)
    axes.set_yticks(list(names), list(names.values()))
    axes.set_ylim(place - 0.4, -0.6)
    axes.set(xscale="log", xlabel="time relative to ours (log scale; line: range of the rounds)")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_locator(NullLocator())
    return drawn


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


@styled()
def growth(measured: pd.DataFrame, slopes: pd.DataFrame, title: str) -> Figure:
    """Our time and memory against what grows, log-log, with slopes (of `slopes`)."""
    drawn = Figure(title, 3.6, PAGE)
    grid = drawn.subplots(2, len(slopes), squeeze=False)
    looks = (("seconds", "time (s)", BLUE, "o"), ("megabytes", "extra memory (MB)", ORANGE, "s"))
    for place, row in enumerate(slopes.to_dict("records")):
        own = measured[measured["axis"] == row["axis"]]
        for axes, (column, words, colour, marker) in zip(grid[:, place], looks, strict=True):
            medians = own.groupby("size")[column].median()
            axes.plot(own["size"], own[column], ".", color=GREY, ls="")
            axes.plot(medians.index, medians, f"-{marker}", color=colour)
            axes.set(xscale="log", yscale="log", xlabel=AXES[row["axis"]])
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
                axis.set_minor_locator(NullLocator())
                axis.set_major_formatter("{x:,g}")
            slope = f"slope {row[column]:.2f} (expected {row[f'expected_{column}']:g})"
            axes.set_title(slope, loc="left")
            if not place:
                axes.set_ylabel(words)
    return drawn


def did_not_pay(measured: pd.DataFrame) -> str:
    """What was tried for a training step (`tried`): each variant's time relative to ours."""
    table = measuring.summary(measured)
    lines = [
        f"- {row.way}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}) times ours"
        for row in table[table["way"] != "ours"].itertuples()
    ]
    return "\n".join(lines)


def growth_in_words(slopes: pd.DataFrame) -> str:
    """Each axis's slopes beside the expected ones, and the reason of these."""
    lines = [
        f"- {row.axis}: time {row.seconds:.2f} ({row.expected_seconds:g} expected), memory "
        f"{row.megabytes:.2f} ({row.expected_megabytes:g} expected): {row.reason}."
        for row in slopes.itertuples()
    ]
    return "\n".join(lines)


def sources(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where and when each task was measured in full: task, machine, date, measurements, load.

    load: the median of the system's load average; more than there are cores is a busy machine.
    """
    parts = []
    for task, table in measured.items():
        known = table.reindex(columns=["machine", "date"]).astype(object).fillna("not recorded")
        known["load"] = table.get("load", np.nan)
        own = known.groupby(["machine", "date"])["load"].agg(measurements="size", load="median")
        parts.append(own.reset_index().assign(task=task))
    table = pd.concat(parts, ignore_index=True)
    return table[["task", "machine", "date", "measurements", "load"]]


def agreement_in_words(agreement: pd.DataFrame) -> str:
    """Which ways were compared with ours, and which were not (of `measuring.agreement`)."""
    compared = agreement[agreement["compared"] == "yes"]
    within = (compared["difference"] <= compared["allowed"]).sum()
    lines = [f"{within} of the {len(compared)} ways that were compared gave our answers."]
    for task, own in agreement[agreement["compared"] == "no"].groupby("task", sort=False):
        lines.append(f"- Not compared, of {task}: {', '.join(own['way'])}.")
    return "\n".join(lines)


def largest_in_words(measured: Mapping[str, pd.DataFrame]) -> str:
    """Time and memory of the largest species' evaluation, beside the bare product's."""
    if "largest_species" not in measured:
        return NOT_MEASURED.format("largest_species")
    table = measuring.summary(measured["largest_species"]).set_index("way")
    ours, product = table.loc["ours"], table.loc["product"]
    return (
        f"One-vs-all of {ours['n']:,.0f} annotations of one species, {ours['dim']:,.0f} features "
        f"each, memory-mapped: {ours['seconds']:.0f} s and {ours['megabytes']:,.0f} MB, pages of "
        f"the file included. The bare product of all pairs takes {product['seconds']:.0f} s: ours "
        f"compares at {product['ratio']:.2f} times its rate ({product['low']:.2f} to "
        f"{product['high']:.2f})."
    )


def peers_table(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Packages as they are installed, and the lines of code that a user of each writes.

    Columns stage, kind, size, preset_name, batch, those of `measuring.summary`, lines. Without rows
    where it wasn't measured.
    """
    if "peers" not in measured:
        return pd.DataFrame(columns=["stage", "kind", "size", *RESULTS, "lines"])
    table = measuring.summary(measured["peers"])
    return table.merge(peers.lines(), how="left", on=["stage", "way"])

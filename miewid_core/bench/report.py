"""What was measured, as tables, figures and words."""

import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from miewid_core.bench import harness, measuring, peers
from miewid_core.bench.evaluation import LARGEST
from miewid_core.config import preset
from miewid_core.figures import BLUE, PAGE, Figure, plain_numbers, styled
from miewid_core.model import MiewIDNet
from miewid_core.paper.backbones import multiply_adds

NOT_MEASURED = "Not measured yet: `python -m miewid_core bench {}` does."
RESULTS = ("way", "seconds", "ratio", "low", "high", "megabytes", "memory")
LARGE = {"n": 20_000}
UNITS = {"seconds": "time", "megabytes": "extra memory"}


class Target(NamedTuple):
    """What a way is to take, as a multiple of another way, or in seconds where there is none."""

    task: str
    way: str
    against: str
    required: str = ""
    case: Mapping[str, object] = {}
    column: str = "seconds"


TARGETS = (
    Target("evaluation", "textbook", "ours", ">= 5", LARGE),
    Target("evaluation", "textbook", "ours", ">= 30", LARGE, "megabytes"),
    Target("evaluation", "ours", "product", "<= 1.25", LARGE),
    Target("evaluation", "pytorch-metric-learning", "ours", ">= 1", {"n": 10_000}),
    Target("evaluation", "wildlife-tools", "ours", ">= 1", {"n": 10_000}),
    Target("evaluation", "ours", "product", "<= 1.25", {"n": LARGEST}),
    Target("loss", "ours", "products", "<= 1.25"),
    Target("loss", "ours", "textbook", "<= 0.6", column="megabytes"),
    Target("photos", "textbook", "ours, first pass", ">= 2"),
    Target("photos", "textbook", "ours", ">= 20"),
    Target("step", "textbook", "ours", ">= 1.4"),
    Target("epoch", "textbook", "ours", ">= 4"),
    Target("embedding", "textbook", "ours", ">= 1.5"),
    Target("embedding", "textbook", "ours, first pass", ">= 1.5"),
    Target("peers", "wildlife-tools", "ours", ">= 1"),
    Target("peers", "pytorch-metric-learning", "ours", ">= 1"),
    Target("growth", "ours", "", "<= 30", {"axis": "load and check", "size": 1_000_000}),
    Target("growth", "ours", "", "<= 30", {"axis": "split", "size": 1_000_000}),
)
FLOORS = (  # what any way with the same answers has to do: nothing else in its task can be saved
    Target("evaluation", "textbook", "product", case=LARGE),
    Target("photos", "textbook", "least decoding"),
    Target("loss", "textbook", "products"),
)
GPU = [task.name for task in harness.GPU]


def bullets(table: pd.DataFrame, sentence: str) -> str:
    """A list with `sentence` for each row, its {columns} filled in."""
    return "\n".join("- " + sentence.format(**row) for row in table.to_dict("records"))


def targets(
    measured: Mapping[str, pd.DataFrame], wanted: Sequence[Target] = TARGETS
) -> pd.DataFrame:
    """What was to be reached and what was: one row per target and case.

    Columns task, case, what, required, found, low, high (a ratio, or seconds), reached ("yes",
    "no", or why it isn't known). `measured`: of `harness.measured`.
    """
    signs = {"<=": operator.le, ">=": operator.ge}
    rows = []
    for target in wanted:
        words = f"{UNITS[target.column]}, {target.way} / {target.against}"
        what = words if target.against else f"seconds, {target.way}"
        for case, *numbers in _found(measured.get(target.task), target):
            reached = "not measured here" + (": no GPU" if target.task in GPU else "")
            if target.required and not np.isnan(numbers[0]):
                sign, bound = target.required.split()
                reached = "yes" if signs[sign](numbers[0], float(bound)) else "no"
            rows.append((target.task, case, what, target.required, *numbers, reached))
    columns = ["task", "case", "what", "required", "found", "low", "high", "reached"]
    return pd.DataFrame(rows, columns=columns)


def _found(measured: pd.DataFrame | None, target: Target) -> list[tuple[str, float, float, float]]:
    """By case: median, lowest and highest of the rounds; NaN where it was not measured."""
    unknown = [(_words(target.case), np.nan, np.nan, np.nan)]
    if measured is None:
        return unknown
    rows = measured[(measured[list(target.case)] == pd.Series(target.case)).all(axis=1)]
    if not target.against:
        own = rows.loc[rows["way"] == target.way, target.column]
        return [(_words(target.case), own.median(), own.min(), own.max())]
    table = measuring.ratios(rows, target.against, target.column).dropna().reset_index()
    cases = table[table["way"] == target.way].drop(columns="way").to_dict("records")
    numbers = [[case.pop(name) for name in ("ratio", "low", "high")] for case in cases]
    return [(_words(case), *three) for case, three in zip(cases, numbers, strict=True)] or unknown


def _words(case: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in case.items())


def in_words(table: pd.DataFrame) -> str:
    """How many targets are reached, by `targets`, and a line for each that is not."""
    known = table[table["reached"].isin(["yes", "no"])]
    missed, unknown = known[known["reached"] == "no"], table.drop(known.index)
    told = "{task}, {what} ({case}): {required} asked for, "
    lines = [
        f"{(known['reached'] == 'yes').sum()} of {len(known)} targets are reached.",
        bullets(missed, told + "{found:.2f} ({low:.2f} to {high:.2f})."),
        bullets(unknown, told + "{reached}."),
    ]
    return "\n".join(filter(None, lines)).replace(" ()", "")


def floors(measured: Mapping[str, pd.DataFrame]) -> str:
    """How many times as fast as the textbook the bare work alone would be, by task and case."""
    told = "{task} ({case}): {what}, {found:.2f} ({low:.2f} to {high:.2f})."
    return bullets(targets(measured, FLOORS), told)


def together(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Summaries of all tasks in one table: task, case (in words), way, `measuring.summary`'s."""
    parts = []
    for task, table in measured.items():
        own = measuring.summary(table)
        cases = own.drop(columns=list(RESULTS)).to_dict("records")
        parts.append(own[list(RESULTS)].assign(task=task, case=[_words(case) for case in cases]))
    return pd.concat(parts, ignore_index=True)[["task", "case", *RESULTS]]


def on_a_gpu(measured: Mapping[str, pd.DataFrame]) -> str:
    """Rates of our epoch and embedding, and the share of the GPU's matrix products they use."""
    if not measured.keys() >= set(GPU):
        return f"Preset `paper` on a GPU. {NOT_MEASURED.format('gpu')}"
    own = {task: measured[task][measured[task]["way"] == "ours"] for task in GPU}
    limit = 2 * peers.LARGE**3 / own["gpu_product"]["seconds"].median()
    config = preset(peers.PAPER["preset_name"], pretrained=False)
    once = 2 * multiply_adds(MiewIDNet(config.backbone, False), config.image_size)
    lines = [f"Preset `paper` on {own['epoch']['machine'].iloc[-1]}:"]
    for task, passes in (("epoch", 3), ("gpu_embedding", 1)):  # backward is twice the forward
        rate = own[task]["photos"].iloc[0] / own[task]["seconds"].median()
        share = 100 * passes * once * rate / limit
        lines.append(f"- {task}: {rate:,.0f} photos/s, {share:.0f} % of the GPU's products.")
    return "\n".join([*lines, f"- The products alone: {limit / 1e12:,.0f} TFLOP/s in bfloat16."])


@styled()
def beside(table: pd.DataFrame, title: str) -> Figure:
    """Time of each other way relative to ours (`table`: of `together`), with its range."""
    heads = table[table["way"] == "ours"].assign(ratio=np.nan, low=np.nan, high=np.nan)
    heads["way"] = heads["task"] + ": " + heads["case"] + "  "
    rows = pd.concat([heads, table[table["way"] != "ours"]]).sort_index(kind="stable")
    places = np.arange(len(rows))
    drawn = Figure(title, 0.8 + 0.15 * len(rows), PAGE)
    axes = drawn.subplots()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.hlines(places, rows["low"], rows["high"], BLUE, linewidth=1)
    axes.plot(rows["ratio"], places, "o", color=BLUE, ls="")
    axes.set_yticks(places, rows["way"])
    for label in np.array(axes.get_yticklabels())[rows["ratio"].isna()]:
        label.set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set(xscale="log", xlabel="time relative to ours (log scale; line: range of the rounds)")
    plain_numbers(axes.xaxis)
    return drawn


def did_not_pay(measured: pd.DataFrame) -> str:
    """What was tried for a training step (`tried`): each variant's time relative to ours."""
    table = measuring.summary(measured)
    told = "{way}: {ratio:.2f} ({low:.2f} to {high:.2f}) times ours"
    return bullets(table[table["way"] != "ours"], told)


def sources(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where and when each task was measured in full: task, machine, date, measurements, load.

    load: the median of the system's load average; more than there are cores is a busy machine.
    """
    table = pd.concat(measured, names=["task", None]).reset_index("task")
    table = table.reindex(columns=["task", "machine", "date", "load"])
    table[["machine", "date"]] = table[["machine", "date"]].astype(object).fillna("not recorded")
    own = table.groupby(["task", "machine", "date"], sort=False)["load"]
    return own.agg(measurements="size", load="median").reset_index()


def agreement_in_words(agreement: pd.DataFrame) -> str:
    """Which ways were compared with ours, and which were not (of `measuring.agreement`)."""
    compared = agreement[agreement["compared"] == "yes"]
    within = (compared["difference"] <= compared["allowed"]).sum()
    left = agreement[agreement["compared"] == "no"].groupby("task", sort=False)["way"]
    lines = [f"{within} of the {len(compared)} ways that were compared gave our answers."]
    words = bullets(left.agg(", ".join).reset_index(), "Not compared, of {task}: {way}.")
    return "\n".join([*lines, words])


def peers_table(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Packages as they are installed, and the lines of code that a user of each writes.

    Columns stage, kind, size, preset_name, batch, those of `measuring.summary`, lines. Without rows
    where it wasn't measured.
    """
    if "peers" not in measured:
        return pd.DataFrame(columns=["stage", "kind", "size", *RESULTS, "lines"])
    return measuring.summary(measured["peers"]).merge(peers.lines(), "left", ["stage", "way"])

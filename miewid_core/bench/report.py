"""What was measured, as tables, figures and words."""

import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from miewid_core.bench import harness, measuring, peers
from miewid_core.bench.evaluation import LARGEST
from miewid_core.config import preset
from miewid_core.figures import (
    BLUE,
    ORANGE,
    PAGE,
    VERMILION,
    Figure,
    label_rows,
    plain_numbers,
    styled,
)
from miewid_core.model import MiewIDNet
from miewid_core.paper.backbones import multiply_adds
from miewid_core.paper.comparison import with_interval

RESULTS = ("way", "seconds", "ratio", "low", "high", "megabytes", "memory")
LARGE = {"n": 20_000}
UNITS = {"seconds": "time", "megabytes": "extra memory"}
PACKAGES = ("wildlife-tools", "pytorch-metric-learning", "textbook")  # what ours is set beside
DRAWN, CUT = {"kind": "12 megapixels"}, {"kind": "cut before"}
EMBEDDING, EPOCH = {"stage": "embedding"}, {"stage": "epoch"}
SPEEDS = {  # what is done: where it was measured (task, our way, case), the first of these counts
    "embedding, first pass": [
        ("peers", "ours, first pass", EMBEDDING | DRAWN),
        ("embedding", "ours, first pass", {}),
    ],
    "embedding, later passes": [("peers", "ours", EMBEDDING | DRAWN), ("embedding", "ours", {})],
    "embedding, photos cut before": [("peers", "ours", EMBEDDING | CUT)],
    "training epoch, first pass": [("peers", "ours, first pass", EPOCH | DRAWN)],
    "training epoch, later passes": [("peers", "ours", EPOCH | DRAWN)],
    "training epoch, photos cut before": [("peers", "ours", EPOCH | CUT)],
    "ranking 5,000 annotations": [
        ("peers", "ours", {"stage": "evaluation"}),
        ("evaluation", "ours", {"n": 5000, "case": "six each"}),
    ],
    "ranking 20,000 annotations": [("evaluation", "ours", LARGE | {"case": "six each"})],
    "loss of 37,138 individuals": [("loss", "ours", {"classes": 37_138})],
    "training step": [("step", "ours", {})],
    "reading photos, first pass": [("photos", "ours, first pass", {"workers": 1})],
    "reading photos, later passes": [("photos", "ours", {"workers": 1})],
}


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
    Target("evaluation", "textbook", "product", case=LARGE | {"case": "six each"}),
    Target("photos", "textbook", "least decoding", case={"workers": 1}),
    Target("loss", "textbook", "products", case={"classes": 37_138}),
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
    """How many targets are reached, by `targets`, and a line for each that is missed."""
    known = table[table["reached"].isin(["yes", "no"])]
    missed = known[known["reached"] == "no"]
    told = "{task}, {what} ({case}): {required} asked for, {found:.2f} ({low:.2f} to {high:.2f})."
    said = f"{(known['reached'] == 'yes').sum()} of {len(known)} targets are reached."
    return f"{said}\n{bullets(missed, told)}".strip().replace(" ()", "")


def speeds(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How many times as fast ours is: a row for each of SPEEDS and of PACKAGES that was measured.

    Indexed by what and way: ratio, low, high (of the times, their range over the rounds), memory
    (the ratio of the medians), seconds (ours).
    """
    rows = {}
    for what, sources in SPEEDS.items():
        for task, ours, case in sources:
            if task not in measured:
                continue
            own = measured[task]
            own = own[(own[list(case)] == pd.Series(case)).all(axis=1)]
            times = measuring.ratios(own, ours).groupby("way").first()
            medians = own.groupby("way")[["seconds", "megabytes"]].median()
            for way in set(times.index) & set(PACKAGES):
                memory = medians["megabytes"][way] / max(medians["megabytes"][ours], 1e-9)
                found = (*times.loc[way], memory, medians["seconds"][ours])
                rows.setdefault((what, way), found)
    columns = ["ratio", "low", "high", "memory", "seconds"]
    keys = [(what, way) for what in SPEEDS for way in PACKAGES if (what, way) in rows]
    index = pd.MultiIndex.from_tuples(keys, names=["what", "way"])
    return pd.DataFrame([rows[key] for key in keys], index, columns)


def speeds_readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `speeds` for a reader: a row for each thing done, a column for each package."""
    texts = dict(zip(table.index, with_interval(table, "ratio", "low", "high"), strict=True))
    rows = [
        [what, *(texts.get((what, way), "") for way in PACKAGES)]
        for what in SPEEDS
        if any((what, way) in texts for way in PACKAGES)
    ]
    return pd.DataFrame(rows, columns=["ours is so many times as fast as", *PACKAGES])


def speeds_in_words(table: pd.DataFrame, measured: Mapping[str, pd.DataFrame]) -> str:
    """How much faster ours is than wildlife-tools, from `speeds`, and on what that was measured."""
    wanted = [what for what, sources in SPEEDS.items() if sources[0][0] == "peers"]
    own = table[table.index.get_level_values("way") == "wildlife-tools"].droplevel("way")
    if set(wanted) - set(own.index):
        return "How fast this is beside wildlife-tools was not measured in full."
    first, later, _, epoch, epochs, _, ranking = (own.loc[what] for what in wanted)
    case, load = measured["peers"].iloc[-1], measured["peers"]["load"].median()
    return (
        f"Embedding photos is {first['ratio']:.1f} times as fast as with wildlife-tools on the "
        f"first pass, and {later['ratio']:.1f} times on later ones. A training epoch is "
        f"{epoch['ratio']:.1f} and {epochs['ratio']:.1f} times as fast, ranking 5,000 annotations "
        f"{ranking['ratio']:.1f} times, with {100 / ranking['memory']:.0f} % of the memory. "
        f"Measured on 48 photos of 12 megapixels, preset `{case['preset_name']}`, "
        f"{case['machine']} at a load of {load:.1f}, so these are rough."
    )


def lines_in_words() -> str:
    """How many lines of code a user of each package writes for the three stages."""
    written = peers.lines().groupby("way", sort=False)["lines"].agg(list)
    told = [f"{way} {', '.join(map(str, lines))}" for way, lines in written.items()]
    return f"Lines of code for embedding, an epoch and ranking: {'; '.join(told)}."


@styled()
def speeds_figure(table: pd.DataFrame, title: str) -> Figure:
    """How many times as fast ours is (`table`: of `speeds`), with the range of the rounds."""
    whats = [what for what in SPEEDS if what in table.index.get_level_values("what")]
    drawn = Figure(title, 1.2 + 0.24 * len(whats), PAGE)
    axes = drawn.subplots()
    axes.axvline(1, color="black", linewidth=0.8)
    looks = zip(PACKAGES, "osD", (BLUE, ORANGE, VERMILION), (-0.2, 0, 0.2), strict=True)
    for way, marker, colour, shift in looks:
        own = table[table.index.get_level_values("way") == way]
        places = np.array([whats.index(what) for what, _ in own.index]) + shift
        axes.hlines(places, own["low"], own["high"], colour, linewidth=1)
        axes.plot(own["ratio"], places, marker, color=colour, label=way)
    label_rows(axes, np.arange(len(whats)), whats)
    axes.set(xscale="log", xlabel="ours is so many times as fast (log scale; range of the rounds)")
    plain_numbers(axes.xaxis)
    drawn.legend(loc="outside lower left", ncols=3)
    return drawn


def speeds_claim(table: pd.DataFrame) -> str:
    """In how many comparisons of `speeds` ours is faster in every round, for a title."""
    return f"Ours is faster in {(table['low'] > 1).sum()} of {len(table)} comparisons"


def not_measured(table: pd.DataFrame) -> str:
    """What of the `targets` is not known, in a sentence; "" where all is."""
    unknown = table[~table["reached"].isin(["yes", "no"])]
    words = {
        "epoch": "a GPU (`python -m miewid_core bench gpu`)",
        "growth": "a catalog of the paper's size",
        f"n {LARGEST}": "the largest species of Table 1",
    }
    told = [
        words.get(row["task"], words.get(row["case"], "{task}, {what} ({case})".format(**row)))
        for row in unknown.to_dict("records")
    ]
    return f"Not measured: {', '.join(dict.fromkeys(told))}." if told else ""


def floors(measured: Mapping[str, pd.DataFrame]) -> str:
    """How many times as fast as the textbook the bare work alone would be, and ours is."""
    told = []
    for what, ours, target in (
        ("ranking 20,000 annotations", "ours", FLOORS[0]),
        ("the loss of 37,138 individuals", "ours", FLOORS[2]),
        ("reading photos once", "ours, first pass", FLOORS[1]),
    ):
        found = targets(measured, [target, target._replace(against=ours)])["found"].tolist()
        bare, own = (found[place] for place in (0, len(found) // 2))
        told.append(f"{what} {bare:.1f} (ours {own:.1f})")
    return f"Times as fast as the textbook: {'; '.join(told)}."


def together(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Summaries of all tasks in one table: task, case (in words), way, `measuring.summary`'s."""
    parts = []
    for task, table in measured.items():
        own = measuring.summary(table)
        cases = own.drop(columns=list(RESULTS)).to_dict("records")
        parts.append(own[list(RESULTS)].assign(task=task, case=[_words(case) for case in cases]))
    return pd.concat(parts, ignore_index=True)[["task", "case", *RESULTS]]


def on_a_gpu(measured: Mapping[str, pd.DataFrame]) -> str:
    """Our rates, and the share of the GPU's matrix products they use; "" where not measured."""
    if not measured.keys() >= set(GPU):
        return ""
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


def did_not_pay(measured: pd.DataFrame) -> str:
    """What was tried for a training step (`tried`): each variant's time relative to ours."""
    table = measuring.summary(measured)
    told = "{way} {ratio:.2f} ({low:.2f} to {high:.2f})"
    tried = [told.format(**row) for row in table[table["way"] != "ours"].to_dict("records")]
    return f"Time of a training step relative to ours: {', '.join(tried)}."


def sources(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Where and when each task was measured in full: task, machine, date, measurements, load.

    load: the median of the system's load average; more than there are cores is a busy machine.
    """
    table = pd.concat(measured, names=["task", None]).reset_index("task")
    table = table.reindex(columns=["task", "machine", "date", "load"])
    table[["machine", "date"]] = table[["machine", "date"]].astype(object).fillna("not recorded")
    own = table.groupby(["task", "machine", "date"], sort=False)["load"]
    return own.agg(measurements="size", load="median").reset_index()


def sources_in_words(table: pd.DataFrame) -> str:
    """A table of `sources` in a line for each machine and date."""
    lines = []
    for (machine, date), own in table.groupby(["machine", "date"], sort=False):
        load = f", load {own['load'].min():.1f} to {own['load'].max():.1f}"
        where = f"{machine} ({date}{load if own['load'].notna().any() else ''})"
        where = "A machine that was not recorded" if machine == "not recorded" else where
        lines.append(f"- {where}: {', '.join(own['task'])}.")
    return "\n".join(lines)


def now_in_words(table: pd.DataFrame) -> str:
    """In how many tasks of `together` ours took less time than the textbook."""
    own = table[table["way"] == "textbook"]
    faster = (own["ratio"] > 1).sum()
    slower = own.loc[own["ratio"] <= 1, "task"].unique()
    beside = f", not in {', '.join(slower)}" if len(slower) else ""
    return f"Ours took less time than the textbook in {faster} of {len(own)} tasks{beside}."


def agreement_in_words(agreement: pd.DataFrame) -> str:
    """Which ways were compared with ours, and which were not (of `measuring.agreement`)."""
    compared = agreement[agreement["compared"] == "yes"]
    within = (compared["difference"] <= compared["allowed"]).sum()
    left = agreement[agreement["compared"] == "no"].groupby("task", sort=False)["way"]
    lines = [f"{within} of the {len(compared)} ways that were compared gave our answers."]
    words = bullets(left.agg(", ".join).reset_index(), "Not compared, of {task}: {way}.")
    return "\n".join([*lines, words])

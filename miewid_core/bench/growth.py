"""How our time and memory grow, up to the paper's size: sizes, expected slopes, figure, words.

The evaluation and the loss on random embeddings; then what surrounds the networks, on a synthetic
catalog as large as Table 1.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miewid_core import splits
from miewid_core.bench import step
from miewid_core.bench.evaluation import DIM, LARGEST, data, random_embeddings
from miewid_core.bench.measuring import FOLDER, Run, Task
from miewid_core.config import PRESETS
from miewid_core.evaluation import one_vs_all
from miewid_core.figures import BLUE, GREY, ORANGE, PAGE, Figure, plain_numbers, styled
from miewid_core.files import replacing
from miewid_core.paper import comparison, plan, table1
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import Study
from miewid_core.readers.load import load_catalog
from miewid_core.runs import bill

WHOLE = 340_543  # annotations of Table 1, with LARGEST for the unreadable number
BATCH, TOTAL = 112, 16_000  # the paper's batch; annotations that are split into species
SIDE, BOX = 500, 20  # pixels: of the photo whose boxes the annotations are, and of a box
LABELS = ["individual", "species", "encounter", "annotation_id"]


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
STAGES = tuple(EXPECTED)[3:]  # of a catalog
GROWING, STAGED = (2500, 5000, 10_000, 20_000), (34_000, 108_000, WHOLE)
SIZES = {"annotations": GROWING, "classes": GROWING, "species": (1, 2, 4, 8, 16, 32)}
SIZES |= dict.fromkeys(STAGES[:2], (*STAGED, 1_000_000)) | dict.fromkeys(STAGES[2:], STAGED)
AXIS_LABELS = {
    "annotations": "annotations (N)",
    "classes": "classes (C)",
    "species": f"species, of {TOTAL:,} annotations",
} | dict.fromkeys(STAGES, "annotations")


def species_counts(annotations: int = WHOLE) -> pd.DataFrame:
    """Table 1's species with `annotations` altogether: species, annotations, individuals."""
    table = printed_table(1).fillna({"annotations": LARGEST})
    table = table.groupby("species")[["annotations", "individuals"]].sum().astype(float)
    table *= annotations / table["annotations"].sum()
    table = table.round().astype(int).clip(lower=2)
    table["annotations"] = table["annotations"].clip(lower=table["individuals"] + 1)
    return table.reset_index()


def write_catalog(folder: Path, annotations: int = WHOLE) -> Path:
    """A CSV of Table 1's species, shuffled, each with a long tail of individuals; its photo beside.

    The first annotation of an individual is an encounter of its own, then two each are one. All are
    boxes of one photo.
    """
    rng = np.random.default_rng(0)
    parts = [plan.long_tail(*row, rng) for row in species_counts(annotations).to_numpy(object)]
    table = pd.concat(parts, ignore_index=True)
    table["name"] = table.pop("individual").str.replace("/", "")
    visit = (table.groupby("name").cumcount() + 1) // 2
    place = np.arange(len(table))
    box = {"x": place % SIDE, "y": place // SIDE, "w": BOX, "h": BOX, "theta": 0}
    table = table.assign(encounter=table["name"] + "-" + visit.astype(str), **box)
    folder.mkdir(parents=True, exist_ok=True)
    photo = Image.new("RGB", (SIDE + BOX, len(table) // SIDE + 1 + BOX), "grey")
    photo.save(folder / "photo.png")
    with replacing(folder / "annotations.csv") as temporary:
        shuffled = table.assign(file_name="photo.png").sample(frac=1, random_state=1)
        shuffled.to_csv(temporary, index=False)
    return folder / "annotations.csv"


def study_of(annotations: pd.DataFrame, split: pd.DataFrame) -> Study:
    """The study of a split catalog at the paper's settings; nothing is trained or saved for it."""
    train, test = (splits.rows(annotations, split, part) for part in ("train", "test"))
    places = [FOLDER / "nowhere"] * 3
    return Study("synthetic", False, annotations, split, train, test, PRESETS["paper"], 0, *places)


def report(study: Study, ranks: pd.DataFrame) -> None:
    """Tables 1 and 2 of such a catalog."""
    table1.summary(study.annotations)
    table1.tail_rows(study.annotations)
    comparison.compare({"multi": ranks, "single": ranks}, study.train, k=1)


def prepare_growth(way: str, axis: str, size: int) -> Run:
    """What is timed: an evaluation, a step of the loss, or a stage whose earlier ones are done."""
    if axis in STAGES:
        return prepare_stage(axis, size)
    if axis == "classes":
        step.prepare_loss(way, 10, DIM, BATCH)()  # starts the threads
        return step.prepare_loss(way, size, DIM, BATCH)
    count = size if axis == "annotations" else TOTAL
    embeddings, individuals = data(count, DIM, "six each")
    species = individuals % (1 if axis == "annotations" else size)
    one_vs_all(embeddings[:60], individuals[:60], species[:60])
    return functools.partial(one_vs_all, embeddings, individuals, species)


def prepare_stage(stage: str, size: int) -> Run:
    """A stage of a catalog of `size` annotations."""
    path = FOLDER / "catalogs" / str(size) / "annotations.csv"
    if not path.exists():
        write_catalog(path.parent, size)
    if stage == "load and check":
        return lambda: load_catalog(path)
    annotations = load_catalog(path)
    if stage == "split":
        return lambda: splits.split(annotations)
    study = study_of(annotations, splits.split(annotations))
    if stage == "plan":
        return lambda: bill.summary(plan.asked(study, "paper"), study.config, 300)
    count, labels = len(study.test), study.test[LABELS].to_numpy(str).T
    embeddings = random_embeddings(FOLDER / "embeddings" / f"{count}.npy", count)
    evaluate = functools.partial(one_vs_all, embeddings, *labels)
    return evaluate if stage == "evaluate" else functools.partial(report, study, evaluate())


GROWTH = Task(
    "growth",
    ("ours",),
    {
        "quick": [{"axis": stage, "size": 3000} for stage in STAGES],
        "full": [{"axis": axis, "size": size} for axis in SIZES for size in SIZES[axis]],
    },
    prepare_growth,
)


def slopes(measured: pd.DataFrame) -> pd.DataFrame:
    """Per axis the slope in a log-log plot, of medians: axis, seconds, megabytes.

    What is fixed (a call's own costs) flattens the slopes of small sizes.
    """
    rows = []
    for axis, own in measured.groupby("axis", sort=False):
        medians = own.groupby("size")[["seconds", "megabytes"]].median().clip(lower=1e-9)
        rows.append((axis, *np.polyfit(np.log(medians.index), np.log(medians), 1)[0]))
    return pd.DataFrame(rows, columns=["axis", "seconds", "megabytes"])


@styled()
def figure(measured: pd.DataFrame, title: str) -> Figure:
    """Our time and memory against what grows, log-log, with slopes."""
    fitted = slopes(measured)
    drawn = Figure(title, 3.6, PAGE)
    grid = drawn.subplots(2, len(fitted), squeeze=False)
    looks = (("seconds", "time (s)", BLUE, "o"), ("megabytes", "extra memory (MB)", ORANGE, "s"))
    for place, row in enumerate(fitted.to_dict("records")):
        axis, expected = row["axis"], EXPECTED[row["axis"]]
        own = measured[measured["axis"] == axis]
        for axes, slope, (column, words, colour, marker) in zip(
            grid[:, place], expected, looks, strict=False
        ):
            axes.plot(own["size"], own[column], ".", color=GREY, ls="")
            axes.plot(own.groupby("size")[column].median(), f"-{marker}", color=colour)
            axes.set(xscale="log", yscale="log", xlabel=AXIS_LABELS[axis])
            axes.set_ylabel("" if place else words)
            axes.set_title(f"slope {row[column]:.2f} (expected {slope})", loc="left")
            plain_numbers(axes.xaxis)
            plain_numbers(axes.yaxis)
    return drawn


def in_words(measured: pd.DataFrame) -> str:
    """Each axis's slopes beside the expected ones, and the reason of these."""
    told = "- {}: time {:.2f} ({} expected), memory {:.2f} ({} expected): {}."
    lines = []
    for axis, time, memory in slopes(measured).itertuples(index=False):
        expected_time, expected_memory, reason = EXPECTED[axis]
        lines.append(told.format(axis, time, expected_time, memory, expected_memory, reason))
    return "\n".join(lines)

"""How our time and memory grow, up to the paper's size: sizes, expected slopes, figure, words.

The evaluation and the loss on random embeddings; then what surrounds the networks, on a synthetic
catalog as large as Table 1.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

from miewid_core import splits
from miewid_core.bench import step
from miewid_core.bench.evaluation import DIM, data, product
from miewid_core.bench.measuring import FOLDER, Run, Task
from miewid_core.config import PRESETS
from miewid_core.evaluation import one_vs_all
from miewid_core.figures import PAGE, Figure, plain_numbers, styled
from miewid_core.files import replacing
from miewid_core.paper import comparison, plan, table1
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import Study
from miewid_core.readers.load import load_catalog
from miewid_core.runs import bill

LARGEST = 67_106  # annotations of Table 1's humpback whales, as assumed: its "67,06" is unreadable
WHOLE = 340_543  # annotations of Table 1, with LARGEST for the unreadable number
MILLION = 1_000_000
BATCH, TOTAL = 112, 16_000  # the paper's batch; annotations that are split into species
SIDE, BOX = 500, 20  # pixels: of the photo whose boxes the annotations are, and of a box
LABELS = ["individual", "species", "encounter", "annotation_id"]
LABELLED = {"cpu_seconds": "processor time (s)", "megabytes": "extra memory (MB)"}


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
NAMES = {  # of what else grows, for readers
    "annotations": "rank one species",
    "classes": "loss (individuals)",
    "species": "rank several (species)",
}
SIZES = {"annotations": (5000, 20_000, LARGEST), "classes": (5000, 20_000), "species": (4, 32)}
SIZES |= dict.fromkeys(STAGES, (108000, WHOLE))
SIZES |= {stage: (*SIZES[stage], MILLION) for stage in STAGES[:2]}


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
    if axis == "species":
        embeddings, individuals = data(TOTAL, DIM, "six each")
        species = individuals % size
    else:
        embeddings = random_embeddings(FOLDER / "embeddings" / f"{size}.npy", size)
        individuals, species = np.arange(size) // 6, np.zeros(size, int)
    one_vs_all(embeddings[:60], individuals[:60], species[:60])  # starts the threads
    if way == "product":
        return functools.partial(product, embeddings, individuals)
    return functools.partial(one_vs_all, embeddings, individuals, species)


def random_embeddings(path: Path, count: int) -> np.ndarray:
    """Random embeddings (count, DIM) float32 in a file that is memory-mapped, made if missing."""
    if not path.exists():
        rng = np.random.default_rng(0)
        with replacing(path) as temporary:
            made = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, DIM))
            for start in range(0, count, 1000):
                part = made[start : start + 1000]
                part[:] = rng.standard_normal(part.shape, dtype=np.float32)
            made.flush()
    return np.load(path, mmap_mode="r")


def prepare_stage(stage: str, size: int) -> Run:
    """A stage of a catalog of `size` annotations; what earlier ones gave is kept in its folder."""
    folder = FOLDER / "catalogs" / str(size)
    path = folder / "annotations.csv"
    if not path.exists():
        write_catalog(folder, size)
    if stage == "load and check":
        return lambda: load_catalog(path)
    annotations = kept(folder / "annotations.parquet", lambda: load_catalog(path))
    if stage == "split":
        return lambda: splits.split(annotations)
    split = kept(folder / "split.parquet", lambda: splits.split(annotations))
    study = study_of(annotations, split)
    if stage == "plan":
        return lambda: bill.summary(plan.asked(study, "paper"), study.config, 300)
    count, labels = len(study.test), study.test[LABELS].to_numpy(str).T
    embeddings = random_embeddings(FOLDER / "embeddings" / f"{count}.npy", count)
    evaluate = functools.partial(one_vs_all, embeddings, *labels)
    if stage == "evaluate":
        return evaluate
    return functools.partial(report, study, kept(folder / "ranks.parquet", evaluate))


def kept(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table in a Parquet file, made where it is missing."""
    if not path.exists():
        with replacing(path) as temporary:
            make().to_parquet(temporary)
    return pd.read_parquet(path)


def case(axis: str, size: int) -> dict[str, object]:
    """A case of the task; the bare product is measured where annotations of a species grow."""
    ways = ("ours", "product") if axis == "annotations" else ("ours",)
    return {"axis": axis, "size": size, "ways": ways}


GROWTH = Task(
    "growth",
    ("ours", "product"),
    {
        "quick": [case(axis, 3000) for axis in ("annotations", *STAGES)],
        "full": [case(axis, size) for axis in SIZES for size in SIZES[axis]],
    },
    prepare_growth,
)


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
    """Ours at the paper's size and at a million rows, for a reader: time and memory by size."""
    own = measured[(measured["way"] == "ours") & measured["size"].isin([LARGEST, WHOLE, MILLION])]
    own = own.assign(what=own["axis"].replace(NAMES)).groupby(["what", "size"], sort=False)
    table = own[[*LABELLED]].median().reset_index()
    table["size"] = table["size"].map("{:,}".format)
    return table.set_axis(["what", "annotations", *LABELLED.values()], axis=1)


def share_of_product(measured: pd.DataFrame) -> str:
    """How long ranking a species takes, in times the bare product, for the largest with both."""
    own = measured[measured["axis"] == "annotations"]
    passed = own[own["way"] == "ours"].groupby("size")["seconds"].median()
    times = own.pivot_table("cpu_seconds", "size", "way", aggfunc="median")
    share = (times["ours"] / times.get("product", np.nan)).dropna()
    if share.empty:
        return ""
    size, ratio = share.index[-1], share.iloc[-1]
    return (
        f"Ranking {size:,} annotations took {passed[size]:.0f} s of wall time. It takes "
        f"{ratio:.2f} times the processor time of the bare product of all similarities, as it "
        "computes each pair once."
    )


@styled()
def figure(measured: pd.DataFrame) -> Figure:
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

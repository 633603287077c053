"""How our time and memory grow, up to the paper's size.

The evaluation and the loss on random embeddings; then what surrounds the networks, on a synthetic
catalog as large as Table 1.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miewid_core import splits
from miewid_core.bench import step
from miewid_core.bench.evaluation import DIM, data, product
from miewid_core.bench.measuring import FOLDER, Run, Task
from miewid_core.config import PRESETS
from miewid_core.evaluation import one_vs_all
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
STAGES = "load and check", "split", "plan", "evaluate", "report"  # of a catalog
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

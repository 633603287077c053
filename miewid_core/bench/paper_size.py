"""The paper's size: what surrounds the networks, on a synthetic catalog as large as Table 1.

Table 1's largest set can't be read in full ("67,06"): 67,106 annotations are assumed for it.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miewid_core import splits
from miewid_core.bench.evaluation import DIM, product
from miewid_core.bench.measuring import Task
from miewid_core.bench.photos import FOLDER
from miewid_core.config import PRESETS
from miewid_core.evaluation import one_vs_all
from miewid_core.files import replacing
from miewid_core.paper import comparison, plan, table1
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import Study
from miewid_core.readers.load import load_catalog
from miewid_core.runs import bill

UNREADABLE = 67_106  # annotations of Table 1's humpback whales, as assumed
WHOLE = 340_543  # annotations of Table 1, with these
SIDE, BOX = 500, 20  # pixels: of the photo whose boxes the annotations are, and of a box
LABELS = ["individual", "species", "encounter", "annotation_id"]


def species_counts(annotations: int = WHOLE) -> pd.DataFrame:
    """Table 1's species with `annotations` altogether: species, annotations, individuals."""
    table = printed_table(1).fillna({"annotations": UNREADABLE})
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


def random_embeddings(path: Path, count: int) -> np.ndarray:
    """Random embeddings (count, DIM) float32 in a file that is memory-mapped, made if missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        with replacing(path) as temporary:
            made = np.lib.format.open_memmap(temporary, "w+", np.float32, (count, DIM))
            for start in range(0, count, 1000):
                part = made[start : start + 1000]
                part[:] = rng.standard_normal(part.shape, dtype=np.float32)
            made.flush()
    return np.load(path, mmap_mode="r")


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


def prepare_stage(way: str, axis: str, size: int) -> Callable[[], object]:
    """What is timed: a stage of a catalog of `size` annotations; those before it are done."""
    path = FOLDER / "catalogs" / str(size) / "annotations.csv"
    if not path.exists():
        write_catalog(path.parent, size)
    if axis == "load and check":
        return lambda: load_catalog(path)
    annotations = load_catalog(path)
    if axis == "split":
        return lambda: splits.split(annotations)
    study = study_of(annotations, splits.split(annotations))
    if axis == "plan":
        return lambda: bill.summary(plan.asked(study, "paper"), study.config, 300)
    count, labels = len(study.test), study.test[LABELS].to_numpy(str).T
    embeddings = random_embeddings(FOLDER / "embeddings" / f"{count}.npy", count)
    evaluate = functools.partial(one_vs_all, embeddings, *labels)
    return evaluate if axis == "evaluate" else functools.partial(report, study, evaluate())


def prepare_largest(way: str, n: int, dim: int) -> Callable[[], object]:
    """What is timed: one-vs-all of `n` annotations of one species, or the bare matrix product."""
    embeddings = random_embeddings(FOLDER / "embeddings" / f"{n}.npy", n)
    individuals = np.random.default_rng(1).integers(max(1, n // 8), size=n)
    if way == "product":
        run, given = product, (embeddings, individuals)
    else:
        run, given = one_vs_all, (embeddings, individuals, np.full(n, "a"))
    run(*(part[:60] for part in given))
    return functools.partial(run, *given)


STAGES = {  # expected slopes of time and of memory, and the reason
    "load and check": (1, 1, "each annotation is read and checked once"),
    "split": (1, 1, "annotations are sorted and drawn from, species by species"),
    "plan": (1, 1, "each training's annotations are counted"),
    "evaluate": (2, 1, "each test annotation is compared with all others of its species"),
    "report": (1, 1, "each query is counted, and drawn from for an interval"),
}
MILLION = [{"axis": axis, "size": 1_000_000} for axis in ("load and check", "split")]
PAPER_SIZE = Task(
    "paper_size",
    ("ours",),
    {
        "quick": [{"axis": axis, "size": 3000} for axis in STAGES],
        "full": [
            *({"axis": axis, "size": n} for n in (34_000, 108_000, WHOLE) for axis in STAGES),
            *MILLION,
        ],
    },
    prepare_stage,
)
LARGEST = Task(
    "largest_species",
    ("ours", "product"),
    {"quick": [{"n": 600, "dim": DIM}], "full": [{"n": UNREADABLE, "dim": DIM}]},
    prepare_largest,
)

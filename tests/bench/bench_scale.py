"""Time and memory of everything but the networks, on a catalog of the paper's size.

    python tests/bench/bench_scale.py
    python tests/bench/bench_scale.py --files
    python tests/bench/bench_scale.py --embeddings

The first makes a CSV of 225,000 annotations, 37,000 individuals and 49 species, which are boxes of
one photo, and times what happens before the first training. Required: 60 seconds of CPU and 2 GB
altogether, else it exits with 1. The second has a file for each annotation (links to small photos),
so that opening and decoding each counts. The third ranks a test set of the paper's size by random
embeddings with 2,152 features, which it reads from a memory-mapped file; required: less memory,
apart from that file's pages, than half of what the file holds.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from miewid_core import splits
from miewid_core.config import PRESETS
from miewid_core.evaluation import one_vs_all
from miewid_core.paper import plan
from miewid_core.paper.study import Study
from miewid_core.readers.load import load_catalog
from miewid_core.runs import bill

ROWS, INDIVIDUALS, SPECIES, FEATURES = 225_000, 37_000, 49, 2152
SECONDS, GIGABYTES = 60, 2.0
LABELS = ["individual", "species", "encounter", "annotation_id"]
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
LINKS = 30_000  # to one file, of which a file system takes 65,000
SIDE, BOX = 500, 20  # pixels: of the photo whose boxes the annotations are, and of a box


def write(folder: Path, own_files: bool = False) -> Path:
    """A CSV of ROWS annotations, shuffled, of a long tail of species, individuals, encounters."""
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1.5, SPECIES)
    own = 10 + rng.multinomial(INDIVIDUALS - 10 * SPECIES, weights / weights.sum())
    species = np.repeat([f"species{number:02}" for number in range(SPECIES)], own)
    names = [f"animal{number}" for number in range(INDIVIDUALS)]
    tail = rng.lognormal(0, 1, INDIVIDUALS)
    counts = 1 + rng.multinomial(ROWS - INDIVIDUALS, tail / tail.sum())
    table = pd.DataFrame({"species": np.repeat(species, counts), "name": np.repeat(names, counts)})
    visit = table.groupby("name").cumcount() // 2
    table["encounter"] = table["name"] + "-" + visit.astype(str)
    table["file_name"] = link_files(folder) if own_files else one_file(folder)
    place = np.arange(ROWS)
    box = {"x": place % SIDE, "y": place // SIDE, "w": BOX, "h": BOX, "theta": 0}
    table = table.assign(**(box if not own_files else {}))
    table.sample(frac=1, random_state=1).to_csv(folder / "annotations.csv", index=False)
    return folder / "annotations.csv"


def one_file(folder: Path) -> str:
    """A photo in which ROWS boxes have a place each."""
    Image.new("RGB", (SIDE + BOX, ROWS // SIDE + 1 + BOX), "grey").save(folder / "photo.png")
    return "photo.png"


def link_files(folder: Path) -> list[str]:
    """ROWS files, a thousand a folder."""
    found = [f"{number // 1000:03}/{number:06}.jpg" for number in range(ROWS)]
    for number, name in enumerate(found):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if number % LINKS:
            path.hardlink_to(folder / found[number - number % LINKS])
        else:
            Image.new("RGB", (32, 32), "grey").save(path)
    return found


class Clock:
    """Measures stages, and prints seconds of CPU and the process's peak memory after each."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, name: str, work: Callable, *arguments: object) -> object:
        """The result of a stage."""
        start, cpu = time.perf_counter(), time.process_time()
        found = work(*arguments)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        self.total += cpu
        print(f"{name:32}{cpu:8.1f} s of CPU{wall:8.1f} s{peak():8.2f} GB peak", flush=True)
        return found


def peak() -> float:
    """Peak memory of this process so far, in GB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose ru_maxrss begins with what the parent process had
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT / 1e9


def study_of(photos: pd.DataFrame, split: pd.DataFrame, folder: Path) -> Study:
    """The study of a split catalog at the paper's settings."""
    train, test = (splits.rows(photos, split, part) for part in ("train", "test"))
    places = folder / "figures", folder / "runs", folder / "chips"
    return Study("synthetic", photos, split, train, test, PRESETS["paper"], 0, *places)


def before_training(folder: Path, own_files: bool = False) -> tuple[float, float]:
    """Seconds of CPU and peak GB of what comes before the first training, each stage printed."""
    path = write(folder, own_files)
    print(f"{'(imports, and making the catalog)':34}{time.process_time():6.1f}{peak():30.2f} GB")
    clock = Clock()
    photos = clock("load and check", load_catalog, path)
    assert photos.shape[0] == ROWS
    assert photos["individual"].nunique() == INDIVIDUALS
    split = clock("split", splits.split, photos)
    study = clock("parts of the split", study_of, photos, split, folder)
    largest = study.train["species"].value_counts().index[0]
    few = [
        clock(f"few-shot, {n} individuals", splits.few_shot, study.train, largest, n, 0)
        for n in (25, 50, 100, 200)
    ]
    assert len(few[0]) < len(few[-1]) < len(study.train)
    job = study.multi_species_job()
    run = clock("spec hashing", job.run, study.runs_dir, study.chips_dir)
    assert not run.finished
    asked = clock("plan: trainings asked for", plan.asked, study, "paper")
    table = clock("plan: bill", bill.summary, study, asked, 300)
    print(bill.in_words(table))
    print(f"{'altogether':32}{clock.total:8.1f} s of CPU, {peak():.2f} GB peak")
    return clock.total, peak()


def evaluation(folder: Path) -> tuple[float, float]:
    """GB that ranking takes besides the file of embeddings, and GB of that file.

    Ranked is the test set that `make plan CATALOG=paper` draws, in a process that made nothing.
    """
    test = plan.paper_study().test.reset_index(drop=True)
    test[LABELS].to_csv(folder / "labels.csv", index=False)
    rng, shape = np.random.default_rng(0), (len(test), FEATURES)
    made = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float32, shape)
    for start in range(0, len(test), 1000):
        part = made[start : start + 1000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    made.flush()
    command = [sys.executable, __file__, "--rank", str(folder)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(told)
    return float(told.split()[-1]), (folder / "embeddings.npy").stat().st_size / 1e9


def rank(folder: Path) -> None:
    """Rank what `evaluation` made, and print the memory that it took, in GB, at the end."""
    labels = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
    one_vs_all(np.eye(9, FEATURES), *labels[:9].T.to_numpy())  # what starts up once
    before, over, peaks = own_memory(), threading.Event(), []

    def look() -> None:
        while not over.wait(0.005):
            peaks.append(own_memory())

    looking = threading.Thread(target=look)
    looking.start()
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
    ranks = Clock()("one_vs_all", one_vs_all, embeddings, *labels.T.to_numpy())
    over.set()
    looking.join()
    size, largest = embeddings.nbytes / 1e9, labels["species"].value_counts().iloc[0]
    print(f"{len(ranks):,} queries, {largest:,} of the largest species, a file of {size:.3f} GB")
    print(f"memory besides the file's pages, above {before:.2f} GB: {max(peaks) - before:.3f}")


def own_memory() -> float:
    """GB of this process that aren't pages of a file (on Linux)."""
    now = psutil.Process().memory_info()
    return (now.rss - now.shared) / 1e9


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="a file for each annotation")
    parser.add_argument("--embeddings", action="store_true", help="the evaluation")
    parser.add_argument("--rank", help=argparse.SUPPRESS)  # how it calls itself
    chosen = parser.parse_args()
    if chosen.rank:
        rank(Path(chosen.rank))
        return
    with tempfile.TemporaryDirectory() as folder:
        if chosen.embeddings:
            extra, size = evaluation(Path(folder))
            sys.exit(0 if extra < size / 2 else 1)
        seconds, gigabytes = before_training(Path(folder), chosen.files)
        sys.exit(0 if chosen.files or (seconds <= SECONDS and gigabytes <= GIGABYTES) else 1)


if __name__ == "__main__":
    main()

"""From photos to augmented batches, beside the textbook's loop.

Photos are drawn as a camera saves them: 12 megapixels, JPEG, with a box each.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.data import DataLoader

from miewid_core.bench.measuring import FOLDER, Run, Task
from miewid_core.bench.textbook import Photos
from miewid_core.chips import Batches, ChipDataset, ChipStore, augmentation, loader
from miewid_core.demo import draw_animals
from miewid_core.files import CACHE, replacing
from miewid_core.photos import read_reduced
from miewid_core.readers.load import load_catalog

SIZE = 4000, 3000
BATCH, FEW = 16, 48


def drawn(count: int) -> pd.DataFrame:
    """Catalog rows (path, x, y, w, h, theta) of `count` photos, drawn where they are missing."""
    paths = [FOLDER / "photos" / f"{number:04}.jpg" for number in range(count)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_draw, paths))
    rng = np.random.default_rng(0)
    sides = rng.uniform((1400, 1100), (2200, 1800), (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(SIZE) - sides)
    boxes = pd.DataFrame(np.hstack([corners, sides]), columns=list("xywh"))
    return boxes.assign(path=[str(path) for path in paths], theta=0.0)


def _draw(path: Path) -> None:
    """Shapes of all sizes, as in nature, and a sensor's noise: some 4 MB, as of a camera."""
    if path.exists():
        return
    rng = np.random.default_rng(int(path.stem))
    photo = np.full((SIZE[1], SIZE[0], 3), 110, np.float32)
    for cells in (4, 16, 64, 256):
        coarse = rng.normal(0, 24, (cells * 3 // 4, cells, 3)).astype(np.float32)
        photo += cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC)
    photo += rng.standard_normal(photo.shape, dtype=np.float32) * 4
    with replacing(path) as temporary:
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(temporary, "JPEG", quality=92)


def catalog(count: int) -> pd.DataFrame:
    """Rows of photos of 12 megapixels, or, of more than FEW, of the demo catalog.

    Its rows are repeated as needed; a repeated box is moved by pixels, so that its chip is another.
    """
    if count <= FEW:
        return drawn(count)
    demo, place = load_catalog(draw_animals(CACHE / "demo")), np.arange(count)
    turn = place // len(demo)
    return demo.iloc[place % len(demo)].assign(x=lambda rows: rows["x"] + turn)


def chips_of(rows: pd.DataFrame, size: int, **options: object) -> ChipDataset:
    """Our dataset of the chips of `rows`, which are made where they are missing."""
    store = ChipStore(FOLDER / "chips", size)
    return ChipDataset(store, store.build(rows).tolist(), **options)


def augmented_batches(
    way: str, rows: pd.DataFrame, labels: Sequence[int], size: int, batch: int, workers: int
) -> DataLoader:
    """Batches of augmented chips, as the textbook reads them or as we do."""
    if way.startswith("textbook"):
        dataset = Photos(rows, labels, size, augmentation(size))
    else:
        dataset = chips_of(rows, size, labels=labels, augment=True)
    return loader(dataset, Batches(len(rows), batch, 0), workers)


def after_first_pass(run: Run, rows: pd.DataFrame, size: int, workers: int | None = None) -> Run:
    """`run`, with its chips made anew before."""

    def both() -> object:
        with TemporaryDirectory() as folder:
            ChipStore(folder, size).build(rows, workers)
        return run()

    return both


def prepare_photos(way: str, photos: int, size: int, workers: int) -> Run:
    """What is timed: an epoch; the loader's processes run already."""
    rows = drawn(photos)
    if way == "least decoding":
        return functools.partial(decoded, rows, workers)
    batches = augmented_batches(way, rows, [0] * photos, size, BATCH, workers)

    def epoch() -> int:
        return sum(len(labels) for _, labels in batches)

    epoch()
    return after_first_pass(epoch, rows, size, workers) if way == "ours, first pass" else epoch


def decoded(rows: pd.DataFrame, workers: int) -> int:
    """Decode JPEGs at an eighth of their size, the least that Pillow has."""
    with ThreadPoolExecutor(workers or 1) as pool:
        photos = pool.map(read_reduced, rows["path"], [1 / 8] * len(rows))
        return sum(len(pixels) for pixels, _ in photos)


def pixels(way: str) -> list[np.ndarray] | None:
    """Two chips (2, 256, 256, 3), not augmented; ours are decoded at reduced size."""
    rows = drawn(2)
    if way == "ours":
        return [np.stack([np.asarray(chip) for chip, _ in chips_of(rows, 256)]).astype(float)]
    if way != "textbook":
        return None
    plain = Photos(rows, [0, 0], 256)
    return [np.stack([plain[row][0].permute(1, 2, 0).numpy() for row in range(2)])]


PHOTOS = Task(
    "photos",
    ("ours", "ours, first pass", "textbook", "least decoding"),
    {
        "quick": [{"photos": 6, "size": 256, "workers": 0}],
        "full": [{"photos": 48, "size": 256, "workers": workers} for workers in (1, 2)],
    },
    prepare_photos,
    pixels,
    allowed=0.06,  # of the brightest, of single pixels; on average they differ by 1 of 255
)

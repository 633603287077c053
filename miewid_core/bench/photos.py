"""From photos to augmented batches: decoding, cutting, resizing, augmenting.

Photos are drawn as a camera saves them: 12 megapixels, JPEG, with a box each.
"""

import functools
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from miewid_core.bench.measuring import Task
from miewid_core.bench.textbook import Photos
from miewid_core.chips import (
    P_AFFINE,
    P_EACH_TEXTURE,
    P_JITTER,
    P_TEXTURE,
    Batches,
    ChipDataset,
    ChipStore,
    augmentation,
    loader,
)
from miewid_core.demo import draw_animals
from miewid_core.files import CACHE, replacing
from miewid_core.photos import crop, read_photo, read_reduced, resize
from miewid_core.readers.load import load_catalog

FOLDER = CACHE / "bench"
SIZE = 4000, 3000
BATCH, FEW = 16, 48
Run = Callable[[], object]


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


def torchvision(size: int) -> v2.Transform:
    """Our list in torchvision v2: without CLAHE, for which `equalize` stands in.

    The photo is padded by its mirror image to twice the side, of which a shift is half as large a
    share; else torchvision would leave its corners black.
    """
    look = {"scale": (0.8, 1.2), "interpolation": v2.InterpolationMode.BILINEAR}
    mirror = v2.Pad(size // 2, padding_mode="reflect")
    moved = [mirror, v2.RandomAffine(15, (0.125, 0.125), **look), v2.CenterCrop(size)]
    texture = [v2.RandomAdjustSharpness(2, p=1), v2.Grayscale(3), v2.RandomEqualize(p=1)]
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomChoice(texture, [P_EACH_TEXTURE] * 3)], P_TEXTURE),
            v2.RandomApply(moved, P_AFFINE),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2, 0.2)], P_JITTER),
        ]
    )


def augmented(way: str, photos: int, size: int, repeats: int) -> Callable[[], list[np.ndarray]]:
    """A function that augments each of `photos` chips `repeats` times: (size, size, 3) uint8."""
    torch.manual_seed(0)
    rows = drawn(photos)
    if way == "before resizing":
        boxes = rows[["path", "x", "y", "w", "h"]].itertuples(index=False)
        images = [crop(read_photo(path), tuple(box)) for path, *box in boxes]
    else:
        images = [np.asarray(chip) for chip, _ in chips_of(rows, size)]
    if way == "torchvision":
        transform = torchvision(size)
        tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        return lambda: [transform(image) for _ in range(repeats) for image in tensors]
    transform = augmentation(size)
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    each = [image for _ in range(repeats) for image in images]
    if way == "before resizing":
        return lambda: [resize(transform(image=image)["image"], size) for image in each]
    return lambda: [transform(image=image)["image"] for image in each]


def prepare_augmentation(way: str, photos: int, size: int, repeats: int) -> Run:
    """What is timed, in one thread, as each of a loader's processes has."""
    torch.set_num_threads(1)
    run = augmented(way, photos, size, repeats)
    augmented(way, 1, size, 20)()  # every part of it once
    return run


def brightness(way: str) -> list[list[float]]:
    """Mean and standard deviation of augmented pixels."""
    chips = np.stack([np.asarray(chip) for chip in augmented(way, 2, 256, 100)()])
    return [[chips.mean(), chips.std()]]


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
AUGMENT = Task(
    "augment",
    ("ours", "torchvision", "before resizing"),
    {
        "quick": [{"photos": 4, "size": 256, "repeats": 5}],
        "full": [{"photos": 12, "size": 256, "repeats": 8}],
    },
    prepare_augmentation,
    brightness,
    allowed=0.03,
)

"""From photos to augmented batches: decoding, cutting, resizing, augmenting.

Photos are drawn as a camera saves them: 12 megapixels, JPEG, with a box each.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
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
from miewid_core.files import CACHE, replacing
from miewid_core.photos import crop, read_photo, read_reduced, resize

FOLDER = CACHE / "bench"
SIZE = 4000, 3000
BATCH = 16


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


def chips_of(rows: pd.DataFrame, size: int, **options: object) -> ChipDataset:
    """Our dataset of the chips of `rows`, which are made where they are missing."""
    store = ChipStore(FOLDER / "chips", size)
    return ChipDataset(store, store.build(rows).tolist(), **options)


def prepare_photos(way: str, photos: int, size: int, workers: int) -> Callable[[], object]:
    """What is timed: an epoch; the loader's processes run already."""
    rows = drawn(photos)
    if way == "least decoding":
        return lambda: decoded(rows, workers)
    if way == "textbook":
        dataset = Photos(rows, [0] * photos, size, augmentation(size))
    else:
        dataset = chips_of(rows, size, augment=True)
    batches = loader(dataset, Batches(photos, BATCH, 0), workers)
    epoch(batches)
    if way != "ours, first pass":
        return lambda: epoch(batches)

    def first_pass() -> int:
        with TemporaryDirectory() as folder:  # chips are made, then read as in any epoch
            ChipStore(folder, size).build(rows, workers)
        return epoch(batches)

    return first_pass


def decoded(rows: pd.DataFrame, workers: int) -> int:
    """Decode JPEGs at an eighth of their size, the least that Pillow has."""
    with ThreadPoolExecutor(workers or 1) as pool:
        photos = pool.map(read_reduced, rows["path"], [1 / 8] * len(rows))
        return sum(len(pixels) for pixels, _ in photos)


def epoch(batches: torch.utils.data.DataLoader) -> int:
    """Photos that came."""
    return sum(len(labels) for _, labels in batches)


def pixel_differences(photos: int = 2, size: int = 256) -> np.ndarray:
    """Differences (photos, size, size, 3) of the textbook's pixels from ours, not augmented."""
    rows = drawn(photos)
    ours = np.stack([np.asarray(chip) for chip, _ in chips_of(rows, size)]).astype(float)
    plain = Photos(rows, [0] * photos, size)
    return np.stack([plain[index][0].permute(1, 2, 0).numpy() for index in range(photos)]) - ours


def photo_differences(ways: list[str]) -> dict[str, float]:
    """The largest difference of any pixel from ours, of 255: photos are decoded at reduced size."""
    return {"textbook": float(np.abs(pixel_differences()).max())}


def torchvision(size: int, mirrored: bool = True) -> v2.Transform:
    """The same list in torchvision v2, which has no CLAHE: `equalize` stands in for it.

    `mirrored`: as in ours the photo goes on beyond its edges; torchvision would leave them black.
    """
    bilinear = {"scale": (0.8, 1.2), "interpolation": v2.InterpolationMode.BILINEAR}
    affine = v2.RandomAffine(15, (0.25, 0.25), **bilinear)
    if mirrored:  # padded to twice the side, of which a shift is half as large a share
        mirror = v2.Pad(size // 2, padding_mode="reflect")
        moved = v2.RandomAffine(15, (0.125, 0.125), **bilinear)
        affine = v2.Compose([mirror, moved, v2.CenterCrop(size)])
    texture = [v2.RandomAdjustSharpness(2, p=1), v2.Grayscale(3), v2.RandomEqualize(p=1)]
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomChoice(texture, [P_EACH_TEXTURE] * 3)], P_TEXTURE),
            v2.RandomApply([affine], P_AFFINE),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2, 0.2)], P_JITTER),
        ]
    )


def augmented(way: str, photos: int, size: int, repeats: int) -> Callable[[], list[np.ndarray]]:
    """A function that augments each of `photos` chips `repeats` times: (size, size, 3) uint8."""
    rows = drawn(photos)
    if way == "before resizing":
        boxes = rows[["path", "x", "y", "w", "h"]].itertuples(index=False)
        images = [crop(read_photo(path), tuple(box)) for path, *box in boxes]
    else:
        images = [np.asarray(chip) for chip, _ in chips_of(rows, size)]
    if way.startswith("torchvision"):
        transform = torchvision(size, mirrored=way == "torchvision")
        tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        return lambda: [transform(image) for _ in range(repeats) for image in tensors]
    transform = augmentation(size)
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    each = [image for _ in range(repeats) for image in images]
    if way == "before resizing":
        return lambda: [resize(transform(image=image)["image"], size) for image in each]
    return lambda: [transform(image=image)["image"] for image in each]


def prepare_augmentation(way: str, photos: int, size: int, repeats: int) -> Callable[[], object]:
    """What is timed, in one thread, as each of a loader's processes has."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = augmented(way, photos, size, repeats)
    augmented(way, 1, size, 20)()  # every part of it once
    return run


def augmentation_differences(ways: list[str]) -> dict[str, float]:
    """How far mean and standard deviation of the augmented pixels are from ours, of 255."""
    torch.manual_seed(0)
    found = {}
    for way in ways:
        if way != "torchvision, black corners":  # which says it
            chips = np.stack([np.asarray(one) for one in augmented(way, 2, 256, 100)()])
            found[way] = np.array([chips.mean(), chips.std()])
    return {way: float(np.abs(pair - found["ours"]).max()) for way, pair in found.items()}


PHOTOS = Task(
    "photos",
    ("ours", "ours, first pass", "textbook", "least decoding"),
    {
        "quick": [{"photos": 6, "size": 256, "workers": 0}],
        "full": [{"photos": 48, "size": 256, "workers": workers} for workers in (1, 2)],
    },
    prepare_photos,
    photo_differences,
    allowed=16,  # of 255, of single pixels; on average they differ by 1
)
AUGMENT = Task(
    "augment",
    ("ours", "torchvision", "torchvision, black corners", "before resizing"),
    {
        "quick": [{"photos": 4, "size": 256, "repeats": 5}],
        "full": [{"photos": 12, "size": 256, "repeats": 8}],
    },
    prepare_augmentation,
    augmentation_differences,
    allowed=4,  # of 255
)

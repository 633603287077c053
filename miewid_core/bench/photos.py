"""From photos of 12 megapixels to augmented batches, in the first epoch and in later ones."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from miewid_core.bench import pictures
from miewid_core.bench.textbook import Photos
from miewid_core.chips import Batches, ChipDataset, ChipStore, augmentation, loader
from miewid_core.photos import read_reduced

WAYS = ("ours", "ours, first pass", "textbook", "least decoding")
SIZES = {
    "quick": [{"photos": 6, "size": 256, "workers": 1}],
    "full": [{"photos": 48, "size": 256, "workers": workers} for workers in (1, 2)],
}
ALLOWED = 2  # of 255: photos are decoded at a reduced size
CALLS = 1
BATCH = 16


def prepare(way: str, photos: int, size: int, workers: int) -> Callable[[], object]:
    """What is timed: an epoch; the loader's processes run already."""
    rows = pictures.rows(photos)
    if way == "least decoding":
        return lambda: decoded(rows, workers)
    if way == "textbook":
        dataset = Photos(rows, [0] * photos, size, augmentation(size))
    else:
        store = ChipStore(pictures.FOLDER / "chips", size)
        dataset = ChipDataset(store, store.build(rows).tolist(), augment=True)
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
    with ThreadPoolExecutor(workers) as pool:
        photos = pool.map(read_reduced, rows["path"], [1 / 8] * len(rows))
        return sum(len(pixels) for pixels, _ in photos)


def epoch(batches: torch.utils.data.DataLoader) -> int:
    """Photos that came."""
    return sum(len(labels) for _, labels in batches)


def differences(ways: list[str], photos: int = 2, size: int = 256) -> dict[str, float]:
    """Mean difference of the pixels from ours, of 255, without augmentation."""
    rows = pictures.rows(photos)
    store = ChipStore(pictures.FOLDER / "chips", size)
    ours = np.stack([store.read(key) for key in store.build(rows)]).astype(float)
    plain = Photos(rows, [0] * photos, size)
    usual = np.stack([plain[index][0].permute(1, 2, 0).numpy() for index in range(photos)])
    return {way: float(np.abs(usual - ours).mean()) if way == "textbook" else 0.0 for way in ways}

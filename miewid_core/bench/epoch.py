"""A training epoch beside the plain loop with a default loader: the preset `paper`, on a GPU."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from miewid_core.batches import Batches, loader
from miewid_core.bench import pictures, step
from miewid_core.bench.textbook import Photos
from miewid_core.chips import ChipStore
from miewid_core.config import preset
from miewid_core.dataset import ChipDataset, augmentation
from miewid_core.device import default_device, keep_freed_memory

WAYS = ("ours", "textbook")
PAPER = {"preset_name": "paper", "photos": 448, "batch": 112, "classes": 37_138, "workers": 8}
SIZES = {
    "quick": [{"preset_name": "demo", "photos": 6, "batch": 3, "classes": 20, "workers": 0}],
    "full": [PAPER] if torch.cuda.is_available() else [],  # else not measured
}
ALLOWED = step.ALLOWED
CALLS = 3
differences = step.differences  # the same network and loss; how photos differ is in `photos`


def prepare(
    way: str, preset_name: str, photos: int, batch: int, classes: int, workers: int
) -> Callable[[], object]:
    """What is timed: an epoch, photos to weights, after one that doesn't count."""
    config = preset(preset_name, pretrained=False, batch_size=batch)
    rows, labels = pictures.rows(photos), np.arange(photos) % classes
    if way == "textbook":
        dataset = Photos(rows, labels, config.image_size, augmentation(config.image_size))
        batches, (once, *_) = DataLoader(dataset, batch), step.textbook(config, classes)

        def epoch() -> float:
            return sum(once(*pair) for pair in batches)

    else:
        keep_freed_memory()
        store = ChipStore(pictures.FOLDER / "chips", config.image_size)
        dataset = ChipDataset(store, store.build(rows).tolist(), labels, augment=True)
        order = Batches(photos, batch, 0)
        source, made = loader(dataset, order, workers), step.trainer(config, classes)

        def epoch() -> float:
            return float(sum(made.step(*pair, tqdm(disable=True)) for pair in source))

    epoch()
    return epoch


def limits(preset_name: str = "paper", size: int = 8192, repeats: int = 20) -> dict[str, float]:
    """What a GPU could do: the rate of its matrix product in bfloat16, operations per second."""
    device = default_device()
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    a @ a
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        a @ a
    end.record()
    torch.cuda.synchronize()
    return {"operations_per_second": 2 * size**3 * repeats / (start.elapsed_time(end) / 1000)}

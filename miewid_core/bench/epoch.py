"""A training epoch beside the plain loop with a default loader: the preset `paper`, on a GPU."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from miewid_core.bench import pictures, step
from miewid_core.bench.textbook import Photos
from miewid_core.chips import Batches, ChipDataset, ChipStore, augmentation, loader
from miewid_core.config import preset
from miewid_core.machine import default_device, keep_freed_memory
from miewid_core.model import MiewIDNet
from miewid_core.paper.backbones import multiply_adds

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
            return float(sum(made.step(*pair) for pair in source))

    epoch()
    return epoch


def product_rate(size: int = 8192, repeats: int = 20) -> float:
    """Operations per second of this GPU's matrix product in bfloat16, which nothing exceeds."""
    factor = torch.randn(size, size, device=default_device(), dtype=torch.bfloat16)
    factor @ factor
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        factor @ factor
    end.record()
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (start.elapsed_time(end) / 1000)


def in_words(measured: pd.DataFrame | None) -> str:
    """The rate of our epoch, and the share of the GPU's matrix products that it uses."""
    if measured is None or measured.empty or not torch.cuda.is_available():
        return "A training epoch of preset `paper`: not measured here: no GPU."
    seconds = measured.loc[measured["way"] == "ours", "seconds"].median()
    rate, config = PAPER["photos"] / seconds, preset(PAPER["preset_name"])
    once = multiply_adds(MiewIDNet(config.backbone), config.image_size)
    used = 3 * 2 * once * rate / product_rate()  # backward takes twice the forward's products
    return f"Preset `paper`: {rate:,.0f} photos/s, {100 * used:.0f} % of the GPU's matrix products."

"""The paper's preset on a GPU: an epoch, embedding, and the matrix products that bound both."""

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from miewid_core.bench import embedding, step
from miewid_core.bench.measuring import Task
from miewid_core.bench.photos import chips_of
from miewid_core.bench.textbook import Photos
from miewid_core.chips import Batches, augmentation, loader
from miewid_core.config import preset
from miewid_core.demo import draw_animals
from miewid_core.evaluation import embed
from miewid_core.files import CACHE
from miewid_core.machine import default_device, keep_freed_memory
from miewid_core.readers.load import load_catalog

PAPER = {"preset_name": "paper", "photos": 2240, "batch": 112, "classes": 37_138, "workers": 8}
TINY = {"preset_name": "demo", "photos": 6, "batch": 3, "classes": 20, "workers": 0}
LARGE = 8192  # side of the matrices whose product nothing exceeds


@functools.cache
def enlarged(count: int) -> pd.DataFrame:
    """`count` rows of the demo catalog, repeated as needed; a repeated box is moved by pixels."""
    demo = load_catalog(draw_animals(CACHE / "demo"))
    place = np.arange(count)
    turn = place // len(demo)
    return demo.iloc[place % len(demo)].assign(x=lambda rows: rows["x"] + turn)


def prepare_epoch(
    way: str, preset_name: str, photos: int, batch: int, classes: int, workers: int
) -> Callable[[], object]:
    """What is timed: an epoch, photos to weights, after a few steps that don't count."""
    config = preset(preset_name, pretrained=False, batch_size=batch)
    rows, labels = enlarged(photos), np.arange(photos) % classes
    if way.startswith("textbook"):
        dataset = Photos(rows, labels, config.image_size, augmentation(config.image_size))
        own = workers if way == "textbook, as many workers" else 0
        batches = DataLoader(dataset, batch, num_workers=own)
        once, *_ = step.textbook(config, classes)
    else:
        keep_freed_memory()
        dataset = chips_of(rows, config.image_size, labels=labels, augment=True)
        batches = loader(dataset, Batches(photos, batch, 0), workers)
        once = functools.partial(step.our_step, step.trainer(config, classes))

    def epoch(steps: int = len(batches)) -> None:
        for _, pair in zip(range(steps), batches):  # noqa: B905
            once(*pair)

    epoch(3)
    return epoch


def prepare_gpu_embedding(way: str, preset_name: str, photos: int, workers: int) -> Callable:
    """What is timed: embeddings from chips that are there, in bfloat16 or in float32."""
    config, device = preset(preset_name), default_device()
    ours, preprocess, plain = embedding.networks(preset_name)
    chips = chips_of(enlarged(photos), config.image_size)
    if way == "ours":
        run = functools.partial(embed, ours, preprocess, chips, device=device, workers=workers)
    else:
        turned = [(chip.permute(2, 0, 1), label) for chip, label in chips]
        run = functools.partial(embedding.plainly, plain, turned)
    run()
    return run


def prepare_product(way: str, side: int) -> Callable[[], None]:
    """What is timed: a product of square matrices in bfloat16 on a GPU, else in float32."""
    device = default_device()
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=kind)

    def run() -> None:
        factor @ factor
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run


EPOCH = Task(
    "epoch",
    ("ours", "textbook", "textbook, as many workers"),
    {"quick": [TINY], "full": [PAPER]},
    prepare_epoch,
    step.step_differences,  # the same network and loss; how photos differ is in `photos`
    allowed=step.STEP.allowed,
    gpu=True,
)
EMBEDDING = Task(
    "gpu_embedding",
    ("ours", "textbook, network alone"),
    {
        "quick": [{"preset_name": "demo", "photos": 6, "workers": 0}],
        "full": [{"preset_name": "paper", "photos": 2240, "workers": 8}],
    },
    prepare_gpu_embedding,
    embedding.embedding_differences,
    allowed=0.05,  # of the largest value: bfloat16 on a GPU
    gpu=True,
)
PRODUCT = Task(
    "gpu_product",
    ("ours",),
    {"quick": [{"side": 64}], "full": [{"side": LARGE}]},
    prepare_product,
    calls=20,
    gpu=True,
)

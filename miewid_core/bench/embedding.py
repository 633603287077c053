"""Embedding a catalog with a trained network, beside the textbook's loop."""

import functools
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader

from miewid_core.bench.measuring import Task
from miewid_core.bench.photos import chips_of, drawn
from miewid_core.bench.textbook import Network, Photos
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.config import preset
from miewid_core.evaluation import embed
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet, Preprocess

Networks = tuple[MiewIDNet, Preprocess, Network]


def networks(preset_name: str) -> Networks:
    """Ours with its preprocessing, and the textbook's with the same weights."""
    config, device = preset(preset_name), default_device()
    torch.manual_seed(0)
    ours = MiewIDNet(config.backbone).to(device, memory_format=torch.channels_last).eval()
    plain = Network(config.backbone).to(device).eval()
    plain.backbone.load_state_dict(ours.backbone.state_dict())
    return ours, Preprocess.of(config.backbone, config.image_size), plain


@torch.no_grad()
def plainly(network: Network, items: torch.utils.data.Dataset) -> np.ndarray:
    """Embeddings as usually computed."""
    device = next(network.parameters()).device
    parts = [network(chips.to(device)).cpu() for chips, _ in DataLoader(items, 64)]
    return torch.cat(parts).numpy()


def prepare_embedding(way: str, photos: int, preset_name: str) -> Callable[[], np.ndarray]:
    """What is timed: from photos, or (ours, and the network alone) from chips that are there."""
    rows, size = drawn(photos), preset(preset_name).image_size
    ours, preprocess, plain = networks(preset_name)
    chips = chips_of(rows, size)
    if way == "textbook":
        run = functools.partial(plainly, plain, Photos(rows, [0] * photos, size))
    elif way == "textbook, network alone":
        run = functools.partial(plainly, plain, [(c.permute(2, 0, 1), n) for c, n in chips])
    elif way == "ours":
        run = functools.partial(embed, ours, preprocess, chips, device=default_device())
    else:
        run = functools.partial(_first_pass, rows, size, ours, preprocess)
    run()
    return run


def _first_pass(rows, size: int, ours: MiewIDNet, preprocess: Preprocess) -> np.ndarray:
    with TemporaryDirectory() as folder:
        store = ChipStore(folder, size)
        chips = ChipDataset(store, store.build(rows).tolist())
        return embed(ours, preprocess, chips, device=default_device())


def embedding_differences(ways: list[str]) -> dict[str, float]:
    """Of the textbook's network from ours on equal chips; what photos cost is in `photos`."""
    own, usual = (
        prepare_embedding(way, 2, "demo")() for way in ("ours", "textbook, network alone")
    )
    return {"textbook, network alone": float(np.abs(usual - own).max() / np.abs(own).max())}


EMBEDDING = Task(
    "embedding",
    ("ours", "ours, first pass", "textbook", "textbook, network alone"),
    {
        "quick": [{"photos": 6, "preset_name": "demo"}],
        "full": [{"photos": 24, "preset_name": "compact"}],
    },
    prepare_embedding,
    embedding_differences,
    allowed=1e-4,  # of the largest value, from the same chips
)

"""Embedding a catalog with a trained network, beside the textbook's loop."""

import functools
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader

from miewid_core.bench import pictures
from miewid_core.bench.textbook import Network, Photos
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.config import preset
from miewid_core.evaluation import embed
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet, Preprocess

WAYS = ("ours", "ours, first pass", "textbook", "textbook, network alone")
SIZES = {
    "quick": [{"photos": 6, "preset_name": "demo"}],
    "full": [{"photos": 24, "preset_name": "compact"}],
}
ALLOWED = 1e-4  # of the largest value, from the same chips
CALLS = 1
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


def prepare(way: str, photos: int, preset_name: str) -> Callable[[], np.ndarray]:
    """What is timed: from photos, or (ours, and the network alone) from chips that are there."""
    rows, size = pictures.rows(photos), preset(preset_name).image_size
    ours, preprocess, plain = networks(preset_name)
    store = ChipStore(pictures.FOLDER / "chips", size)
    chips = ChipDataset(store, store.build(rows).tolist())
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


def differences(ways: list[str]) -> dict[str, float]:
    """Of the textbook's network from ours on the same chips; what photos cost is in `photos`."""
    usual = prepare("textbook, network alone", 2, "demo")()
    found = {"ours": prepare("ours", 2, "demo")(), "textbook, network alone": usual}
    largest = np.abs(found["ours"]).max()
    return {way: float(np.abs(e - found["ours"]).max() / largest) for way, e in found.items()}

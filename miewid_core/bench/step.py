"""A training step beside the textbook's, and beside variants of ours that were tried."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from miewid_core.bench.textbook import Network, OneHotArcFace
from miewid_core.config import PRESETS, TrainConfig, preset
from miewid_core.machine import default_device, keep_freed_memory
from miewid_core.training import Trainer

WAYS = ("ours", "textbook")
SIZES = {
    "quick": [{"preset_name": "demo", "batch": 32, "classes": 500}],
    "full": [{"preset_name": "compact", "batch": 48, "classes": 1000}],
}
ALLOWED = 1e-3  # of a loss
CALLS = 8
Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], float]


def batch_of(config: TrainConfig, classes: int) -> Batch:
    """Noise for chips (B, S, S, 3) uint8, and labels (B,)."""
    generator = torch.Generator().manual_seed(0)
    shape = config.batch_size, config.image_size, config.image_size, 3
    chips = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return chips, torch.randint(classes, (config.batch_size,), generator=generator)


def trainer(config: TrainConfig, classes: int) -> Trainer:
    """Our training, about to begin, as at the peak rate."""
    made = Trainer(np.ones(classes), config, 0, default_device())
    made.model.train()
    for group in made.optimizer.param_groups:
        group["lr"] = config.peak_rate
    return made


def textbook(config: TrainConfig, classes: int) -> tuple[Step, Network, OneHotArcFace]:
    """A step of the plain loop, with its network and head."""
    device, margin = default_device(), (config.margin_low + config.margin_high) / 2
    network = Network(config.backbone).to(device)
    features, margins = network.bn.num_features, torch.full((classes,), margin)
    head = OneHotArcFace(features, classes, margins, config.scale, config.sub_centers).to(device)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=config.peak_rate)
    network.train()

    def step(chips: torch.Tensor, labels: torch.Tensor) -> float:
        """`chips`: (B, 3, S, S) uint8."""
        optimizer.zero_grad()
        loss = head(network(chips.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, network, head


def prepare(way: str, preset_name: str, batch: int, classes: int) -> Callable[[], float]:
    """What is timed: a step, after two that don't count; it returns the loss."""
    config = preset(preset_name, pretrained=False, batch_size=batch)
    chips, labels = batch_of(config, classes)
    if way == "textbook":
        step, *_ = textbook(config, classes)
        chips = chips.permute(0, 3, 1, 2).contiguous()
    else:
        keep_freed_memory()
        made = trainer(config, classes)
        step = lambda *given: float(made.step(*given)) / batch  # noqa: E731
    for _ in range(2):
        step(chips, labels)
    return lambda: step(chips, labels)


def differences(ways: list[str]) -> dict[str, float]:
    """The largest difference from ours in the losses of three steps from the same weights."""
    config = dataclasses.replace(PRESETS["demo"], batch_size=16, peak_rate=1e-4)
    chips, labels = batch_of(config, 20)
    ours = trainer(config, 20)
    step, network, head = textbook(config, 20)
    network.backbone.load_state_dict(ours.model.backbone.state_dict())
    network.bn.load_state_dict(ours.model.bn.state_dict())
    head.weight.data.copy_(ours.head.weight)
    usual = [step(chips.permute(0, 3, 1, 2), labels) for _ in range(3)]
    own = [float(ours.step(chips, labels)) / len(labels) for _ in range(3)]
    return dict.fromkeys(ways, 0.0) | {"textbook": float(np.abs(np.subtract(own, usual)).max())}

"""A training step beside the textbook's: the loss, the whole step, variants that were tried."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from miewid_core.bench.measuring import Run, Task
from miewid_core.bench.textbook import Network, OneHotArcFace
from miewid_core.config import PRESETS, TrainConfig, preset
from miewid_core.loss import SubCenterArcFace
from miewid_core.machine import default_device, keep_freed_memory
from miewid_core.training import Trainer

SCALE, MARGIN, K = 51.5, 0.3, 3
TRIED = ("torch.compile", "bfloat16", "memory given back")
Step = Callable[[torch.Tensor, torch.Tensor], float]


def head(way: str, classes: int, dim: int) -> nn.Module:
    """The loss as `way` has it, with equal margins, which all of them can have."""
    margins = torch.full((classes,), MARGIN)
    if way == "ours":
        return SubCenterArcFace(dim, classes, margins, SCALE, K)
    if way == "textbook":
        return OneHotArcFace(dim, classes, margins, SCALE, K)
    from pytorch_metric_learning.losses import SubCenterArcFaceLoss

    options = {"num_classes": classes, "embedding_size": dim, "sub_centers": K}
    return SubCenterArcFaceLoss(margin=math.degrees(MARGIN), scale=SCALE, **options)


def prepare_loss(way: str, classes: int, dim: int, batch: int) -> Run:
    """What is timed: a step without the optimizer; or its products alone, three in all.

    It returns the loss, and its gradients to embeddings (B, D) and centers (C * K, D).
    """
    keep_freed_memory()  # as in a training; else each step pays for its memory anew, all ways alike
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch, dim, generator=generator, requires_grad=way != "products")
    labels = torch.randint(classes, (batch,), generator=generator)
    centers = torch.randn(K * classes, dim, generator=generator)
    if way == "products":
        return lambda: [
            cosines := embeddings @ centers.T,
            cosines @ centers,
            cosines.T @ embeddings,
        ]
    made = head(way, classes, dim)
    weight = next(made.parameters())
    turned = len(weight) != len(centers)  # pytorch-metric-learning has them in columns
    weight.data = centers.T.contiguous() if turned else centers

    def run() -> list[torch.Tensor]:
        embeddings.grad = weight.grad = None
        loss = made(embeddings, labels)
        loss.backward()
        return [loss.detach(), embeddings.grad, weight.grad.T if turned else weight.grad]

    return run


def loss_and_gradients(way: str) -> list[torch.Tensor] | None:
    """The loss of 8 embeddings, and its gradients."""
    return None if way == "products" else prepare_loss(way, 50, 16, 8)()


def batch_of(config: TrainConfig, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
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


def our_step(made: Trainer, chips: torch.Tensor, labels: torch.Tensor) -> float:
    """A step of our training; returns its mean loss."""
    return float(made.step(chips, labels)) / len(labels)


def textbook(config: TrainConfig, classes: int) -> tuple[Step, Network, OneHotArcFace]:
    """A step of the plain loop on chips (B, 3, S, S) uint8, with its network and head."""
    device, margin = default_device(), (config.margin_low + config.margin_high) / 2
    network = Network(config.backbone).to(device)
    features, margins = network.bn.num_features, torch.full((classes,), margin)
    head = OneHotArcFace(features, classes, margins, config.scale, config.sub_centers).to(device)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=config.peak_rate)
    network.train()

    def step(chips: torch.Tensor, labels: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = head(network(chips.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, network, head


def losses(way: str, config: TrainConfig, chips: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The losses of three steps with one batch from equal weights, ours or the textbook's."""
    classes = int(labels.max()) + 1
    ours = trainer(config, classes)
    if way == "ours":
        return [our_step(ours, chips, labels) for _ in range(3)]
    step, network, head = textbook(config, classes)
    network.begin_as(ours.model)
    head.weight.data.copy_(ours.head.weight)
    return [step(chips.permute(0, 3, 1, 2), labels) for _ in range(3)]


def answer(way: str) -> list[list[float]] | None:
    """The losses of three steps by the demo's settings."""
    config = dataclasses.replace(PRESETS["demo"], batch_size=16, peak_rate=1e-4, optimizer="adam")
    return None if way in TRIED else [losses(way, config, *batch_of(config, 20))]


def prepare_step(way: str, preset_name: str, batch: int, classes: int) -> Run:
    """What is timed: a step, after two that don't count; it returns the loss."""
    config = preset(preset_name, pretrained=False, batch_size=batch, optimizer="adam")
    chips, labels = batch_of(config, classes)
    if way == "textbook":
        step, *_ = textbook(config, classes)
        chips = chips.permute(0, 3, 1, 2).contiguous()
    else:
        if way != "memory given back":
            keep_freed_memory()
        made = trainer(config, classes)
        if way == "torch.compile":
            made.model.compile()
        if way == "bfloat16":  # around the call it would not reach into the step: float32 there
            made.model.forward = torch.autocast("cpu", torch.bfloat16)(made.model.forward)
        step = functools.partial(our_step, made)
    run = functools.partial(step, chips, labels)
    run(), run()
    return run


LOSS = Task(
    "loss",
    ("ours", "products", "textbook", "pytorch-metric-learning"),
    {
        "quick": [{"classes": 1000, "dim": 256, "batch": 112}],
        "full": [
            {"classes": 10_000, "dim": 2152, "batch": 112},
            {"classes": 20_000, "dim": 2152, "batch": 112},  # of 37,138 the others hold 8 GB
            {"classes": 37_138, "dim": 2152, "batch": 112, "ways": ("ours", "products")},
        ],
    },
    prepare_loss,
    loss_and_gradients,
    allowed=1e-4,
    calls=3,
)
STEP = Task(  # what changes the weights is only timed, and was not kept anyway
    "step",
    ("ours", "textbook", *TRIED),
    {
        "quick": [
            {"preset_name": "demo", "batch": 32, "classes": 500, "ways": ("ours", "textbook")}
        ],
        "full": [{"preset_name": "compact", "batch": 48, "classes": 1000}],
    },
    prepare_step,
    answer,
    allowed=1e-4,
    calls=3,
)

"""A training step beside the textbook's: the loss, the whole step, variants that were tried."""

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from miewid_core.bench.measuring import Task
from miewid_core.bench.textbook import Network, OneHotArcFace
from miewid_core.config import PRESETS, TrainConfig, preset
from miewid_core.loss import SubCenterArcFace
from miewid_core.machine import default_device, keep_freed_memory
from miewid_core.training import Trainer

SCALE, MARGIN, K = 51.5, 0.3, 3
Batch = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[torch.Tensor, torch.Tensor], float]


class Products(nn.Module):
    """The products alone: one forward, and backward one for each factor."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(K * classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One of the products (B, C * K), as a loss that needs nothing else."""
        return _First.apply(embeddings @ self.weight.T)


class _First(torch.autograd.Function):
    """The first value; its gradient is the values themselves, which are there already."""

    @staticmethod
    def forward(ctx, products: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(products)
        return products[0, 0].clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return ctx.saved_tensors[0]


def head(way: str, classes: int, dim: int) -> nn.Module:
    """The loss as `way` has it, with equal margins, which all of them can have."""
    margins = torch.full((classes,), MARGIN)
    if way == "ours":
        return SubCenterArcFace(dim, classes, margins, SCALE, K)
    if way == "products":
        return Products(dim, classes)
    if way == "textbook":
        return OneHotArcFace(dim, classes, margins, SCALE, K)
    losses = importlib.import_module("pytorch_metric_learning.losses")
    options = {"num_classes": classes, "embedding_size": dim, "sub_centers": K}
    return losses.SubCenterArcFaceLoss(margin=math.degrees(MARGIN), scale=SCALE, **options)


def prepare_loss(way: str, classes: int, dim: int, batch: int) -> Callable[[], object]:
    """What is timed: a step without the optimizer; returns the loss and the gradients."""
    keep_freed_memory()  # as in a training; else each step pays for its memory anew, all ways alike
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch, dim, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (batch,), generator=generator)
    made = head(way, classes, dim)
    return lambda: loss_step(made, embeddings, labels)


def loss_step(made: nn.Module, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss; gradients are left in the tensors."""
    embeddings.grad = None
    made.zero_grad()
    loss = made(embeddings, labels)
    loss.backward()
    return loss.detach()


def loss_differences(ways: list[str], classes: int = 50, dim: int = 16) -> dict[str, float]:
    """The largest difference from ours of the loss and of any gradient, relative to the largest."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(8, dim, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (8,), generator=generator)
    weight = torch.randn(classes * K, dim, generator=generator)
    found = {}
    for way in ways:
        if way != "products":
            made = head(way, classes, dim)
            own = next(made.parameters())
            turned = own.shape != weight.shape  # pytorch-metric-learning has them in columns
            own.data = (weight.T if turned else weight).clone()
            loss = loss_step(made, embeddings, labels)
            found[way] = loss, embeddings.grad, own.grad.T if turned else own.grad
    return {way: max(map(_apart, found["ours"], values)) for way, values in found.items()}


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())


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


def our_step(made: Trainer, chips: torch.Tensor, labels: torch.Tensor) -> float:
    """A step of our training; returns its mean loss."""
    return float(made.step(chips, labels)) / len(labels)


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


def prepare_step(way: str, preset_name: str, batch: int, classes: int) -> Callable[[], float]:
    """What is timed: a step, after two that don't count; it returns the loss."""
    config = preset(preset_name, pretrained=False, batch_size=batch)
    chips, labels = batch_of(config, classes)
    if way == "textbook":
        step, *_ = textbook(config, classes)
        chips = chips.permute(0, 3, 1, 2).contiguous()
    else:
        keep_freed_memory()
        step = functools.partial(our_step, trainer(config, classes))
    for _ in range(2):
        step(chips, labels)
    return lambda: step(chips, labels)


def step_differences(ways: list[str]) -> dict[str, float]:
    """The largest difference from ours in the losses of three steps from equal weights."""
    config = dataclasses.replace(PRESETS["demo"], batch_size=16, peak_rate=1e-4)
    chips, labels = batch_of(config, 20)
    ours = trainer(config, 20)
    step, network, head = textbook(config, 20)
    network.backbone.load_state_dict(ours.model.backbone.state_dict())
    network.bn.load_state_dict(ours.model.bn.state_dict())
    head.weight.data.copy_(ours.head.weight)
    usual = [step(chips.permute(0, 3, 1, 2), labels) for _ in range(3)]
    own = [our_step(ours, chips, labels) for _ in range(3)]
    return {"textbook": float(np.abs(np.subtract(own, usual)).max())}


def prepare_tried(way: str, preset_name: str, batch: int, classes: int) -> Callable[[], object]:
    """What is timed: two steps of `batch` photos, or one of twice as many."""
    double = way == "twice the batch"
    config = preset(preset_name, pretrained=False, batch_size=batch * (1 + double))
    if way != "memory given back":
        keep_freed_memory()
    # sampled classes: the batch's own, and random others up to a third
    made = trainer(config, classes // 3 if way == "a third of classes" else classes)
    chips, labels = batch_of(config, made.head.margins.numel())
    if way == "torch.compile":
        made.model.compile()
    elif way == "NCHW":
        made.model.to(memory_format=torch.contiguous_format)
    elif way == "bfloat16":  # outside, it would not reach into the step, which says float32
        made.model.forward = torch.autocast("cpu", torch.bfloat16)(made.model.forward)
    elif way == "Adam unfused":
        made.optimizer = torch.optim.Adam(made.parameters, lr=config.peak_rate)

    def steps() -> None:
        for _ in range(1 if double else 2):
            our_step(made, chips, labels)

    steps()
    return steps


LOSS = Task(
    "loss",
    ("ours", "products", "textbook", "pytorch-metric-learning"),
    {
        "quick": [{"classes": 1000, "dim": 256, "batch": 112}],
        "full": [{"classes": c, "dim": 2152, "batch": 112} for c in (10_000, 37_138)],
    },
    prepare_loss,
    loss_differences,
    allowed=1e-4,  # of the largest value
    calls=5,
)
COMPACT = {"preset_name": "compact", "batch": 48, "classes": 1000}
STEP = Task(
    "step",
    ("ours", "textbook"),
    {"quick": [{"preset_name": "demo", "batch": 32, "classes": 500}], "full": [COMPACT]},
    prepare_step,
    step_differences,
    allowed=1e-3,  # of a loss
    calls=8,
)
TRIED = Task(  # what changes the weights was not kept anyway: nothing is compared
    "tried",
    (
        *("ours", "torch.compile", "bfloat16", "twice the batch", "a third of classes"),
        *("memory given back", "NCHW", "Adam unfused"),  # what ours would be without
    ),
    {"quick": [], "full": [COMPACT]},  # compiling alone takes a minute
    prepare_tried,
    calls=2,
)

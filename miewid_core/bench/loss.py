"""A step of sub-center ArcFace, forward and backward, beside its bare matrix products."""

import importlib
import math
from collections.abc import Callable

import torch
from torch import nn

from miewid_core.bench.textbook import OneHotArcFace
from miewid_core.loss import SubCenterArcFace
from miewid_core.machine import keep_freed_memory

WAYS = ("ours", "products", "textbook", "pytorch-metric-learning")
SIZES = {
    "quick": [{"classes": 1000, "dim": 256, "batch": 112}],
    "full": [{"classes": c, "dim": 2152, "batch": 112} for c in (10_000, 37_138)],
}
ALLOWED = 1e-4  # of the largest value
CALLS = 5
SCALE, MARGIN, K = 51.5, 0.3, 3


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


def prepare(way: str, classes: int, dim: int, batch: int) -> Callable[[], object]:
    """What is timed: a step without the optimizer; returns the loss and the gradients."""
    keep_freed_memory()  # as in a training; else each step pays for its memory anew, all ways alike
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(batch, dim, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (batch,), generator=generator)
    made = head(way, classes, dim)
    return lambda: step(made, embeddings, labels)


def step(made: nn.Module, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss; gradients are left in the tensors."""
    embeddings.grad = None
    made.zero_grad()
    loss = made(embeddings, labels)
    loss.backward()
    return loss.detach()


def differences(ways: list[str], classes: int = 50, dim: int = 16) -> dict[str, float]:
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
            loss = step(made, embeddings, labels)
            found[way] = loss, embeddings.grad, own.grad.T if turned else own.grad
    return {way: max(map(_apart, found["ours"], values)) for way, values in found.items()}


def _apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())

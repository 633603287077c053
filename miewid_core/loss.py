"""Sub-center ArcFace with dynamic margins (section 4, A.1)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

PART = 2**22  # numbers in a slice of sub-centers: 16 MB stay in a processor's cache
SHORTEST = 1e-12  # the least length that anything is divided by, as in torch's normalize


def dynamic_margins(counts: np.ndarray, low: float = 0.2, high: float = 0.5) -> torch.Tensor:
    """Margins (C,) float32 in radians by class frequency: n ** -1/4 scaled to [low, high].

    `counts`: (C,) training annotations per class, at least 1 each, else ValueError. The rarest
    class gets `high`, the most frequent `low`; equal counts get the middle. (Ha et al. 2020.)
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not (counts >= 1).all():
        raise ValueError(f"counts must be (C,) numbers of at least 1, not {counts}")
    rarity = counts**-0.25
    spread = np.ptp(rarity)
    scaled = (rarity - rarity.min()) / spread if spread > 0 else np.full_like(rarity, 0.5)
    return torch.tensor(low + (high - low) * scaled, dtype=torch.float32)


class NearestCenters(torch.autograd.Function):
    """Products of rows (B, D) with each class's nearest of its K unit sub-centers: (B, C).

    The same as autograd of normalize, @ and max, but for rounding. The sub-centers of the paper's
    37,138 classes take a gigabyte, so they are never copied: products are divided by the centers'
    lengths, and a slice of classes that fits the processor's cache is worked on at a time.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
        """`weight`: (C * K, D), not normalised."""
        logits = rows.new_empty(len(rows), len(weight) // k)
        nearest = torch.empty_like(logits, dtype=torch.int64)
        lengths = weight.new_empty(len(weight))
        for classes, centers in _slices(weight, k):
            torch.linalg.vector_norm(weight[centers], dim=1, out=lengths[centers])
            lengths[centers].clamp_min_(SHORTEST)
            products = (rows @ weight[centers].T).div_(lengths[centers])  # (B, C * K of the slice)
            best = logits[:, classes], nearest[:, classes]
            torch.max(products.unflatten(1, (-1, k)), 2, out=best)
        ctx.k = k
        ctx.save_for_backward(rows, weight, lengths, logits.clone(), nearest)
        return logits

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """`gradient`: (B, C)."""
        rows, weight, lengths, logits, nearest = ctx.saved_tensors
        to_rows, to_weight = torch.zeros_like(rows), torch.empty_like(weight)
        for classes, centers in _slices(weight, ctx.k):
            slope = gradient[:, classes, None]
            spread = slope.new_zeros(*slope.shape[:2], ctx.k)  # (B, C, K): 0 but for the nearest
            spread.scatter_(2, nearest[:, classes, None], slope)
            products = spread.flatten(1).div_(lengths[centers])
            to_rows.addmm_(products, weight[centers])
            torch.mm(products.T, rows, out=to_weight[centers])
            # the gradient along a center changes its length, not the cosine
            along = torch.einsum("bck,bc->ck", spread, logits[:, classes]).flatten()
            along.div_(lengths[centers])
            to_weight[centers].addcmul_(weight[centers], along[:, None], value=-1)
        return to_rows, to_weight, None


def _slices(weight: torch.Tensor, k: int) -> Iterator[tuple[slice, slice]]:
    """Slices of classes, and of the rows of `weight` (C * K, D) that are their sub-centers."""
    step, classes = max(1, PART // weight[:k].numel()), len(weight) // k
    for first in range(0, classes, step):
        last = min(first + step, classes)
        yield slice(first, last), slice(first * k, last * k)


class SubCenterArcFace(nn.Module):
    """Mean sub-center ArcFace loss (Deng et al. 2020), a margin for each class.

    A class's cosine is the highest of its `k` sub-centers'; the target's angle is widened by its
    margin; where angle + margin would pass pi, cos - margin * sin(margin) goes on falling.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        margins: torch.Tensor,
        scale: float = 51.5,
        k: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        """`margins`: (n_classes,) radians.

        Initial sub-centers are uniform in +-1 / sqrt(D), as in the authors' code, drawn from
        `generator`: about 0.577 long for any number of classes. Adam's steps have one size, so that
        the length decides how fast a center turns.
        """
        super().__init__()
        if margins.shape != (n_classes,):
            raise ValueError(f"margins have shape {tuple(margins.shape)}, not ({n_classes},)")
        self.scale, self.k = scale, k
        self.weight = nn.Parameter(torch.empty(n_classes * k, n_features))  # (C * K, D)
        bound = n_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        self.register_buffer("margins", margins)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of embeddings (B, D) with class labels (B,) int64 in [0, C)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = functional.normalize(embeddings.to(self.weight.dtype))
            logits = NearestCenters.apply(self.scale * unit, self.weight, self.k)  # (B, C)
            target = torch.arange(len(labels), device=labels.device), labels
            cosine, margin = logits[target] / self.scale, self.margins[labels]
            # the slope of sqrt(1 - cos^2) is infinite at cos = +-1: keep a little off
            sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
            widened = cosine * margin.cos() - sine * margin.sin()
            far = cosine <= -margin.cos()
            widened = torch.where(far, cosine - margin * margin.sin(), widened)
            # only the target's logit changes: written in place, no second (B, C) tensor
            logits[target] = self.scale * widened
            return functional.cross_entropy(logits, labels)

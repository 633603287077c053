"""Sub-center ArcFace with dynamic margins (section 4, A.1)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

PART = 2**22  # values of sub-centers worked on at once: 16 MB stay in a processor's cache
SHORTEST = 1e-12  # length by which anything is divided, as torch's normalize has it


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
    place = (rarity - rarity.min()) / spread if spread > 0 else np.full_like(rarity, 0.5)
    return torch.tensor(low + (high - low) * place, dtype=torch.float32)


class NearestCenters(torch.autograd.Function):
    """Products of rows (B, D) with each class's nearest of its k unit sub-centers: (B, C).

    As autograd of normalize, @ and max would, but for rounding: of 37,138 classes of the paper the
    sub-centers hold a gigabyte. So the products are divided by their lengths, not they themselves,
    and what passes over them does so a part at a time, while that is in the processor's cache.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor, weight: torch.Tensor, k: int) -> torch.Tensor:
        """`weight`: (C * K, D), not normalised."""
        ctx.k, ctx.classes = k, max(1, PART // weight[:k].numel())
        logits = rows.new_empty(len(rows), len(weight) // k)
        nearest, lengths = (
            torch.empty_like(logits, dtype=torch.int64),
            weight.new_empty(len(weight)),
        )
        both = (one.split(ctx.classes * k) for one in (weight, lengths))
        each = (one.split(ctx.classes, 1) for one in (logits, nearest))
        for part, length, *found in zip(*both, *each, strict=True):
            torch.linalg.vector_norm(part, dim=1, out=length).clamp_min_(SHORTEST)
            products = (rows @ part.T).div_(length)  # (B, part of C * K)
            torch.max(products.unflatten(1, (-1, k)), 2, out=tuple(found))
        ctx.save_for_backward(rows, weight, lengths, logits.clone(), nearest)
        return logits

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """`gradient`: (B, C)."""
        rows, weight, lengths, logits, nearest = ctx.saved_tensors
        to_rows, to_weight = torch.zeros_like(rows), torch.empty_like(weight)
        centers = (one.split(ctx.classes * ctx.k) for one in (weight, to_weight, lengths))
        classes = (one.split(ctx.classes, 1) for one in (gradient, logits, nearest[..., None]))
        for part, to_part, length, slope, logit, place in zip(*centers, *classes, strict=True):
            spread = slope.new_zeros(*slope.shape, ctx.k)  # (B, C, K): all but the nearest are 0
            spread = spread.scatter_(2, place, slope[..., None]).flatten(1).div_(length)
            to_rows.addmm_(spread, part)
            torch.mm(spread.T, rows, out=to_part)
            # what points along a center doesn't turn it
            along = torch.einsum("bck,bc->ck", spread.unflatten(1, (-1, ctx.k)), logit).flatten()
            to_part.addcmul_(part, along.div_(length)[:, None], value=-1)
        return to_rows, to_weight, None


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
        """`margins`: (n_classes,) radians. Initial sub-centers are drawn from `generator`."""
        super().__init__()
        if margins.shape != (n_classes,):
            raise ValueError(f"margins have shape {tuple(margins.shape)}, not ({n_classes},)")
        self.scale, self.k = scale, k
        self.weight = nn.Parameter(torch.empty(n_classes * k, n_features))  # (C * K, D)
        bound = n_features**-0.5  # the authors': norms near 0.577 whatever the number of classes
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        self.register_buffer("margins", margins)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of embeddings (B, D) with class labels (B,) int64 in [0, C)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = functional.normalize(embeddings.to(self.weight.dtype))
            logits = NearestCenters.apply(self.scale * unit, self.weight, self.k)  # (B, C)
            target = torch.arange(len(labels), device=labels.device), labels
            # only the target's logit changes: written in place, no second (B, C) tensor
            widened = self._widened(logits[target] / self.scale, self.margins[labels])
            logits[target] = self.scale * widened
            return functional.cross_entropy(logits, labels)

    @staticmethod
    def _widened(cosine: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
        # the slope of sqrt(1 - cos^2) is infinite at cos = +-1: keep a little off
        sine = (1 - cosine.square()).clamp(min=1e-7).sqrt()
        moved = cosine * margin.cos() - sine * margin.sin()
        return torch.where(cosine > -margin.cos(), moved, cosine - margin * margin.sin())

"""Sub-center ArcFace with dynamic margins (section 4, A.1)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


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
        nn.init.xavier_uniform_(self.weight, generator=generator)
        self.register_buffer("margins", margins)

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of embeddings (B, D) with class labels (B,) int64 in [0, C)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            centers = functional.normalize(self.weight)
            unit = functional.normalize(embeddings.to(centers.dtype))
            products = (self.scale * unit) @ centers.T  # (B, C * K) scaled cosines
            logits = products.unflatten(1, (-1, self.k)).max(2).values  # (B, C)
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

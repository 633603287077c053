"""A training as the usual repositories have it: plain and float32, photos decoded every epoch."""

from collections.abc import Sequence

import albumentations
import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from miewid_core.model import MiewIDNet


class Photos(Dataset):
    """Decodes, crops and resizes a photo each time that it is asked for.

    `rows`: path, x, y, w, h; items (3, size, size) uint8 with `labels`.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        labels: Sequence[int],
        size: int,
        transform: albumentations.Compose | None = None,
    ) -> None:
        self.rows, self.labels, self.size, self.transform = rows, labels, size, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows.iloc[index]
        with Image.open(row["path"]) as opened:
            image = opened.convert("RGB")
        corners = (row["x"], row["y"], row["x"] + row["w"], row["y"] + row["h"])
        cut = image.crop([round(corner) for corner in corners])
        image = np.asarray(cut.resize((self.size,) * 2, Image.Resampling.BILINEAR))
        if self.transform:
            image = self.transform(image=image)["image"]
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), self.labels[index]


class Network(nn.Module):
    """Backbone, GeM, BatchNorm, with the normalisation of the pixels; NCHW."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=0, global_pool="")
        config = self.backbone.pretrained_cfg
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(config[key]).view(1, 3, 1, 1) * 255)
        self.p = nn.Parameter(torch.full((1,), 3.0))
        self.bn = nn.BatchNorm1d(self.backbone.num_features)

    def begin_as(self, ours: MiewIDNet) -> None:
        """Take the weights of a network of ours."""
        self.backbone.load_state_dict(ours.backbone.state_dict())
        self.bn.load_state_dict(ours.bn.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Chips (B, 3, S, S) uint8 to embeddings (B, D)."""
        x = self.backbone((x.float() - self.mean) / self.std)
        return self.bn(x.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p))


class OneHotArcFace(nn.Module):
    """Sub-center ArcFace as usually written: a one-hot mask, and both logits for every class."""

    def __init__(
        self, features: int, classes: int, margins: torch.Tensor, scale: float, k: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes * k, features))
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("margins", margins)
        self.scale, self.k = scale, k

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of embeddings (B, D) with labels (B,)."""
        unit, centers = functional.normalize(embeddings), functional.normalize(self.weight)
        cosine = functional.linear(unit, centers).view(len(labels), -1, self.k).amax(2)
        margin = self.margins[labels][:, None]
        sine = (1 - cosine**2).clamp(1e-7, 1).sqrt()
        moved = cosine * margin.cos() - sine * margin.sin()
        moved = torch.where(cosine > (np.pi - margin).cos(), moved, cosine - margin.sin() * margin)
        mask = functional.one_hot(labels, cosine.shape[1]).float()
        logits = self.scale * (mask * moved + (1 - mask) * cosine)
        return functional.cross_entropy(logits, labels)

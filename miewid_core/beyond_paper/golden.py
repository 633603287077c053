"""A drawn photo and the embeddings that it must give: checks a preprocessing without weights.

`tests/beyond_paper/test_golden.py` drew the photo, and writes both files anew.
Two preprocessings of MiewID are in use, "card" and "plugin" (see `model.Preprocess`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.random import PCG64
from PIL import Image

from miewid_core.files import digest
from miewid_core.model import RESIZINGS, MiewIDNet, Preprocess
from miewid_core.readers.weights import IMAGENET, RELEASED

FOLDER = Path(__file__).parent / "golden_data"
# relative distance: float32 rounds to 1e-6 and bfloat16 to 0.005; the two golden embeddings are 0.1
# apart, and of the mistakes that the test makes the least, bicubic, is 0.056 off the nearer one
TOLERANCE = 0.02
Transform = Callable[[Image.Image], torch.Tensor]  # photo (RGB) to (3, 440, 440) float32


def network() -> MiewIDNet:
    """The released architecture (section 4) in evaluation mode, its weights made from their names.

    Weights of convolutions are uniform with variance 1 / fan-in, so that rounding doesn't grow;
    all others are as untrained: factors 1, offsets 0, GeM's p 3. No generator of torch is used.
    """
    model = MiewIDNet(RELEASED["backbone"], False, RELEASED["size"]).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                drawn = uniform(name, weight.numel()) * (3 / weight[0].numel()) ** 0.5
                weight.copy_(torch.from_numpy(drawn.reshape(weight.shape)))
            else:
                weight.fill_(3 if name == "pooling.p" else 0 if name.endswith("bias") else 1)
    return model


def uniform(name: str, count: int) -> np.ndarray:
    """Numbers (count,) float64 in [-1, 1) that depend on `name` alone.

    The upper 53 bits of NumPy's PCG64, seeded by the SHA-256 of the name: NumPy promises that the
    stream of a bit generator stays as it is (NEP 19), which torch and NumPy's distributions don't.
    """
    bits = PCG64(int(digest(name), 16)).random_raw(count)
    return (bits >> np.uint64(11)) * 2.0**-52 - 1


def embed(transform: Transform) -> np.ndarray:
    """Embedding (2152,) float32 of the golden photo by `network`, after `transform`."""
    with Image.open(FOLDER / "photo.png") as opened:
        pixels = transform(opened.convert("RGB"))
    with torch.inference_mode():
        return network()(pixels[None])[0].float().numpy()


class Agreement(NamedTuple):
    """Which preprocessing a transform agrees with ("card" or "plugin"), and how far off it is."""

    preprocessing: str
    distance: float


def check(transform: Transform | None = None) -> Agreement:
    """The preprocessing that `transform` agrees with: its embedding is the nearer golden one's.

    The distance is |embedding - golden| / |golden|. Without a transform ours is checked. Raises
    ValueError above TOLERANCE, and says where to look.
    """
    embedding = embed(transform or Preprocess(RELEASED["size"], *IMAGENET))
    golden = pd.read_csv(FOLDER / "embeddings.csv")[list(RESIZINGS)]
    lengths = golden.pow(2).sum() ** 0.5
    distances = golden.sub(embedding, axis=0).pow(2).sum() ** 0.5 / lengths
    nearest = Agreement(str(distances.idxmin()), float(distances.min()))
    if not nearest.distance <= TOLERANCE:
        raise ValueError(
            f"the embedding is {100 * distances['card']:.1f} % off the model card's preprocessing "
            f"and {100 * distances['plugin']:.1f} % off the Wildbook plugin's ({100 * TOLERANCE:g} "
            "% are allowed). Both are: RGB, the whole photo resized to 440 x 440 without keeping "
            "its aspect, bilinear, values / 255, then ImageNet's mean and deviation, channels "
            "first. The card antialiases (Pillow, torchvision), the plugin does not (OpenCV, "
            "albumentations)"
        )
    return nearest

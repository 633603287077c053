"""A drawn photo and the embedding that it must give: checks a preprocessing without any weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.random import PCG64
from PIL import Image

from miewid_core.files import ROOT, digest, replacing
from miewid_core.model import IMAGENET, RELEASED, MiewIDNet, Preprocess

FOLDER = ROOT / "tests" / "golden"
# relative distance: float32 rounds to 1e-6 and bfloat16 to 0.005; of the mistakes that
# its test makes the least, resizing without antialiasing, is 0.1
TOLERANCE = 0.02
Transform = Callable[[Image.Image], torch.Tensor]  # photo (RGB) to (3, 440, 440) float32


def photo() -> Image.Image:
    """The photo as it was drawn, 600 by 320: wider than the network's input, and less high.

    Stripes, rings and a slope of colours from whole numbers, the same pixels everywhere.
    """
    y, x = np.mgrid[:320, :600]
    ring = (x - 300) ** 2 // 4 + (y - 160) ** 2
    stripes = (x + ring // 400) // 5 % 2
    sky = np.stack([x * 120 // 600 // 8 * 8 + 90, y // 40 * 16 + 60, 200 - y // 40 * 16], axis=2)
    body = np.stack([200 - 150 * stripes, 170 - 140 * stripes, 90 - 70 * stripes], axis=2)
    return Image.fromarray(np.where(ring[..., None] < 19600, body, sky).astype(np.uint8))


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


def embed(transform: Transform, device: str | torch.device = "cpu") -> np.ndarray:
    """Embedding (2152,) float32 of tests/golden/photo.png by `network`, after `transform`."""
    with Image.open(FOLDER / "photo.png") as opened:
        pixels = transform(opened.convert("RGB"))
    with torch.inference_mode():
        return network().to(device)(pixels[None].to(device))[0].float().cpu().numpy()


def check(transform: Transform | None = None, device: str | torch.device = "cpu") -> float:
    """Relative distance of what `transform` gives to the golden embedding; ours without any.

    |ours - golden| / |golden|. Raises ValueError above TOLERANCE, and says where to look.
    """
    transform = transform or Preprocess(RELEASED["size"], *IMAGENET)
    golden = pd.read_csv(FOLDER / "embedding.csv")["value"].to_numpy()
    distance = float(np.linalg.norm(embed(transform, device) - golden) / np.linalg.norm(golden))
    if not distance <= TOLERANCE:
        raise ValueError(
            f"the embedding is {100 * distance:.1f} % off ({100 * TOLERANCE:g} % are allowed). "
            "Preprocessing is: RGB, the whole photo resized to 440 x 440 without keeping its "
            "aspect, bilinear with antialiasing as Pillow does, values / 255, then ImageNet's mean "
            "and deviation, channels first"
        )
    return distance


def write(folder: Path = FOLDER) -> None:
    """Draw the photo and compute its embedding anew: photo.png, embedding.csv (feature, value)."""
    with replacing(folder / "photo.png") as temporary:
        photo().quantize(128).save(temporary, optimize=True)
    values = embed(Preprocess(RELEASED["size"], *IMAGENET))
    table = pd.DataFrame({"feature": range(len(values)), "value": values})
    with replacing(folder / "embedding.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6e", lineterminator="\n")

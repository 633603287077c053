"""Photos as a camera saves them, drawn: 12 megapixels, JPEG, with a box each."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from miewid_core.files import CACHE, replacing

FOLDER = CACHE / "bench"
SIZE = 4000, 3000


def rows(count: int) -> pd.DataFrame:
    """Catalog rows (path, x, y, w, h, theta) of `count` photos, drawn where they are missing."""
    paths = [FOLDER / "photos" / f"{number:04}.jpg" for number in range(count)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_draw, paths))
    rng = np.random.default_rng(0)
    sides = rng.uniform((1400, 1100), (2200, 1800), (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(SIZE) - sides)
    boxes = pd.DataFrame(np.hstack([corners, sides]), columns=list("xywh"))
    return boxes.assign(path=[str(path) for path in paths], theta=0.0)


def _draw(path: Path) -> None:
    """Shapes of all sizes, as in nature, and a sensor's noise: some 4 MB, as of a camera."""
    if path.exists():
        return
    rng = np.random.default_rng(int(path.stem))
    photo = np.full((SIZE[1], SIZE[0], 3), 110, np.float32)
    for cells in (4, 16, 64, 256):
        coarse = rng.normal(0, 24, (cells * 3 // 4, cells, 3)).astype(np.float32)
        photo += cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC)
    photo += rng.standard_normal(photo.shape, dtype=np.float32) * 4
    with replacing(path) as temporary:
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(temporary, "JPEG", quality=92)

"""The photos that are measured on, and their chips.

They are drawn as a camera saves them: 12 megapixels, JPEG, with a box each; or the demo's.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from miewid_core.bench.measuring import FOLDER, Run
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.demo import draw_animals
from miewid_core.files import CACHE, replacing
from miewid_core.readers.load import load_catalog

SIZE = 4000, 3000


def drawn(count: int) -> pd.DataFrame:
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


def demo(count: int) -> pd.DataFrame:
    """Rows of the demo catalog, repeated as needed, boxes not rotated (the textbook rotates none).

    A repeated box is moved by pixels, so that its chip is another.
    """
    animals, place = load_catalog(draw_animals(CACHE / "demo")), np.arange(count)
    turn = place // len(animals)
    return animals.iloc[place % len(animals)].assign(x=lambda rows: rows["x"] + turn, theta=0.0)


def chips_of(rows: pd.DataFrame, size: int, **options: object) -> ChipDataset:
    """Our dataset of the chips of `rows`, which are made where they are missing."""
    store = ChipStore(FOLDER / "chips", size)
    return ChipDataset(store, store.build(rows).tolist(), **options)


def after_first_pass(run: Run, rows: pd.DataFrame, size: int) -> Run:
    """`run`, with its chips made anew before."""

    def both() -> object:
        with TemporaryDirectory() as folder:
            ChipStore(folder, size).build(rows)
        return run()

    return both

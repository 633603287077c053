"""Chips: a box is cut from its photo, turned upright, resized to a square, and kept on disk."""

import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from tqdm import tqdm

from miewid_core.files import digest, file_digest, replacing

VERSION = "1"  # raise it whenever the same photo and box give other pixels
WHITE = (255, 255, 255)
Box = tuple[float, float, float, float]


class ChipError(ValueError):
    """Photos that can't be read, named with the reason."""


def read_photo(path: Path | str, at_least: float = 1.0) -> tuple[np.ndarray, float]:
    """An upright RGB photo (H, W, 3) uint8, and its size relative to the file's (1, 1/2, 1/4, 1/8).

    JPEGs are decoded at a reduced size, as far as that is at least `at_least` times the full one.
    Raises ChipError naming the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                full = opened.width
                fraction = next(f for f in (8, 4, 2, 1) if f == 1 or 1 / f >= at_least)
                opened.draft(None, (opened.width // fraction, opened.height // fraction))
                scale = opened.width / full
                return np.asarray(_as_rgb(ImageOps.exif_transpose(opened))), scale
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ChipError(f"{path}: can't be read as an image ({error}); replace it") from error
    except Image.DecompressionBombWarning as error:
        raise ChipError(f"{path}: too large to be decoded safely ({error})") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bits are scaled, transparency shows white."""
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64) / 257
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def crop(photo: np.ndarray, box: Box, theta: float = 0.0) -> np.ndarray:
    """Cut a box (x, y, w, h in pixels) from `photo` (H, W, 3) uint8: (h, w, 3) uint8.

    The photo is turned counter-clockwise by `theta` radians about the box's centre first, as MiewID
    does; what lies outside the photo is white.
    """
    x, y, w, h = box
    if theta == 0:
        left, top = round(x), round(y)
        shape = max(1, round(w)), max(1, round(h))
        move = np.float64([[1, 0, left], [0, 1, top]])
    else:
        shape = max(1, round(w)), max(1, round(h))
        sine, cosine = np.sin(theta), np.cos(theta)
        # from a pixel of the chip to one of the photo, centre on centre
        turn = np.array([[cosine, -sine], [sine, cosine]])
        middle = np.array([(shape[0] - 1) / 2, (shape[1] - 1) / 2])
        offset = np.array([x + (w - 1) / 2, y + (h - 1) / 2]) - turn @ middle
        move = np.column_stack([turn, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        photo, move, shape, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=WHITE
    )


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) to (size, size, 3) uint8, aspect not kept, bilinear with antialiasing."""
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).copy()


class ChipStore:
    """Chips of one size, each a .npy file named by its content's key below `folder`/`size`."""

    def __init__(self, folder: Path | str, size: int) -> None:
        self.folder, self.size = Path(folder), size

    def path(self, key: str) -> Path:
        """Where the chip of a key lies."""
        return self.folder / str(self.size) / key[:2] / f"{key}.npy"

    def read(self, key: str) -> np.ndarray:
        """The chip (size, size, 3) uint8 of a key that `build` returned."""
        chip = np.load(self.path(key), allow_pickle=False)
        if chip.shape != (self.size, self.size, 3) or chip.dtype != np.uint8:
            raise ChipError(f"{self.path(key)} is damaged: delete it, and it is made again")
        return chip

    def build(self, photos: pd.DataFrame, workers: int | None = None) -> pd.Series:
        """Make what chips of `photos` (catalog rows) are missing; returns their keys, same index.

        Each photo is decoded once, in parallel. Raises ChipError naming all files that can't be
        read, after making the others.
        """
        digests = self._digests(photos["path"].unique())
        rows = photos[["path", "x", "y", "w", "h", "theta"]]
        keys = pd.Series(
            [
                digest(digests[path], repr(tuple(map(float, box))), str(self.size), VERSION)
                for path, *box in rows.itertuples(index=False)
            ],
            photos.index,
            dtype=object,
        )
        missing = rows[[not self.path(key).exists() for key in keys]].assign(key=keys)
        jobs = [group for _, group in missing.groupby("path")]
        errors = []
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            done = tqdm(
                pool.map(self._make, jobs), "chips", len(jobs), unit="photo", disable=not jobs
            )
            errors = [error for error in done if error]
        if errors:
            raise ChipError("\n".join([f"{len(errors)} photos can't be read:", *errors]))
        return keys

    def _make(self, rows: pd.DataFrame) -> str | None:
        try:
            needed = (2 * self.size / rows[["w", "h"]].min(axis=1)).max()
            photo, scale = read_photo(rows["path"].iloc[0], needed)
        except ChipError as error:
            return str(error)
        for row in rows.itertuples():
            box = tuple(scale * side for side in (row.x, row.y, row.w, row.h))
            with replacing(self.path(row.key)) as temporary:
                np.save(temporary, resize(crop(photo, box, row.theta), self.size))
        return None

    def _digests(self, paths: np.ndarray) -> dict[str, str]:
        """Content hash of each photo, remembered by its size and time of change."""
        index = self.folder / "photos.json"
        known = json.loads(index.read_text()) if index.exists() else {}
        marks = {}
        for path in paths:
            state = Path(path).stat()
            marks[path] = f"{path}|{state.st_size}|{state.st_mtime_ns}"
        new = [path for path in paths if marks[path] not in known]
        if new:
            known |= {
                marks[path]: file_digest(path)
                for path in tqdm(new, "hashing photos", unit="photo", disable=len(new) < 5000)
            }
            with replacing(index) as temporary:
                temporary.write_text(json.dumps(known))
        return {path: known[marks[path]] for path in paths}

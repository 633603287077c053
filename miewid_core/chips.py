"""Chips: a box is cut from its photo, turned upright, resized to a square, and kept on disk."""

import json
import math
import os
import struct
import tokenize
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import ExifTags, Image
from tqdm import tqdm

from miewid_core.files import digest, file_digest, replacing

VERSION = "2"  # raise it whenever the same photo and box give other pixels
WHITE = (255, 255, 255)
Box = tuple[float, float, float, float]
SIDE_LIMIT = 32_767
# what Pillow raises for damaged files
DAMAGE = (ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, struct.error)
TURNS = {  # EXIF orientation: how to turn the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ChipError(ValueError):
    """Photos that can't be read, named with the reason."""


def read_photo(path: Path | str, at_least: float = 1.0) -> tuple[np.ndarray, float]:
    """An upright RGB photo (H, W, 3) uint8, and its size relative to the file's (1, 1/2, 1/4, 1/8).

    JPEGs are decoded at a reduced size, as far as that is at least `at_least` times the full one.
    Raises ChipError.
    """
    try:
        with Image.open(path) as opened:
            turn = _turn(opened)
            fraction = _fraction(opened, turn, at_least)
            full = opened.width
            opened.draft(None, tuple(max(1, side // fraction) for side in opened.size))
            # the last column may be cut: the ratio of the widths is not quite the scale
            scale = 1 / round(full / opened.width)
            opened.load()
            # Pillow has turned TIFFs by itself, and then forgot that it had to
            upright = opened if turn is None or _turn(opened) is None else opened.transpose(turn)
            return np.asarray(_as_rgb(upright)), scale
    except (*DAMAGE, OSError, Image.DecompressionBombError) as error:
        raise ChipError(f"can't be read as an image ({error}); replace it") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns an image upright by its EXIF orientation; damaged EXIF says nothing."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except DAMAGE:
        return None


def _fraction(image: Image.Image, turn: Image.Transpose | None, at_least: float) -> int:
    """8, 4, 2 or 1: how much smaller a JPEG may be decoded."""
    # what doesn't fill the last pixels comes first once turned, and all would be off by a part
    whole = [f for f in (8, 4, 2) if turn is None or not any(side % f for side in image.size)]
    return next((f for f in whole if 1 / f >= at_least), 1)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16 bits and more are scaled, transparency shows white."""
    if image.mode[0] in "IF":
        return _as_eight_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _as_eight_bits(image: Image.Image) -> Image.Image:
    """Modes I;16, I and F to L.

    I and F don't say what white is: it is the lowest usual value that none exceeds.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    usual = {"I": (255, 65535, 2**31 - 1), "F": (1, 255, 65535)}.get(image.mode, (65535,))
    white = next((top for top in usual if values.max() <= top), values.max())
    return Image.fromarray((values * (255 / white)).round().clip(0, 255).astype(np.uint8))


def crop(photo: np.ndarray, box: Box, theta: float = 0.0) -> np.ndarray:
    """Cut a box (x, y, w, h in pixels) from `photo` (H, W, 3) uint8: (h, w, 3) uint8.

    The photo is turned counter-clockwise by `theta` radians about the box's centre first, as MiewID
    does; what lies outside the photo is white. Raises ChipError for a turned box that is too large.
    """
    if theta == 0:
        (left, right), (top, bottom) = _edges(box[0], box[2]), _edges(box[1], box[3])
        return _window(photo, left, top, right, bottom)
    x, y, w, h = box
    shape = max(1, round(w)), max(1, round(h))
    sine, cosine = np.sin(theta), np.cos(theta)
    turn = np.array([[cosine, -sine], [sine, cosine]])  # from the chip to the photo
    middle = np.array([x + w / 2, y + h / 2])
    # only the part around the box is turned: OpenCV takes no side of 32,767 pixels or more
    reach = np.abs(turn) @ shape / 2 + 2
    start, end = np.floor(middle - reach).astype(int), np.ceil(middle + reach).astype(int)
    if max(*shape, *(end - start)) >= SIDE_LIMIT:
        raise ChipError(f"a turned box of {shape[0]} x {shape[1]} pixels: scale the photo down")
    # pixels lie at whole numbers, half a pixel from their edges
    offset = middle - 0.5 - start - turn @ ((np.array(shape) - 1) / 2)
    return cv2.warpAffine(
        _window(photo, *start, *end),
        np.column_stack([turn, offset]),
        shape,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=WHITE,
    )


def _edges(start: float, length: float) -> tuple[int, int]:
    """Whole first and last edge of a side, at least a pixel apart."""
    # both edges are rounded, not the length: that could reach a pixel past the photo
    first = min(round(start), math.ceil(start + length) - 1)
    return first, max(first + 1, round(start + length))


def _window(photo: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Pixels of `photo` from left and top up to right and bottom, white outside."""
    window = np.full((bottom - top, right - left, 3), WHITE, np.uint8)
    part = photo[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    down, along = max(0, -top), max(0, -left)
    window[down : down + part.shape[0], along : along + part.shape[1]] = part
    return window


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
        """The chip (size, size, 3) uint8 of a key that `build` returned; ChipError if damaged."""
        try:
            chip = np.load(self.path(key), allow_pickle=False)
            whole = chip.shape == (self.size, self.size, 3) and chip.dtype == np.uint8
        except (*DAMAGE, tokenize.TokenError):
            whole = False
        if not whole:
            raise ChipError(f"{self.path(key)} is damaged: delete it, and it is made again")
        return chip

    def keys(self, photos: pd.DataFrame) -> pd.Series:
        """Keys of the chips of `photos` (catalog rows), made or not, by content; same index."""
        digests = self._digests(photos["path"].unique())
        rows = photos[["path", "x", "y", "w", "h", "theta"]].itertuples(index=False)
        keys = [
            digest(digests[path], repr(tuple(map(float, box))), str(self.size), VERSION)
            for path, *box in rows
        ]
        return pd.Series(keys, photos.index, dtype=object)

    def build(self, photos: pd.DataFrame, workers: int | None = None) -> pd.Series:
        """Make what chips of `photos` (catalog rows) are missing; returns their keys, same index.

        Each photo is decoded once, in parallel. Raises ChipError naming all files that can't be
        read, after making the others.
        """
        keys = self.keys(photos)
        rows = photos[["path", "x", "y", "w", "h", "theta"]]
        missing = rows[[not self._whole(key) for key in keys]].assign(key=keys)
        jobs = [group for _, group in missing.groupby("path")]
        if jobs:
            self._make_all(jobs, workers or os.cpu_count())
        return keys

    def _make_all(self, jobs: list[pd.DataFrame], workers: int | None) -> None:
        # filters hold for all threads: they can't be set in one of them
        with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            done = tqdm(pool.map(self._make, jobs), "chips", len(jobs), unit="photo")
            _refuse([error for error in done if error])

    def _whole(self, key: str) -> bool:
        """Whether a chip lies on disk, and isn't cut short."""
        path = self.path(key)
        return path.exists() and path.stat().st_size >= 3 * self.size**2

    def _make(self, rows: pd.DataFrame) -> str | None:
        try:
            needed = (2 * self.size / rows[["w", "h"]].min(axis=1)).max()
            photo, scale = read_photo(rows["path"].iloc[0], needed)
            for row in rows.itertuples():
                box = tuple(scale * side for side in (row.x, row.y, row.w, row.h))
                chip = resize(crop(photo, box, row.theta), self.size)
                with replacing(self.path(row.key)) as temporary:
                    np.save(temporary, chip)
        except ChipError as error:
            return f"{rows['path'].iloc[0]}: {error}"
        return None

    def _digests(self, paths: np.ndarray) -> dict[str, str]:
        """Content hash of each photo, remembered by its size and time of change."""
        index = self.folder / "photos.json"
        known, marks = _read_index(index), {}
        _refuse([f"{path}: there is no such file" for path in paths if not Path(path).is_file()])
        for path in paths:
            state = Path(path).stat()
            marks[path] = f"{path}|{state.st_size}|{state.st_mtime_ns}"
        new = [path for path in paths if marks[path] not in known]
        if new:
            known |= {
                marks[path]: file_digest(path)
                for path in (tqdm(new, "hashing photos", unit="photo") if len(new) > 5000 else new)
            }
            with replacing(index) as temporary:
                temporary.write_text(json.dumps(known))
        return {path: known[marks[path]] for path in paths}


def _refuse(errors: list[str]) -> None:
    if errors:
        raise ChipError("\n".join([f"{len(errors)} photos can't be read:", *errors]))


def _read_index(path: Path) -> dict[str, str]:
    """The remembered hashes; none where the file is missing or damaged, they are computed again."""
    try:
        known = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}

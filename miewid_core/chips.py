"""Chips: a box is cut from its photo, turned upright, resized to a square, and kept on disk."""

import math
import os
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from miewid_core.allocator import give_back, keep_freed_memory
from miewid_core.files import digest, file_digest, replacing
from miewid_core.memory import Memory
from miewid_core.photo import ChipError, read_photo
from miewid_core.resizing import resize

VERSION = "2"  # raise it whenever the same photo and box give other pixels
WHITE = (255, 255, 255)
Box = tuple[float, float, float, float]
SIDE_LIMIT = 32_767
HEADER = 128  # bytes before the pixels of a chip on disk
WORD, SEAL = np.dtype("<u8"), int.from_bytes(b"MiewChip")  # all words of a chip add up to this


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


def lowest(box: Box, theta: float = 0.0) -> float:
    """The row of the photo below which `crop` needs none."""
    _, y, w, h = box
    return y + h / 2 + (math.hypot(w, h) if theta else h) / 2


def _edges(start: float, length: float) -> tuple[int, int]:
    """Whole first and last edge of a side, at least a pixel apart."""
    # both edges are rounded, not the length: that could reach a pixel past the photo
    first = min(round(start), math.ceil(start + length) - 1)
    return first, max(first + 1, round(start + length))


def _window(photo: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Pixels of `photo` from left and top up to right and bottom, white outside."""
    part = photo[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    if part.shape[:2] == (bottom - top, right - left):  # as of most boxes: nothing to fill
        return part
    window = np.full((bottom - top, right - left, 3), WHITE, np.uint8)
    down, along = max(0, -top), max(0, -left)
    window[down : down + part.shape[0], along : along + part.shape[1]] = part
    return window


class ChipStore:
    """Chips of one size, each a .npy file named by its content's key below `folder`/`size`.

    A checksum ends each, past what NumPy reads of it; a chip without one is made again. (A sum of
    64-bit words takes a tenth of the time of a CRC-32, which would slow down reading large chips.)
    """

    def __init__(self, folder: Path | str, size: int) -> None:
        self.folder, self.size = Path(folder), size
        self._words = -(-(HEADER + 3 * size**2) // WORD.itemsize) + 1

    def path(self, key: str) -> Path:
        """Where the chip of a key lies."""
        return self.folder / str(self.size) / key[:2] / f"{key}.npy"

    def read(self, key: str) -> np.ndarray:
        """The chip (size, size, 3) uint8 of a key that `build` returned; ChipError if damaged."""
        path = self.path(key)
        try:
            words = np.fromfile(path, WORD)
        except FileNotFoundError:
            raise ChipError(f"{path} is gone: run this again, and it is made again") from None
        if len(words) != self._words or int(words.sum()) != SEAL:
            raise ChipError(f"{path} is damaged: delete it, and it is made again")
        pixels = words.view(np.uint8)[HEADER : HEADER + 3 * self.size**2]
        return pixels.reshape(self.size, self.size, 3)

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
        rows = photos[["path", "x", "y", "w", "h", "theta"]].assign(key=keys.to_numpy())
        jobs: dict[str, list] = {}
        for row in rows.itertuples(index=False):
            if not self.has(row.key):
                jobs.setdefault(row.path, []).append(row)
        if jobs:
            self._make_all(jobs, workers or os.cpu_count())
        return keys

    def _make_all(self, jobs: dict[str, list], workers: int | None) -> None:
        keep_freed_memory()
        # filters hold for all threads: they can't be set in one of them
        with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            made = pool.map(self._make, *zip(*jobs.items(), strict=True))
            done = tqdm(made, "chips", len(jobs), unit="photo")
            errors = [error for error in done if error]
        give_back()
        _refuse(errors)

    def has(self, key: str) -> bool:
        """Whether a chip lies on disk, isn't cut short, and ends with a checksum."""
        path = self.path(key)
        return path.exists() and path.stat().st_size == self._words * WORD.itemsize

    def _make(self, path: str, rows: list) -> str | None:
        try:
            needed = max(2 * self.size / max(1, min(row.w, row.h)) for row in rows)
            down_to = max(lowest((row.x, row.y, row.w, row.h), row.theta) for row in rows)
            photo, scale = read_photo(path, needed, down_to)
            for row in rows:
                box = tuple(scale * side for side in (row.x, row.y, row.w, row.h))
                chip = resize(crop(photo, box, row.theta), self.size)
                with replacing(self.path(row.key)) as temporary:
                    np.save(temporary, chip)
                    _seal(temporary)
        except ChipError as error:
            return f"{path}: {error}"
        return None

    def _digests(self, paths: np.ndarray) -> dict[str, str]:
        """Content hash of each photo, remembered until the photo changes."""
        memory, states = Memory(self.folder / "photos.json"), {path: _state(path) for path in paths}
        _refuse([f"{path}: there is no such file" for path in paths if states[path] is None])
        new = [path for path in paths if memory.of(path, states[path]) is None]
        with ThreadPoolExecutor() as pool:
            quiet = len(new) <= 5000  # over in seconds
            hashed = tqdm(pool.map(file_digest, new), "hashing photos", len(new), disable=quiet)
            for path, own in zip(new, hashed, strict=True):
                memory.note(path, states[path], own)
        memory.save()
        return {path: memory.of(path, states[path]) for path in paths}


def _state(path: str) -> os.stat_result | None:
    """What the system knows of a file; None where there is none."""
    try:
        state = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def _seal(path: Path) -> None:
    """Fill a file up to whole words, and append the word with which they add up to SEAL."""
    content = path.read_bytes()
    content += bytes(-len(content) % WORD.itemsize)
    missing = (SEAL - int(np.frombuffer(content, WORD).sum())) % 2**64
    path.write_bytes(content + missing.to_bytes(WORD.itemsize, "little"))


def _refuse(errors: list[str]) -> None:
    if errors:
        raise ChipError("\n".join([f"{len(errors)} photos can't be read:", *errors]))

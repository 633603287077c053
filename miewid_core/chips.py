"""Chips: a box is cut from its photo, turned upright, resized to a square, and kept on disk."""

import math
import multiprocessing
import os
import random
import stat
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from miewid_core.files import Memory, digest, file_digest, replacing
from miewid_core.machine import give_back, keep_freed_memory
from miewid_core.photos import ChipError, crop, read_reduced, resize
from miewid_core.runs import multi_gpu

if TYPE_CHECKING:
    import albumentations

VERSION = "2"  # raise it whenever the same photo and box give other pixels
HEADER = 128  # bytes before the pixels of a chip on disk
WORD, SEAL = np.dtype("<u8"), int.from_bytes(b"MiewChip")  # all words of a chip add up to this


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
            photo, scale = read_reduced(path, needed)
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


P_TEXTURE, P_EACH_TEXTURE, P_AFFINE, P_JITTER = 0.5, 0.3, 0.5, 0.5


def augmentation(size: int) -> "albumentations.Compose":
    """A.1: colour sharpening, CLAHE; shift 25 %, scale 20 %, rotation 15 degrees; colour jitter.

    All ranges are written out. By default albumentations 2 shifts hues by up to 0.5, which swaps
    colours, where earlier versions, those of MiewID's time, shifted them by up to 0.2; and its
    Affine stretches the axes apart, where ShiftScaleRotate scaled both alike.
    """
    import albumentations  # half a second

    return albumentations.Compose(
        [
            albumentations.OneOf(
                [
                    albumentations.Sharpen(p=P_EACH_TEXTURE),
                    albumentations.ToGray(p=P_EACH_TEXTURE),
                    albumentations.CLAHE(p=P_EACH_TEXTURE),
                ],
                p=P_TEXTURE,
            ),
            albumentations.Affine(
                translate_percent=(-0.25, 0.25),
                scale=(0.8, 1.2),
                keep_ratio=True,
                rotate=(-15, 15),
                border_mode=cv2.BORDER_REFLECT_101,
                p=P_AFFINE,
            ),
            albumentations.ColorJitter(*[(0.8, 1.2)] * 3, hue=(-0.2, 0.2), p=P_JITTER),
        ]
    )


class ChipDataset(Dataset):
    """Items (chip (S, S, 3) uint8 tensor, label int64); label -1 where there are none.

    What the augmentation does to item i in epoch e depends on (seed, e, i) alone.
    """

    def __init__(
        self,
        store: ChipStore,
        keys: Sequence[str],
        labels: np.ndarray | None = None,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        self.store, self.keys, self.seed = store, list(keys), seed
        self.labels = np.full(len(self.keys), -1) if labels is None else np.asarray(labels)
        self.transform = None
        if augment:
            self.transform = augmentation(store.size)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's augmentation; running workers see it too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        chip = self.store.read(self.keys[index])
        if self.transform is not None:
            seed = np.random.SeedSequence([self.seed, int(self._epoch), index])
            # one stream for all parts: set_random_seed gives each part the same numbers, and then
            # either all of them are applied or none
            own = random.Random(int(seed.generate_state(1, np.uint64)[0]))
            self.transform.set_random_state(np.random.default_rng(seed), own)
            chip = self.transform(image=chip)["image"]
        return torch.from_numpy(np.ascontiguousarray(chip)), int(self.labels[index])


class Batches:
    """Batch sampler: a new order each epoch, in batches of nearly equal size.

    Equal sizes, where they are three or more, leave no batch of one, on which BatchNorm can't
    train. The order depends on (seed, epoch) alone, so a resumed training sees what an undisturbed
    one sees. Of each batch this process gets its share, which is all where it trains alone (see
    `peers`).
    """

    def __init__(self, n_items: int, batch_size: int, seed: int) -> None:
        self.n_items, self.seed, self.epoch = n_items, seed, 0
        self.n_batches = math.ceil(n_items / batch_size)
        if multi_gpu.count() > 1 and n_items // self.n_batches < multi_gpu.count():
            raise ValueError(
                f"{multi_gpu.count()} processes can't share batches of {n_items // self.n_batches} "
                "photos: start fewer"
            )

    @property
    def sizes(self) -> list[int]:
        """Items of each batch, all shares together."""
        return [len(batch) for batch in np.array_split(np.empty(self.n_items), self.n_batches)]

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_items)
        own = slice(multi_gpu.rank(), None, multi_gpu.count())
        return (batch[own].tolist() for batch in np.array_split(order, self.n_batches))


def loader(dataset: ChipDataset, batches: Batches, workers: int) -> DataLoader:
    """Loader of a training; its workers start from one clean server process and then persist."""
    if workers == 0:
        _alone()
        return DataLoader(dataset, batch_sampler=batches)
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["miewid_core.chips"])
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_alone,
        multiprocessing_context=context,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def _alone(worker: int = 0) -> None:
    """Let OpenCV use one thread: on chips, several cost half as much again and gain nothing."""
    cv2.setNumThreads(1)

"""Chips: a box is cut from its photo, turned upright, resized to a square, and kept on disk."""

import math
import multiprocessing
import os
import random
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

from miewid_core import progress
from miewid_core.catalog import BOX
from miewid_core.files import Findings, digest, file_digest, read_checked, write_checked
from miewid_core.machine import give_back, keep_freed_memory
from miewid_core.photos import ChipError, crop, read_reduced, resize

if TYPE_CHECKING:
    import albumentations

VERSION = "2"  # raise it whenever the same photo and box give other pixels
DEEP = "3"  # of photos that may have 16 bits a colour: trainings on others keep their folders
CUT = ["path", *BOX, "theta"]  # the columns that a chip depends on


class ChipStore:
    """Chips of one size, each a file named by the key of its content below `folder`/`size`.

    `resizing`: how a network wants them resized (see `model.Preprocess`); trainings want "card".
    """

    def __init__(self, folder: Path | str, size: int, resizing: str = "card") -> None:
        self.folder, self.size, self.resizing = Path(folder), size, resizing
        # those of "card" lie where they lay, and are named as they were, before there was a choice
        self._way = [] if resizing == "card" else [resizing]

    def path(self, key: str) -> Path:
        """Where the chip of a key lies."""
        folder = self.folder / "-".join([str(self.size), *self._way])
        return folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> np.ndarray:
        """The chip (size, size, 3) uint8 of a key that `build` returned; ChipError if damaged."""
        try:
            return read_checked(self.path(key))[0]["chip"]
        except FileNotFoundError:
            told = f"{self.path(key)} is gone: run this again, and it is made again"
        except ValueError as error:
            told = f"{error}; delete it, and it is made again"
        raise ChipError(told)

    def has(self, key: str) -> bool:
        """Whether a chip lies on disk, with all its pixels."""
        path = self.path(key)
        return path.exists() and path.stat().st_size > 3 * self.size**2

    def keys(self, annotations: pd.DataFrame) -> pd.Series:
        """Keys of the chips of `annotations`, made or not, by their content; same index."""
        digests = self._digests(annotations["path"].unique())
        versions = {path: DEEP if _may_be_deep(path) else VERSION for path in digests}
        keys = [
            digest(
                *[digests[path], repr(tuple(map(float, box))), str(self.size)],
                *[versions[path], *self._way],
            )
            for path, *box in annotations[CUT].itertuples(index=False)
        ]
        return pd.Series(keys, annotations.index, dtype=object)

    def build(self, annotations: pd.DataFrame) -> pd.Series:
        """Make the missing chips of `annotations`; returns the keys of all of them, same index.

        Each photo is decoded once, in parallel. Raises ChipError naming all files that can't be
        read, after making the others.
        """
        keys = self.keys(annotations)
        rows = annotations[CUT].assign(key=keys.to_numpy())
        missing: dict[str, list] = {}
        for row in rows.itertuples(index=False):
            if not self.has(row.key):
                missing.setdefault(row.path, []).append(row)
        if not missing:
            return keys
        keep_freed_memory()
        # filters hold for all threads: they can't be set in one of them
        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            made = pool.map(self._make, *zip(*missing.items(), strict=True))
            errors = [*filter(None, progress(made, "chips", len(missing), unit="photo"))]
        give_back()
        _refuse(errors)
        return keys

    def _make(self, path: str, rows: list) -> str | None:
        """Make the chips of one photo; returns why they can't be made."""
        try:
            needed = max(2 * self.size / max(1, min(row.w, row.h)) for row in rows)
            # a reduced photo is an antialiased one
            photo, scale = read_reduced(path, 1.0 if self._way else needed)
            for row in rows:
                box = tuple(scale * side for side in (row.x, row.y, row.w, row.h))
                chip = resize(crop(photo, box, row.theta), self.size, self.resizing)
                write_checked(self.path(row.key), {"chip": chip})
        except ChipError as error:
            return f"{path}: {error}"
        return None

    def _digests(self, paths: np.ndarray) -> dict[str, str]:
        """SHA-256 of each photo, remembered until the photo changes."""
        known = Findings(self.folder / "photos.json")
        lost = [path for path in paths if not Path(path).is_file()]
        _refuse([f"{path}: there is no such file" for path in lost])
        states = {path: Path(path).stat() for path in paths}
        new = [path for path in paths if known.of(path, states[path]) is None]
        with ThreadPoolExecutor() as pool:
            hashed = progress(pool.map(file_digest, new), "hashing photos", len(new), delay=5)
            for path, sha256 in zip(new, hashed, strict=True):
                known.note(path, states[path], sha256)
        known.save()
        return {path: known.of(path, states[path]) for path in paths}


def _may_be_deep(path: str) -> bool:
    """Whether a file is a PNG of 16 bits or a TIFF."""
    if path.lower().endswith((".jpg", ".jpeg")):  # most: none of them is opened
        return False
    with Path(path).open("rb") as opened:
        start = opened.read(25)
    return start[:2] in (b"II", b"MM") or (start[1:4] == b"PNG" and start[24:] == b"\x10")


def _refuse(errors: list[str]) -> None:
    if errors:
        raise ChipError("\n".join([f"{len(errors)} photos can't be read:", *errors]))


def augmentation(size: int) -> "albumentations.Compose":
    """A.1: colour sharpening, CLAHE; shift 25 %, scale 20 %, rotation 15 degrees; colour jitter.

    All ranges are written out. By default albumentations 2 shifts hues by up to 0.5, which swaps
    colours, where earlier versions, those of MiewID's time, shifted them by up to 0.2; and its
    Affine stretches the axes apart, where ShiftScaleRotate scaled both alike.
    """
    import albumentations as a  # half a second

    textures = a.OneOf([a.Sharpen(p=0.3), a.ToGray(p=0.3), a.CLAHE(p=0.3)], p=0.5)
    placement = a.Affine(
        translate_percent=(-0.25, 0.25),
        scale=(0.8, 1.2),
        keep_ratio=True,
        rotate=(-15, 15),
        border_mode=cv2.BORDER_REFLECT_101,
        p=0.5,
    )
    colours = a.ColorJitter(*[(0.8, 1.2)] * 3, hue=(-0.2, 0.2), p=0.5)
    return a.Compose([textures, placement, colours])


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
        epoch_photos: int = 0,
    ) -> None:
        self.store, self.keys, self.seed = store, list(keys), seed
        self.labels = np.full(len(self.keys), -1) if labels is None else np.asarray(labels)
        self.epoch_photos = epoch_photos
        self.transform = augmentation(store.size) if augment else None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's augmentation; running workers see it too."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.epoch_photos or len(self.keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        index = range(len(self))[index]  # IndexError beyond, at which a plain loop ends
        # where an epoch shows more or fewer than all, the next one goes on where it ended
        item = (int(self._epoch) * len(self) + index) % len(self.keys)
        chip = self.store.read(self.keys[item])
        if self.transform is not None:
            seed = np.random.SeedSequence([self.seed, int(self._epoch), index])
            # one stream for all parts: set_random_seed gives each part the same numbers, and then
            # either all of them are applied or none
            stream = random.Random(int(seed.generate_state(1, np.uint64)[0]))
            self.transform.set_random_state(np.random.default_rng(seed), stream)
            chip = self.transform(image=chip)["image"]
        return torch.from_numpy(np.ascontiguousarray(chip)), int(self.labels[item])


class Batches:
    """Batch sampler: a new order each epoch, in batches of nearly equal size.

    Equal sizes, where they are three or more, leave no batch of one, on which BatchNorm can't
    train. The order depends on (seed, epoch) alone, so a resumed training sees what an undisturbed
    one sees. Where `processes` share the batches, the one of number `rank` gets its share of each.
    """

    def __init__(
        self, n_items: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.n_items, self.seed, self.epoch = n_items, seed, 0
        self.n_batches = math.ceil(n_items / batch_size)
        self.share = slice(rank, None, processes)
        if n_items < processes * self.n_batches:
            raise ValueError(
                f"{processes} processes can't share batches of {n_items // self.n_batches} photos: "
                "start fewer"
            )

    @property
    def sizes(self) -> list[int]:
        """Items of each batch, all shares together."""
        return [len(batch) for batch in np.array_split(np.empty(self.n_items), self.n_batches)]

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.n_items)
        return (batch[self.share].tolist() for batch in np.array_split(order, self.n_batches))


def loader(dataset: ChipDataset, batches: Batches, workers: int) -> DataLoader:
    """Loader of a training; its workers start from one clean server process and then persist."""
    if workers == 0:
        _use_one_opencv_thread()
        return DataLoader(dataset, batch_sampler=batches)
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["miewid_core.chips"])
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_use_one_opencv_thread,
        multiprocessing_context=context,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def _use_one_opencv_thread(worker: int = 0) -> None:
    """On chips, several threads of OpenCV take half as much time again."""
    cv2.setNumThreads(1)

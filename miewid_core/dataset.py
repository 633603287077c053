"""Chips as a torch data set, with the paper's augmentation (A.1)."""

import random
from collections.abc import Sequence

import albumentations
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from miewid_core.chips import ChipStore

P_TEXTURE, P_EACH_TEXTURE, P_AFFINE, P_JITTER = 0.5, 0.3, 0.5, 0.5


def augmentation(size: int) -> albumentations.Compose:
    """A.1: colour sharpening, CLAHE; shift 25 %, scale 20 %, rotation 15 degrees; colour jitter.

    All ranges are written out. By default albumentations 2 shifts hues by up to 0.5, which swaps
    colours, where earlier versions, those of MiewID's time, shifted them by up to 0.2; and its
    Affine stretches the axes apart, where ShiftScaleRotate scaled both alike.
    """
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
        self.transform = augmentation(store.size) if augment else None
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

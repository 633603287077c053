"""Chips as a torch data set, with the paper's augmentation (A.1)."""

from collections.abc import Sequence

import albumentations
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from miewid_core.chips import ChipStore

P_TEXTURE, P_EACH_TEXTURE, P_AFFINE, P_JITTER = 0.5, 0.3, 0.5, 0.5


def augmentation(size: int) -> albumentations.Compose:
    """A.1: colour sharpening, CLAHE; shift 25 %, scale 20 %, rotation 15 degrees; colour jitter."""
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
                rotate=(-15, 15),
                border_mode=cv2.BORDER_REFLECT_101,
                p=P_AFFINE,
            ),
            albumentations.ColorJitter(p=P_JITTER),
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
            words = np.random.SeedSequence([self.seed, int(self._epoch), index]).generate_state(1)
            self.transform.set_random_seed(int(words[0]))
            chip = self.transform(image=chip)["image"]
        return torch.from_numpy(np.ascontiguousarray(chip)), int(self.labels[index])

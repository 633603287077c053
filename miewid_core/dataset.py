"""Chips as a torch data set, augmented as in the paper where it trains (A.1)."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from miewid_core.chips import ChipStore


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
            from miewid_core.augmentation import augmentation  # half a second of albumentations

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

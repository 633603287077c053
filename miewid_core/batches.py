"""Batches of a training: their order, and the processes that make them."""

import math
import multiprocessing
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from miewid_core import peers
from miewid_core.dataset import ChipDataset


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
        if peers.count() > 1 and n_items // self.n_batches < peers.count():
            raise ValueError(
                f"{peers.count()} processes can't share batches of {n_items // self.n_batches} "
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
        own = slice(peers.rank(), None, peers.count())
        return (batch[own].tolist() for batch in np.array_split(order, self.n_batches))


def loader(dataset: ChipDataset, batches: Batches, workers: int) -> DataLoader:
    """Loader of a training; its workers start from one clean server process and then persist."""
    if workers == 0:
        _alone()
        return DataLoader(dataset, batch_sampler=batches)
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["miewid_core.dataset"])
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

"""Training one embedding network by the recipe of the paper's A.1, resumable by the epoch."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from miewid_core import progress
from miewid_core.chips import Batches, ChipDataset, loader
from miewid_core.config import FineTuneConfig, TrainConfig, learning_rate
from miewid_core.files import read_checked, write_checked
from miewid_core.loss import SubCenterArcFace, dynamic_margins
from miewid_core.machine import default_device, keep_freed_memory, threads
from miewid_core.model import MiewIDNet, Preprocess, load_exactly, read_tensors

SMALL = 2**18  # pixels of a batch up to which a second thread gains little (see `fit`)


class Trainer:
    """A training in progress: the network, its sub-center head, the optimizer and the history.

    With `start`, the weights of another's network, it is a fine-tuning with a new head (section
    5.5; `config` is a FineTuneConfig then). `rank`: number of this process among those `processes`
    that share the training (see `runs.multi_gpu`).
    """

    rank, processes = 0, 1

    def __init__(
        self,
        counts: np.ndarray,
        config: TrainConfig,
        seed: int,
        device: torch.device,
        start: Path | None = None,
    ) -> None:
        """`counts`: (n_classes,) training annotations of each individual."""
        self.config, self.seed, self.device = config, seed, device
        self.history: list[dict[str, float]] = []
        self.preprocess = Preprocess.of(config.backbone, config.image_size)
        margins = dynamic_margins(counts, config.margin_low, config.margin_high)
        # timm draws initial weights from torch's global generator: lend it one, then put it back
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            pretrained = start is None and config.pretrained
            model = MiewIDNet(config.backbone, pretrained, config.image_size)
            head = SubCenterArcFace(
                model.n_features, len(counts), margins, config.scale, config.sub_centers
            )
        if start is not None:
            load_exactly(model, read_tensors(start), start)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.head = head.to(device)
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = optimizer(self.model, self.head, config)

    def epoch(self, batches: DataLoader, progress: Callable[[int], object]) -> None:
        """Train for one epoch, and note its mean loss and its rate in the history.

        `batches`: of a ChipDataset by Batches. `progress` is called after each step with the size
        of its batch. Raises FloatingPointError when the loss is no longer finite.
        """
        number = len(self.history)
        batches.dataset.set_epoch(number)
        batches.batch_sampler.epoch = number
        self._set_mode(number)
        rate = learning_rate(self.config, number)
        summed = torch.zeros((), device=self.device)
        sizes = batches.batch_sampler.sizes
        with torch.random.fork_rng():  # dropout and drop path draw from the global generator
            seeds = np.random.SeedSequence([self.seed, number, self.rank])
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            for done, ((chips, labels), size) in enumerate(zip(batches, sizes, strict=True)):
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(self.config, number + done / len(sizes))
                summed += self.step(chips, labels, size)
                progress(size)
        loss = float(summed) / sum(sizes)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {number + 1}: lower peak_rate or check the photos"
            )
        self.history.append({"epoch": number + 1, "loss": loss, "rate": rate})

    def _set_mode(self, number: int) -> None:
        """Train all but the frozen stages, and of a fine-tuning at first the new head alone.

        BatchNorm's statistics stay as well then, unless the configuration's `batchnorm_adapts`;
        after it the optimizer begins anew. Those of frozen stages always stay.
        """
        tuned = isinstance(self.config, FineTuneConfig)
        frozen = tuned and number < self.config.frozen_epochs
        adapts = tuned and self.config.batchnorm_adapts
        self.model.train(adapts or not frozen).requires_grad_(not frozen)
        if self.config.pretrained:
            for layer in self.model.first_layers(self.config.frozen_stages):
                layer.eval().requires_grad_(False)
        if tuned and number == self.config.frozen_epochs:
            self.optimizer.state.clear()

    def step(
        self, chips: torch.Tensor, labels: torch.Tensor, global_batch: int = 0
    ) -> torch.Tensor:
        """Learn from chips (B, S, S, 3) uint8 with labels (B,); returns their summed loss.

        `global_batch`: batch size over all processes, 0 for B.
        """
        images = self.preprocess.batch(chips.to(self.device, non_blocking=True))
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu):
            embeddings = self.model(images)
        loss = self.head(embeddings, labels.to(self.device, non_blocking=True))
        self.optimizer.zero_grad()
        (loss * (len(labels) / (global_batch or len(labels)))).backward()  # shares differ by one
        self.optimizer.step()
        return loss.detach() * len(labels)

    def save(self, path: Path) -> None:
        """Write all that the next epoch needs."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"head.{key}": value for key, value in self.head.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            state = {key: torch.as_tensor(value) for key, value in state.items()}
            tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
        arrays = {key: value.cpu().contiguous().numpy() for key, value in tensors.items()}
        write_checked(path, arrays, history=json.dumps(self.history))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint that `save` wrote for the same data and config.

        Raises ValueError where it is damaged or of another training; all is to be begun anew then.
        """
        arrays, facts = read_checked(path)
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "head": {}, "optimizer": {}}
        for key, value in arrays.items():
            part, _, name = key.partition(".")
            parts[part][name] = torch.from_numpy(value)
        load_exactly(self.model, parts["model"], path)
        load_exactly(self.head, parts["head"], path)
        self.history = json.loads(facts["history"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in parts["optimizer"].items():
            number, name = key.split(".")
            # moments lie in memory as their parameters do: other strides can round otherwise
            like = self.parameters[int(number)]
            fits = value.shape == like.shape
            moved = torch.empty_like(like).detach().copy_(value) if fits else value
            state.setdefault(int(number), {})[name] = moved
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def optimizer(model: MiewIDNet, head: SubCenterArcFace, config: TrainConfig) -> Optimizer:
    """What changes the weights after each step.

    "adam" is A.1's. "muon" moves the backbone's matrices by orthogonalized momentum (K. Jordan and
    others, 2024) and all else by Adam with Nesterov momentum, the head at 0.4 of the rate.
    """
    rate = config.start_rate
    if config.optimizer == "adam":
        return torch.optim.Adam([*model.parameters(), *head.parameters()], lr=rate, fused=True)
    from timm.optim import Muon  # two seconds

    parts = [
        {"params": list(model.parameters())},
        {"params": list(head.parameters()), "use_fallback": True, "fallback_lr_scale": 0.4},
    ]
    return Muon(parts, lr=rate, nesterov=True)


def fit(
    dataset: ChipDataset,
    counts: np.ndarray,
    config: TrainConfig,
    seed: int,
    checkpoint: Path,
    title: str = "training",
    device: torch.device | None = None,
    workers: int | None = None,
    start: Path | None = None,
    trainer: type[Trainer] = Trainer,
) -> tuple[MiewIDNet, Preprocess, pd.DataFrame]:
    """Train on `dataset`, whose labels index `counts`, and go on from `checkpoint` if it is there.

    `start`: the weights of the network that a fine-tuning (FineTuneConfig) goes on from.

    After each epoch the checkpoint is replaced, so a killed training repeats at most one epoch; a
    damaged one is told of, and the training begins anew. On a CPU it then ends with the same bits,
    for the same number of torch's threads; one of batches up to SMALL pixels always has one thread,
    as two such trainings beside each other are then half as fast again as with two threads each.
    On a GPU sums run in varying order and the last bits vary. Returns the network (in evaluation
    mode), its preprocessing, and the history with columns epoch, loss, rate. Raises
    FloatingPointError when the loss is no longer finite.
    """
    keep_freed_memory()
    device = device or default_device()
    begun = trainer(counts, config, seed, device, start)
    if checkpoint.exists():
        try:
            begun.load(checkpoint)
        except ValueError as error:
            tqdm.write(f"{title} begins anew: {error}")
            begun = trainer(counts, config, seed, device, start)
    batches = Batches(len(dataset), config.batch_size, seed, begun.rank, begun.processes)
    if workers is None:  # on a CPU they only take cores from the training
        cores = max(1, (os.cpu_count() or 1) // begun.processes)
        workers = 0 if device.type == "cpu" else min(cores, 8)
    source = loader(dataset, batches, workers)
    small = device.type == "cpu" and config.batch_size * config.image_size**2 <= SMALL
    total, done = (epochs * len(dataset) for epochs in (config.epochs, len(begun.history)))
    with (
        threads(1 if small else torch.get_num_threads()),
        progress(
            total=total, initial=done, desc=title, unit="photo", disable=begun.rank > 0
        ) as bar,
    ):
        while len(begun.history) < config.epochs:
            begun.epoch(source, bar.update)
            last = begun.history[-1]
            bar.set_postfix(last | {"loss": f"{last['loss']:.3f}"})
            if begun.rank == 0:
                begun.save(checkpoint)
    history = pd.DataFrame(begun.history, columns=["epoch", "loss", "rate"])
    return begun.model.eval(), begun.preprocess, history

"""Training one embedding network by the recipe of the paper's A.1, resumable by the epoch."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from tqdm import tqdm

from miewid_core.chips import Batches, ChipDataset, loader
from miewid_core.config import FineTuneConfig, TrainConfig, learning_rate
from miewid_core.files import replacing
from miewid_core.loss import SubCenterArcFace, dynamic_margins
from miewid_core.machine import default_device, keep_freed_memory, threads
from miewid_core.model import MiewIDNet, Preprocess, load_exactly, read_tensors
from miewid_core.runs import multi_gpu

SMALL = 2**18  # pixels of a batch up to which a second thread gains little (see `fit`)
RECIPE = 3  # raise it whenever a change alters the weights that a training ends with


class Trainer:
    """A training in progress: the network, its sub-center head, the optimizer and the history."""

    def __init__(self, counts: np.ndarray, config: TrainConfig, seed: int, device: torch.device):
        """`counts`: (n_classes,) training annotations of each individual."""
        self.config, self.seed, self.device = config, seed, device
        self.history: list[dict[str, float]] = []
        self.preprocess = Preprocess.of(config.backbone, config.image_size)
        margins = dynamic_margins(counts, config.margin_low, config.margin_high)
        # timm draws initial weights from torch's global generator: lend it one, then put it back
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = MiewIDNet(config.backbone, config.pretrained, config.image_size)
            head = SubCenterArcFace(
                model.n_features, len(counts), margins, config.scale, config.sub_centers
            )
        self.model = model.to(device, memory_format=torch.channels_last)
        self.head = head.to(device)
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.start_rate, fused=True)

    def epoch(self, batches: DataLoader, bar: tqdm) -> None:
        """Train for one epoch and note its mean loss and rate in the history."""
        number = len(self.history)
        rate = learning_rate(self.config, number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._set_mode(number)
        with torch.random.fork_rng():  # dropout and drop path draw from the global generator
            seeds = np.random.SeedSequence([self.seed, number, multi_gpu.rank()])  # 0 is as without
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            sizes = batches.batch_sampler.sizes
            steps = zip(batches, sizes, strict=True)
            total = sum(self.step(*batch, bar, whole) for batch, whole in steps)
        loss = float(multi_gpu.total(total)) / sum(sizes)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} in epoch {number + 1}: lower peak_rate or check the photos"
            )
        self.history.append({"epoch": number + 1, "loss": loss, "rate": rate})
        bar.set_postfix(epoch=f"{number + 1}/{self.config.epochs}", loss=f"{loss:.3f}", rate=rate)

    def _set_mode(self, number: int) -> None:
        """Train the whole network, BatchNorm's running statistics included."""
        self.model.train()

    def step(
        self, chips: torch.Tensor, labels: torch.Tensor, bar: tqdm, whole: int = 0
    ) -> torch.Tensor:
        """Learn from chips (B, S, S, 3) uint8 with labels (B,); returns their summed loss.

        `whole`: size of the batch that they are this process's share of (see `peers`), 0 for B.
        """
        whole = whole or len(labels)
        images = self.preprocess.batch(chips.to(self.device, non_blocking=True))
        kind, on_gpu = self.device.type, self.device.type == "cuda"
        with torch.autocast(kind, torch.bfloat16, enabled=on_gpu), multi_gpu.whole_batches():
            embeddings = self.model(images)
        loss = self.head(embeddings, labels.to(self.device, non_blocking=True))
        self.optimizer.zero_grad()
        (loss * (len(labels) / whole)).backward()  # shares may differ by one
        multi_gpu.sum_gradients(self.parameters)
        self.optimizer.step()
        bar.update(whole)
        return loss.detach() * len(labels)

    def save(self, path: Path) -> None:
        """Write all that the next epoch needs: tensors; as metadata the history, and a digest."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"head.{key}": value for key, value in self.head.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
        whole = {key: value.cpu().contiguous() for key, value in tensors.items()}
        history = json.dumps(self.history)
        with replacing(path) as temporary:
            save_file(whole, temporary, {"history": history, "sha256": _digest(history, whole)})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint that `save` wrote for the same data and config.

        Raises ValueError where it is damaged or of another training; all is to be begun anew then.
        """
        history, tensors = _read_checkpoint(path)
        parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "head": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            parts[part][rest] = value
        load_exactly(self.model, parts["model"], path)
        load_exactly(self.head, parts["head"], path)
        self._load_optimizer(parts["optimizer"])
        self.history = json.loads(history)

    def _load_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split(".")
            # moments lie in memory as their parameters do: other strides can round otherwise
            like = self.parameters[int(number)]
            fits = value.shape == like.shape
            moved = torch.empty_like(like).detach().copy_(value) if fits else value
            state.setdefault(int(number), {})[name] = moved
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read_checkpoint(path: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """History (JSON) and tensors as they were written; ValueError where their digest is another."""
    try:
        with safe_open(path, framework="pt") as opened:
            told = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    history = told.get("history", "")
    if told.get("sha256") != _digest(history, tensors):
        raise ValueError(f"{path} is damaged: its checksum is another")
    return history, tensors


def _digest(history: str, tensors: dict[str, torch.Tensor]) -> str:
    total = hashlib.sha256(history.encode())
    for key, value in sorted(tensors.items()):
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


class FineTuner(Trainer):
    """A training that goes on from another's network, with a new head (section 5.5)."""

    def __init__(
        self,
        counts: np.ndarray,
        config: FineTuneConfig,
        seed: int,
        device: torch.device,
        start: Path,
    ):
        """`start`: the network's weights, a file that `model.save` wrote."""
        super().__init__(counts, dataclasses.replace(config, pretrained=False), seed, device)
        load_exactly(self.model, read_tensors(start), start)

    def _set_mode(self, number: int) -> None:
        """Leave the network as it is until the head has settled; then Adam begins anew.

        BatchNorm's statistics stay as well, unless the configuration's `batchnorm_adapts`.
        """
        learns = number >= self.config.frozen_epochs
        self.model.train(learns or self.config.batchnorm_adapts).requires_grad_(learns)
        if number == self.config.frozen_epochs:
            self.optimizer.state.clear()


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

    The processes that `peers.join` brought together share it: the others call this with what the
    first one announces here. They end with the same weights, the first one writes the checkpoint.
    """
    multi_gpu.announce((dataset, counts, config, seed, checkpoint, title, device, workers, start))
    keep_freed_memory()
    device = device or default_device()
    given = counts, config, seed, device
    make = partial(Trainer, *given) if start is None else partial(FineTuner, *given, start)
    trainer = _begun(make, checkpoint, title)
    batches = Batches(len(dataset), config.batch_size, seed)
    if workers is None:  # on a CPU they only take cores from the training
        cores = max(1, (os.cpu_count() or 1) // multi_gpu.count())
        workers = 0 if device.type == "cpu" else min(cores, 8)
    source = loader(dataset, batches, workers)
    done, total = len(trainer.history) * len(dataset), config.epochs * len(dataset)
    silent = (
        {"disable": True} if multi_gpu.rank() else {}
    )  # disable=None is silent in notebooks too
    shown = tqdm(total=total, initial=done, desc=title, unit="photo", **silent)
    with threads(_threads(config, device)), shown as bar:
        while len(trainer.history) < config.epochs:
            dataset.set_epoch(len(trainer.history))
            batches.epoch = len(trainer.history)
            trainer.epoch(source, bar)
            if multi_gpu.rank() == 0:
                trainer.save(checkpoint)
    history = pd.DataFrame(trainer.history, columns=["epoch", "loss", "rate"])
    return trainer.model.eval(), trainer.preprocess, history


def _threads(config: TrainConfig, device: torch.device) -> int:
    small = device.type == "cpu" and config.batch_size * config.image_size**2 <= SMALL
    return 1 if small else torch.get_num_threads()


def _begun(make: Callable[[], Trainer], checkpoint: Path, title: str) -> Trainer:
    """A training where its checkpoint left it, or at its beginning."""
    trainer = make()
    if checkpoint.exists():
        try:
            trainer.load(checkpoint)
        except ValueError as error:
            tqdm.write(f"{title} begins anew: {error}")
            return make()
    return trainer

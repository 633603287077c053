"""A training as a value: the same data, configuration and seed give one folder, trained once.

The embeddings that a network gives are kept in the same way, by it and the chips.
"""

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from miewid_core import __version__, evaluation, model
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.config import RECIPE, TrainConfig
from miewid_core.files import ROOT, digest, file_digest, read_checked, replacing, write_checked
from miewid_core.machine import default_device

ISA = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
FORMAT = 1  # raise it when an earlier version would take a new run.json wrongly
RESULTS = ("weights.safetensors", "history.csv", "rows.csv")
FIELDS = {  # of a configuration, that version 0.1 wrote into a spec whatever their value
    *["backbone", "pretrained", "image_size", "batch_size", "epochs", "warmup_epochs"],
    *["start_rate", "peak_rate", "decay", "scale", "sub_centers", "margin_low", "margin_high"],
    *["frozen_epochs", "head_rate"],
}


def versions() -> dict[str, str | None]:
    """What the numbers were made with: package versions, device, and the checkout's git commit."""
    device = default_device()
    return {
        "miewid_core": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": version("timm"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": str(torch.get_num_threads()),
        # by which sums on a CPU are rounded: torch's own, and the most that its oneDNN may use
        "instructions": f"{torch.backends.cpu.get_cpu_capability()}, {ISA or 'all'}",
        "commit": _commit(),
    }


def _commit() -> str | None:
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no checkout
    return asked.stdout.strip()


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training leaves: a folder with run.json, weights.safetensors, history.csv, rows.csv.

    What reads them raises ValueError for a file whose bytes were changed (see `checked`).
    """

    folder: Path

    @property
    def finished(self) -> bool:
        """Whether the result is there, and whole."""
        return (self.folder / "run.json").exists()

    @property
    def epochs_done(self) -> int:
        """Epochs of a training under way that its checkpoint holds; 0 where it can't be read."""
        try:
            # not "pt", which opens the file twice: its process may end and take it away meanwhile
            with safe_open(self.folder / "checkpoint.safetensors", framework="np") as opened:
                return len(json.loads(opened.metadata()["history"]))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError):
            return 0  # only progress: a damaged one is told of when its training goes on

    def write_record(self, spec: dict[str, object], title: str, seconds: float) -> None:
        """Write run.json into the folder, which holds all of RESULTS."""
        files = {name: file_digest(self.folder / name) for name in RESULTS}
        told = {"format": FORMAT, "spec": spec, "title": title, "seconds": round(seconds, 1)}
        with replacing(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(told | {"files": files} | versions(), indent=1))

    @property
    def record(self) -> dict:
        """The contents of run.json: spec, versions, duration in seconds, git commit, digests.

        One of version 0.1 before there were digests has no `format` and no `files`: it is read all
        the same, as hours of training may lie there. Raises ValueError where it is missing, damaged
        or of a newer version.
        """
        path = self.folder / "run.json"
        try:
            found = json.loads(path.read_bytes())
            newer = found.get("format", 0) > FORMAT
            named = found["files"] if "format" in found else {}
            whole = isinstance(found["spec"]["config"], dict) and isinstance(named, dict)
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{path} is missing: no finished training lies there") from None
        except (ValueError, TypeError, AttributeError, KeyError):
            newer = whole = False
        if newer:
            raise ValueError(f"{path} was written by a newer miewid_core: update this package")
        if not whole:
            raise ValueError(f"{path} is damaged: {self._remedy}")
        return found

    def checked(self, name: str) -> Path:
        """The path of one of RESULTS; ValueError if it is gone or isn't what the training wrote.

        The bytes of one that is named in a run.json without digests are not compared.
        """
        files, path = self.record.get("files"), self.folder / name
        if not path.exists():
            raise ValueError(f"{path} is gone: {self._remedy}")
        if files is not None and _digest(path) != files.get(name):
            raise ValueError(f"{path} is not what its training wrote: {self._remedy}")
        return path

    @property
    def _remedy(self) -> str:
        return f"delete the folder {self.folder}, and it is trained again"

    @property
    def weights(self) -> Path:
        """The file of the trained weights, for `model.load`."""
        return self.checked("weights.safetensors")

    @property
    def weights_digest(self) -> str:
        """SHA-256 of `weights`."""
        return _digest(self.weights)

    @property
    def rows(self) -> pd.DataFrame:
        """What was trained on: annotation_id, species, individual, chip."""
        return pd.read_csv(self.checked("rows.csv"), dtype=str, keep_default_na=False)

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: epoch, loss, rate."""
        return pd.read_csv(self.checked("history.csv"))

    def load(self) -> tuple[model.MiewIDNet, model.Preprocess]:
        """The trained network in evaluation mode, and its preprocessing."""
        return model.load(self.weights, default_device())


def _digest(path: Path) -> str:
    """SHA-256 of a file, which is read once per process, and again when it has changed."""
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@cache
def _digest_of(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A training as a value: equal data, configuration and seed share one folder, trained once.

    `rows`: annotations to learn from, each of its `individual`; with a column `chip` (see
    `Run.rows`) their chips are there already and no photo is read. `start`: the training whose
    network is fine-tuned (section 5.5; `config` is a FineTuneConfig then). Raises ValueError
    without a row.
    """

    title: str
    rows: pd.DataFrame
    config: TrainConfig
    seed: int
    runs_dir: Path
    chips_dir: Path
    start: "Training | Run | None" = None

    def __post_init__(self) -> None:
        if self.rows.empty:
            raise ValueError(f"{self.title}: no annotation to train on; does the split leave any?")

    @cached_property
    def key(self) -> str:
        """Equal for trainings of equal annotations, configuration and seed; reads no photo."""
        rows = self.rows[["annotation_id", "individual"]]
        if not rows["annotation_id"].is_monotonic_increasing:  # a split's rows are
            rows = rows.sort_values("annotation_id")
        labels = (json.dumps(rows[column].tolist()) for column in rows)
        return digest(repr((self.config, self.seed)), self.start.key if self.start else "", *labels)

    @cached_property
    def spec(self) -> dict[str, object]:
        """All that decides the weights, as JSON: equal specs end with equal weights on a CPU.

        The data are the chips' content keys with the individuals' labels: where photos and a local
        weights file lie doesn't matter. Fields of the configuration at their default are left out,
        so that a new one leaves the folders of earlier trainings where they are.
        """
        store = ChipStore(self.chips_dir, self.config.image_size)
        chips = self.rows["chip"] if "chip" in self.rows else store.keys(self.rows)
        pairs = sorted(zip(chips, self.rows["individual"], strict=True))
        data = digest(*(text for pair in pairs for text in pair))
        fields = _fields(self.config)
        spec = {"recipe": RECIPE, "data": data, "rows": len(pairs), "config": fields}
        spec["seed"] = self.seed
        return spec if self.start is None else spec | {"start": self.start.folder.name}

    @cached_property
    def folder(self) -> Path:
        """Where it is, or will be, trained: named by the hash of `spec`."""
        return self.runs_dir / folder_name(self.spec)

    @property
    def result(self) -> Run:
        """The run in `folder`, which may not be finished or even begun."""
        return Run(self.folder)

    @property
    def finished(self) -> bool:
        """Whether it is trained already."""
        return self.result.finished

    @property
    def photos(self) -> int:
        """Photos that pass through the network, all epochs together."""
        return self._epoch_photos * self.config.epochs

    @property
    def _epoch_photos(self) -> int:
        return self.config.epoch_photos or len(self.rows)

    @property
    def photos_done(self) -> int:
        """How many of `photos` have passed by the last checkpoint."""
        return self.photos if self.finished else self.result.epochs_done * self._epoch_photos

    def run(self, wait: bool = True) -> Run:
        """Train, or find it trained.

        Any process that asks for the same training meanwhile waits for it, or gets filelock's
        Timeout if it isn't to `wait`; a killed one goes on from its last epoch.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _only_one(self.folder / "lock", self.title, wait):
            if not self.finished:
                self._train()
        return self.result

    def _train(self) -> None:
        from miewid_core.runs.multi_gpu import fit  # not for what is trained already

        begun = time.monotonic()
        store = ChipStore(self.chips_dir, self.config.image_size)
        rows = self.rows
        if "chip" not in rows:
            rows = rows.sort_values("annotation_id", ignore_index=True)
            rows = rows[["annotation_id", "species", "individual"]].assign(chip=store.build(rows))
        labels, names = pd.factorize(rows["individual"], sort=True)
        dataset = ChipDataset(
            store,
            rows["chip"].tolist(),
            labels,
            augment=True,
            seed=self.seed,
            epoch_photos=self.config.epoch_photos,
        )
        checkpoint = self.folder / "checkpoint.safetensors"
        counts = np.bincount(labels, minlength=len(names))
        start = self.start and Run(self.start.folder).weights
        network, preprocess, history = fit(
            dataset, counts, self.config, self.seed, checkpoint, self.title, start=start
        )
        model.save(network, preprocess, self.folder / "weights.safetensors")
        for name, frame in (("history", history), ("rows", rows)):
            with replacing(self.folder / f"{name}.csv") as temporary:
                frame.to_csv(temporary, index=False)
        # last: its presence means a whole result
        self.result.write_record(self.spec, self.title, time.monotonic() - begun)
        checkpoint.unlink(missing_ok=True)


def folder_name(spec: dict[str, object]) -> str:
    """The name of a training's folder: the hash of its `Training.spec`."""
    return digest(json.dumps(spec, sort_keys=True))[:16]


def _fields(config: TrainConfig) -> dict[str, object]:
    """The configuration's fields for a spec: those of version 0.1, newer if not default."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    fields = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name in FIELDS or value != defaults[name]
    }
    if isinstance(config.pretrained, str):
        fields["pretrained"] = f"sha256:{file_digest(Path(config.pretrained))}"
    return fields


def _only_one(path: Path, title: str, wait: bool) -> FileLock:
    """The lock of a run, held; says when another process has it. A dead one's is free."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0).lock
    except Timeout:
        if not wait:
            raise
        tqdm.write(f"{title}: another process trains this; waiting for it")
        return lock.acquire().lock


def kept_vectors(
    identity: str,
    load: Callable[[], tuple[torch.nn.Module, model.Preprocess]],
    store: ChipStore,
    annotations: pd.DataFrame,
    cache: Path,
) -> np.ndarray:
    """Embeddings (N, D) float32 of `annotations`, computed once for each network and its chips.

    `identity`: hash of the network's weights and preprocessing. `load`: gives the network, where it
    is needed.
    """
    keys = store.build(annotations).tolist()
    path = cache / f"{digest(identity, *keys)[:16]}.safetensors"
    with contextlib.suppress(FileNotFoundError, ValueError):  # missing, damaged: made anew
        return read_checked(path)[0]["array"]
    vectors = evaluation.embed(*load(), ChipDataset(store, keys), device=default_device())
    write_checked(path, {"array": vectors})
    return vectors

"""A training as a value: the same data, configuration and seed give one folder, trained once."""

import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from miewid_core import __version__, model
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.config import TrainConfig
from miewid_core.evaluation import embed, one_vs_all
from miewid_core.files import ROOT, digest, file_digest, kept_array, replacing
from miewid_core.machine import default_device
from miewid_core.runs.multi_gpu import fit
from miewid_core.training import RECIPE

ISA = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
FORMAT = 1  # raise it when an earlier version would take a new run.json wrongly
RESULTS = ("weights.safetensors", "history.csv", "rows.csv")


def write_record(folder: Path, spec: dict[str, object], title: str, seconds: float) -> None:
    """Write the run.json of a folder that holds all of RESULTS."""
    files = {name: file_digest(folder / name) for name in RESULTS}
    told = {"format": FORMAT, "spec": spec, "title": title, "seconds": round(seconds, 1)}
    with replacing(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(told | {"files": files} | versions(), indent=1))


def read_record(folder: Path) -> dict:
    """The contents of a folder's run.json.

    One of version 0.1 before there were digests has no `format` and no `files`: it is read all the
    same, as hours of training may lie there. Raises ValueError where it is missing, damaged or of
    a newer version.
    """
    path = Path(folder) / "run.json"
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
        raise ValueError(f"{path} is damaged: {_remedy(folder)}")
    return found


def checked(folder: Path, name: str) -> Path:
    """The path of one of RESULTS; ValueError where it is gone or isn't what the training wrote.

    Its bytes are read for this once per process, and again when the file has changed since. Those
    of a run.json without digests are not.
    """
    files, path = read_record(folder).get("files"), Path(folder) / name
    try:
        state = path.stat()
    except FileNotFoundError:
        raise ValueError(f"{path} is gone: {_remedy(folder)}") from None
    if files is not None:
        digest = _digest(path, state.st_size, state.st_mtime_ns)
        if digest != files.get(name):
            raise ValueError(f"{path} is not what its training wrote: {_remedy(folder)}")
    return path


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


def _remedy(folder: Path) -> str:
    return f"delete the folder {folder}, and it is trained again"


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
    """A finished training: a folder with run.json, weights.safetensors, history.csv, rows.csv.

    What reads them raises ValueError for a file whose bytes were changed (see `record`).
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

    @property
    def record(self) -> dict:
        """The contents of run.json: spec, versions, duration in seconds, git commit, digests."""
        return read_record(self.folder)

    @property
    def weights(self) -> Path:
        """The file of the trained weights, for `model.load`."""
        return checked(self.folder, "weights.safetensors")

    @property
    def rows(self) -> pd.DataFrame:
        """What was trained on: annotation_id, species, individual, chip."""
        path = checked(self.folder, "rows.csv")
        return pd.read_csv(path, dtype=str, keep_default_na=False)

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: epoch, loss, rate."""
        return pd.read_csv(checked(self.folder, "history.csv"))

    def load(self) -> tuple[model.MiewIDNet, model.Preprocess]:
        """The trained network in evaluation mode, and its preprocessing."""
        return model.load(self.weights, default_device())

    def embed(self, photos: pd.DataFrame, chips_dir: Path) -> np.ndarray:
        """Embeddings (N, D) float32 of `photos`, kept in the run's folder once computed."""
        size = self.record["spec"]["config"]["image_size"]
        store = ChipStore(chips_dir, size)
        keys, weights = store.build(photos), self.weights

        def made() -> np.ndarray:
            network, preprocess = model.load(weights, default_device())
            dataset = ChipDataset(store, keys.tolist())
            return embed(network, preprocess, dataset, device=default_device())

        return kept_array(self.folder / "embeddings" / f"{digest(*keys)[:16]}.safetensors", made)

    def ranks(self, photos: pd.DataFrame, chips_dir: Path) -> pd.DataFrame:
        """One-vs-all ranks of `photos`, one row per query (section 3.4)."""
        return one_vs_all(
            self.embed(photos, chips_dir),
            photos["individual"],
            photos["species"],
            photos["encounter"],
            photos["annotation_id"],
        )


def spec(
    keys: Sequence[str],
    individuals: Sequence[str],
    config: TrainConfig,
    seed: int,
    start: Run | None = None,
) -> dict[str, object]:
    """All that decides a training, as JSON: equal specs end with the same weights on a CPU.

    The data are their chips' content keys with the individuals' labels; where the photos lie, and
    where a local weights file lies, doesn't matter, only what is in them.
    """
    fields = dataclasses.asdict(config)
    if isinstance(config.pretrained, str):
        fields["pretrained"] = f"sha256:{file_digest(Path(config.pretrained))}"
    pairs = sorted(zip(keys, individuals, strict=True))
    data = digest(*(text for pair in pairs for text in pair))
    own = {"recipe": RECIPE, "data": data, "rows": len(pairs), "config": fields, "seed": seed}
    return own if start is None else own | {"start": start.folder.name}


def run_of(what: dict[str, object], runs_dir: Path) -> Run:
    """The run of a spec: its folder is named by the spec's hash."""
    return Run(Path(runs_dir) / digest(json.dumps(what, sort_keys=True))[:16])


def train(
    photos: pd.DataFrame,
    config: TrainConfig,
    seed: int,
    runs_dir: Path,
    chips_dir: Path,
    title: str = "training",
    start: Run | None = None,
    wait: bool = True,
) -> Run:
    """Train on `photos` (catalog rows, each an annotation of its `individual`), or find it trained.

    With `start`, its network is fine-tuned (`config` is a FineTuneConfig then). Any process that
    asks for the same training meanwhile waits for it, or gets filelock's Timeout if it isn't to
    `wait`; a killed one goes on from its last epoch. Raises ValueError where there is nothing to
    learn from.
    """
    if photos.empty:
        raise ValueError(f"{title}: no annotation to train on; does the split leave any?")
    photos = photos.sort_values("annotation_id", ignore_index=True)
    store = ChipStore(chips_dir, config.image_size)
    rows = photos[["annotation_id", "species", "individual"]].assign(chip=store.build(photos))
    return train_rows(rows, config, seed, runs_dir, store, title, start, wait)


def train_rows(
    rows: pd.DataFrame,
    config: TrainConfig,
    seed: int,
    runs_dir: Path,
    store: ChipStore,
    title: str,
    start: Run | None,
    wait: bool = True,
) -> Run:
    """As `train`, on `rows` such as `Run.rows`, whose chips lie in `store`; their order counts."""
    what = spec(rows["chip"].tolist(), rows["individual"].tolist(), config, seed, start)
    run = run_of(what, runs_dir)
    run.folder.mkdir(parents=True, exist_ok=True)
    with _only_one(run.folder / "lock", title, wait):
        if not run.finished:
            _train_into(run.folder, rows, store, what, config, title, start)
    return run


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


def _train_into(
    folder: Path,
    rows: pd.DataFrame,
    store: ChipStore,
    what: dict[str, object],
    config: TrainConfig,
    title: str,
    start: Run | None,
) -> None:
    begun = time.monotonic()
    labels, names = pd.factorize(rows["individual"], sort=True)
    seed = int(what["seed"])
    dataset = ChipDataset(store, rows["chip"].tolist(), labels, augment=True, seed=seed)
    checkpoint = folder / "checkpoint.safetensors"
    counts = np.bincount(labels, minlength=len(names))
    network, preprocess, history = fit(
        dataset, counts, config, seed, checkpoint, title, start=start and start.weights
    )
    model.save(network, preprocess, folder / "weights.safetensors")
    for name, frame in (("history", history), ("rows", rows)):
        with replacing(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    # last: its presence means a whole result
    write_record(folder, what, title, time.monotonic() - begun)
    checkpoint.unlink(missing_ok=True)

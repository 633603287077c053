"""Hyperparameters searched with optuna on splits of the training rows alone (section 3.3, A.1)."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from miewid_core import runs
from miewid_core.chips import ChipStore
from miewid_core.config import PRESETS, TrainConfig
from miewid_core.dataset import ChipDataset
from miewid_core.device import default_device
from miewid_core.evaluation import embed, hits, one_vs_all
from miewid_core.files import digest, replacing
from miewid_core.training import fit
from miewid_core.tuning_split import Parts

SPACE = {  # A.1's values and those of every preset lie inside
    "peak_rate": FloatDistribution(3e-4, 3e-2, log=True),
    "scale": FloatDistribution(10, 64, log=True),
    "margin_low": FloatDistribution(0, 0.3),  # radians
    "margin_width": FloatDistribution(0, 0.4),  # of the highest margin above the lowest
    "sub_centers": IntDistribution(1, 4),
}
AT_RANDOM = 4  # trials before the sampler learns from them; the known settings are among them
SPARED = 2  # trials that are never stopped early: the later ones are measured against them
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it reports every trial on stderr


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search works on. `rungs`: epochs after which a trial is scored, rising.

    A trial trains by `config` with its own values of SPACE, every trial from the same `seed`.
    """

    parts: Parts
    config: TrainConfig
    rungs: tuple[int, ...]
    seed: int
    chips_dir: Path

    def __post_init__(self) -> None:
        for name, value in values_of(self.config).items():
            if not SPACE[name].low <= value <= SPACE[name].high:
                raise ValueError(f"{name} is {value}, outside of {SPACE[name]}: widen tuning.SPACE")

    def known(self) -> list[dict[str, float]]:
        """The settings that are tried first: the preset's, then A.1's where they differ."""
        preset, paper = values_of(self.config), values_of(PRESETS["paper"])
        return [preset] if preset == paper else [preset, paper]

    def identity(self) -> dict[str, object]:
        """All that decides the trials, as JSON: equal identities give the same trials on a CPU."""
        store = ChipStore(self.chips_dir, self.config.image_size)
        train, validation = (
            runs.spec(store.build(rows), rows["individual"], self.config, self.seed)
            for rows in self.parts
        )
        space = {name: str(values) for name, values in SPACE.items()}
        own = {"validation": validation["data"], "rungs": list(self.rungs), "space": space}
        return train | own

    def path(self, runs_dir: Path) -> Path:
        """The SQLite file of this search below the folder of runs, named by its identity."""
        name = digest(json.dumps(self.identity(), sort_keys=True))[:16]
        return Path(runs_dir) / "tuning" / name / "study.db"


def values_of(config: TrainConfig) -> dict[str, float]:
    """The point of SPACE at which a configuration lies."""
    width = round(config.margin_high - config.margin_low, 6)  # 0.5 - 0.2 is 0.3, not 0.29999
    own = {name: getattr(config, name) for name in SPACE if name != "margin_width"}
    return {name: own.get(name, width) for name in SPACE}


def settings_of(values: dict[str, float]) -> dict[str, float]:
    """The fields of TrainConfig that a point of SPACE stands for: the inverse of `values_of`."""
    settings = dict(values)
    width = settings.pop("margin_width")
    return settings | {"margin_high": settings["margin_low"] + width}


def rungs_of(config: TrainConfig, epochs: int = 0) -> tuple[int, ...]:
    """Half of a trial's epochs, then all; `epochs` 0: two more than the warm-up, if there are."""
    epochs = epochs or min(config.warmup_epochs + 2, config.epochs)
    return tuple(sorted({-(-epochs // 2), epochs}))


def search(task: Search, path: Path, trials: int) -> optuna.Study:
    """Go on with the study in the SQLite file `path` until it has `trials` finished trials.

    A trial is scored by its validation top-1, the mean over species in [0, 1], after each rung, and
    stopped there (pruned) when it is below the median of the complete ones. The next trial depends
    on the seed and on the finished trials alone, so an interrupted search ends as an undisturbed
    one; a trial that was under way goes on from its last epoch. Returns a copy in memory of the
    first `trials` finished ones. Raises ValueError when the file holds another search.
    """
    if trials < 2:
        raise ValueError(f"trials is {trials}; it must be at least 2, for there to be a choice")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # of any two processes one searches, the other finds it done
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            study = _opened(task, storage, path)
            while (done := len(study.get_trials(False, FINISHED))) < trials:
                study.sampler = _sampler(task, done)
                _try(study, task, path.parent, f"[{done + 1}/{trials}] trial")
            finished = study.get_trials(states=FINISHED)[:trials]
        finally:
            storage.engine.dispose()
    return in_memory(finished)


def in_memory(trials: list[FrozenTrial]) -> optuna.Study:
    """A study of these trials, numbered from 0."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def _opened(task: Search, storage: optuna.storages.RDBStorage, path: Path) -> optuna.Study:
    """The study in the file, made if it is new; what a killed process left half done has failed."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=SPARED)
    study = optuna.create_study(
        storage=storage,
        study_name="miewid",
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )
    here, there = task.identity(), study.user_attrs.get("identity")
    if there is None and not study.trials:
        study.set_user_attr("identity", here)
    elif there != here:
        differ = [name for name in here if here[name] != (there or {}).get(name)]
        raise ValueError(
            f"{path} holds another search, which differs in {', '.join(differ)}: delete that file, "
            "or search in another one"
        )
    for stale in study.get_trials(False, (TrialState.RUNNING,)):
        study.tell(stale.number, state=TrialState.FAIL)
    return study


def _sampler(task: Search, done: int) -> optuna.samplers.BaseSampler:
    """Gives the trial after `done` finished ones: a known setting, or the sampler's next idea."""
    seed = int(np.random.SeedSequence([task.seed, done]).generate_state(1)[0])
    tpe = optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=seed)
    if done >= len(task.known()):
        return tpe
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        return optuna.samplers.PartialFixedSampler(task.known()[done], tpe)


def _try(study: optuna.Study, task: Search, folder: Path, title: str) -> None:
    """One trial, and its end noted in the study; its checkpoints are then deleted."""
    trial = study.ask(SPACE)
    own = folder / digest(json.dumps(trial.params, sort_keys=True))[:16]
    try:
        score = _score(trial, task, own, title)
    except (optuna.TrialPruned, FloatingPointError):  # not worth going on with, or diverged
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, score)
    shutil.rmtree(own)


def _score(trial: optuna.Trial, task: Search, folder: Path, title: str) -> float:
    """Train from rung to rung, report each score, and return the last one."""
    folder.mkdir(exist_ok=True)
    config = dataclasses.replace(task.config, **settings_of(trial.params))
    before = None
    for rung in task.rungs:
        checkpoint = folder / f"{rung}.safetensors"
        if before and not checkpoint.exists():  # the rate of an epoch doesn't depend on how many
            with replacing(checkpoint) as temporary:  # follow: a rung goes on from the one before
                shutil.copy(before, temporary)
        before = checkpoint
        score = _trained_score(task, dataclasses.replace(config, epochs=rung), checkpoint, title)
        trial.report(score, rung)
        if rung < task.rungs[-1] and trial.should_prune():
            raise optuna.TrialPruned
    return score


def _trained_score(task: Search, config: TrainConfig, checkpoint: Path, title: str) -> float:
    """Validation top-1 after training to `config.epochs`, from `checkpoint` where it is there."""
    store = ChipStore(task.chips_dir, config.image_size)
    train, validation = task.parts
    labels, names = pd.factorize(train["individual"], sort=True)
    keys = store.build(train).tolist()
    dataset = ChipDataset(store, keys, labels, augment=True, seed=task.seed)
    counts = np.bincount(labels, minlength=len(names))
    network, preprocess, _ = fit(dataset, counts, config, task.seed, checkpoint, title)
    chips = ChipDataset(store, store.build(validation).tolist())
    embeddings = embed(network, preprocess, chips, device=default_device())
    columns = (validation[name] for name in ("individual", "species"))
    return species_mean(one_vs_all(embeddings, *columns))


def species_mean(ranks: pd.DataFrame) -> float:
    """Top-1 in [0, 1], the mean over species: what the search maximises."""
    return float(hits(ranks, 1).astype(float).groupby(ranks["species"]).mean().mean())

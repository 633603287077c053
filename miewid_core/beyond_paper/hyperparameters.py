"""Hyperparameters searched with optuna on splits of the training rows alone (section 3.3, A.1)."""

import dataclasses
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from miewid_core import splits
from miewid_core.config import PRESETS, TrainConfig
from miewid_core.evaluation import hits
from miewid_core.figures import spelt
from miewid_core.paper import comparison
from miewid_core.paper.intervals import Estimate, sentence, with_interval
from miewid_core.paper.study import Study
from miewid_core.runs import bill
from miewid_core.runs.run import Training, folder_name

SPACE = {  # A.1's values and those of every preset lie inside
    "peak_rate": FloatDistribution(3e-4, 3e-2, log=True),
    "scale": FloatDistribution(10, 64, log=True),
    "margin_low": FloatDistribution(0, 0.3),  # radians
    "margin_width": FloatDistribution(0, 0.4),  # of the highest margin above the lowest
    "sub_centers": IntDistribution(1, 4),
}
AT_RANDOM = 4  # trials before the sampler learns from them; the known settings are among them
SPARED = 2  # trials that are never stopped early: the later ones are measured against them
BEST = 10  # trials in a table for a reader, and the known ones
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
LABELS = {  # what is counted; an encounter without a name is none
    "annotations": "annotation_id",
    "encounters": "encounter",
    "individuals": "individual",
}
NETWORKS = {"best": "the best trial", "preset": "the preset", "untrained": "the untrained network"}
Point = dict[str, float]  # of SPACE

optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it reports every trial on stderr


class Parts(NamedTuple):
    """Training rows split once more: what the trials learn from, and what they are scored on."""

    train: pd.DataFrame
    validation: pd.DataFrame


def search_and_check(train: pd.DataFrame, seed: int) -> dict[str, Parts]:
    """Parts to "search" on, by seed + 1, and to "check" the outcome on, by seed + 2.

    They score no individual in common: half of each species' are drawn for the search, of which the
    best trial is partly the luckiest. A part whose species has one individual leaves the species
    out, if it has others (see `_comparable`). Raises ValueError where too few animals are left.
    """
    search, check = (parts_of(train, seed + further) for further in (1, 2))
    each = search.validation.drop_duplicates("individual").sort_values("individual")
    each = each.sample(frac=1, random_state=np.random.default_rng(seed + 1)).groupby("species")
    drawn = each["individual"].apply(lambda own: own.head(-(-len(own) // 2)))  # of three, two
    scored = search.validation["individual"].isin(drawn)
    free = ~check.validation["individual"].isin(drawn)
    if not free.any():
        raise ValueError(
            f"{len(drawn)} individuals to search on leave none to check the outcome on: it takes "
            "a catalog of more individuals"
        )
    return {
        "search": Parts(search.train, _comparable(search.validation[scored])),
        "check": Parts(check.train, _comparable(check.validation[free])),
    }


def _comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of species with several individuals, as any answer for a lone one is right.

    All rows where there is no such species.
    """
    several = rows.groupby("species")["individual"].transform("nunique") > 1
    return rows[several | ~several.any()].reset_index(drop=True)


def parts_of(train: pd.DataFrame, seed: int) -> Parts:
    """Split the final training rows by section 3.3 once more, with another seed than the final one.

    Raises ValueError where too few animals are left to learn from or to score.
    """
    drawn = splits.split(train, seed)
    parts = Parts(*(splits.rows(train, drawn, part) for part in ("train", "test")))
    if parts.train.empty or parts.validation.empty:
        raise ValueError(
            f"{len(train)} training annotations are too few to split once more: "
            f"{len(parts.train)} would train, {len(parts.validation)} validate"
        )
    return parts


def shared_with_test(parts: Parts, test: pd.DataFrame) -> pd.DataFrame:
    """What each part has in common with the final test rows, one row per part.

    Columns part, species, annotations, encounters, individuals, and how many of these are in the
    test set.
    Individuals may be: half of those tested are also in training, with other photos (3.3).
    """
    table = []
    for part, rows in parts._asdict().items():
        counts, common = {}, {}
        for name, label in LABELS.items():
            sides = (of.loc[of[label] != "", ["species", label]] for of in (rows, test))
            mine, theirs = (side.drop_duplicates() for side in sides)
            counts[name], common[f"{name}_in_test"] = len(mine), len(mine.merge(theirs))
        table.append({"part": part, "species": rows["species"].nunique()} | counts | common)
    return pd.DataFrame(table)


def values_of(config: TrainConfig) -> Point:
    """The point of SPACE at which a configuration lies."""
    width = round(config.margin_high - config.margin_low, 6)  # 0.5 - 0.2 is 0.3, not 0.29999
    return {name: getattr(config, name, width) for name in SPACE}


def settings_of(values: Point) -> dict[str, float]:
    """The fields of TrainConfig that a point of SPACE stands for: the inverse of `values_of`."""
    settings = dict(values)
    width = settings.pop("margin_width")
    return settings | {"margin_high": settings["margin_low"] + width}


def known_points(config: TrainConfig) -> dict[str, Point]:
    """The settings that are tried first: the preset's, and appendix A.1's where these differ."""
    preset, paper = values_of(config), values_of(PRESETS["paper"])
    return {"preset and A.1": preset} if preset == paper else {"preset": preset, "A.1": paper}


def shortened(study: Study, epochs: int, photos: int) -> Study:
    """The study with the trials' training: so many epochs, each of so many photos.

    0 epochs: half of the training's; 0 photos: all.
    """
    epochs = epochs or -(-study.config.epochs // 2)
    return dataclasses.replace(
        study, config=dataclasses.replace(study.config, epochs=epochs, epoch_photos=photos)
    )


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search works on. A trial trains by the study's configuration with a point of SPACE.

    Every trial starts from the same weights; `seed`: of the points that are drawn.
    """

    study: Study
    parts: Parts
    seed: int = 0

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs after which a trial is scored, by a training of that length: half of all, all."""
        epochs = self.study.config.epochs
        return tuple(sorted({-(-epochs // 2), epochs}))

    def bill(self, trials: int) -> str:
        """How many photos are shown if no trial is stopped, and how long that takes here."""
        each = (self.study.config.epoch_photos or len(self.parts.train)) * sum(self.rungs)
        hours = trials * each / bill.rate_of(self.study.config) / 3600
        epochs = " and ".join(map(str, self.rungs))
        return (
            f"{trials} trials, trainings of {epochs} epochs each, show {trials * each:,} photos: "
            f"about {bill.duration(hours)} on this machine."
        )

    @property
    def path(self) -> Path:
        """The SQLite file of this search below the folder of runs.

        Its name holds all that decides the trials: equal ones are equal trials on a CPU.
        """
        train, validation = (self.study.training(rows, "trial").spec for rows in self.parts)
        space = {name: str(values) for name, values in SPACE.items()}
        own = {"validation": validation["data"], "points": self.seed, "space": space}
        return self.study.runs_dir / "tuning" / folder_name(train | own) / "study.db"


def search(task: Search, trials: int) -> optuna.Study:
    """Go on with the study in the file `task.path` until it has `trials` finished trials.

    A trial is scored by its validation top-1, the mean over species in [0, 1], after each rung, and
    stopped there (pruned) when it is below the median of the complete ones. The next trial depends
    on the seed and on the finished trials alone, so an interrupted search ends as an undisturbed
    one; a trial that was under way goes on from its last epoch. Returns a copy in memory of the
    first `trials` finished ones. Raises ValueError for fewer than two.
    """
    if trials < 2:
        raise ValueError(f"trials is {trials}; it must be at least 2, for there to be a choice")
    path = task.path
    path.parent.mkdir(parents=True, exist_ok=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=SPARED)
    named = {"study_name": "miewid", "direction": "maximize", "load_if_exists": True}
    with FileLock(f"{path}.lock"):  # of any two processes one searches, the other finds it done
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            study = optuna.create_study(storage=storage, pruner=pruner, **named)
            for stale in study.get_trials(False, (TrialState.RUNNING,)):  # of a killed process
                study.tell(stale.number, state=TrialState.FAIL)
            while (done := len(study.get_trials(False, FINISHED))) < trials:
                trial = _ask(study, task, done)
                _try(study, trial, task, f"[{done + 1}/{trials}] trial")
            finished = study.get_trials(states=FINISHED)[:trials]
        finally:
            storage.engine.dispose()
    return in_memory(finished)


def in_memory(trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    """A study of these trials, numbered from 0."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def _ask(study: optuna.Study, task: Search, done: int) -> optuna.Trial:
    """The trial after `done` finished ones: a known setting, or the sampler's next idea."""
    seed = int(np.random.SeedSequence([task.seed, done]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=seed)
    first = [*known_points(task.study.config).values()]
    if done < len(first) and not study.get_trials(False, (TrialState.WAITING,)):
        study.enqueue_trial(first[done])
    return study.ask(SPACE)


def _try(study: optuna.Study, trial: optuna.Trial, task: Search, title: str) -> None:
    """One trial, and its end noted in the study; its trainings are then deleted."""
    runs_dir = task.path.parent / "trial"
    own = dataclasses.replace(task.study, runs_dir=runs_dir, used=set())
    try:
        for rung in task.rungs:
            score = top_1(own, task.parts, trial.params, rung, title)
            trial.report(score, rung)
            if rung < task.rungs[-1] and trial.should_prune():
                raise optuna.TrialPruned
        study.tell(trial, score)
    except (optuna.TrialPruned, FloatingPointError):  # not worth going on with, or diverged
        study.tell(trial, state=TrialState.PRUNED)
    shutil.rmtree(runs_dir, ignore_errors=True)


def top_1(study: Study, parts: Parts, point: Point, epochs: int, title: str) -> float:
    """Validation top-1 in [0, 1], the mean over species, after a training with these settings."""
    training = study.training(parts.train, title, epochs=epochs, **settings_of(point))
    return score(study, parts, training)


def score(study: Study, parts: Parts, training: Training) -> float:
    """Validation top-1 in [0, 1] of a network, the mean over species."""
    ranks = study.rank(study.embeddings(training, parts.validation), parts.validation)
    return float(hits(ranks, 1).astype(float).groupby(ranks["species"]).mean().mean())


def table(study: optuna.Study) -> pd.DataFrame:
    """One row per trial, without times: trial, SPACE, top-1 in percent after each rung, state.

    What a trial never reached is NaN; the same seed gives the same table.
    """
    reached = [pd.Series(trial.intermediate_values, dtype=float) for trial in study.trials]
    scores = 100 * pd.DataFrame(reached).sort_index(axis=1)
    scores = scores.rename(columns="top1_after_{}_epochs".format)
    frame = study.trials_dataframe(attrs=("number", "params", "state"))
    frame = frame.rename(columns=lambda name: name.removeprefix("params_"))
    frame = frame.rename(columns={"number": "trial"}).join(scores)
    return frame[["trial", *SPACE, *scores, "state"]].assign(state=frame["state"].str.lower())


def readable(table: pd.DataFrame, config: TrainConfig, untrained: float) -> pd.DataFrame:
    """The BEST trials of a `table` for a reader, and the known ones; last the untrained network."""
    known, scores = dict(enumerate(known_points(config))), [*table.columns[len(SPACE) + 1 : -1]]
    ranked = table.sort_values(scores[-1], ascending=False, kind="stable")
    ranked = ranked[(np.arange(len(table)) < BEST) | ranked["trial"].isin(known)]
    names = ranked["trial"].map(lambda n: f"{n}: {known[n]}" if n in known else f"{n}")
    shown = ranked[[*SPACE]].map("{:.3g}".format).assign(**ranked[scores].map("{:.1f}".format))
    shown.insert(0, "trial", names)
    shown = shown.replace("nan", "stopped")
    last = {"trial": NETWORKS["untrained"], scores[-1]: f"{untrained:.1f}"}
    shown = pd.concat([shown, pd.DataFrame([last])]).fillna("")
    return shown.rename(
        columns=lambda name: spelt(name).replace("top1", "top-1 (%)").replace("sub c", "sub-c")
    )


def confirm(study: Study, parts: Parts, best: Point) -> pd.DataFrame:
    """Networks trained on `parts.train` and ranked on `parts.validation`, by `comparison.compare`.

    `parts`: of `search_and_check`, whose individuals the search hasn't scored. Columns best,
    preset (not where it is the best), untrained, and what `compare` says of each.
    """
    points = {"best": best, "preset": values_of(study.config)}
    if points["best"] == points["preset"]:
        del points["preset"]
    trainings = {
        name: study.training(parts.train, f"check: {name}", **settings_of(point))
        for name, point in points.items()
    }
    study.run(list(trainings.values()))  # side by side
    trainings["untrained"] = study.untrained()
    rows = parts.validation
    ranks = {name: study.rank(study.embeddings(own, rows), rows) for name, own in trainings.items()}
    return comparison.compare(ranks, parts.train)


def readable_check(checked: pd.DataFrame) -> pd.DataFrame:
    """The means of a table of `confirm` for a reader, and the best trial's gain over the others."""
    mean, rows = checked.tail(1), []
    for name in filter(checked.columns.__contains__, NETWORKS):
        gain = "" if name == "best" else with_interval(mean, f"gain_over_{name}")[0]
        rows.append([NETWORKS[name], with_interval(mean, name)[0], gain])
    return pd.DataFrame(rows, columns=["network", "top-1 (%)", "gain of the best trial (points)"])


def in_words(checked: pd.DataFrame, scores: pd.DataFrame, untrained: float) -> str:
    """What a search found on its individuals and on the check's.

    `checked`: of `confirm`; `scores`: of `table`; `untrained`: the untrained network's score on
    the search's, in percent.
    """
    best, epochs = scores.iloc[:, -2].max(), scores.columns[-2].split("_")[2]
    trials = f"{len(scores)} trials of {epochs} epochs"
    if best <= untrained:
        scored = f"top-1 {best:.1f} against {untrained:.1f} %"
        return f"None of {trials} beats the untrained network: {scored}."
    if "preset" not in checked:
        return (
            f"None of {trials} beats the preset's settings, with top-1 {best:.1f} % (the untrained "
            f"network: {untrained:.1f} %)."
        )
    return (
        f"The best of {trials} has top-1 {best:.1f} %, the untrained network {untrained:.1f} %. On "
        f"other individuals {beside(checked, 'preset')}."
    )


def beside(checked: pd.DataFrame, other: str) -> str:
    """The best trial beside another of NETWORKS (`checked`: of `confirm`)."""
    gain = Estimate.of(checked.iloc[-1], f"gain_over_{other}")
    return f"{gain.verdict(NETWORKS['best'], NETWORKS[other])}, {gain}"


def details(checked: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """What the words rest on (`rows`: of `shared_with_test`, the search's first)."""
    train, queries = rows.iloc[0], checked["queries"].iloc[-1]
    told = [
        f"The check has {queries:,.0f} queries of individuals that the search did not score. Each "
        "network is trained once, and its interval leaves out what another training changes.",
        f"No test annotation or test encounter was used; {train['individuals_in_test']} of the "
        f"search's {train['individuals']} training individuals are in the test set with other "
        "photos.",
    ]
    return [sentence(f"on other individuals {beside(checked, 'untrained')}"), *told]

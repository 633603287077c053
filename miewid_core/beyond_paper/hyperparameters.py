"""Hyperparameters searched with optuna on splits of the training rows alone (section 3.3, A.1)."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import pandas as pd
import seaborn as sns
from filelock import FileLock
from matplotlib.ticker import MaxNLocator
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from miewid_core import splits
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.config import PRESETS, TrainConfig
from miewid_core.evaluation import embed, hits, one_vs_all
from miewid_core.figures import BLUE, Figure, styled
from miewid_core.files import digest, replacing
from miewid_core.machine import default_device
from miewid_core.paper.comparison import ENDS, compare, with_interval
from miewid_core.paper.study import Study
from miewid_core.runs.run import Training, folder_name
from miewid_core.training import fit

SPACE = {  # A.1's values and those of every preset lie inside
    "peak_rate": FloatDistribution(3e-4, 3e-2, log=True),
    "scale": FloatDistribution(10, 64, log=True),
    "margin_low": FloatDistribution(0, 0.3),  # radians
    "margin_width": FloatDistribution(0, 0.4),  # of the highest margin above the lowest
    "sub_centers": IntDistribution(1, 4),
}
AT_RANDOM = 4  # trials before the sampler learns from them; the known settings are among them
SPARED = 2  # trials that are never stopped early: the later ones are measured against them
ENOUGH = 50  # trials below which neither importance nor scatter tells more than chance
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
LABELS = {  # what is counted; an encounter without a name is none
    "annotations": "annotation_id",
    "encounters": "encounter",
    "individuals": "individual",
}
WORDS = {
    "peak_rate": "peak rate",
    "scale": "scale",
    "margin_low": "lowest margin",
    "margin_width": "width of the margins",
    "sub_centers": "sub-centers",
}
FORMATS = dict(zip(WORDS, ["{:.4f}", "{:.1f}", "{:.2f}", "{:.2f}", "{:.0f}"], strict=True))
Point = dict[str, float]  # of SPACE

optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it reports every trial on stderr


class Parts(NamedTuple):
    """Training rows split once more: what the trials learn from, and what they are scored on."""

    train: pd.DataFrame
    validation: pd.DataFrame


def search_and_check(train: pd.DataFrame, seed: int) -> dict[str, Parts]:
    """Parts to "search" on, by seed + 1, and to "check" the outcome on, by seed + 2.

    They score no individual in common: half of each species' are drawn for the search, of which the
    best trial is partly the luckiest. Raises ValueError where too few animals are left.
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
        "search": Parts(search.train, search.validation[scored].reset_index(drop=True)),
        "check": Parts(check.train, check.validation[free].reset_index(drop=True)),
    }


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

    Columns part, annotations, encounters, individuals, and how many of each are in the test set.
    Individuals may be: half of those tested are also in training, with other photos (3.3).
    """
    table = []
    for part, rows in parts._asdict().items():
        counts, common = {}, {}
        for name, label in LABELS.items():
            mine, theirs = (
                {*of.loc[of[label] != "", ["species", label]].itertuples(index=False, name=None)}
                for of in (rows, test)
            )
            counts[name], common[f"{name}_in_test"] = len(mine), len(mine & theirs)
        table.append({"part": part} | counts | common)
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
    """The settings to compare with: those of the "preset", and appendix A.1's, "a1_values"."""
    return {"preset": values_of(config), "a1_values": values_of(PRESETS["paper"])}


def rungs_of(config: TrainConfig, epochs: int = 0) -> tuple[int, ...]:
    """Half of a trial's epochs, then all; `epochs` 0: half of those of the training."""
    epochs = epochs or -(-config.epochs // 2)
    return tuple(sorted({-(-epochs // 2), epochs}))


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

    def path(self, runs_dir: Path) -> Path:
        """The SQLite file of this search below the folder of runs.

        Its name holds all that decides the trials: equal ones are equal trials on a CPU.
        """
        train, validation = (
            Training("trial", rows, self.config, self.seed, Path(), self.chips_dir).spec
            for rows in self.parts
        )
        space = {name: str(values) for name, values in SPACE.items()}
        own = {"validation": validation["data"], "rungs": list(self.rungs), "space": space}
        return Path(runs_dir) / "tuning" / folder_name(train | own) / "study.db"


def search(task: Search, runs_dir: Path, trials: int) -> optuna.Study:
    """Go on with the study in the file `task.path(runs_dir)` until it has `trials` finished trials.

    A trial is scored by its validation top-1, the mean over species in [0, 1], after each rung, and
    stopped there (pruned) when it is below the median of the complete ones. The next trial depends
    on the seed and on the finished trials alone, so an interrupted search ends as an undisturbed
    one; a trial that was under way goes on from its last epoch. Returns a copy in memory of the
    first `trials` finished ones. Raises ValueError for fewer than two.
    """
    if trials < 2:
        raise ValueError(f"trials is {trials}; it must be at least 2, for there to be a choice")
    path = task.path(runs_dir)
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
                study.sampler = _sampler(task, done)
                _try(study, task, path.parent, f"[{done + 1}/{trials}] trial")
            finished = study.get_trials(states=FINISHED)[:trials]
        finally:
            storage.engine.dispose()
    return in_memory(finished)


def in_memory(trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    """A study of these trials, numbered from 0."""
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def _sampler(task: Search, done: int) -> optuna.samplers.BaseSampler:
    """Gives the trial after `done` finished ones: a known setting, or the sampler's next idea."""
    seed = int(np.random.SeedSequence([task.seed, done]).generate_state(1)[0])
    tpe = optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=seed)
    preset, paper = known_points(task.config).values()
    first = [preset] if preset == paper else [preset, paper]
    if done >= len(first):
        return tpe
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        return optuna.samplers.PartialFixedSampler(first[done], tpe)


def _try(study: optuna.Study, task: Search, folder: Path, title: str) -> None:
    """One trial, and its end noted in the study; its checkpoints are then deleted."""
    trial = study.ask(SPACE)
    own = folder / digest(json.dumps(trial.params, sort_keys=True))[:16]
    own.mkdir(exist_ok=True)
    try:
        study.tell(trial, _score(trial, task, own, title))
    except (optuna.TrialPruned, FloatingPointError):  # not worth going on with, or diverged
        study.tell(trial, state=TrialState.PRUNED)
    shutil.rmtree(own)


def _score(trial: optuna.Trial, task: Search, folder: Path, title: str) -> float:
    """Train from rung to rung, report each score, and return the last one."""
    config = dataclasses.replace(task.config, **settings_of(trial.params))
    before = None
    for rung in task.rungs:
        checkpoint = folder / f"{rung}.safetensors"
        if before and not checkpoint.exists():
            with replacing(checkpoint) as temporary:
                shutil.copy(before, temporary)
        # a rung goes on from the one before, unless its rates depend on how many epochs follow
        before = None if config.schedule == "level" else checkpoint
        score = _trained_score(task, dataclasses.replace(config, epochs=rung), checkpoint, title)
        trial.report(score, rung)
        if rung < task.rungs[-1] and trial.should_prune():
            raise optuna.TrialPruned
    return score


def _trained_score(task: Search, config: TrainConfig, checkpoint: Path, title: str) -> float:
    """Validation top-1 in [0, 1], the mean over species, after training from `checkpoint`."""
    store = ChipStore(task.chips_dir, config.image_size)
    train, validation = task.parts
    labels = pd.factorize(train["individual"], sort=True)[0]
    dataset = ChipDataset(store, store.build(train), labels, augment=True, seed=task.seed)
    network, preprocess, _ = fit(dataset, np.bincount(labels), config, task.seed, checkpoint, title)
    chips = ChipDataset(store, store.build(validation))
    embeddings = embed(network, preprocess, chips, device=default_device())
    ranks = one_vs_all(embeddings, validation["individual"], validation["species"])
    return float(hits(ranks, 1).astype(float).groupby(ranks["species"]).mean().mean())


def table(study: optuna.Study) -> pd.DataFrame:
    """One row per trial, without times: trial, SPACE, top-1 in percent after each rung, state.

    What a trial never reached is NaN; the same seed gives the same table.
    """
    reached = [pd.Series(trial.intermediate_values, dtype=float) for trial in study.trials]
    scores = 100 * pd.DataFrame(reached).sort_index(axis=1).add_prefix("top1_after_")
    frame = study.trials_dataframe(attrs=("number", "params", "state"))
    frame = frame.rename(columns=lambda name: name.removeprefix("params_"))
    frame = frame.rename(columns={"number": "trial"}).join(scores)
    return frame[["trial", *SPACE, *scores, "state"]].assign(state=frame["state"].str.lower())


def settled(study: optuna.Study, task: Search) -> dict[str, Point]:
    """The settings worth a comparison, as points of SPACE: "best", "preset", "a1_values"."""
    return {"best": study.best_params} | known_points(task.config)


def beside(study: optuna.Study, task: Search) -> pd.DataFrame:
    """The best complete trial beside the preset and A.1: setting, lowest, highest, then these.

    The last row is their validation top-1 in percent on the data here after all epochs of a trial,
    where they got so far. It is no result of the paper, whatever the settings are.
    """
    points, complete = settled(study, task), study.get_trials(states=(TrialState.COMPLETE,))
    bounds = {name: {"lowest": s.low, "highest": s.high} for name, s in SPACE.items()}
    frame = pd.DataFrame(bounds).T.join(pd.DataFrame(points))
    scores = {
        name: next((100 * trial.value for trial in complete if trial.params == point), np.nan)
        for name, point in points.items()
    }
    frame.loc[f"top-1 (%) here, after {task.rungs[-1]} epochs"] = scores
    return frame.rename_axis("setting").reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `table` for a reader."""
    shown = {"trial": table["trial"]}
    shown |= {WORDS[name]: table[name].map(FORMATS[name].format) for name in SPACE}
    for name in table.filter(like="top1_after_"):
        epochs = name.removeprefix("top1_after_")
        shown[f"top-1 after {epochs} epochs (%)"] = table[name].map("{:.1f}".format)
    state = table["state"].replace("pruned", "stopped")
    return pd.DataFrame(shown | {"": state}).replace("nan", "")


def readable_best(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `beside` for a reader; the preset stands once where it is the best."""
    heads = {"best": "best trial", "preset": "preset", "a1_values": "A.1's values"}
    if table["best"].equals(table["preset"]):
        heads = {"best": "best trial (the preset)", "a1_values": heads["a1_values"]}
    formats = [*(FORMATS[name] for name in SPACE), "{:.1f}"]
    names = [*(WORDS[name] for name in SPACE), table["setting"].iloc[-1]]
    shown = {
        head: [form.format(value) for form, value in zip(formats, table[name], strict=True)]
        for name, head in {"lowest": "searched from", "highest": "to", **heads}.items()
    }
    return pd.DataFrame({"setting": names} | shown).replace("nan", "")


def confirm(study: Study, parts: Parts, points: dict[str, Point], epochs: int) -> dict:
    """Ranks of `parts.validation` by networks trained on `parts.train` with each of `points`.

    `parts`: of `search_and_check`, whose individuals the search hasn't scored. Equal points are
    one, by the first name. Last comes the "untrained" network.
    """
    distinct = {}
    for name, point in points.items():
        if point not in distinct.values():
            distinct[name] = point
    trainings = {
        name: study.training(parts.train, f"check: {name}", epochs=epochs, **settings_of(point))
        for name, point in distinct.items()
    }
    study.run(list(trainings.values()))  # side by side
    trainings["untrained"] = study.untrained()
    rows = parts.validation
    return {name: study.rank(study.embeddings(own, rows), rows) for name, own in trainings.items()}


def checked(ranks: dict[str, pd.DataFrame], train: pd.DataFrame) -> pd.DataFrame:
    """Each network of `confirm` beside the untrained one: means over species, a row for each.

    Columns name, species, queries; top_1 with _low and _high, and likewise gain (over untrained)
    and over_preset (over the preset's settings); seen, new.
    """
    rows, preset = [], ranks.get("preset", ranks["best"])
    for name, own in ranks.items():
        table = compare({"top_1": own, "start": ranks["untrained"], "preset": preset}, train)
        mean = table.iloc[-1]
        row = {"name": name, "species": len(table) - 1, "queries": mean["queries"]}
        row |= {f"top_1{end}": mean[f"top_1{end}"] for end in ENDS}
        row |= {f"gain{end}": mean[f"gain_over_start{end}"] for end in ENDS}
        row |= {f"over_preset{end}": mean[f"gain_over_preset{end}"] for end in ENDS}
        rows.append(row | {"seen": mean["top_1_seen"], "new": mean["top_1_new"]})
    return pd.DataFrame(rows)


def readable_check(table: pd.DataFrame, points: dict[str, Point]) -> pd.DataFrame:
    """A table of `checked` for a reader."""
    names = {"best": "the best trial's", "preset": "the preset's", "a1_values": "A.1's"}
    if points["best"] == points["preset"]:
        names["best"] = "the best trial's (the preset's)"
    gain = with_interval(table, "gain")
    untrained = table["name"] == "untrained"
    return pd.DataFrame(
        {
            "settings": table["name"].map(names).fillna("untrained"),
            "top-1 (%)": with_interval(table, "top_1"),
            "seen individuals (%)": table["seen"],
            "new individuals (%)": table["new"],
            "gain over untrained (points)": np.where(untrained, "", gain),
        }
    )


def in_words(points: dict[str, Point], table: pd.DataFrame, trials: int, rows: pd.DataFrame) -> str:
    """What a search of so many `trials` found, and whether that decides anything.

    `table`: of `checked`; `rows`: of `shared_with_test`, of the search.
    """
    scores = table.set_index("name").to_dict("index")
    best, untrained, train = scores["best"], scores["untrained"], rows.iloc[0]
    over = "{0:+.1f} points, {1:+.1f} to {2:+.1f}"
    gain, preset = (
        over.format(*(best[f"{name}{end}"] for end in ENDS)) for name in ("gain", "over_preset")
    )
    if points["best"] == points["preset"]:
        said, beside = "found no settings of the multi-species network better than the preset's", ""
    elif best["over_preset_low"] > 0 and scores["preset"]["gain_low"] <= 0:
        said = "found better settings for so short a training, in which the preset hardly learns"
        beside = f"; over the preset's {preset}. For a full training it shows nothing"
    elif best["over_preset_low"] > 0:
        said = "found better settings of the multi-species network than the preset's"
        beside = f", better than with the preset's ({preset})"
    else:
        said = "found no settings shown to be better than the multi-species network's preset"
        beside = f"; no difference to the preset's is shown ({preset})"
    decides = best["gain_low"] > 0
    verdict = "better than" if decides else "not shown to be better than"
    return (
        f"A search of {trials} trials {said}{'' if decides else ', and decides nothing'}. On other "
        f"individuals the best settings reach {best['top_1']:.1f} % ({best['top_1_low']:.1f} to "
        f"{best['top_1_high']:.1f}), {verdict} an untrained network's {untrained['top_1']:.1f} % "
        f"({gain}){beside}; {best['queries']:,} queries of {best['species']} species, each trained "
        "once. The search saw no test annotation and no test encounter; "
        f"{train['individuals_in_test']} of its {train['individuals']} training individuals are in "
        "the test set with other photos."
    )


def importance(study: optuna.Study, rung: int, seed: int) -> pd.DataFrame:
    """Share of the variance of the scores after `rung` epochs that each setting explains (fANOVA).

    Columns setting, importance. At the first rung every trial counts that didn't diverge, equally
    far trained; at the last one only those that weren't stopped.
    """
    reached = [trial for trial in study.get_trials() if rung in trial.intermediate_values]
    for trial in reached:  # copies
        trial.state, trial.value = TrialState.COMPLETE, trial.intermediate_values[rung]
    evaluator = FanovaImportanceEvaluator(seed=seed)
    found = get_param_importances(in_memory(reached), evaluator=evaluator)
    return pd.DataFrame(found.items(), columns=["setting", "importance"])


@styled()
def landscape(
    study: optuna.Study, rung: int, seed: int, title: str
) -> dict[str, tuple[Figure, pd.DataFrame]]:
    """Figures of which settings matter, by name, with their data; none below ENOUGH trials.

    What each explains after `rung` epochs, and the trials over the two that explain most, by score.
    """
    if len(study.trials) < ENOUGH:
        return {}
    explained, score = importance(study, rung, seed), f"top1_after_{rung}"
    first, second = explained["setting"][:2]
    scores = table(study).dropna(subset=score)[["trial", first, second, score]]
    bars, dots = Figure(title, 2), Figure(title, 2.8)
    sns.barplot(explained, x="importance", y="setting", color=BLUE, ax=bars.subplots())
    axes = dots.subplots()
    sns.scatterplot(scores, x=first, y=second, hue=score, palette="cividis", ax=axes)
    scales = ["log" if SPACE[name].log else "linear" for name in (first, second)]
    axes.set(xscale=scales[0], yscale=scales[1])
    shown = {"importance": (bars, explained), "scatter": (dots, scores)}
    return {f"hyperparameters_{name}": pair for name, pair in shown.items()}


def landscape_in_words(study: optuna.Study) -> str:
    """Whether there are trials enough to say which settings matter."""
    if len(study.trials) >= ENOUGH:
        return f"From {len(study.trials)} trials, each trained from the same seed."
    return (
        f"{len(study.trials)} trials can't tell which settings matter: it takes at least {ENOUGH} "
        "for an importance or a picture of the scores."
    )


@styled()
def history_plot(scores: pd.DataFrame, rungs: tuple[int, ...], title: str) -> Figure:
    """Each trial's score after half of its epochs (hollow) and after all (`scores`: of `table`)."""
    drawn = Figure(title, 2.4)
    axes = drawn.subplots()
    for rung in rungs:
        last = rung == rungs[-1]
        look = {"color": BLUE, "markerfacecolor": BLUE if last else "white", "ls": ""}
        words = f"after {rung} epochs"
        axes.plot(scores["trial"], scores[f"top1_after_{rung}"], "o", label=words, **look)
    axes.set(
        xlabel="trial (those without a filled dot were stopped)", ylabel="validation top-1 (%)"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def history_claim(scores: pd.DataFrame, rung: int) -> str:
    """Which trial was best, for a title; the first one is the preset."""
    best = scores["trial"][scores[f"top1_after_{rung}"].idxmax()]
    return f"Trial {best} was best" if best else "No trial was better than trial 0, the preset"

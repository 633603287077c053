"""What a search of `tuning` found: its trials as tables, in words, and in optuna's own plots."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
import pandas as pd
from matplotlib import pyplot, rc_params_from_file, style
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from optuna.distributions import IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from miewid_core.config import PRESETS
from miewid_core.page import COLUMN, STYLE, Figure, styled
from miewid_core.paper_comparison import compare, verdict
from miewid_core.study import Study
from miewid_core.tuning import SPACE, Search, in_memory, settings_of, values_of
from miewid_core.tuning_split import Parts

WORDS = {  # of SPACE, for axes
    "peak_rate": "peak learning rate",
    "scale": "scale",
    "margin_low": "lowest margin (radians)",
    "margin_width": "width of the margins (radians)",
    "sub_centers": "sub-centers (k)",
}
NAMES = {
    "preset": "the preset",
    "paper": "appendix A.1",
    "untrained": "the network before any training",
}
SCORE = "validation top-1 (%)"


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


def beside(study: optuna.Study, task: Search) -> pd.DataFrame:
    """The best complete trial beside the preset and A.1: setting, lowest, highest, then these.

    The last row is their validation top-1 in percent after all epochs, where they got so far.
    """
    points = settled(study, task)
    frame = pd.DataFrame({name: [s.low, s.high] for name, s in SPACE.items()}).T
    frame.columns = ["lowest", "highest"]
    frame = frame.join(pd.DataFrame(points))
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    for name, point in points.items():
        scores = [100 * trial.value for trial in complete if trial.params == point]
        frame.loc[SCORE, name] = scores[0] if scores else np.nan
    return frame.rename_axis("setting").reset_index()


def settled(study: optuna.Study, task: Search) -> dict[str, dict[str, float]]:
    """The settings worth a comparison, as points of SPACE: "best", "preset", "paper"."""
    named = {"preset": values_of(task.config), "paper": values_of(PRESETS["paper"])}
    return {"best": study.best_params} | named


def confirm(study: Study, parts: Parts, points: dict[str, dict[str, float]], epochs: int) -> dict:
    """Ranks of `parts.validation` by networks trained on `parts.train` with each of `points`.

    `parts`: of `tuning_split.search_and_check`, whose individuals the search hasn't scored.
    """
    jobs = [
        study.job(parts.train, f"check: {name}", epochs=epochs, **settings_of(point))
        for name, point in points.items()
    ]
    trained = zip(points, study.train_all(jobs), strict=True)
    return {name: run.ranks(parts.validation, study.chips_dir) for name, run in trained}


def in_words(
    points: dict[str, dict[str, float]], ranks: dict[str, pd.DataFrame], other: str, seed: int
) -> str:
    """Whether "best" is better than `other` on the same queries, decided by the interval.

    `other`: of NAMES. `points`: of `settled`; `ranks`: of the same queries, by name.
    """
    if points["best"] == points.get(other):
        return f"The best trial is {NAMES[other]} itself."
    table = compare({name: ranks[name] for name in ("best", other)})
    return verdict(table, {"best": "the best trial", other: NAMES[other]})


def at_rung(study: optuna.Study, rung: int) -> optuna.Study:
    """The study as it stood after `rung` epochs, with scores in percent: for optuna's plots.

    The plots show complete trials only. After the first rung that is all of them (but those that
    diverged), equally far trained; after the last one those that weren't stopped.
    """
    scores = [trial.intermediate_values.get(rung) for trial in study.trials]
    trials = [
        optuna.trial.create_trial(
            state=TrialState.PRUNED if score is None else TrialState.COMPLETE,
            value=None if score is None else 100 * score,
            params=trial.params,
            distributions=trial.distributions,
        )
        for trial, score in zip(study.trials, scores, strict=True)
    ]
    return in_memory(trials)


def importance(study: optuna.Study, seed: int) -> pd.DataFrame:
    """Share of the scores' variance that each setting explains (fANOVA): setting, importance."""
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return pd.DataFrame(found.items(), columns=["setting", "importance"])


def importance_plot(study: optuna.Study, seed: int, title: str) -> Figure:
    """Optuna's plot of what `importance` tells."""
    with _optuna():
        axes = plots.plot_param_importances(study, FanovaImportanceEvaluator(seed=seed))
        axes.set(xlabel="share of the variance explained", ylabel="")
        axes.set_yticks(axes.get_yticks(), [WORDS[t.get_text()] for t in axes.get_yticklabels()])
        axes.margins(x=0.15)  # room for the numbers beside the bars
        axes.grid(axis="y", visible=False)
        axes.get_legend().remove()
        return _ours(axes, title, 2)


def contour_plot(study: optuna.Study, pair: list[str], title: str) -> Figure:
    """Optuna's contours of the score over two settings, interpolated between the trials (dots)."""
    with _optuna():
        axes = plots.plot_contour(study, pair, target_name=SCORE)
        for axis in (axes.xaxis, axes.yaxis):
            name = axis.get_label_text()
            axis.set_label_text(WORDS[name])
            if SPACE[name].log:
                axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
                axis.set_minor_locator(NullLocator())
            else:
                whole = isinstance(SPACE[name], IntDistribution)
                axis.set_major_locator(MaxNLocator(6, integer=whole))
            axis.set_major_formatter("{x:g}")
        return _ours(axes, title, 2.8)


def history_plot(study: optuna.Study, title: str) -> Figure:
    """Optuna's plot of the score of each complete trial, and of the best so far."""
    with _optuna():
        axes = plots.plot_optimization_history(study, target_name=SCORE)
        axes.set(xlabel="trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.lines[0].set_drawstyle("steps-post")
        axes.legend(axes.get_legend_handles_labels()[0], ["trial", "best so far"])
        return _ours(axes, title, 2.2)


@contextmanager
def _optuna() -> Iterator[None]:
    """Where optuna's plots are made: they are marked experimental, and switch to "ggplot".

    That name means this package's style here.
    """
    theirs = style.library["ggplot"]
    with styled(), warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        style.library["ggplot"] = rc_params_from_file(STYLE, use_default_template=False)
        try:
            yield
        finally:
            style.library["ggplot"] = theirs


def _ours(axes: Axes, title: str, height: float) -> Figure:
    """The figure that optuna made, as one that a notebook shows and saves like any other."""
    figure = axes.figure
    pyplot.close(figure)  # else a notebook shows it twice
    for side in ("left", "center"):
        axes.set_title("", loc=side)
    figure.set_layout_engine("constrained")
    figure.set_size_inches(COLUMN, height)
    figure.suptitle(title, x=0.01, ha="left", va="top")
    figure.__class__ = Figure  # pyplot makes plain ones, whatever it is asked for
    figure.photos = False
    return figure

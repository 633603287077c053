"""All species' network against another, species by species, beside the paper's Table 2."""

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, rankdata, spearmanr

from miewid_core import reported
from miewid_core.evaluation import overview, paired_difference

EXACT = 7  # species: up to so many, all orders of them are tried (5,040)
ENDS = ["", "_low", "_high"]
PRINTED = {"multi": "multi_species", "single": "single_species", "left_out": "leave_one_out"}
OTHERS = {  # what all species' network is set against: how the two are called in a verdict
    "single": ("one network for all species", "one each"),
    "left_out": ("a network that was trained on the species", "one that never saw it"),
}


def multi_against_single(
    multi: pd.DataFrame,
    single: pd.DataFrame,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Top-k of two models in percent, with 95 % intervals: the data of Figures 1 and 5 to 8.

    `multi`, `single`, `untrained`: ranks of the same queries; species that `single` lacks (nothing
    to train on) keep their row, with NaN. `train`: the training annotations. One row per species by
    decreasing number of training annotations, then the mean over species that both models have;
    `gain` is multi minus single in percentage points, paired over queries, its interval
    bootstrapped over individuals. `chance` is a random ranking's top-k. `paper_multi` and
    `paper_single` are Table 2's top-1 (NaN for other k, and for species that it lacks).
    """
    return _against(multi, single, "single", untrained, train, k, seed)


def multi_against_left_out(
    multi: pd.DataFrame,
    left_out: pd.DataFrame,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
    seed: int = 0,
) -> pd.DataFrame:
    """As `multi_against_single`, with networks that never saw a species: Figures 2 and 9 to 12.

    Column `left_out` takes the place of `single`, and `paper_left_out` that of `paper_single`.
    """
    return _against(multi, left_out, "left_out", untrained, train, k, seed)


def _against(
    multi: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
    seed: int,
) -> pd.DataFrame:
    table = pd.concat(_parts(multi, other, name, untrained, k, seed))
    counts = train["species"].value_counts()
    table["train_annotations"] = counts.reindex(table.index, fill_value=0)
    mean = table.index == "mean"
    averaged = ~mean & table["gain"].notna()
    table.loc[mean, "train_annotations"] = table.loc[averaged, "train_annotations"].sum()
    table = table.sort_values("train_annotations", ascending=False, kind="stable")
    table = pd.concat([table[table.index != "mean"], table[table.index == "mean"]])
    measured = [f"{column}{end}" for column in ("multi", name, "gain") for end in ENDS]
    first = ["species", "queries", "individuals", "train_annotations"]
    last = ["untrained", "chance", "paper_multi", f"paper_{name}"]
    return _with_paper(table.reset_index(), name, k)[[*first, *measured, *last]]


def _parts(
    multi: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    untrained: pd.DataFrame,
    k: int,
    seed: int,
) -> list[pd.DataFrame]:
    """Scores of the species that both models have, with their mean; and of the other species."""
    both, before = (ranks["species"].isin(other["species"]) for ranks in (multi, untrained))
    rankings = {"multi": multi[both], name: other, "untrained": untrained[before]}
    table = overview(rankings, seed, k).set_index("species")
    gain = paired_difference(multi[both], other, k, seed).set_index("species")
    table[[f"gain{end}" for end in ENDS]] = 100 * gain[["difference", "low", "high"]]
    if both.all():
        return [table]
    rest = overview({"multi": multi[~both], "untrained": untrained[~before]}, seed, k)
    return [table, rest.set_index("species").drop("mean")]


def _with_paper(table: pd.DataFrame, name: str, k: int) -> pd.DataFrame:
    """The table with Table 2's columns of both models, which are top-1, beside it."""
    printed = reported.table(2).set_index("species")[list(PRINTED.values())]
    printed.loc["mean"] = printed.mean()
    known = table["species"].map(reported.species_name)
    found = printed.reindex(known) if k == 1 else printed.reindex([None] * len(table))
    for column in ("multi", name):
        table[f"paper_{column}"] = found[PRINTED[column]].to_numpy()
    return table


def increasing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by increasing number of training annotations, as Figures 5 to 8; the mean last."""
    mean = table["species"] == "mean"
    rows = table[~mean].sort_values("train_annotations", kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def in_words(table: pd.DataFrame, k: int) -> str:
    """What a table of this module shows, in a sentence that its numbers decide."""
    one, other = next((words for name, words in OTHERS.items() if name in table), OTHERS["single"])
    mean = table[table["species"] == "mean"].iloc[0]
    n = int(table["gain"].notna().sum()) - 1
    low, high = mean["gain_low"], mean["gain_high"]
    interval = f"{mean['gain']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    if low > 0:
        verdict = f"{one} is better than {other}"
    elif high < 0:
        verdict = f"{one} is worse than {other}"
    else:
        verdict = f"no difference shown between {one} and {other}"
    return f"Top-{k}, mean over {n} species: {verdict} ({interval})."


def paper_in_words(other: str = "single") -> str:
    """The gain in top-1 over "single" or "left_out" that Table 2 shows, from its rows."""
    printed = reported.table(2)
    gain = (printed["multi_species"] - printed[PRINTED[other]]).dropna()
    return (
        f"The paper's Table 2 gives a mean gain of {gain.mean():.1f} points over {len(gain)} "
        f"species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )


def trend_in_words(table: pd.DataFrame) -> str:
    """Do small species gain most? Rank correlation of gain with training annotations, in words."""
    rows = table[(table["species"] != "mean") & table["gain"].notna()]
    if len(rows) < 4:
        return f"With {len(rows)} species, no trend of the gain with their size can be shown."
    rho, p = _rank_correlation(rows["train_annotations"], rows["gain"])
    shown = f"Spearman's rho {rho:+.2f}, p = {p:.2g}, {len(rows)} species"
    if not p < 0.05:
        return f"No trend of the gain with a species' training annotations is shown ({shown})."
    return f"{'Small' if rho < 0 else 'Large'} species gain most ({shown})."


def _rank_correlation(sizes: pd.Series, gains: pd.Series) -> tuple[float, float]:
    """Spearman's rho and its two-sided p, which is exact where so few species make its t bold."""
    rho, p = spearmanr(sizes, gains)
    if len(sizes) <= EXACT:
        ranks = rankdata(gains)

        def products(order: np.ndarray, axis: int) -> np.ndarray:
            return (order * ranks).sum(axis)  # rises with rho

        every = {"permutation_type": "pairings", "n_resamples": np.inf}
        p = permutation_test((rankdata(sizes),), products, vectorized=True, **every).pvalue
    return rho, p


def transfer(left_out: pd.DataFrame, untrained: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Top-1 in percent on species that a network never saw, against the untrained network.

    Columns species, queries, individuals, left_out, untrained, difference, low, high (points, 95 %
    interval over individuals); last the mean over species.
    """
    before = untrained[untrained["species"].isin(left_out["species"])]
    table = paired_difference(left_out, before, 1, seed)
    table = table.rename(columns={"a": "left_out", "b": "untrained"})
    numbers = ["left_out", "untrained", "difference", "low", "high"]
    return table.assign(**100 * table[numbers])


def transfer_in_words(table: pd.DataFrame) -> str:
    """What a table of `transfer` shows, in a sentence that its numbers decide."""
    mean, rows = table.iloc[-1], table[:-1]
    better, worse = (rows["low"] > 0).sum(), (rows["high"] < 0).sum()
    shown = (
        "no carry-over is shown"
        if mean["low"] <= 0 <= mean["high"]
        else (
            "what was learned of other species carries over"
            if mean["low"] > 0
            else "training on other species makes it worse"
        )
    )
    return (
        f"Mean over {len(rows)} unseen species: {mean['left_out']:.1f} against "
        f"{mean['untrained']:.1f} before training: {shown} ({mean['difference']:+.1f} points, 95 % "
        f"interval {mean['low']:+.1f} to {mean['high']:+.1f}); better on {better} of them, worse "
        f"on {worse}, no difference shown on {len(rows) - better - worse}."
    )

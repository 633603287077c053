"""All species' network against another, species by species, beside the paper's Table 2."""

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, rankdata, spearmanr

from miewid_core import reported
from miewid_core.paper_comparison import CARRIED, beside_paper, compare, verdict

EXACT = 7  # species: up to so many, all orders of them are tried (5,040)
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
    `gain` is multi minus single in percentage points, paired over queries. `chance` is a random
    ranking's top-k. `paper_multi` and `paper_single` are Table 2's top-1 (NaN for other k, and for
    species that it lacks).
    """
    return _against(multi, single, "single", untrained, train, k)


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
    return _against(multi, left_out, "left_out", untrained, train, k)


def _against(
    multi: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
) -> pd.DataFrame:
    table = compare({"multi": multi, name: other, "untrained": untrained}, train, k)
    table = table.rename(columns=lambda column: column.replace(f"gain_over_{name}", "gain"))
    columns = {"multi": PRINTED["multi"], name: PRINTED[name]}
    table = beside_paper(table, 2, columns)
    if k != 1:
        table[[f"paper_{column}" for column in columns]] = np.nan
    return table


def increasing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by increasing number of training annotations, as Figures 5 to 8; the mean last."""
    mean = table["species"] == "mean"
    rows = table[~mean].sort_values("train_annotations", kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def in_words(table: pd.DataFrame, k: int) -> str:
    """What a table of this module shows, in a sentence that its numbers decide."""
    name = next((name for name in OTHERS if name in table), "single")
    columns = table.columns.str.replace("^gain(?!_over)", f"gain_over_{name}", regex=True)
    return verdict(
        table.set_axis(columns, axis=1), dict(zip(("multi", name), OTHERS[name], strict=True)), k
    )


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
    """Top-1 in percent on species that a network never saw, against the untrained network."""
    before = untrained[untrained["species"].isin(left_out["species"])]
    return compare({"left_out": left_out, "untrained": before})


def transfer_in_words(table: pd.DataFrame) -> str:
    """What a table of `transfer` shows, in a sentence that its numbers decide."""
    words = {"left_out": "the network that never saw the species", "untrained": "an untrained one"}
    return verdict(table, words, 1, CARRIED)

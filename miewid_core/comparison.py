"""Two models on the same queries, species by species, beside what the paper prints (Table 2)."""

import pandas as pd
from scipy.stats import spearmanr

from miewid_core import reported
from miewid_core.evaluation import overview, paired_difference

COLUMNS = [
    *["species", "queries", "individuals", "train_annotations"],
    *["multi", "multi_low", "multi_high", "single", "single_low", "single_high"],
    *["gain", "gain_low", "gain_high", "untrained", "chance", "paper_multi", "paper_single"],
]


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
    table = pd.concat(_parts(multi, single, untrained, k, seed))
    counts = train["species"].value_counts()
    table["train_annotations"] = counts.reindex(table.index, fill_value=0)
    mean = table.index == "mean"
    averaged = ~mean & table["gain"].notna()
    table.loc[mean, "train_annotations"] = table.loc[averaged, "train_annotations"].sum()
    table = table.sort_values("train_annotations", ascending=False, kind="stable")
    table = pd.concat([table[table.index != "mean"], table[table.index == "mean"]])
    return _with_paper(table.reset_index(), k)[COLUMNS]


def _parts(
    multi: pd.DataFrame, single: pd.DataFrame, untrained: pd.DataFrame, k: int, seed: int
) -> list[pd.DataFrame]:
    """Scores of the species that both models have, with their mean; and of the other species."""
    both, before = (ranks["species"].isin(single["species"]) for ranks in (multi, untrained))
    rankings = {"multi": multi[both], "single": single, "untrained": untrained[before]}
    table = overview(rankings, seed, k).set_index("species")
    gain = paired_difference(multi[both], single, k, seed).set_index("species")
    table[["gain", "gain_low", "gain_high"]] = 100 * gain[["difference", "low", "high"]]
    if both.all():
        return [table]
    rest = overview({"multi": multi[~both], "untrained": untrained[~before]}, seed, k)
    return [table, rest.set_index("species").drop("mean")]


def _with_paper(table: pd.DataFrame, k: int) -> pd.DataFrame:
    printed = reported.table(2).set_index("species")[["multi_species", "single_species"]]
    printed.loc["mean"] = printed.mean()
    known = table["species"].map(reported.species_name)
    found = printed.reindex(known) if k == 1 else printed.reindex([None] * len(table))
    table["paper_multi"] = found["multi_species"].to_numpy()
    table["paper_single"] = found["single_species"].to_numpy()
    return table


def increasing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by increasing number of training annotations, as Figures 5 to 8; the mean last."""
    mean = table["species"] == "mean"
    rows = table[~mean].sort_values("train_annotations", kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def in_words(table: pd.DataFrame, k: int) -> str:
    """What a table of `multi_against_single` shows, in a sentence that its numbers decide."""
    mean = table[table["species"] == "mean"].iloc[0]
    n = int(table["gain"].notna().sum()) - 1
    low, high = mean["gain_low"], mean["gain_high"]
    interval = f"{mean['gain']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    if low > 0:
        verdict = "one network for all species is better than one each"
    elif high < 0:
        verdict = "one network for all species is worse than one each"
    else:
        verdict = "no difference shown between one network for all species and one each"
    return f"Top-{k}, mean over {n} species: {verdict} ({interval})."


def paper_in_words() -> str:
    """The gain in top-1 that the paper's Table 2 shows, recomputed from its rows."""
    printed = reported.table(2)
    gain = printed["multi_species"] - printed["single_species"]
    return (
        f"The paper's Table 2 gives a mean gain of {gain.mean():.1f} points over {len(gain)} "
        f"species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )


def trend_in_words(table: pd.DataFrame) -> str:
    """Do small species gain most? Rank correlation of gain with training annotations, in words."""
    rows = table[(table["species"] != "mean") & table["gain"].notna()]
    if len(rows) < 4:
        return f"With {len(rows)} species, no trend of the gain with their size can be shown."
    test = spearmanr(rows["train_annotations"], rows["gain"])
    shown = f"Spearman's rho {test.statistic:+.2f}, p = {test.pvalue:.2g}, {len(rows)} species"
    if not test.pvalue < 0.05:
        return f"No trend of the gain with a species' training annotations is shown ({shown})."
    who = "Small" if test.statistic < 0 else "Large"
    return f"{who} species gain most ({shown})."

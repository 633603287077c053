"""Two models on the same queries, species by species, and which of them is better, in words."""

from collections.abc import Mapping

import pandas as pd

from miewid_core import reported
from miewid_core.evaluation import overview, paired_difference


def versus(
    rankings: Mapping[str, pd.DataFrame], train: pd.DataFrame, k: int = 1, seed: int = 0
) -> pd.DataFrame:
    """Top-k in percent of two rankings of the same queries, and the first's gain over the second.

    One row per species by decreasing number of its training annotations in `train`, then the mean
    over species. Columns species, queries, individuals, train_annotations; each model's name with
    name_low and name_high (95 % interval); chance, a random ranking's top-k; gain, gain_low and
    gain_high in percentage points, paired over queries, bootstrapped over individuals. Raises
    ValueError when the queries differ.
    """
    first, second = rankings.values()
    table = overview(rankings, seed, k)
    gain = paired_difference(first, second, k, seed).set_index("species")
    for column, name in (("gain", "difference"), ("gain_low", "low"), ("gain_high", "high")):
        table[column] = table["species"].map(100 * gain[name])
    counts = train["species"].value_counts()
    table.insert(3, "train_annotations", table["species"].map(counts).fillna(0).astype(int))
    mean = table["species"] == "mean"
    table.loc[mean, "train_annotations"] = table["train_annotations"].sum()
    rows = table[~mean].sort_values("train_annotations", ascending=False, kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def beside_table3(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `versus` with the paper's Table 3 for the species that it has, and its means."""
    printed = reported.table(3).set_index("species")
    printed.loc["mean"] = printed.mean()
    found = printed.reindex(table["species"].map(reported.species_name)).reset_index(drop=True)
    found.columns = ["paper_megadescriptor", "paper_leave_one_out"]
    return table.join(found)


def beside_costs(
    table: pd.DataFrame, costs: pd.DataFrame, words: Mapping[str, str]
) -> pd.DataFrame:
    """Costs (of `cost.costs`) with each network's name and mean top-1 from a table of `versus`.

    Columns network, name, species (how many the mean is over), top_1, top_1_low, top_1_high
    (percent), then those of the costs.
    """
    mean, networks = table.iloc[-1], costs["network"]
    scores = {
        f"top_1{end}": [mean[f"{name}{end}"] for name in networks] for end in ("", "_low", "_high")
    }
    who = {"network": networks, "name": networks.map(words), "species": len(table) - 1}
    return pd.DataFrame(who | scores).join(costs.drop(columns="network"))


def in_words(table: pd.DataFrame, words: Mapping[str, str], k: int = 1) -> str:
    """Which model of a table of `versus` is better, in a sentence that its numbers decide.

    `words`: the two columns' names in text, the first model's first.
    """
    first, second = words.values()
    mean, rows = table.iloc[-1], table[:-1]
    low, high = mean["gain_low"], mean["gain_high"]
    verdict = f"no difference shown between {first} and {second}"
    if low > 0 or high < 0:
        verdict = f"{first} is {'better' if low > 0 else 'worse'} than {second}"
    return (
        f"Top-{k}, mean over {len(rows)} species: {verdict} ({mean['gain']:+.1f} points, 95 % "
        f"interval {low:+.1f} to {high:+.1f}). For single species it is shown to be better on "
        f"{(rows['gain_low'] > 0).sum()}, worse on {(rows['gain_high'] < 0).sum()}."
    )


def table3_in_words() -> str:
    """The gain over MegaDescriptor that the paper's Table 3 shows, recomputed from its rows."""
    printed = reported.table(3)
    gain = printed["miewid_leave_one_out"] - printed["megadescriptor_l_384"]
    return (
        f"The paper's Table 3 gives a mean gain of {gain.mean():.1f} points over {len(gain)} "
        f"species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )

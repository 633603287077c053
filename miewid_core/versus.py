"""Two models on the same queries, species by species, and which of them is better, in words."""

from collections.abc import Mapping

import pandas as pd

from miewid_core.paper_comparison import beside_paper, compare, paper_in_words, verdict


def versus(
    rankings: Mapping[str, pd.DataFrame], train: pd.DataFrame, k: int = 1, seed: int = 0
) -> pd.DataFrame:
    """A table of `compare` of two rankings, the gain's columns named gain, gain_low, gain_high."""
    _, second = rankings
    table = compare(rankings, train, k)
    return table.rename(columns=lambda column: column.replace(f"gain_over_{second}", "gain"))


def beside_table3(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `versus` with the paper's Table 3 for the species that it has, and its means."""
    columns = {"megadescriptor": "megadescriptor_l_384", "leave_one_out": "miewid_leave_one_out"}
    return beside_paper(table, 3, columns)


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
    """Which model of a table of `versus` is better, in a sentence that its numbers decide."""
    _, second = words
    named = table.rename(columns=lambda column: column.replace("gain", f"gain_over_{second}"))
    return verdict(named, words, k)


def table3_in_words() -> str:
    """The gain over MegaDescriptor that the paper's Table 3 shows, recomputed from its rows."""
    return paper_in_words(3, "miewid_leave_one_out", "megadescriptor_l_384")

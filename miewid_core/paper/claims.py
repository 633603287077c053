"""Does each claim of the paper hold on these data? One row a claim, from a folder of figures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from miewid_core.paper.comparison import printed_by_size, with_interval
from miewid_core.paper.printed import combined_table1, printed_table

UNKNOWN = float("nan")
COLUMNS = ["section", "claim", "paper", "here", "low", "high", "ahead", "behind", "verdict"]
FEW = {  # section: table of differences by number of individuals, claim, printed table and column
    "5.4": ("table4_gain", "training with all others beats training alone", 4, "joint_training"),
    "5.5": ("table5_gain", "fine-tuning beats training alone", 5, "fine_tuning"),
}


def claims(folder: Path) -> pd.DataFrame:
    """The paper's claims beside what notebooks 04, 05 and 07 to 09 saved in `folder`, if they ran.

    Columns section, claim; paper and here, a mean gain in points (of "the gain falls with size"
    Spearman's rho of gain and annotations), with low and high, its 95 % interval; ahead and behind,
    the species for and against it (Holm-corrected); verdict, "holds", "not shown" or "the reverse
    is shown". The paper trains all networks for equal epochs.
    """
    rows = [*_gains(Path(folder)), *_few(Path(folder)), *_database(Path(folder))]
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table["verdict"] = np.select(
        [table["low"] > 0, table["high"] < 0], ["holds", "the reverse is shown"], "not shown"
    )
    return table


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `claims` for a reader."""
    paper = table["paper"].map("{:+.1f}".format).replace("+nan", "")
    counts = table["ahead"].astype(str) + ", " + table["behind"].astype(str)
    shown = {"section": table["section"], "claim, as tested here": table["claim"], "paper": paper}
    shown["here (95 % interval)"] = with_interval(table, "here", "low", "high")
    shown["species for, against"] = counts.where(table["ahead"].notna(), "")
    return pd.DataFrame(shown | {"verdict": table["verdict"]})


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _gains(folder: Path) -> Iterator[list[object]]:
    """Of the comparisons of Table 2."""
    printed = printed_by_size(["multi", "single", "left_out"])[:-1]
    alone = (printed["multi"] - printed["single"]).mean()
    seen = (printed["multi"] - printed["left_out"]).mean()
    one = "one network for all beats one a species"
    table = _read(folder, "table2_multi_single")
    for steps, column in (("steps", "matched"), ("epochs", "single")):
        paper = alone if column == "single" else UNKNOWN
        yield from _gain(table, "5.1", f"{one} (equal {steps})", paper, column)
    yield from _trend(table)
    table = _read(folder, "leave_one_out_transfer")
    claim = "what was learned of others serves an unseen species"
    yield from _gain(table, "5.2", claim, UNKNOWN, "untrained")
    table = _read(folder, "table2_leave_one_out")
    yield from _gain(table, "5.2", "to have seen the species is better", seen, "left_out")


def _gain(
    table: pd.DataFrame, section: str, claim: str, paper: float, other: str
) -> Iterator[list[object]]:
    """A mean gain of a table of `compare`."""
    gain = f"gain_over_{other}"
    if gain not in table:
        return
    mean, species = table.iloc[-1], table[:-1]
    shown = species[species[f"{gain}_p"] < 0.05][gain]
    counts = [int((shown > 0).sum()), int((shown < 0).sum())]
    yield [section, claim, paper, mean[gain], mean[f"{gain}_low"], mean[f"{gain}_high"], *counts]


def _trend(table: pd.DataFrame) -> Iterator[list[object]]:
    """Spearman's rho of gain and size, its sign turned: above zero where small species gain most.

    Its interval is Fisher's with Bonett and Wright's variance (2000).
    """
    rows = table[:-1].dropna(subset="gain_over_matched") if "gain_over_matched" in table else []
    if len(rows) < 5:
        return
    printed = printed_by_size(["multi", "single"])[:-1]
    sizes = printed["species"].map(combined_table1().set_index("species")["annotations"])
    paper = printed.assign(gain=printed["multi"] - printed["single"], size=sizes.astype(float))
    paper = paper.dropna()
    rho = -spearmanr(rows["train_annotations"], rows["gain_over_matched"]).statistic
    spread = 1.96 * np.sqrt((1 + rho**2 / 2) / (len(rows) - 3))
    low, high = np.tanh(np.arctanh(np.clip(rho, -0.999, 0.999)) + np.array([-spread, spread]))
    printed_rho = -spearmanr(paper["size"], paper["gain"]).statistic
    claim = "the gain falls with size (rank correlation, sign turned; equal steps)"
    yield ["5.1", claim, printed_rho, rho, low, high, pd.NA, pd.NA]


def _few(folder: Path) -> Iterator[list[object]]:
    """With few individuals of a species: the mean over the varied species at each number."""
    for section, (name, claim, number, column) in FEW.items():
        printed = printed_table(number)
        paper = (printed[column] - printed["species_only"]).groupby(printed["individuals"]).mean()
        for row in _read(folder, name).itertuples():
            words = f"{claim} ({row.individuals} of {row.species.replace('_', ' ')})"
            there = paper.get(row.individuals, UNKNOWN)
            yield [section, words, there, row.difference, row.low, row.high, pd.NA, pd.NA]


def _database(folder: Path) -> Iterator[list[object]]:
    """How much one annotation of each individual costs; the paper draws it and prints no number."""
    cost = _read(folder, "figure3_cost")
    for row in cost[cost["limit"] == 1].itertuples() if len(cost) else ():
        claim = "more than one annotation an individual in the database is better"
        yield ["5.4", claim, UNKNOWN, row.cost_1, row.cost_1_low, row.cost_1_high, pd.NA, pd.NA]

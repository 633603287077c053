"""Does each claim of the paper hold on these data? One row a claim, from a folder of figures."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from miewid_core.paper.comparison import printed_by_size
from miewid_core.paper.intervals import FEWEST, Estimate, rank_correlation, with_heads
from miewid_core.paper.printed import combined_table1, printed_table

UNKNOWN = float("nan")
NOBODY = [pd.NA, pd.NA]  # where no species are counted
COLUMNS = ["section", "claim", "paper", "here", "low", "high", "ahead", "behind"]
ONE = "one network for all beats one per species"
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
    folder = Path(folder)
    two, unseen = _read(folder, "table2_multi_single"), _read(folder, "table2_leave_one_out")
    claim = "what was learned of others serves an unseen species"
    rows = [
        *_gain(two, "matched", "5.1", f"{ONE} (equal steps)"),
        *_gain(two, "single", "5.1", f"{ONE} (equal epochs)", "single"),
        *_trend(two),
        *_gain(_read(folder, "leave_one_out_transfer"), "untrained", "5.2", claim),
        *_gain(unseen, "left_out", "5.2", "training on the species, too, is better", "left_out"),
        *_few(folder),
        *_database(folder),
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    intervals = table[["here", "low", "high"]].itertuples(index=False)
    words = "holds", "the reverse is shown", "not shown"
    return table.assign(verdict=[Estimate(*row).shown(*words) for row in intervals])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `claims` for a reader."""
    paper = table["paper"].map("{:+.1f}".format).replace("+nan", "")
    table = table.astype({"ahead": "Int64", "behind": "Int64"})
    heads = {"section": "section", "claim": "claim, as tested here", "paper": "paper"}
    heads |= {"here": "here (95 % interval)", "ahead": "species for", "behind": "against"}
    return with_heads(table.assign(paper=paper), heads | {"verdict": "verdict"})


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def _gain(
    table: pd.DataFrame, other: str, section: str, claim: str, printed: str = ""
) -> Iterator[list[object]]:
    """A mean gain of a table of `compare`; `printed`: what the paper's Table 2 has it against."""
    gain, paper = f"gain_over_{other}", UNKNOWN
    if gain not in table:
        return
    if printed:
        theirs = printed_by_size(["multi", "single", "left_out"])[:-1]
        paper = (theirs["multi"] - theirs[printed]).mean()
    shown = table[:-1].loc[table[f"{gain}_p"] < 0.05, gain]
    counts = [int((shown > 0).sum()), int((shown < 0).sum())]
    yield [section, claim, paper, *Estimate.of(table.iloc[-1], gain), *counts]


def _trend(table: pd.DataFrame) -> Iterator[list[object]]:
    """Rank correlation of gain and size, its sign turned: above zero where small ones gain most."""
    rows = table[:-1].dropna(subset="gain_over_matched") if "gain_over_matched" in table else []
    if len(rows) < FEWEST:
        return
    printed = printed_by_size(["multi", "single"])[:-1]
    sizes = printed["species"].map(combined_table1().set_index("species")["annotations"])
    paper = printed.assign(size=sizes.astype(float)).dropna()
    theirs = rank_correlation(-paper["size"], paper["multi"] - paper["single"])
    here = rank_correlation(-rows["train_annotations"], rows["gain_over_matched"])
    claim = (
        "the gain falls with size (rank correlation, sign turned; equal steps, the paper's epochs)"
    )
    yield ["5.1", claim, theirs.value, *here, *NOBODY]


def _few(folder: Path) -> Iterator[list[object]]:
    """With few individuals of a species: the mean over the varied species at each number."""
    for section, (name, claim, number, column) in FEW.items():
        printed = printed_table(number)
        paper = (printed[column] - printed["species_only"]).groupby(printed["individuals"]).mean()
        for row in _read(folder, name).itertuples():
            words = f"{claim} ({row.individuals} of {row.species.replace('_', ' ')})"
            there = paper.get(row.individuals, UNKNOWN)
            yield [section, words, there, row.difference, row.low, row.high, *NOBODY]


def _database(folder: Path) -> Iterator[list[object]]:
    """How much one annotation of each individual costs; the paper draws it and prints no number."""
    for _, row in _read(folder, "figure3_cost").iterrows():
        if row["limit"] == 1:
            claim = "more than one annotation per individual in the database is better"
            yield ["5.4", claim, UNKNOWN, *Estimate.of(row, "cost_1"), *NOBODY]

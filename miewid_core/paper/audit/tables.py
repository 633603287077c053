"""Behind the audit's verdicts: the printed cells that a claim is about, side by side, and drawn."""

import itertools

import numpy as np
import pandas as pd

from miewid_core import figures
from miewid_core.paper.audit import recount
from miewid_core.paper.audit.claims import SMALL, stated
from miewid_core.paper.audit.recount import ACCURACIES
from miewid_core.paper.printed import PRINTED, combined_table1, printed_table

GAINS = {"gain": "gain_mean", "mega_gain": "mega_gain"}  # and the claims that state their means
OVER = {2: "over single-species", 3: "over MegaDescriptor"}
# Individuals of a species' public set, each once: in the repository that nyala's photos come from,
# and as wildlife-datasets reports HyenaID2022 and LeopardID2022.
PUBLIC = {"nyala": 237, "hyena": 256, "leopard": 430}
NAMED = 5  # species of the largest gains
WORDS = {  # columns that a reader is shown under other names
    "multi_species": "multi-species",
    "single_species": "single-species",
    "leave_one_out": "leave-one-out",
    "miewid_leave_one_out": "MiewID in Table 3",
    "table4_none": "Table 4, none",
    "table5_none": "Table 5, none",
    "species_only_200": "Table 4, 200 alone",
    "joint_200": "Table 4, 200 joint",
    "table1": "Table 1",
    "public": "public set",
    "queries_two": "queries that fit the first two",
}


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of this module with species and columns in words, and whole numbers without ".0"."""
    table = table.convert_dtypes()
    if "species" in table and not pd.api.types.is_numeric_dtype(table["species"]):
        table = table.assign(species=table["species"].map(figures.spelt))
    return table.rename(columns=lambda name: WORDS.get(name, figures.spelt(name)))


def totals() -> pd.DataFrame:
    """Annotations and individuals: what the text states and what Table 1 adds up to.

    `largest_sets`: only the largest image set of each species, as if it held the others.
    """
    sets = printed_table(1)[["species", "annotations", "individuals"]]
    sums = sets.drop(columns="species").sum().rename("all_sets").to_frame()
    sums["largest_sets"] = sets.groupby("species").max().sum()
    sums.insert(0, "text", [PRINTED[name] for name in sums.index])
    return sums.rename_axis("of").reset_index()


def groupings() -> pd.DataFrame:
    """Species by size for each way to group Table 1's image sets, and what the text states.

    `otherwise`: what isn't grouped as ours (`recount.DOUBTS`). The unreadable cell is left out.
    """
    names = ["above_10000", *(f"below_{bound}" for bound in SMALL)]
    said = [stated(f"{name}_species") for name in names]
    rows = [["stated in the text", stated("species_total"), *said]]
    guesses = ["chimpanzee", "pilot whale", "spotted dolphin", "horse"]
    for chosen, by in zip(recount.CHOICES, recount.groupings(), strict=True):
        own = recount.column("annotations", 0).groupby(by).sum()
        words = ", ".join(itertools.compress(guesses, chosen)) or "none: ours"
        counts = [(own < bound).sum() for bound in SMALL]
        rows.append([words, len(own), (own > 10_000).sum(), *counts])
    table = pd.DataFrame(rows, columns=["otherwise", "species", *names])
    return table.astype(dict.fromkeys(["species", *names], int))


def lacking() -> pd.DataFrame:
    """The species of Table 1 that Table 2 lacks."""
    own = combined_table1()
    return own[~own["species"].isin(printed_table(2)["species"])].reset_index(drop=True)


def averages() -> pd.DataFrame:
    """Averages of each gain in top-1, also weighted by Table 1, beside the one in the text."""
    found, rows = recount.accuracy(), []
    by = {name: recount.size_range(found.index, name)[0] for name in ("annotations", "individuals")}
    for name, claim in {**GAINS, "unseen_gain": "mega_gain"}.items():
        own = found[name].dropna()
        weighted = [np.average(own, weights=size[own.index]) for size in by.values()]
        rows.append((name, stated(claim), own.mean(), own.median(), *weighted))
    names = ["gain", "text", "mean", "median", *(f"weighted_by_{name}" for name in by)]
    return pd.DataFrame(rows, columns=names).round(1)


def other_unseen() -> pd.DataFrame:
    """Species whose "our model" in Table 3 isn't Table 2's leave-one-out, with Table 2's row."""
    found = recount.accuracy().dropna().reset_index()
    names = ["species", "miewid_leave_one_out", "leave_one_out", "multi_species", "single_species"]
    return found.loc[found["miewid_leave_one_out"] != found["leave_one_out"], names]


def no_whole_queries() -> pd.DataFrame:
    """Species of Table 2 whose three accuracies no possible number of queries gives."""
    found = recount.queries().reset_index()
    return found[found["queries_all"].isna()].drop(columns="queries_all")


def zero_cells() -> pd.DataFrame:
    """Accuracies of Table 2 printed as 0.0: species, column, the row's others, means.

    `queries`: the fewest that the row's accuracies can be shares of.
    """
    own = recount.accuracy()[ACCURACIES]
    zeros = own.stack()[lambda cells: cells == 0]
    table = zeros.index.to_frame(index=False, name=["species", "column"])
    others = [" and ".join(map(str, own.loc[name].drop(column))) for name, column in zeros.index]
    table["queries"] = table["species"].map(recount.queries()["queries_all"])
    means = {"mean": own.mean(), "mean_without": own.mask(own == 0).mean()}
    means = {name: table["column"].map(values) for name, values in means.items()}
    return table.assign(others=others, **means)


def sides() -> pd.DataFrame:
    """Individuals in Table 1 beside those of the species' public set, where sides count once."""
    own = combined_table1().set_index("species")["individuals"].astype(int)
    table = pd.DataFrame({"table1": own[[*PUBLIC]], "public": PUBLIC})
    table = table.rename_axis("species").reset_index()
    return table.assign(per_animal=(table["table1"] / table["public"]).round(2))


def ends() -> pd.DataFrame:
    """Tables 4 and 5 for 0 and for 200 individuals beside Table 2, which has all individuals."""
    rows, two = recount.steps().set_index("species"), recount.accuracy()
    none, most = rows[rows["individuals"] == 0], rows[rows["individuals"] == 200]
    table = two[["leave_one_out", "single_species", "multi_species"]].loc[none.index]
    table.insert(1, "table4_none", none["joint_training"])
    table.insert(2, "table5_none", none["fine_tuning"])
    table.insert(4, "species_only_200", most["species_only"])
    table["joint_200"] = most["joint_training"]
    return table.reset_index()


def exceptions() -> pd.DataFrame:
    """Rows of Tables 4 and 5 where fine-tuning is above joint training, or below species-only."""
    rows = recount.steps().query("individuals > 0")
    names = ["species", "individuals", "species_only", "fine_tuning", "joint_training"]
    return rows.query("fine_tuning >= joint_training or lead <= 0")[names]


def gains() -> pd.DataFrame:
    """Gain of each species in Tables 2 and 3 by size: table, place, species, gain, and both means.

    `recomputed` is the mean of the table's gains, `stated` the text's.
    """
    parts = []
    for number, (name, claim) in enumerate(GAINS.items(), 2):
        own = recount.accuracy()[name].dropna().sort_values(kind="stable").rename("gain")
        own = own.reset_index().assign(place=range(1, len(own) + 1), recomputed=own.mean())
        own.insert(0, "table", number)
        parts.append(own.assign(stated=stated(claim)))
    return pd.concat(parts, ignore_index=True)


@figures.styled()
def gains_figure(table: pd.DataFrame, title: str) -> figures.Figure:
    """Gain of each species, of Table 2 and of Table 3, and their means (`table`: of `gains`)."""
    drawn = figures.Figure(title, 2.7, figures.PAGE)
    parts = zip(drawn.subplots(1, 2, sharey=True), table.groupby("table"), strict=True)
    for axes, (number, own) in parts:
        recomputed, text = own[["recomputed", "stated"]].iloc[0]
        axes.axhline(0, color="black", linewidth=0.8)
        axes.plot(own["place"], own["gain"], "o", color=figures.BLUE, label="species, as printed")
        largest = own[: -NAMED - 1 : -1]
        names = largest["species"].map(figures.spelt) + largest["gain"].map(" {:.1f}".format)
        axes.text(
            0.03, 0.97, "\n".join(["largest gains:", *names]), va="top", transform=axes.transAxes
        )
        axes.axhline(recomputed, color=figures.BLUE, label="mean of the printed species")
        axes.axhline(text, color=figures.ORANGE, linestyle="--", label="mean that the text states")
        words = f"Table {number}, {OVER[number]}: mean {recomputed:.1f}, text {text:.1f}"
        axes.set(title=words, xlabel=f"{len(own)} species by increasing gain")
        axes.label_outer()
    drawn.axes[0].set_ylabel("gain in top-1 accuracy (points)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return drawn

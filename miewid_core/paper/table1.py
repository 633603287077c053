"""How many annotations, individuals and encounters a catalog has (section 3, Table 1)."""

import numpy as np
import pandas as pd

from miewid_core.figures import GREY, THIN, VERMILION, Figure, styled
from miewid_core.paper.printed import PRINTED, combined_table1, species_name


@styled()
def long_tail_figure(tail: pd.DataFrame, title: str) -> Figure:
    """Share of the annotations that the most photographed individuals have, a tenth of them marked.

    `tail`: of `tail_rows`. A thick line for all, a thin grey one for each species.
    """
    drawn = Figure(title, 2.9)
    axes = drawn.subplots()
    for number, (_, own) in enumerate(tail.groupby("species")):
        axes.plot(*_most_first(own), label="_" * (number > 0) + "one species", **THIN)
    label = f"all {tail['individuals'].sum():,} individuals"
    axes.plot(*_most_first(tail), label=label, linewidth=2, color="black")
    axes.plot([0, 100], [0, 100], ":", label="if all had as many", color=GREY)
    axes.plot(10, share := top_share(tail), "o", color=VERMILION)
    line = {"arrowstyle": "-", "linewidth": 0.6}
    axes.annotate(f"a tenth has {share:.0f} %", (10, share), (38, 10), arrowprops=line)
    axes.set_xlabel("share of the individuals, most annotations first (%)")
    axes.set_ylabel("share of the annotations (%)")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def _most_first(tail: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Shares in percent of the individuals, those with most first, and of their annotations."""
    each = np.sort(tail["per_individual"].repeat(tail["individuals"]))[::-1]
    return np.linspace(0, 100, len(each) + 1), 100 * np.append(0, each.cumsum()) / each.sum()


def summary(annotations: pd.DataFrame) -> pd.DataFrame:
    """Table 1 for a catalog: one row per species by decreasing annotations, then "total".

    Columns species, annotations, individuals, encounters (one without a name counts), mean_ and
    median_per_individual (annotations), share_with_one (of the individuals, in [0, 1]).
    """
    rows = [_counts(species, own) for species, own in annotations.groupby("species")]
    table = pd.DataFrame(rows).sort_values("annotations", ascending=False, kind="stable")
    total = _counts("total", annotations)
    # one encounter of two species is one of each, as everywhere else
    total["encounters"] = table["encounters"].sum()
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True)


def _counts(species: str, annotations: pd.DataFrame) -> dict[str, object]:
    each = annotations["individual"].value_counts()
    known = annotations.loc[annotations["encounter"] != "", "encounter"]
    return {
        "species": species,
        "annotations": len(annotations),
        "individuals": len(each),
        "encounters": known.nunique() + len(annotations) - len(known),
        "mean_per_individual": each.mean(),
        "median_per_individual": each.median(),
        "share_with_one": (each == 1).mean(),
    }


def beside_paper(ours: pd.DataFrame) -> pd.DataFrame:
    """Our Table 1 (of `summary`) and the paper's, of the species that both have.

    A row `of` "here" and one of "the paper" for each species, n_species 1, and last for "all
    species": our total and what the paper's text states. Columns n_species, annotations,
    individuals, and annotations per individual as mean_ and median_per_individual.
    """
    total = ours["species"] == "total"
    here = ours.assign(of="here", n_species=total.map({True: (~total).sum(), False: 1}))
    paper = combined_table1().assign(n_species=1)
    paper["mean_per_individual"] = paper["annotations"] / paper["individuals"]
    paper = pd.concat([paper, pd.DataFrame([{"species": "total", **PRINTED}])])
    paper = paper.assign(of="the paper").set_index("species")
    names = here["species"].map(species_name)
    here, names = here[names.isin(paper.index)], names[names.isin(paper.index)]
    theirs = paper.loc[names].set_axis(here.index).assign(species=here["species"])
    both = pd.concat([here, theirs]).sort_index(kind="stable").replace("total", "all species")
    return both[["species", "of", *PRINTED]].reset_index(drop=True)


def tail_rows(annotations: pd.DataFrame) -> pd.DataFrame:
    """How many individuals have how many annotations, the data of the long-tail figure.

    Columns species, per_individual, individuals that have so many, annotations of all of these.
    """
    each = annotations.groupby(["species", "individual"]).size().rename("per_individual")
    tail = each.reset_index().groupby(["species", "per_individual"]).size()
    tail = tail.rename("individuals").reset_index()
    return tail.assign(annotations=tail["per_individual"] * tail["individuals"])


def top_share(tail: pd.DataFrame) -> float:
    """Share in percent of the annotations that the tenth of the individuals with most has."""
    each = tail["per_individual"].repeat(tail["individuals"]).sort_values()
    return 100 * each[-max(1, round(len(each) / 10)) :].sum() / each.sum()


def in_words(table: pd.DataFrame, tail: pd.DataFrame) -> str:
    """How many annotations an individual has, here and in the paper, and how long the tail is."""
    total, paper = table.iloc[-1], PRINTED
    return (
        f"An individual has {total['median_per_individual']:g} annotations in the median and "
        f"{total['mean_per_individual']:.2f} on average (the paper: "
        f"{paper['median_per_individual']:g} and {paper['mean_per_individual']:.2f}). The tenth of "
        f"the individuals with most has {top_share(tail):.0f} % of the annotations."
    )


def relatives(annotations: pd.DataFrame) -> pd.DataFrame:
    """Of each species its `family`, and the other species of it, its `relatives` (comma-separated).

    Both are "" where the catalog gives no family: then nobody knows how unseen a species is.
    """
    table = annotations.groupby("species", as_index=False)["family"].max()  # "" if all are
    pairs = table.merge(table[table["family"] != ""], on="family", suffixes=("", "_other"))
    pairs = pairs[pairs["species"] != pairs["species_other"]]
    others = pairs.groupby("species")["species_other"].agg(", ".join)
    return table.assign(relatives=table["species"].map(others).fillna(""))

"""A split counted, and each rule of section 3.3 by code that shares nothing with it."""

import numpy as np
import pandas as pd

from miewid_core import figures, splits
from miewid_core.figures import BLUE, ORANGE, PAGE, YELLOW, Figure, styled
from miewid_core.splits import FLOOR, LEAST_IN_TEST, LEAST_IN_TRAIN, MOST_IN_TEST

PARTS = {  # column of `summary`: words, colour from dark to light, hatch
    "train_annotations": ("training", BLUE, ""),
    "shared_annotations": ("test, individual also in training", ORANGE, ""),
    "new_annotations": ("test, new individual", YELLOW, "/////"),
    "unused_annotations": ("unused", "white", ""),
}


def summary(annotations: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Per species, the annotations and individuals of each part and of both test halves."""
    tables = {part: splits.rows(annotations, split, part) for part in ("train", "test", "unused")}
    known = tables["test"]["individual"].isin(tables["train"]["individual"])
    tables |= {"shared": tables["test"][known], "new": tables["test"][~known]}
    counts = [_counts(annotations), *(_counts(of, f"{part}_") for part, of in tables.items())]
    table = pd.concat(counts, axis=1).fillna(0).astype(int)
    return table.assign(train_share=table["annotations"].map(splits.train_share)).reset_index()


def _counts(annotations: pd.DataFrame, prefix: str = "") -> pd.DataFrame:
    individuals = annotations.groupby("species")["individual"]
    return individuals.agg(annotations="size", individuals="nunique").add_prefix(prefix)


def headline(table: pd.DataFrame) -> str:
    """Which share of all annotations trains, tests, or is unused (`table`: of `summary`)."""
    parts = ("train", "test", "unused")
    shares = (100 * table[f"{part}_annotations"].sum() for part in parts)
    train, test, unused = (share / table["annotations"].sum() for share in shares)
    return f"{train:.0f} % of the annotations train, {test:.0f} % test, {unused:.0f} % are unused"


def in_words(held: pd.DataFrame, twins: pd.DataFrame) -> str:
    """How many rules hold, and how many test annotations have a near-duplicate in training.

    `held`: of `check`; `twins`: of `leakage.train_duplicates`.
    """
    total = twins.iloc[-1]
    return (
        f"The split keeps {held['holds'].sum()} of {len(held)} rules of section 3.3, with "
        f"near-duplicates in training for {total['near_duplicates']} of {total['photos']:,} test "
        "annotations."
    )


@styled()
def split_figure(table: pd.DataFrame, title: str) -> Figure:
    """Where the annotations of each species went, in percent (`table`: of `summary`)."""
    drawn = Figure(title, 1.3 + 0.17 * len(table), PAGE)
    axes = drawn.subplots()
    places, total = np.arange(len(table)), table["annotations"]
    left = np.zeros(len(table))
    for column, (words, colour, hatch) in PARTS.items():
        share = (100 * table[column] / total).to_numpy()
        look = {"color": colour, "hatch": hatch, "edgecolor": "#333333", "linewidth": 0.5}
        axes.barh(places, share, 0.72, left, label=words, **look)
        left += share
    figures.label_rows(axes, places, table["species"])
    figures.number_columns(axes, places, table[["annotations", "individuals"]])
    axes.set(xlim=(0, 100), xlabel="share of the annotations (%)")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def check(annotations: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """One row per rule: rule, counted (how many things it was tried on), breaches, holds.

    `annotations` are catalog rows, `split` what `splits.split` returned for them.
    """
    rows = annotations[["annotation_id", "species", "individual", "encounter"]].merge(
        split[["annotation_id", "part"]], on="annotation_id", how="outer", indicator=True
    )
    train, test = (rows[rows["part"] == part] for part in ("train", "test"))
    n_train, n_test = train["individual"].value_counts(), test["individual"].value_counts()
    seen, visit = test[test["encounter"] != ""], ["species", "encounter"]
    visits = [pd.MultiIndex.from_frame(of[visit].drop_duplicates()) for of in (seen, train)]
    tested = test.drop_duplicates("individual")
    half = tested["individual"].isin(n_train.index).map({True: "shared", False: "new"})
    halves = pd.crosstab(tested["species"], half).reindex(columns=["shared", "new"], fill_value=0)
    scarce = halves["new"].le(FLOOR) & halves["shared"].lt(halves["new"])
    rules = {
        "each annotation is in one part": rows["annotation_id"].duplicated()
        | (rows["_merge"] != "both"),
        f"training individuals have at least {LEAST_IN_TRAIN} annotations": n_train
        < LEAST_IN_TRAIN,
        f"test individuals have {LEAST_IN_TEST} to {MOST_IN_TEST} annotations": ~n_test.between(
            LEAST_IN_TEST, MOST_IN_TEST
        ),
        "an individual is tested once per encounter": seen.duplicated(["individual", "encounter"]),
        "no encounter is on both sides": visits[0].isin(visits[1]),
        f"as many test individuals of a species are new as known, to within 1, or up to {FLOOR}": (
            (halves["new"] - halves["shared"]).abs().gt(1) & ~scarce
        ),
        "a species' test has at least two individuals": halves.sum(axis=1) < 2,
    }
    counts = [(rule, len(bad), int(bad.sum())) for rule, bad in rules.items()]
    table = pd.DataFrame(counts, columns=["rule", "counted", "breaches"])
    return table.assign(holds=table["breaches"] == 0)

"""Each rule of section 3.3 counted on a split, by code that shares nothing with what made it."""

import numpy as np
import pandas as pd

from miewid_core.figures import (
    BLUE,
    ORANGE,
    PAGE,
    YELLOW,
    Figure,
    label_rows,
    number_columns,
    styled,
)
from miewid_core.splits import FLOOR, LEAST_IN_TEST, LEAST_IN_TRAIN, MOST_IN_TEST

PARTS = {  # column of `splits.summary`: words, colour from dark to light, hatch
    "train_annotations": ("training", BLUE, ""),
    "shared_annotations": ("test, individual also in training", ORANGE, ""),
    "new_annotations": ("test, new individual", YELLOW, "/////"),
    "unused_annotations": ("unused", "white", ""),
}


@styled()
def split_figure(table: pd.DataFrame, title: str) -> Figure:
    """Where the annotations of each species went, in percent (`table`: of `splits.summary`)."""
    drawn = Figure(title, 1.3 + 0.17 * len(table), PAGE)
    axes = drawn.subplots()
    places, total = np.arange(len(table)), table["annotations"]
    left = np.zeros(len(table))
    for column, (words, colour, hatch) in PARTS.items():
        share = (100 * table[column] / total).to_numpy()
        look = {"color": colour, "hatch": hatch, "edgecolor": "#333333", "linewidth": 0.5}
        axes.barh(places, share, 0.72, left, label=words, **look)
        left += share
    label_rows(axes, places, table["species"])
    number_columns(axes, places, {"annotations": total, "individuals": table["individuals"]})
    axes.set(xlim=(0, 100), xlabel="share of the annotations (%)")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def check(photos: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """One row per rule: rule, counted (how many things it was tried on), breaches, holds.

    `photos` are catalog rows, `split` what `splits.split` or `splits.load` returned for them.
    """
    rows = photos[["annotation_id", "species", "individual", "encounter"]].merge(
        split[["annotation_id", "part"]], on="annotation_id", how="outer", indicator=True
    )
    train, test = (rows[rows["part"] == part] for part in ("train", "test"))
    n_train, n_test = train["individual"].value_counts(), test["individual"].value_counts()
    seen = test[test["encounter"] != ""]
    halves = _halves(n_train, test)
    scarce = halves["new"].le(FLOOR) & halves["shared"].lt(halves["new"])
    uneven = (halves["new"] - halves["shared"]).abs().gt(1) & ~scarce
    twice = rows["annotation_id"].duplicated() | (rows["_merge"] != "both")
    visits = seen.duplicated(["individual", "encounter"])
    in_range = f"test individuals have {LEAST_IN_TEST} to {MOST_IN_TEST} annotations"
    half = "half of a species' test individuals are new"
    rules = {
        "each annotation is in one part": twice,
        f"training individuals have at least {LEAST_IN_TRAIN} annotations": n_train
        < LEAST_IN_TRAIN,
        in_range: ~n_test.between(LEAST_IN_TEST, MOST_IN_TEST),
        "an individual is tested once per encounter": visits,
        "no encounter is on both sides": _on_both_sides(train, seen),
        f"{half} (up to {FLOOR} where few can be shared)": uneven,
        "a species' test has at least two individuals": halves.sum(axis=1) < 2,
    }
    table = pd.DataFrame(
        [(rule, len(bad), int(bad.sum())) for rule, bad in rules.items()],
        columns=["rule", "counted", "breaches"],
    )
    return table.assign(holds=table["breaches"] == 0)


def _halves(n_train: pd.Series, test: pd.DataFrame) -> pd.DataFrame:
    """Per species, the test individuals that are also in training, and those that are new."""
    tested = test.drop_duplicates("individual")
    known = tested["individual"].isin(n_train.index)
    sides = pd.crosstab(tested["species"], known.map({True: "shared", False: "new"}))
    return sides.reindex(columns=["shared", "new"], fill_value=0)


def _on_both_sides(train: pd.DataFrame, tested: pd.DataFrame) -> pd.Series:
    """For each known encounter of the test set, whether a training annotation is of it."""
    pair = ["species", "encounter"]
    known = tested[pair].drop_duplicates()
    trained = train[pair].drop_duplicates()
    return known.merge(trained, on=pair, how="left", indicator=True)["_merge"] == "both"

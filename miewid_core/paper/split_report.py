"""A split saved and counted, and each rule of section 3.3 by code that shares nothing with it."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core import splits
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
from miewid_core.files import digest, replacing
from miewid_core.splits import FLOOR, LEAST_IN_TEST, LEAST_IN_TRAIN, MOST_IN_TEST

PARTS = {  # column of `summary`: words, colour from dark to light, hatch
    "train_annotations": ("training", BLUE, ""),
    "shared_annotations": ("test, individual also in training", ORANGE, ""),
    "new_annotations": ("test, new individual", YELLOW, "/////"),
    "unused_annotations": ("unused", "white", ""),
}


def _csv(split: pd.DataFrame) -> bytes:
    return split.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL).encode()


def fingerprint(split: pd.DataFrame) -> str:
    """SHA-256 of a split's content, as 64 hex digits."""
    return digest(_csv(split))


def save(split: pd.DataFrame, path: Path | str) -> str:
    """Write a split as CSV, its fingerprint in a first comment line; return the fingerprint."""
    content = _csv(split)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(f"# sha256={digest(content)}\n".encode() + content)
    return digest(content)


def load(path: Path | str) -> pd.DataFrame:
    """Read a split that `save` wrote; ValueError when there is none or it has changed since."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file; save a split there first")
    stated, _, content = Path(path).read_bytes().partition(b"\n")
    if stated != f"# sha256={digest(content)}".encode():
        raise ValueError(
            f"{path} was changed: its first line is not the hash of the rest. Restore it, or split "
            "the annotations anew and save that."
        )
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


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
    label_rows(axes, places, table["species"])
    number_columns(axes, places, {"annotations": total, "individuals": table["individuals"]})
    axes.set(xlim=(0, 100), xlabel="share of the annotations (%)")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def check(annotations: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """One row per rule: rule, counted (how many things it was tried on), breaches, holds.

    `annotations` are catalog rows, `split` what `splits.split` or `load` returned for them.
    """
    rows = annotations[["annotation_id", "species", "individual", "encounter"]].merge(
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

"""The rows that hyperparameters are tuned on: the final training rows, split once more (3.3)."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from miewid_core import splits


class Parts(NamedTuple):
    """Training rows split once more: what the trials learn from, and what they are scored on."""

    train: pd.DataFrame
    validation: pd.DataFrame


def parts_of(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> Parts:
    """Split the final training rows by section 3.3 once more, with another seed than the final one.

    Raises ValueError where `train` has an annotation or an encounter of the final test rows, and
    where too few animals are left to learn from or to score.
    """
    touched = shared_with_test(Parts(train, train[:0]), test).iloc[0]
    if touched[["annotations_in_test", "encounters_in_test"]].any():
        raise ValueError(
            f"{touched['annotations_in_test']} annotations and {touched['encounters_in_test']} "
            "encounters are in the final test set too: pass the training rows of one split"
        )
    drawn = splits.split(train, seed)
    parts = Parts(*(splits.rows(train, drawn, part) for part in ("train", "test")))
    if parts.train.empty or parts.validation.empty:
        raise ValueError(
            f"{len(train)} training annotations are too few to split once more: "
            f"{len(parts.train)} would train, {len(parts.validation)} validate"
        )
    return parts


def search_and_check(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, Parts]:
    """Parts to "search" on, by seed + 1, and to "check" the outcome on, by seed + 2.

    They score no individual in common: half of each species' are drawn for the search, of which the
    best trial is partly the luckiest. Raises ValueError as `parts_of`, and where none is left.
    """
    search, check = (parts_of(train, test, seed + further) for further in (1, 2))
    drawn = _half(search.validation, seed + 1)
    scored = search.validation["individual"].isin(drawn)
    free = ~check.validation["individual"].isin(drawn)
    if not free.any():
        raise ValueError(
            f"{len(drawn)} individuals to search on leave none to check the outcome on: it takes "
            "a catalog of more individuals"
        )
    return {
        "search": Parts(search.train, search.validation[scored].reset_index(drop=True)),
        "check": Parts(check.train, check.validation[free].reset_index(drop=True)),
    }


def _half(rows: pd.DataFrame, seed: int) -> pd.Series:
    """A random half of each species' individuals; of an odd number the larger half."""
    each = rows.drop_duplicates("individual").sort_values("individual")
    each = each.sample(frac=1, random_state=np.random.default_rng(seed)).groupby("species")
    return each["individual"].apply(lambda own: own.head(-(-len(own) // 2)))


def shared_with_test(parts: Parts, test: pd.DataFrame) -> pd.DataFrame:
    """What each part has in common with the final test rows, one row per part.

    Columns part, annotations, encounters, individuals, and how many of each are in the test set.
    Individuals may be: half of those tested are also in training, with other photos (3.3).
    """
    table = []
    for part, rows in parts._asdict().items():
        mine, theirs = _sets(rows), _sets(test)
        counts = {name: len(own) for name, own in mine.items()}
        common = {f"{name}_in_test": len(own & theirs[name]) for name, own in mine.items()}
        table.append({"part": part} | counts | common)
    return pd.DataFrame(table)


def _sets(rows: pd.DataFrame) -> dict[str, set]:
    """Annotations, encounters (those that have a name), and individuals."""
    met = rows[rows["encounter"] != ""]
    return {
        "annotations": set(rows["annotation_id"]),
        "encounters": set(zip(met["species"], met["encounter"], strict=True)),
        "individuals": set(zip(rows["species"], rows["individual"], strict=True)),
    }

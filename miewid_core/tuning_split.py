"""The rows that hyperparameters are tuned on: the final training rows, split once more (3.3)."""

from typing import NamedTuple

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


def unsearched(ranks: pd.DataFrame, searched: Parts) -> pd.DataFrame:
    """Those of `ranks` whose individual no trial was scored on: there the best had no luck."""
    scored = ranks["individual"].isin(searched.validation["individual"])
    return ranks[~scored].reset_index(drop=True)


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

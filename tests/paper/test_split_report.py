"""A split in numbers, and by its rules: each breach is counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core import splits
from miewid_core.paper import split_report

PARTS = "train", "test", "unused"


def catalog(sizes, seed, known, frames):
    """Species of so many individuals of 1 to 40 annotations, in encounters of up to `frames`.

    A share `known` of the encounters has an id.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for species, individuals in sizes.items():
        for name in range(individuals):
            count = min(40, rng.geometric(0.15))
            for frame in range(count):
                rows.append((species, f"{species}/{name}", f"{name}.{frame // frames}"))
    annotations = pd.DataFrame(rows, columns=["species", "individual", "encounter"])
    unknown = rng.random(len(annotations)) >= known
    annotations["encounter"] = annotations["encounter"].mask(unknown, "")
    ids = [f"{i:05}" for i in rng.permutation(len(annotations))]
    return annotations.assign(annotation_id=ids, name=annotations["individual"])


def medium():
    return catalog({"few": 12, "some": 150, "many": 300}, 0, 0.6, 3)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 25), min_size=1),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.6, 1.0]),
    st.integers(1, 4),
)
def test_all_rules_hold_on_any_split(sizes, seed, known, frames):
    annotations = catalog(sizes, seed, known, frames)
    table = split_report.check(annotations, splits.split(annotations))
    assert table["holds"].all(), table[~table["holds"]]


def broken(annotations, split):
    """A split of `medium` with one rule broken, by the first words of the rule."""
    in_test = split["part"] == "test"
    in_train = split["part"] == "train"
    single = split.groupby("individual")["part"].transform("size") == 1
    visited = in_test & (split["encounter"] != "")
    encounter = split.loc[visited, "encounter"].iloc[0]
    species = split.loc[visited, "species"].iloc[0]
    shared = split["reason"] == "shared individual"
    return {
        "each annotation": split.iloc[1:],
        "training individuals": split.assign(part=split["part"].mask(single, "train")),
        "test individuals": split.assign(part=split["part"].mask(single, "test")),
        "no encounter": split.assign(
            part=split["part"].mask(
                ~in_test & (split["encounter"] == encounter) & (split["species"] == species),
                "train",
            )
        ),
        "as many test": split.assign(part=split["part"].mask(shared & in_train, "unused")),
        "a species' test": split.assign(
            part=split["part"].mask(
                in_test & (split["individual"] != split.loc[in_test, "individual"].iloc[0]),
                "unused",
            )
        ),
        "an individual is tested once": split.assign(part="test"),
    }


@pytest.mark.parametrize("rule", list(broken(medium(), splits.split(medium()))))
def test_each_breach_is_counted(rule):
    annotations = medium()
    changed = broken(annotations, splits.split(annotations))[rule]
    table = split_report.check(annotations, changed)
    row = table[table["rule"].str.startswith(rule)].iloc[0]
    assert 0 < row["breaches"] <= row["counted"]
    assert not row["holds"]


def test_counts_what_it_looked_at():
    annotations = medium()
    split = splits.split(annotations)
    table = split_report.check(annotations, split).set_index("rule")
    counted = table["counted"]
    assert counted["each annotation is in one part"] == len(annotations)
    trained = split.loc[split["part"] == "train", "individual"].nunique()
    assert counted["training individuals have at least 3 annotations"] == trained


def test_summary_counts_as_plain_loops_do():
    annotations = pd.concat([medium(), catalog({"lone": 1}, 0, 1.0, 1)], ignore_index=True)
    annotations["annotation_id"] = annotations.index.astype(str)
    split = splits.split(annotations)
    table = split_report.summary(annotations, split).set_index("species")
    for species, own in split.groupby("species"):
        people = {part: set(own.loc[own["part"] == part, "individual"]) for part in PARTS}
        row = table.loc[species]
        assert row["annotations"] == len(own)
        assert row["individuals"] == len(set.union(*people.values()))
        for part in PARTS:
            assert row[f"{part}_annotations"] == (own["part"] == part).sum()
            assert row[f"{part}_individuals"] == len(people[part])
        assert row["shared_individuals"] == len(people["test"] & people["train"])
        assert row["new_individuals"] == len(people["test"] - people["train"])
        assert row["train_share"] == splits.train_share(len(own))


def test_words_say_what_the_tables_hold():
    columns = ["species", "annotations", "train_annotations", "test_annotations"]
    table = pd.DataFrame([["big_ant", 300, 150, 100], ["bee", 100, 40, 30]], columns=columns)
    table["unused_annotations"] = [50, 30]
    assert split_report.headline(table) == (
        "48 % of the annotations train, 32 % test, 20 % are unused"
    )
    twins = pd.DataFrame({"photos": [9, 1300], "near_duplicates": [1, 1]})
    words = split_report.in_words(pd.DataFrame({"holds": [True, False]}), twins)
    assert "1 of 2 rules" in words
    assert "1 of 1,300" in words

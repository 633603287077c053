"""The table of rules: all hold on what `split` makes, and each breach is counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core import splits
from miewid_core.paper import split_report


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
    photos = pd.DataFrame(rows, columns=["species", "individual", "encounter"])
    unknown = rng.random(len(photos)) >= known
    photos["encounter"] = photos["encounter"].mask(unknown, "")
    ids = [f"{i:05}" for i in rng.permutation(len(photos))]
    return photos.assign(annotation_id=ids, name=photos["individual"])


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
    photos = catalog(sizes, seed, known, frames)
    table = split_report.check(photos, splits.split(photos))
    assert table["holds"].all(), table[~table["holds"]]


def broken(photos, split):
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
        "half of": split.assign(part=split["part"].mask(shared & in_train, "unused")),
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
    photos = medium()
    changed = broken(photos, splits.split(photos))[rule]
    table = split_report.check(photos, changed)
    row = table[table["rule"].str.startswith(rule)].iloc[0]
    assert 0 < row["breaches"] <= row["counted"]
    assert not row["holds"]


def test_counts_what_it_looked_at():
    photos = medium()
    split = splits.split(photos)
    table = split_report.check(photos, split).set_index("rule")
    counted = table["counted"]
    assert counted["each annotation is in one part"] == len(photos)
    trained = split.loc[split["part"] == "train", "individual"].nunique()
    assert counted["training individuals have at least 3 annotations"] == trained

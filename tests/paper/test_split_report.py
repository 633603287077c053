"""The table of rules: all hold on what `split` makes, and each breach is counted."""

import pytest
from hypothesis import given, settings
from test_splits import catalogs, medium

from miewid_core import splits
from miewid_core.paper import split_report


@settings(max_examples=30, deadline=None)
@given(catalogs())
def test_all_rules_hold_on_any_split(photos):
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

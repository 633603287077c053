"""The split by date against its rules, counted row by row by code that shares nothing with it."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core.paper.date_split import by_date, cutoff
from miewid_core.splits import split
from tests.core.test_splits import catalogs, medium, with_encounters


@st.composite
def dated_catalogs(draw):
    """Catalogs with a day for some annotations, of encounters that may last several days."""
    annotations = draw(catalogs())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    span, dated = draw(st.sampled_from([1, 2, 5, 400])), draw(st.sampled_from([0.0, 0.7, 1.0]))
    lasting = draw(st.sampled_from([1, 1, 3]))
    first = {
        key: rng.integers(span) for key in set(annotations["species"] + annotations["encounter"])
    }
    days = [
        first[row.species + row.encounter] + rng.integers(lasting)
        if row.encounter
        else rng.integers(span)
        for row in annotations.itertuples()
    ]
    noon = pd.Timestamp("2020-02-27 12:00") + pd.to_timedelta(days, "D")
    return annotations.assign(date=noon.where(rng.random(len(days)) < dated))


def breaches(annotations, drawn):
    """The rules of a split by date that a split breaks, found row by row."""
    found, place = [], {row.annotation_id: row.part for row in drawn.itertuples()}
    if sorted(place) != sorted(annotations["annotation_id"]) or len(drawn) != len(place):
        found.append("not every annotation once")
    for species, rows in annotations.groupby("species"):
        days, kept = defaultdict(set), defaultdict(lambda: defaultdict(list))
        for row in rows.itertuples():
            part = place[row.annotation_id]
            kept[part][row.individual].append(row.encounter or ("unknown", row.annotation_id))
            days[part].add(None if pd.isna(row.date) else row.date.date())
        trained, tested = kept["train"], kept["test"]
        if None in days["train"] | days["test"]:
            found.append(f"{species} uses an annotation without a date")
        elif trained and tested and max(days["train"]) >= min(days["test"]):
            found.append(f"{species} trains on a day of its test set, or a later one")
        seen = {part: {e for own in kept[part].values() for e in own} for part in ("train", "test")}
        if seen["train"] & seen["test"]:
            found.append(f"{species} has an encounter on both sides")
        found += [f"{name} trains with {len(own)}" for name, own in trained.items() if len(own) < 3]
        for name, own in tested.items():
            if len(own) > 10 or len(set(own)) < len(own):
                found.append(f"{name} is tested too often")
            dates = rows.loc[rows["individual"] == name, "date"].dropna()
            early = [date for date in dates if trained and date.date() <= max(days["train"])]
            if name not in trained and early:
                found.append(f"{name} is called new, but was seen in the days of training")
    return found


@settings(max_examples=100, deadline=None)
@given(dated_catalogs(), st.integers(0, 5))
def test_rules_hold_on_any_catalog_split_by_date(annotations, seed):
    drawn = split(annotations, seed, by_date)
    assert breaches(annotations, drawn) == []
    shuffled = annotations.sample(frac=1, random_state=np.random.default_rng(seed))
    pd.testing.assert_frame_equal(drawn, split(shuffled, seed, by_date))


def test_numbers_of_a_split_by_date_are_as_written_down():
    annotations = with_encounters("dated", [1] * 10, animals=20)
    day = annotations["encounter"].str.split(".").str[1].astype(int)
    annotations["date"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(day, "D")
    newcomer = annotations["name"].eq("0") & day.lt(8)
    glimpsed = annotations["name"].eq("1") & day.lt(5)
    undated = annotations["name"].eq("2") & day.gt(7)
    annotations.loc[undated, "date"] = pd.NaT
    annotations = annotations[~newcomer & ~glimpsed]
    drawn = split(annotations, rule=by_date)
    # of 185 dated annotations 90 lie before 6 January and 109 before the 7th; 100 are to train
    assert cutoff(annotations["date"]) == pd.Timestamp("2020-01-07")
    assert drawn.value_counts(["part", "reason"]).to_dict() == {
        ("train", "shared individual"): 17 * 6 + 6,
        ("test", "shared individual"): 17 * 4 + 2,
        ("test", "new individual"): 2,
        ("unused", "fewer than 3 in train"): 1 + 4,
        ("unused", "no earlier and later day"): 2,
    }


def test_a_species_without_two_days_keeps_out_of_a_split_by_date():
    annotations = medium().assign(date=pd.NaT)
    annotations["date"] = annotations["date"].astype("datetime64[ns]")
    one_day = annotations["species"] == "small"
    annotations.loc[one_day, "date"] = pd.Timestamp("2020-01-01")
    drawn = split(annotations, rule=by_date)
    assert set(drawn["reason"]) == {"no earlier and later day"}


@pytest.mark.slow
def test_breaches_of_a_split_by_date_are_noticed():
    annotations = medium()
    days = np.random.default_rng(0).integers(0, 40, len(annotations))
    encounter = pd.factorize(annotations["species"] + annotations["encounter"])[0] % 40
    days = np.where(annotations["encounter"] == "", days, encounter)
    annotations["date"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, "D")
    drawn = split(annotations, rule=by_date)
    assert breaches(annotations, drawn) == []
    assert breaches(annotations, split(annotations))
    for part, other in (("train", "test"), ("test", "train"), ("unused", "test")):
        assert breaches(annotations, drawn.replace({"part": {part: other}}))

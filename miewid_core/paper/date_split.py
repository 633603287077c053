"""A split by date instead of by section 3.3, as other protocols have it."""

import numpy as np
import pandas as pd
from numpy.random import Generator

from miewid_core.splits import (
    LEAST_IN_TRAIN,
    first_that_holds,
    numbered,
    one_per_encounter,
    train_share,
)


def by_date(annotations: pd.DataFrame, rng: Generator) -> np.ndarray:
    """(N, 2) part and reason of one species' annotations: earlier days train, later ones test.

    The test set begins on the day of `cutoff`. As in section 3.3 an encounter is never on both
    sides, an individual trains with 3 annotations or more and is tested once per encounter, 10
    times at most. Tested are individuals in training and those never seen before: how many are new
    is what the days give. One annotation is enough, as the database is the training set.
    A species without two days, and an annotation without a date, are unused.
    """
    rows, day = numbered(annotations), annotations["date"].dt.normalize().reset_index(drop=True)
    first_test_day, individual = cutoff(day), rows["individual"]
    before, later = day < first_test_day, day >= first_test_day  # both False without a date
    ends = (side.groupby(rows["encounter"]).transform("any") for side in (before, later))
    on_both_sides = np.logical_and(*ends)
    early = before & ~on_both_sides
    enough = early.groupby(individual).transform("sum") >= LEAST_IN_TRAIN
    seen = before.groupby(individual).transform("any")
    wanted = later & ~on_both_sides & (enough | ~seen)
    test = rows.index.isin(one_per_encounter(rows[wanted], rng).index)
    rows = rows.assign(train=early & enough, test=test, known=enough)
    rows["tested"] = rows["test"].groupby(individual).transform("any")
    tested = rows["encounter"].isin(rows.loc[test, "encounter"])
    unused = {
        ("unused", "no earlier and later day"): day.isna() | pd.isna(first_test_day),
        ("unused", "encounter on both sides"): on_both_sides,
        ("unused", "fewer than 3 in train"): ~enough & seen,
        ("unused", "encounter already in test"): tested,
        ("unused", "more than 10 in test"): later,
    }
    return first_that_holds(rows, unused)


def cutoff(day: pd.Series) -> pd.Timestamp:
    """The first day of a species' test set: about `train_share` of the annotations lie before it.

    `day`: of each annotation, NaT where unknown. NaT where there are no two days.
    """
    days = day.value_counts().sort_index()
    before = (days.cumsum() - days)[1:]
    apart = (before / days.sum() - train_share(days.sum())).abs()
    return pd.NaT if apart.empty else apart.idxmin()

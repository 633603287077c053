"""Database size against a loop written from section 5.4, and against one_vs_all without a limit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core.evaluation import one_vs_all
from miewid_core.paper import database_size
from tests.paper.made import per_species


def photos_of(individuals, species):
    ids = [f"id{i}" for i in range(len(species))]
    return pd.DataFrame({"annotation_id": ids, "species": species, "individual": individuals})


@st.composite
def annotations(draw):
    """Whole-number embeddings with many ties, and photos of several individuals and species."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, top = draw(st.integers(1, 25)), draw(st.sampled_from([1, 3]))
    embeddings = rng.integers(-top, top + 1, (count, draw(st.integers(1, 4)))).astype(np.float32)
    species = rng.choice(list("ab"), count)
    individuals = [f"{s}{i}" for s, i in zip(species, rng.integers(0, 6, count), strict=True)]
    return embeddings, photos_of(individuals, species)


def example(seed=0, count=120, people=25):
    rng = np.random.default_rng(seed)
    individuals = rng.integers(0, people, count)
    own = rng.normal(size=(people, 6))
    embeddings = (own[individuals] + rng.normal(size=(count, 6))).astype(np.float32)
    species = np.where(individuals % 3, "a", "b")
    return embeddings, photos_of([f"p{i}" for i in individuals], species)


def first_match_ranks(embeddings, photos):
    ranks = one_vs_all(embeddings, photos["individual"], photos["species"])
    return ranks["first_match_rank"].astype(float).to_numpy()


@settings(max_examples=60, deadline=None)
@given(annotations(), st.sampled_from([1, 3, 512]))
def test_without_a_limit_it_is_one_vs_all(case, block):
    embeddings, photos = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_size, "BLOCK", block)
        found = database_size.ranks(embeddings, photos, [99], draws=2)
    expected = first_match_ranks(embeddings, photos)
    for draw in range(2):
        np.testing.assert_array_equal(found[:, draw, 0], expected)


def drawn_orders(embeddings, photos, draws, seed, monkeypatch):
    """The ranks at each limit, and for each draw the turn in which every photo enters."""
    turns, make = [], database_size._turns

    def noted(own, rng):
        turns.append((own.rows, make(own, rng)))
        return turns[-1][1]

    monkeypatch.setattr(database_size, "_turns", noted)
    found = database_size.ranks(embeddings, photos, [1, 2, 3], draws, seed)
    order = np.empty((draws, len(photos)), int)
    for number, (rows, turn) in enumerate(turns):  # draws of one species, then of the next
        order[number % draws, rows] = turn
    return found, order


def test_ranks_are_those_of_the_paper_s_words(monkeypatch):
    """For each query and limit the database is built anew, and asked with one_vs_all."""
    embeddings, photos = example(count=34, people=8)
    found, order = drawn_orders(embeddings, photos, 2, 7, monkeypatch)
    names = photos["individual"].to_numpy()
    for draw, query in np.ndindex(2, len(photos)):
        others = np.array([i for i in np.argsort(order[draw]) if i != query])
        place = pd.Series(names[others]).groupby(names[others]).cumcount().to_numpy()
        for column, limit in enumerate((1, 2, 3)):
            kept = np.append(others[place < limit], query)
            expected = first_match_ranks(embeddings[kept], photos.iloc[kept].reset_index())[-1]
            np.testing.assert_equal(float(found[query, draw, column]), float(expected))


def test_each_individual_enters_in_a_random_order_of_its_own(monkeypatch):
    embeddings, photos = example()
    _, order = drawn_orders(embeddings, photos, 300, 0, monkeypatch)
    for _, rows in photos.groupby("individual").indices.items():
        for turn in order:
            assert sorted(turn[rows]) == list(range(len(rows)))
    several = photos.groupby("individual").indices["p1"]
    share = np.mean(order[:, several[0]] == 0)  # of 300 draws it is the first in 1 / size
    assert share == pytest.approx(1 / len(several), abs=4 * np.sqrt(0.25 / 300))


def test_a_limit_of_one_leaves_each_query_one_true_match_among_one_of_each_individual():
    """Expected top-1 by chance alone: embeddings without any information."""
    rng = np.random.default_rng(3)
    photos = photos_of(np.repeat([f"p{i}" for i in range(10)], 4), ["a"] * 40)
    hits = []
    for seed in range(30):
        embeddings = rng.normal(size=(40, 16)).astype(np.float32)
        hits.append((database_size.ranks(embeddings, photos, [1], 4, seed) <= 1).mean())
    assert np.mean(hits) == pytest.approx(1 / 10, abs=0.02)


def test_queries_do_not_change_with_the_limit_and_draws_are_repeatable():
    embeddings, photos = example(count=90, people=40)
    limits = database_size.limits(photos)
    found = database_size.ranks(embeddings, photos, limits, 3, seed=1)
    lonely = photos.groupby("individual")["individual"].transform("size").eq(1).to_numpy()
    assert 0 < lonely.sum() < len(photos)
    assert (np.isnan(found) == lonely[:, None, None]).all()
    np.testing.assert_array_equal(found, database_size.ranks(embeddings, photos, limits, 3, seed=1))
    assert not np.array_equal(
        found, database_size.ranks(embeddings, photos, limits, 3, seed=2), equal_nan=True
    )
    assert limits == range(1, photos["individual"].value_counts().max() + 1)


def test_one_species_draws_do_not_depend_on_the_others():
    embeddings, photos = example()
    own = (photos["species"] == "a").to_numpy()
    alone = database_size.ranks(embeddings[own], photos[own].reset_index(drop=True), [1, 2], 4)
    np.testing.assert_array_equal(database_size.ranks(embeddings, photos, [1, 2], 4)[own], alone)


@pytest.fixture(scope="module")
def computed():
    embeddings, photos = example(count=200, people=40)
    limits = database_size.limits(photos)
    found = database_size.ranks(embeddings, photos, limits, 5)
    return embeddings, photos, limits, found, database_size.by_draw(found, photos, limits)


def test_by_draw_ends_with_the_top_k_of_the_ranking(computed):
    embeddings, photos, limits, _, table = computed
    ranks = one_vs_all(embeddings, photos["individual"], photos["species"])
    assert len(table) == 2 * 5 * len(limits)
    for k in (1, 5):
        expected = per_species(ranks, k).set_index("species")
        last = table[table["limit"] == limits[-1]].set_index("species")
        np.testing.assert_allclose(
            last[f"top_{k}"], 100 * expected["top_k"].reindex(last.index), rtol=1e-12
        )
        assert (last["queries"] == expected["queries"].reindex(last.index)).all()


def test_summary_is_mean_and_deviation_over_species(computed):
    *_, limits, _, table = computed
    summary = database_size.summary(table).set_index("limit")
    assert summary.index.tolist() == list(limits)
    for limit, k in ((1, 1), (3, 5)):
        own = table[table["limit"] == limit]
        a, b = (own.loc[own["species"] == name, f"top_{k}"].mean() for name in "ab")
        row = summary.loc[limit]
        assert row[f"top_{k}"] == pytest.approx((a + b) / 2)
        assert row[f"top_{k}_deviation"] == pytest.approx(abs(a - b) / np.sqrt(2))
        means = [own.loc[own["draw"] == draw, f"top_{k}"].mean() for draw in range(5)]
        assert row[f"top_{k}_draws"] == pytest.approx(np.std(means, ddof=1))
    assert summary["top_1_draws"].iloc[-1] == pytest.approx(0)  # all annotations: nothing is drawn


def test_cost_is_the_difference_of_the_means_with_an_interval_around_it(computed):
    _, photos, limits, found, table = computed
    summary, cost = database_size.summary(table), database_size.cost(found, photos, limits)
    for k in (1, 5):
        gap = summary[f"top_{k}"].iloc[-1] - summary[f"top_{k}"]
        np.testing.assert_allclose(cost[f"cost_{k}"], gap, atol=1e-9)
        assert (cost[f"cost_{k}_low"] <= cost[f"cost_{k}"] + 1e-9).all()
        assert (cost[f"cost_{k}_high"] >= cost[f"cost_{k}"] - 1e-9).all()
    assert cost["fewer"].is_monotonic_decreasing
    assert cost["fewer"].iloc[-1] == 0


def test_words_say_what_one_two_and_three_cost(computed):
    _, photos, limits, found, _ = computed
    cost = database_size.cost(found, photos, limits)
    drop = "{cost_1:z.1f} points lower ({cost_1_low:z.1f} to {cost_1_high:z.1f})".format_map
    one, two, three = (drop(cost.iloc[place]) for place in range(3))
    one = one.replace("(", "(95 % interval ")
    words = f"With one annotation of each individual top-1 is {one} than with all (at most "
    more = f" With two it is {two}, with three {three}."
    assert database_size.in_words(cost) == f"{words}{limits[-1]}).{more}"
    pairs = cost.iloc[[0, -1]].assign(limit=[1, 2])  # of each individual
    assert database_size.in_words(pairs) == f"{words}2)."


def test_what_does_not_fit_is_refused():
    embeddings, photos = example()
    with pytest.raises(ValueError, match="119 embeddings for 120 annotations"):
        database_size.ranks(embeddings[1:], photos, [1])
    with pytest.raises(ValueError, match="at least one annotation"):
        database_size.ranks(embeddings, photos, [0, 1])

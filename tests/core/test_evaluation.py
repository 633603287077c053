"""Ranks and measures against loops written from the paper, closed forms, and simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score
from torch.utils.data import TensorDataset

from miewid_core import evaluation, ranking
from miewid_core.evaluation import COLUMNS, one_vs_all
from miewid_core.model import MiewIDNet, Preprocess


def similarity(a, b):
    """The cosine's square with its sign, exactly, of vectors of whole numbers."""
    along = sum(int(x) * int(y) for x, y in zip(a, b, strict=True))
    lengths = sum(int(x) ** 2 for x in a) * sum(int(y) ** 2 for y in b)
    return Fraction(along * abs(along), lengths) if lengths else Fraction(0)


def slow_row(query, embeddings, individuals, species):
    """A test annotation against the others of its species, nearest first, at a tie wrong ones."""
    others = [i for i in range(len(species)) if i != query and species[i] == species[query]]
    near = {i: similarity(embeddings[query], embeddings[i]) for i in others}
    right = {i: individuals[i] == individuals[query] for i in others}
    ordered = sorted(others, key=lambda i: (-near[i], right[i]))
    places = [place for place, i in enumerate(ordered, 1) if right[i]]
    best = max(near.values(), default=None)
    return {
        "candidates": len(others),
        "relevant": len(places),
        "first_match_rank": places[0] if places else None,
        "average_precision": sum(n / place for n, place in enumerate(places, 1)) / len(places)
        if places
        else None,
        "best_score": None if best is None else math.copysign(math.sqrt(abs(best)), best),
    }


def same(found, expected):
    """Whether a row of ranks is what the loops say, None for no value."""
    for name, value in expected.items():
        if value is None:
            assert pd.isna(found[name]), name
        else:
            assert found[name] == pytest.approx(value, abs=1e-6), name


@st.composite
def annotations(draw):
    """Whole-number embeddings with many ties and duplicates, individuals and species."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, size = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    top = draw(st.sampled_from([1, 3]))
    embeddings = rng.integers(-top, top + 1, (count, size)).astype(np.float32)
    copies = rng.random(count) < draw(st.sampled_from([0.0, 0.5]))
    embeddings[copies] = embeddings[rng.integers(0, count, copies.sum())]
    individuals = rng.integers(0, draw(st.integers(1, 12)), count).astype(str)
    species = rng.choice(list("abc")[: draw(st.integers(1, 3))], count)
    return embeddings, individuals, species


BLOCKS = st.sampled_from([1, 2, 3, 7, 512])


@settings(max_examples=300, deadline=None)
@given(annotations(), BLOCKS, BLOCKS, st.sampled_from([0, 2, 80]))
def test_ranks_are_those_of_the_loops(case, block, columns, few):
    """Whatever the blocks, and in all ways to count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "BLOCK", block)
        patch.setattr(ranking, "BLOCK", block)
        patch.setattr(ranking, "ROWS", block)
        patch.setattr(ranking, "COLUMNS", columns)
        patch.setattr(ranking, "FEW", few)
        ranks = one_vs_all(*case)
    assert ranks.columns.tolist() == COLUMNS
    assert ranks["annotation_id"].tolist() == [str(i) for i in range(len(case[0]))]
    for query, row in ranks.iterrows():
        same(row, slow_row(query, *case))


def test_ranks_keep_the_given_labels_and_order():
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-3, 4, (30, 3)).astype(float)
    species, people = rng.choice(list("ab"), 30), rng.choice(list("xyz"), 30)
    ids, encounters = [f"id{i}" for i in range(30)], rng.choice(["", "e1"], 30)
    ranks = one_vs_all(embeddings, people, species, encounters, ids)
    assert ranks["annotation_id"].tolist() == ids
    for name, given_ in (("species", species), ("individual", people), ("encounter", encounters)):
        assert ranks[name].tolist() == given_.tolist()
    shuffled = rng.permutation(30)
    columns = [pd.Series(values)[shuffled] for values in (people, species, encounters, ids)]
    again = one_vs_all(embeddings[shuffled], *columns)
    again = again.set_index("annotation_id").loc[ids].reset_index()
    pd.testing.assert_frame_equal(again, ranks, atol=1e-6)


@pytest.mark.parametrize("size", [3, 64, 513, 2152])
def test_equal_embeddings_are_ties_wherever_they_stand(size):
    """The matrix product adds up the last columns of a block in another order than the others."""
    generator = torch.Generator().manual_seed(size)
    for count in (3, 10, 17, 33, 100, 333, 700):
        half = max(1, count // 2)
        own = torch.randn(half, size, generator=generator).numpy()
        which = torch.randint(half, (count,), generator=generator).numpy()
        people = torch.randint(3, (count,), generator=generator).numpy()
        ranks = one_vs_all(own[which], people, ["a"] * count)
        for query, row in ranks.iterrows():
            twins = np.flatnonzero((which == which[query]) & (np.arange(count) != query))
            if (
                people[twins] == people[query]
            ).any():  # the nearest is right, but so are wrong ones
                wrong = (people[twins] != people[query]).sum()
                assert row["first_match_rank"] == 1 + wrong


def test_lengths_do_not_matter_even_at_the_ends_of_float32():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 16)).astype(np.float32)
    people = rng.integers(0, 8, 40)
    plain = one_vs_all(embeddings, people, ["a"] * 40)
    for factor in (1e-30, 1e30):
        scaled = embeddings * np.float32(factor)
        pd.testing.assert_frame_equal(one_vs_all(scaled, people, ["a"] * 40), plain, atol=1e-6)


def test_embeddings_may_lie_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(700, 8)).astype(np.float32)
    labels = rng.integers(0, 200, 700), rng.choice(list("ab"), 700)
    np.save(tmp_path / "a.npy", embeddings)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    pd.testing.assert_frame_equal(one_vs_all(mapped, *labels), one_vs_all(embeddings, *labels))
    np.testing.assert_array_equal(mapped, embeddings)


def test_the_given_embeddings_stay_as_they_are():
    embeddings = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    before = embeddings.copy()
    one_vs_all(embeddings, [1, 1, 2, 2, 3, 3, 4, 4, 4], ["a"] * 9)
    np.testing.assert_array_equal(embeddings, before)


def test_many_true_matches_are_counted_as_few_are(monkeypatch):
    rng = np.random.default_rng(0)
    embeddings = rng.integers(-2, 3, (400, 3)).astype(np.float32)
    people = np.where(np.arange(400) < 150, 0, rng.integers(1, 40, 400))
    by_sorting = one_vs_all(embeddings, people, ["a"] * 400)
    monkeypatch.setattr(ranking, "FEW", 1000)
    pd.testing.assert_frame_equal(one_vs_all(embeddings, people, ["a"] * 400), by_sorting)
    assert by_sorting["relevant"].max() == 149


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(60, 5))
    people = rng.integers(0, 9, 60)
    ranks = one_vs_all(embeddings, people, ["a"] * 60)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for query, row in ranks.iterrows():
        others = np.arange(60) != query
        right, scores = people[others] == people[query], unit[others] @ unit[query]
        assert row["average_precision"] == pytest.approx(average_precision_score(right, scores))


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(4, 3))
    people, species = ["x", "x", "y", "y"], ["a"] * 4
    for bad in (np.nan, np.inf):
        broken = embeddings.copy()
        broken[2, 1] = bad
        with pytest.raises(ValueError, match="not finite for id2"):
            one_vs_all(broken, people, species, ids=["id0", "id1", "id2", "id3"])
    with pytest.raises(ValueError, match=r"\(N, D\), not \(4,\)"):
        one_vs_all(embeddings[:, 0], people, species)
    with pytest.raises(ValueError, match="length"):
        one_vs_all(embeddings, people[:3], species)
    for labels in ((["x", None, "y", "y"], species), (people, ["a", np.nan, "a", "a"])):
        with pytest.raises(ValueError, match="no species or individual for 1"):
            one_vs_all(embeddings, *labels)


def test_no_annotations_give_no_ranks():
    ranks = one_vs_all(np.empty((0, 4), np.float32), [], [])
    assert ranks.columns.tolist() == COLUMNS
    assert len(ranks) == 0
    assert math.isnan(evaluation.top_k(ranks, 1))
    assert math.isnan(evaluation.mean_average_precision(ranks))
    assert math.isnan(evaluation.random_top_k(ranks, 1))
    assert math.isnan(evaluation.overview({"one": ranks})["one"].item())


def made(first, relevant=None, candidates=10, species=None, individual=None):
    """Ranks with these first places, None for queries that don't count."""
    n = len(first)
    counts = [0 if rank is None else 1 for rank in first] if relevant is None else relevant
    return pd.DataFrame(
        {
            "annotation_id": [f"q{i}" for i in range(n)],
            "species": species or ["a"] * n,
            "individual": individual or [f"i{i}" for i in range(n)],
            "encounter": "",
            "candidates": candidates,
            "relevant": counts,
            "first_match_rank": pd.array(first, dtype="Int64"),
            "average_precision": [math.nan if rank is None else 1 / rank for rank in first],
            "best_score": 0.5,
        }
    )


def test_top_k_cmc_and_mean_average_precision_by_hand():
    ranks = made([1, 2, 2, 5, None])
    assert evaluation.hits(ranks, 2).tolist() == [True, True, True, False]
    assert evaluation.hits(ranks, 2).index.tolist() == [0, 1, 2, 3]
    assert evaluation.top_k(ranks, 1) == 1 / 4
    assert evaluation.cmc(ranks, 6).tolist() == [1 / 4, 3 / 4, 3 / 4, 3 / 4, 1, 1]
    assert evaluation.mean_average_precision(ranks) == pytest.approx((1 + 0.5 + 0.5 + 0.2) / 4)
    assert math.isnan(evaluation.top_k(made([None, None]), 1))


@settings(max_examples=50, deadline=None)
@given(annotations())
def test_cmc_rises_to_one_at_the_last_candidate(case):
    """k past the candidates is all of them."""
    ranks = one_vs_all(*case)
    curve = evaluation.cmc(ranks, 30)
    if ranks["relevant"].any():
        assert (np.diff(curve) >= 0).all()
        assert curve[-1] == 1
        found = [evaluation.random_top_k(ranks, k) for k in (1, 5, 24, 1000)]
        assert found == sorted(found)
        assert found[-1] == 1


def test_chance_is_that_of_a_random_order():
    rng = np.random.default_rng(0)
    ranks = made([1, 1, 1, None], relevant=[1, 3, 7, 0], candidates=[4, 10, 8, 9])
    for k in (1, 2, 5):
        shares = []
        for n, r in ((4, 1), (10, 3), (8, 7)):
            places = rng.random((20_000, n)).argsort(axis=1)[:, :r].min(axis=1)
            shares.append((places < k).mean())
        assert evaluation.random_top_k(ranks, k) == pytest.approx(np.mean(shares), abs=0.01)
    exact = 1 - math.comb(10 - 3, 5) / math.comb(10, 5)
    assert evaluation.random_top_k(ranks[1:2], 5) == pytest.approx(exact)


def test_interval_of_single_queries_is_scipys_bootstrap():
    rng = np.random.default_rng(0)
    values = (rng.random(150) < 0.7).astype(float)
    low, high = evaluation.bootstrap_interval(values, np.arange(150), seed=1)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.02)
    inner = evaluation.bootstrap_interval(values, np.arange(150), seed=1, level=0.5)
    assert low < inner[0] < values.mean() < inner[1] < high


def clustered(rng, individuals=40, photos=5):
    """Hits of queries that are alike within an individual, and whose they are."""
    skill = rng.beta(1.2, 0.8, individuals)
    people = np.repeat(np.arange(individuals), rng.integers(1, 2 * photos, individuals))
    return (rng.random(len(people)) < skill[people]).astype(float), people


def test_interval_covers_the_truth_of_clustered_queries():
    rng = np.random.default_rng(0)
    truth, rounds = 1.2 / 2.0, 200
    covered = {"individuals": 0, "queries": 0}
    for seed in range(rounds):
        values, people = clustered(rng)
        for unit, names in (("individuals", people), ("queries", np.arange(len(people)))):
            low, high = evaluation.bootstrap_interval(values, names, seed)
            covered[unit] += low <= truth <= high
    assert 0.88 <= covered["individuals"] / rounds <= 0.98
    assert covered["queries"] / rounds < 0.85  # single queries would claim too much


def test_interval_depends_on_the_seed_alone():
    values, people = clustered(np.random.default_rng(0))
    found = [evaluation.bootstrap_interval(values, people, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert evaluation.bootstrap_interval([1.0] * 5, list("aabbc"), 0) == (1, 1)
    assert all(map(math.isnan, evaluation.bootstrap_interval([], [], 0)))


SPECIES = ["a"] * 4 + ["b"] * 3 + ["c"]
PEOPLE = ["a1", "a1", "a2", "a2", "b1", "b1", "b2", "c1"]
RANKS = [1, 2, 1, 7, 1, 1, None, None]


def test_per_species_by_hand():
    ranks = made(RANKS, species=SPECIES, individual=PEOPLE)
    table = evaluation.per_species(ranks, 1).set_index("species")
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["queries"].tolist() == [4, 2, 0]
    assert table["individuals"].tolist() == [2, 1, 0]
    assert table["top_k"].tolist()[:2] == [0.5, 1]
    assert table.loc["c", ["top_k", "low", "high"]].isna().all()
    # each of a's individuals has one hit in two: however they are drawn, half
    assert table.loc["a", ["low", "high"]].tolist() == [0.5, 0.5]
    two = evaluation.per_species(ranks, 2).set_index("species")
    assert two["top_k"].tolist()[:2] == [0.75, 1]
    assert two.loc["a", ["low", "high"]].tolist() == [0.5, 1]


def test_a_species_has_the_same_interval_whatever_stands_beside_it():
    rng = np.random.default_rng(0)
    species = list("a" * 40 + "b" * 40)
    people = [f"{s}{rng.integers(12)}" for s in species]
    ranks = made(rng.integers(1, 4, 80).tolist(), species=species, individual=people)
    whole = evaluation.per_species(ranks, 1, seed=3).set_index("species")
    alone = evaluation.per_species(ranks[ranks["species"] == "b"], 1, seed=3).set_index("species")
    pd.testing.assert_frame_equal(whole.loc[["b"]], alone)


def two_rankings(seed, queries=120, species=3, people=10, same_share=0.9):
    """Two rankings of the same queries, the second one mostly like the first."""
    rng = np.random.default_rng(seed)
    names = [f"s{i}" for i in rng.integers(0, species, queries)]
    individuals = [f"{name}/{rng.integers(people)}" for name in names]
    first = rng.integers(1, 4, queries)
    second = np.where(rng.random(queries) < same_share, first, rng.integers(1, 3, queries))
    return [made(r.tolist(), species=names, individual=individuals) for r in (first, second)]


def test_paired_difference_by_hand():
    a = made(RANKS, species=SPECIES, individual=PEOPLE)
    b = made([2, 2, 1, 1, 2, 1, None, None], species=SPECIES, individual=PEOPLE)
    table = evaluation.paired_difference(a, b.iloc[::-1], 1).set_index("species")
    assert table.index.tolist() == ["a", "b", "mean"]
    assert table["queries"].tolist() == [4, 2, 6]
    assert table["individuals"].tolist() == [2, 1, 3]
    assert table["a"].tolist() == [0.5, 1, 0.75]
    assert table["b"].tolist() == [0.5, 0.5, 0.5]
    assert table["difference"].tolist() == [0, 0.5, 0.25]
    # a1 loses half a hit per query by b, a2 wins it: drawn twice one or the other, -1/2 or +1/2
    assert table.loc["a", ["low", "high"]].tolist() == [-0.5, 0.5]
    assert table.loc["b", ["low", "high"]].tolist() == [0.5, 0.5]
    assert table.loc["mean", ["low", "high"]].tolist() == [0, 0.5]


def test_pairing_narrows_the_interval_of_a_difference():
    a, b = two_rankings(0)
    paired = evaluation.paired_difference(a, b, 1).set_index("species")
    width = paired["high"] - paired["low"]
    single = [evaluation.per_species(ranks, 1).set_index("species") for ranks in (a, b)]
    apart = sum((one["high"] - one["low"]) ** 2 for one in single) ** 0.5
    assert (width[apart.index] < 0.8 * apart).all()
    assert width["mean"] < width.drop("mean").min()


def test_a_ranking_does_not_differ_from_itself_and_order_changes_the_sign():
    a, b = two_rankings(1)
    none = evaluation.paired_difference(a, a, 1)
    assert (none[["difference", "low", "high"]] == 0).all(axis=None)
    there, back = (evaluation.paired_difference(*pair, 1) for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there["low"], -back["high"])


def test_the_means_interval_resamples_individuals_within_species():
    """The slow way: individuals drawn species by species, then the mean over species."""
    a, b = two_rankings(2, queries=60)
    rng = np.random.default_rng(5)
    gains = (a["first_match_rank"] <= 1).astype(int) - (b["first_match_rank"] <= 1).astype(int)
    grouped = [
        [gains[rows].tolist() for rows in own.groupby("individual").groups.values()]
        for _, own in a.groupby("species")
    ]
    means = []
    for _ in range(1500):
        parts = []
        for groups in grouped:
            drawn = [groups[i] for i in rng.integers(0, len(groups), len(groups))]
            parts.append(np.mean(list(itertools.chain.from_iterable(drawn))))
        means.append(np.mean(parts))
    row = evaluation.paired_difference(a, b, 1, seed=1).iloc[-1]
    expected = np.quantile(means, [0.025, 0.975])
    assert [row["low"], row["high"]] == pytest.approx(expected, abs=0.2 * np.ptp(expected))


def test_species_are_resampled_apart_from_each_other():
    """Species of equal size must not draw alike: the interval of their mean would be too wide."""
    hits = np.random.default_rng(0).integers(1, 3, 30).tolist()
    names = ["a", "b", "c", "d"]
    ranks = made(hits * 4, species=[n for n in names for _ in hits])
    table = evaluation.overview({"one": ranks}).set_index("species")
    width = table["one_high"] - table["one_low"]
    assert width["mean"] == pytest.approx(width[names].mean() / 2, rel=0.2)


def test_rankings_of_other_queries_are_refused():
    a, b = two_rankings(0)
    with pytest.raises(ValueError, match=r"1 queries are in one ranking only: \['q5'\]"):
        evaluation.paired_difference(a, b.drop(index=5), 1)
    with pytest.raises(ValueError, match="q7"):
        evaluation.overview({"a": a, "b": b.assign(relevant=b["relevant"].where(b.index != 7, 4))})


def test_overview_has_all_rankings_side_by_side():
    a, b = two_rankings(3)
    a.loc[a["species"] == "s2", ["relevant", "first_match_rank"]] = 0, pd.NA
    b.loc[b["species"] == "s2", ["relevant", "first_match_rank"]] = 0, pd.NA
    table = evaluation.overview({"trained": a, "untrained": b}, seed=4)
    ends = ["", "_low", "_high"]
    shown = [f"{name}{end}" for name in ("trained", "untrained") for end in ends]
    assert table.columns.tolist() == ["species", "queries", "individuals", *shown, "chance"]
    assert table["species"].tolist() == ["s0", "s1", "s2", "mean"]
    table = table.set_index("species")
    for name, ranks in (("trained", a), ("untrained", b)):
        own = evaluation.per_species(ranks, 1, seed=4).set_index("species")
        columns = [f"{name}{end}" for end in ends]
        expected = 100 * own[["top_k", "low", "high"]].to_numpy()
        np.testing.assert_allclose(table.loc[own.index, columns], expected)
        assert table.loc["mean", name] == pytest.approx(table.loc[["s0", "s1"], name].mean())
        low, high = table.loc["mean", columns[1:]]
        assert low < table.loc["mean", name] < high
    assert table.loc["mean", ["queries", "individuals"]].tolist() == [
        table["queries"][:3].sum(),
        table["individuals"][:3].sum(),
    ]
    assert table["chance"].tolist() == pytest.approx([10, 10, math.nan, 10], nan_ok=True)
    five = evaluation.overview({"trained": a}, seed=4, k=2).set_index("species")
    assert five.loc["s0", "trained"] == 100 * evaluation.top_k(a[a["species"] == "s0"], 2)
    assert five.loc["s0", "chance"] == pytest.approx(20)


def test_embed_is_the_network_on_each_chip():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MiewIDNet("test_efficientnet").train()
        chips = torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)
    preprocess = Preprocess(32, (0.5,) * 3, (0.25,) * 3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    data = TensorDataset(chips, torch.zeros(7))
    found = evaluation.embed(network, preprocess, data, batch_size=3)
    assert network.training  # as it was
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert found.shape == (7, network.n_features)
    assert found.dtype == np.float32
    network.eval()
    with torch.no_grad():
        one_by_one = [network(preprocess(chip.numpy())[None])[0].numpy() for chip in chips]
    np.testing.assert_allclose(found, one_by_one, rtol=1e-3, atol=1e-4)
    nothing = TensorDataset(chips[:0], torch.zeros(0))
    assert evaluation.embed(network, preprocess, nothing).shape == (0, network.n_features)

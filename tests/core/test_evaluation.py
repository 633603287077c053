"""Ranks and measures against loops written from the paper, and closed forms."""

import doctest
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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


@pytest.mark.parametrize("few", [3, 80])
def test_rank_returns_what_the_plain_lines_in_its_docstring_return(few, monkeypatch):
    monkeypatch.setattr(ranking, "FEW", few)
    names = vars(ranking).copy()
    plain = doctest.DocTestParser().get_doctest(ranking.__doc__, names, "ranking", None, None)
    doctest.DocTestRunner().run(plain, clear_globs=False)
    for seed, (count, people) in enumerate([(1, 1), (2, 1), (2, 2), (90, 9), (200, 150)]):
        rng = np.random.default_rng(seed)
        unit = rng.normal(size=(count, 6)).astype(np.float32)
        unit[rng.random(count) < 0.3] = unit[0]
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        individuals = rng.integers(people, size=count)
        individuals = individuals[ranking.order(individuals)]
        fast, expected = (
            ranking.rank(unit, individuals),
            plain.globs["plain_rank"](unit, individuals),
        )
        for name in ranking.RANKS.names:
            np.testing.assert_allclose(fast[name], expected[name], rtol=1e-6, err_msg=name)


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


def made(first, relevant=None, candidates=10):
    """Ranks with these first places, None for queries that don't count."""
    n = len(first)
    counts = [0 if rank is None else 1 for rank in first] if relevant is None else relevant
    return pd.DataFrame(
        {
            "annotation_id": [f"q{i}" for i in range(n)],
            "species": "a",
            "individual": [f"i{i}" for i in range(n)],
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
    curve = [evaluation.top_k(ranks, k) for k in range(1, 7)]
    assert curve == [1 / 4, 3 / 4, 3 / 4, 3 / 4, 1, 1]
    assert evaluation.mean_average_precision(ranks) == pytest.approx((1 + 0.5 + 0.5 + 0.2) / 4)
    assert math.isnan(evaluation.top_k(made([None, None]), 1))


@settings(max_examples=50, deadline=None)
@given(annotations())
def test_cmc_rises_to_one_at_the_last_candidate(case):
    """k past the candidates is all of them."""
    ranks = one_vs_all(*case)
    curve = [evaluation.top_k(ranks, k) for k in range(1, 31)]
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


class Timed(torch.nn.Module):
    """A stand-in for a network, with a clock that its own work alone moves on."""

    n_features = 3

    def __init__(self, in_float32, in_bfloat16):
        super().__init__()
        self.takes, self.passed, self.halves = (in_float32, in_bfloat16), 0.0, []

    def forward(self, images):
        half = torch.is_autocast_enabled("cpu")
        self.passed += self.takes[half]
        self.halves.append(half)
        return images.mean((2, 3))


@pytest.mark.parametrize(("in_bfloat16", "pays"), [(0.5, True), (0.9, False), (2.0, False)])
def test_many_photos_are_embedded_in_bfloat16_where_that_is_faster(in_bfloat16, pays, monkeypatch):
    network = Timed(1.0, in_bfloat16)
    monkeypatch.setattr(evaluation.time, "process_time", lambda: network.passed)
    preprocess = Preprocess(2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    many = TensorDataset(
        torch.zeros(evaluation.MANY, 2, 2, 3, dtype=torch.uint8), torch.zeros(evaluation.MANY)
    )
    found = evaluation.embed(network, preprocess, many, batch_size=1024)
    assert network.halves == [False, True] * 3 + [pays] * 4
    assert found.dtype == np.float32
    assert found.shape == (evaluation.MANY, 3)


def test_few_photos_are_embedded_in_float32(monkeypatch):
    monkeypatch.setattr(evaluation, "bfloat16_pays", lambda *_: True)
    network, few = Timed(1.0, 0.1), torch.zeros(evaluation.MANY - 1, 2, 2, 3, dtype=torch.uint8)
    preprocess = Preprocess(2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    evaluation.embed(network, preprocess, TensorDataset(few, torch.zeros(len(few))), 1024)
    assert not any(network.halves)


def test_embeddings_in_bfloat16_lie_near_those_in_float32(monkeypatch):
    network = MiewIDNet("test_efficientnet")
    preprocess = Preprocess.of("test_efficientnet", 64)
    chips = torch.randint(
        256, (8, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    data, found = TensorDataset(chips, torch.zeros(8)), {}
    monkeypatch.setattr(evaluation, "MANY", 8)
    for half in (False, True):
        monkeypatch.setattr(evaluation, "bfloat16_pays", lambda *_, half=half: half)
        found[half] = evaluation.unit_vectors(
            evaluation.embed(network, preprocess, data), np.arange(8), pd.DataFrame()
        )
    assert 1e-7 < np.abs(found[True] - found[False]).max() < 0.05

"""Gallery size: the closed form against drawn galleries, and its ends against known numbers."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core.beyond_paper import gallery_size
from miewid_core.evaluation import hits, one_vs_all
from miewid_core.paper.comparison import compare
from tests.paper.made import per_species


def example(seed=0, people=(9, 14, 30), least=1):
    """Embeddings and photos of species a, b, c with so many individuals of 1 to 5 photos each."""
    rng = np.random.default_rng(seed)
    rows, parts = [], []
    for species, count in zip("abc", people, strict=False):
        for person in range(count):
            own = rng.normal(size=4)
            for _ in range(rng.integers(least, 6)):
                parts.append(own + rng.normal(size=4))
                rows.append((f"id{len(rows)}", species, f"{species}{person}"))
    photos = pd.DataFrame(rows, columns=["annotation_id", "species", "individual"])
    return np.array(parts, np.float32), photos


def ranked(embeddings, photos):
    return one_vs_all(embeddings, photos["individual"], photos["species"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_individuals_ahead_are_those_of_the_loop(seed):
    embeddings, photos = example(seed, people=(4, 6))
    embeddings = embeddings.round()  # for ties
    found = gallery_size.ahead(embeddings, photos)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
    near = unit.astype(float) @ unit.T.astype(float)
    names, species = (photos[column].to_numpy() for column in ("individual", "species"))
    for query, row in found.iterrows():
        own = [i for i in np.flatnonzero(names == names[query]) if i != query]
        others = sorted(set(names[species == species[query]]) - {names[query]})
        assert row["others"] == len(others)
        assert pd.isna(row["ahead"]) == (not own)
        if own:
            best = near[query, own].max() - 1e-6
            ahead = [name for name in others if near[query, names == name].max() >= best]
            assert row["ahead"] == len(ahead)


def test_expected_top_1_is_the_mean_over_all_galleries():
    """Every choice of other individuals, each asked with one_vs_all."""
    embeddings, photos = example(1, people=(6,), least=2)
    found = gallery_size.ahead(embeddings, photos)
    names = photos["individual"].to_numpy()
    for size in (1, 2, 3, 5, 6):
        expected = gallery_size.top_1(found, size)
        for query in range(0, len(photos), 3):
            rest = sorted(set(names) - {names[query]})
            right = []
            for chosen in itertools.combinations(rest, size - 1):
                kept = np.isin(names, [*chosen, names[query]])
                rows = photos[kept].reset_index(drop=True)
                ranks = ranked(embeddings[kept], rows)
                own = ranks["annotation_id"] == str(np.flatnonzero(kept).tolist().index(query))
                right.append(ranks.loc[own, "first_match_rank"].iloc[0] == 1)
            assert expected[query] == pytest.approx(100 * np.mean(right))


def test_expected_top_1_is_that_of_galleries_drawn_at_random():
    embeddings, photos = example(2, people=(30,), least=2)
    found, rng = gallery_size.ahead(embeddings, photos), np.random.default_rng(0)
    names = photos["individual"].to_numpy()
    right = []
    for _ in range(150):
        kept = np.isin(names, rng.choice(np.unique(names), 8, replace=False))
        right.extend(hits(ranked(embeddings[kept], photos[kept]), 1))
    assert gallery_size.top_1(found, 8).mean() == pytest.approx(100 * np.mean(right), abs=3)


def test_the_whole_gallery_is_one_vs_all_and_alone_is_certain():
    embeddings, photos = example()
    found, ranks = gallery_size.ahead(embeddings, photos), ranked(embeddings, photos)
    assert (found["ahead"].isna() == ranks["first_match_rank"].isna()).all()
    assert found["ahead"].eq(0).sum() == ranks["first_match_rank"].eq(1).sum()
    np.testing.assert_allclose(gallery_size.top_1(found, 1), 100)
    curve = gallery_size.curve([found])
    own = curve[curve["species"] != "mean"].groupby("species").last()
    expected = per_species(ranks, 1).set_index("species")
    np.testing.assert_allclose(own["top_1"], 100 * expected["top_k"])
    np.testing.assert_allclose(own[["low", "high"]], 100 * expected[["low", "high"]])
    assert own["queries"].tolist() == expected["queries"].tolist()
    assert own["size"].tolist() == [9, 14, 30]


def test_curves_fall_and_the_mean_ends_where_the_smallest_species_does():
    curve = gallery_size.curve([gallery_size.ahead(*example())])
    for name, own in curve.groupby("species"):
        assert own["size"].is_monotonic_increasing
        assert (own["top_1"].diff().dropna() <= 1e-9).all()
        assert own["size"].max() == {"a": 9, "b": 14, "c": 30, "mean": 9}[name]
        assert own["low"].le(own["top_1"] + 1e-9).all()
        assert own["high"].ge(own["top_1"] - 1e-9).all()
    at_five = curve[curve["size"] == 5].set_index("species")["top_1"]
    assert at_five["mean"] == pytest.approx(at_five[["a", "b", "c"]].mean())


def test_equal_sets_full_and_common_gallery_side_by_side():
    embeddings, photos = example()
    table = gallery_size.equal(gallery_size.curve([gallery_size.ahead(embeddings, photos)]))
    expected = compare({"own": ranked(embeddings, photos)})
    assert table["species"].tolist() == ["a", "b", "c", "mean"]
    np.testing.assert_allclose(table["top_1"], expected["own"])
    assert table["individuals"].tolist()[:3] == [9, 14, 30]
    assert (table["equal_individuals"] == 9).all()
    assert table.loc[0, "equal_top_1"] == table.loc[0, "top_1"]
    assert (table["equal_top_1"] >= table["top_1"] - 1e-9).all()
    words = gallery_size.in_words(table)
    worst, best = table[:3].sort_values("equal_top_1").iloc[[0, -1]].to_dict("records")
    told = "{equal_top_1:.1f} % ({equal_low:.1f} to {equal_high:.1f})".format_map
    assert f"goes from {told(worst)} for {worst['species']} to {told(best)} for " in words
    apart = table.assign(equal_low=table["equal_top_1"], equal_high=table["equal_top_1"])
    assert gallery_size.in_words(apart).startswith("Gallery size alone doesn't explain")
    assert gallery_size.in_words(apart.assign(equal_high=100)).startswith("Gallery size may")
    shown = gallery_size.readable(table)
    assert shown["species"].tolist() == ["c", "b", "a", "mean"]
    assert [*shown][2:] == ["top-1 among all (%)", "top-1 among 9 (%)"]


def test_trainings_are_averaged():
    found = [gallery_size.ahead(*example(seed)) for seed in (0, 0)]
    found[1] = found[1].assign(ahead=found[1]["ahead"].mask(found[1]["ahead"].notna(), 0))
    one, sure, both = (gallery_size.curve(own) for own in ([found[0]], [found[1]], found))
    assert (sure["top_1"] == 100).all()
    np.testing.assert_allclose(both["top_1"], (one["top_1"] + 100) / 2)


def test_species_of_a_single_individual_and_queries_without_a_match():
    embeddings, photos = example(3, people=(5,))
    others = {"annotation_id": list("xyz"), "species": list("zza"), "individual": list("zzn")}
    found = gallery_size.ahead(
        np.concatenate([embeddings, np.ones((3, 4), np.float32)]),
        pd.concat([photos, pd.DataFrame(others)]),
    )
    assert found["others"].tolist() == [5] * len(photos) + [0, 0, 5]
    assert found["ahead"].iloc[-3:-1].tolist() == [0, 0]
    assert pd.isna(found["ahead"].iloc[-1])
    assert gallery_size.common_size(found) == 1
    curve = gallery_size.curve([found])
    assert curve.loc[curve["species"] == "z", "top_1"].tolist() == [100.0]

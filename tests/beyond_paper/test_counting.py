"""Counting individuals by joined matches, against slow versions of the definitions."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from miewid_core.beyond_paper import counting

labels = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30)


def partition(counted):
    return {tuple(np.flatnonzero(counted == one)) for one in np.unique(counted)}


def by_joining(embeddings, threshold):
    """Every pair looked at, one after another."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    counted = np.arange(len(unit))
    for i in range(len(unit)):
        for j in range(i):
            if unit[i] @ unit[j] >= threshold:
                counted[counted == counted[i]] = counted[j]
    return counted


def counted(embeddings, threshold, method="single"):
    (found,) = counting.joined(embeddings, [threshold], method)
    return found


@pytest.mark.parametrize("threshold", [-1, -0.2, 0.1, 0.3, 0.6, 1.01])
def test_joins_as_every_pair_one_after_another_does(threshold):
    embeddings = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    assert partition(counted(embeddings, threshold)) == partition(by_joining(embeddings, threshold))


def by_averages(embeddings, threshold):
    """The two groups of the highest mean similarity are joined, again and again."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    groups = [[place] for place in range(len(unit))]
    while len(groups) > 1:
        means = {
            (i, j): (unit[groups[i]] @ unit[groups[j]].T).mean()
            for i in range(len(groups))
            for j in range(i)
        }
        (i, j), best = max(means.items(), key=lambda pair: pair[1])
        if best < threshold:
            break
        groups[j] += groups.pop(i)
    return {tuple(sorted(group)) for group in groups}


@pytest.mark.parametrize("threshold", [-0.2, 0.1, 0.3, 0.6])
def test_averages_join_as_the_mean_of_all_pairs_does(threshold):
    embeddings = np.random.default_rng(0).normal(size=(20, 5))
    assert partition(counted(embeddings, threshold, "average")) == by_averages(
        embeddings, threshold
    )


@given(labels)
def test_pair_measures_look_at_every_pair(pairs):
    people, counted = np.array(pairs).T
    both = list(itertools.combinations(zip(people, counted, strict=True), 2))
    linked = [one[0] == two[0] for one, two in both if one[1] == two[1]]
    true = [one[1] == two[1] for one, two in both if one[0] == two[0]]
    expected = [np.mean(own) if own else 1 for own in (linked, true)]
    assert counting.pair_measures(counting.cells(people, counted)) == pytest.approx(expected)


def test_one_false_match_chains_two_animals_by_single_linkage_alone():
    embeddings, _ = clustered(2, 6, 0.1, 0)
    between = embeddings[:1] / np.linalg.norm(embeddings[0])
    between = between + embeddings[-1:] / np.linalg.norm(embeddings[-1])
    chain = np.concatenate([embeddings, between])
    assert len(partition(counted(chain, 0.5))) == 1
    assert len(partition(counted(chain, 0.5, "average"))) == 2


def test_identical_and_zero_embeddings_are_no_exception():
    embeddings = np.array([[1.0, 0], [2, 0], [0, 0], [-1, 0]])
    assert partition(counted(embeddings, 0.999)) == {(0, 1), (2,), (3,)}
    assert counted(np.ones((1, 3)), 0.5).tolist() == [0]
    with pytest.raises(ValueError, match="NaN"):
        counted(np.array([[np.nan, 1]]), 0.5)


@given(labels)
def test_count_is_individuals_and_splits_less_merges(pairs):
    people, counted = np.array(pairs).T
    pieces, share = counting.shares(counting.cells(people, pd.factorize(counted)[0]))
    splits = sum(len({c for p, c in pairs if p == one}) - 1 for one in set(people))
    merges = sum(len({p for p, c in pairs if c == one}) - 1 for one in set(counted))
    assert share.sum() == pytest.approx(len(set(counted)))
    assert (pieces - 1).sum() == splits
    assert (pieces - share).sum() == pytest.approx(merges)
    assert len(set(counted)) == len(set(people)) + splits - merges


def clustered(individuals, each, spread, seed, species="ant"):
    """Embeddings around a random direction for each individual, and their rows."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(individuals, 64)).repeat(each, axis=0)
    rows = pd.DataFrame({"individual": np.arange(individuals).repeat(each).astype(str)})
    return centers + spread * rng.normal(size=centers.shape), rows.assign(species=species)


def test_a_perfect_network_counts_right_between_the_gaps_and_wrong_beyond():
    ants, bees = clustered(10, 4, 0.05, 0), clustered(6, 3, 0.05, 1, "bee")
    rows = pd.concat([ants[1], bees[1]], ignore_index=True).sample(frac=1, random_state=0)
    embeddings = np.concatenate([ants[0], bees[0]])[rows.index]
    table = counting.sweep(embeddings, rows.reset_index(drop=True), np.array([-1, 0.8, 1]))
    table = table[table["linkage"] == "single"].set_index(["species", "threshold"])
    assert table.loc[("ant", 0.8), ["count", "splits", "merges"]].tolist() == [10, 0, 0]
    assert table.loc[("bee", 0.8), counting.MEASURES].tolist() == [1, 0, 0]
    assert table.loc[("ant", -1), ["count", "splits", "merges"]].tolist() == [1, 0, 9]
    assert table.loc[("bee", 1), ["count", "splits", "merges"]].tolist() == [18, 12, 0]
    assert table.loc[("ant", -1), "merge_rate"] == pytest.approx(0.9)
    assert table.loc[("bee", 1), "split_rate"] == pytest.approx(2)
    assert table.loc[("mean", -1), counting.NUMBERS].tolist() == [58, 16, 2, 0, 14]
    assert table.loc[("mean", -1), "ratio"] == pytest.approx((1 / 10 + 1 / 6) / 2)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Counts with independent errors: each animal is split in two with probability 0.3."""
    rng, covered = np.random.default_rng(3), 0
    for seed in range(200):
        split = rng.random(60) < 0.3
        people = np.arange(60).repeat(2)
        counted = people + 60 * (np.arange(120) % 2) * split.repeat(2)
        table = counting.cells(people, pd.factorize(counted)[0])
        _, draws = counting._count(table, counting._halves(60, [seed]))
        ratio, low, high, *_ = counting._intervals(draws)
        assert low <= ratio <= high
        covered += low <= 1.3 <= high
    assert 0.9 <= covered / 200 <= 0.99  # 0.95 with a deviation of 0.015


def noisy(seed):
    parts = [clustered(12, 4, 1.2, seed + i, name) for i, name in enumerate(("ant", "bee", "cat"))]
    rows = pd.concat([own for _, own in parts], ignore_index=True)
    return np.concatenate([own for own, _ in parts]), rows


@pytest.fixture(scope="module")
def table():
    return counting.sweep(*noisy(5))


def test_more_is_joined_at_lower_thresholds(table):
    for _, rows in table.groupby(["linkage", "species"]):
        assert rows["count"].is_monotonic_increasing
        assert rows["splits"].is_monotonic_increasing
        assert rows["merges"].is_monotonic_decreasing


def test_intervals_stay_within_what_can_be(table):
    assert (table[["ratio_low", "split_rate_low", "merge_rate_low"]] >= 0).all(axis=None)
    for name in counting.MEASURES:
        assert (table[f"{name}_low"] <= table[name] + 1e-9).all()
        assert (table[name] <= table[f"{name}_high"] + 1e-9).all()


def test_rows_are_the_same_in_any_order(table):
    embeddings, rows = noisy(5)
    order = np.random.default_rng(0).permutation(len(rows))
    again = counting.sweep(embeddings[order], rows.iloc[order].reset_index(drop=True))
    pd.testing.assert_frame_equal(table, again)


@pytest.mark.parametrize("method", counting.LINKAGES)
def test_a_threshold_comes_from_the_other_species_alone(table, method):
    table = table[table["linkage"] == method]
    chosen = counting.chosen_elsewhere(table).set_index("species")
    bees = table["species"].eq("bee")
    others = table[~bees & table["species"].ne("mean")].groupby("threshold")
    nearest = others["ratio"].mean().map(lambda ratio: max(ratio, 1 / ratio)).idxmin()
    assert chosen.loc["bee", "threshold"] == nearest
    changed = table.copy()  # the bees' own rows, upside down, with far more weight in any mean
    changed.loc[bees, "ratio"] = 100 / table.loc[bees, "ratio"]
    again = counting.chosen_elsewhere(changed).set_index("species")
    assert again.loc["bee", "threshold"] == chosen.loc["bee", "threshold"]


def test_words_and_figures_follow_the_table(table):
    chosen = counting.chosen_elsewhere(table)
    rows = chosen[chosen["linkage"] == "average"]
    words = counting.details(chosen)
    (_, least), *_, (_, most) = rows.sort_values("ratio").iterrows()
    assert (
        f"average linkage counts {least['ratio']:.2f} ({least['species']}) to "
        f"{most['ratio']:.2f} ({most['species']}) times the true number: too few for"
    ) in words
    assert f"{least['ratio']:.2f} to {most['ratio']:.2f} times" in counting.headline(chosen)
    drawn = counting.curves(table, "title")
    assert [axes.get_ylabel() for axes in drawn.axes] == [
        one for one, _ in counting.PANELS.values()
    ]
    mean = table[(table["species"] == "mean") & (table["linkage"] == "average")]
    assert tuple(drawn.axes[1].lines[1].get_ydata()) == tuple(100 * mean["split_rate"])
    assert [text.get_text() for text in drawn.axes[0].texts] == ["all one group"]
    joined = table[table["threshold"] > 0.5]
    assert not counting.curves(joined, "title").axes[0].texts
    bars = counting.counts(chosen, "title")
    drawn = {tuple(line.get_xdata()) for line in bars.axes[0].lines}
    for method in counting.LINKAGES:
        rows = chosen[chosen["linkage"] == method].sort_values("individuals", ascending=False)
        assert tuple(rows["ratio"]) in drawn


@pytest.mark.parametrize("all_alike", [False, True])
def test_a_species_without_an_interval_is_neither_too_few_nor_too_many(table, all_alike):
    chosen = counting.chosen_elsewhere(table)
    chosen[["ratio", "ratio_low", "ratio_high"]] = [0.5, 0.4, 0.6]
    ends = ["ratio", "ratio_low", "ratio_high"]
    chosen.loc[chosen["species"] == "ant", ends] = [1 / 12] * 3
    if all_alike:
        chosen.loc[chosen["species"] == "bee", ends] = [4, 4, 4 + 1e-12]
    told = f"too few for {1 if all_alike else 2} and too many for 0 of 3 species (by the"
    assert told in counting.details(chosen)


def test_a_single_species_has_no_other_to_choose_its_threshold():
    table = counting.sweep(*clustered(5, 3, 0.5, 0))
    chosen = counting.chosen_elsewhere(table)
    assert chosen.empty
    assert "no other can choose" in counting.details(chosen)
    assert "two species" in counting.headline(chosen)
    alone = counting.reviews(*clustered(5, 3, 0.5, 0), chosen)
    assert set(alone["by"]) == {"reviews"}
    assert "threshold" not in counting.in_words(alone) + counting.reviews_in_words(alone)
    assert counting.reviews_figure(alone, "title").png(30)
    counting.curves(table, "title").png(30)
    assert "two species" in counting.counts(chosen, "title").axes[0].texts[0].get_text()


def test_species_are_halved_apart_from_each_other():
    """Of equal animals in four species the mean is surer than of one: their errors are no copy."""
    embeddings, own = clustered(24, 4, 1.2, 5)
    names = ("ant", "bee", "cat", "dog")
    rows = pd.concat([own.assign(species=name) for name in names], ignore_index=True)
    table = counting.sweep(np.concatenate([embeddings] * 4), rows, np.array([0.5, 0.6]))
    wide = (table["ratio_high"] - table["ratio_low"])[table["linkage"] == "single"]
    wide = wide.groupby(table["species"]).mean()
    assert wide["mean"] / wide[list(names)].mean() == pytest.approx(0.5, abs=0.12)


def asked_slowly(embeddings, people):
    """All pairs by falling cosine; what earlier answers tell is looked up anew each time."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    order = sorted(
        itertools.combinations(range(len(people)), 2), key=lambda p: -(unit[p[0]] @ unit[p[1]])
    )
    asked, groups = [], [{place} for place in range(len(people))]
    apart = []
    for one, other in order:
        mine, theirs = (next(group for group in groups if place in group) for place in (one, other))
        told = mine is theirs or any(
            (a in mine and b in theirs) or (a in theirs and b in mine) for a, b in apart
        )
        if told:
            continue
        asked.append({one, other})
        if people[one] == people[other]:
            groups = [group for group in groups if group not in (mine, theirs)] + [mine | theirs]
        else:
            apart.append((one, other))
    return asked


def test_reviewed_pairs_are_those_that_earlier_answers_do_not_tell(monkeypatch):
    monkeypatch.setattr(counting, "NEAREST", 99)
    embeddings, annotations = clustered(6, 4, 1.2, 0)
    people = annotations["individual"].to_numpy(object)
    asked = counting._asked(embeddings, people)
    assert [{row.one, row.other} for row in asked.itertuples()] == asked_slowly(embeddings, people)


def test_reviews_of_all_pairs_end_with_the_truth(monkeypatch):
    parts = [clustered(6, 4, 1.2, seed, species) for seed, species in enumerate(("ant", "bee"))]
    embeddings = np.concatenate([part for part, _ in parts])
    annotations = pd.concat([part for _, part in parts], ignore_index=True)
    chosen = counting.chosen_elsewhere(counting.sweep(embeddings, annotations))
    monkeypatch.setattr(counting, "NEAREST", 99)
    table = counting.reviews(embeddings, annotations, chosen)
    first, begun, last = table.iloc[0], table.iloc[1], table.iloc[-1]
    own = chosen[chosen["linkage"] == "average"]
    joins = {
        name: counted(part, at, "average")
        for name, at, (part, _) in zip(own["species"], own["threshold"], parts, strict=True)
    }
    truth = np.arange(6).repeat(4)
    assert first["ari"] == pytest.approx(
        np.mean([adjusted_rand_score(truth, one) for one in joins.values()])
    )
    assert first["count"] == own["count"].sum()
    assert begun["count"] == len(annotations)  # nothing is believed yet
    assert last[["count", "ari", "ami"]].tolist() == pytest.approx([12, 1, 1])
    assert table["ari"][1:].is_monotonic_increasing
    assert first["error"] == pytest.approx((own["ratio"] - 1).abs().mean())
    photos, pairs = len(annotations), f"{last['reviewed'] / len(annotations):.2g}"
    assert counting.in_words(table) == (
        f"On average a species' count is off by {100 * first['error']:.0f} % with a threshold, and "
        f"by 0 % after {pairs} error-free reviews a photo."
    )
    words = counting.reviews_in_words(table)
    assert f"each of the {photos} photos counts as an individual, 4.0 times the true" in words
    assert f"of {2 * 24 * 23 // 2} possible ones, all that are asked, 12 individuals are" in words
    assert words.endswith(f"The ARI is then 1.00; by the threshold it is {first['ari']:.2f}.")
    counts, identities = counting.reviews_figure(table, "title").axes
    assert tuple(identities.lines[0].get_ydata()) == tuple(table["ari"][1:])
    assert tuple(counts.lines[0].get_ydata()) == tuple(100 * table["error"][1:])
    assert tuple(counts.lines[0].get_xdata()) == tuple(table["reviewed"][1:] / photos)
    assert set(counts.lines[1].get_ydata()) == {100 * first["error"]}


def test_a_species_with_one_annotation_has_no_pair_to_review():
    assert counting._asked(np.ones((1, 3)), np.array(["a"], object)).empty

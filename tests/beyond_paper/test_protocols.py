"""Other work's protocols, against slow versions written from their definitions."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core.beyond_paper import protocols
from miewid_core.paper.study import open_study


def animals(seed, counts, species="ant"):
    """Photos of individuals a, b, c, ...: so many of each, on one of four days or none."""
    rng = np.random.default_rng(seed)
    names = [name for name, count in zip("abcdef", counts, strict=False) for _ in range(count)]
    days = pd.Timestamp("2020-01-01 09:00") + pd.to_timedelta(rng.integers(4, size=len(names)), "D")
    rows = pd.DataFrame({"individual": [f"{species}/{name}" for name in names]})
    rows["date"] = pd.Series(days).where(rng.random(len(names)) < 0.8)
    ids = [f"{species}{seed}-{number}" for number in range(len(names))]
    return rows.assign(species=species, annotation_id=ids)


def example(seed, digits=2):
    """Queries, a database in which d and e are not, and cosines with ties."""
    rng = np.random.default_rng(seed)
    queries, database = animals(seed, [2, 3, 1, 2, 1]), animals(seed + 1, [3, 1, 4])
    cosine = rng.uniform(-1, 1, (len(queries), len(database)))
    own = queries["individual"].to_numpy()[:, None] == database["individual"].to_numpy()
    return np.clip(cosine + 0.3 * own, -1, 1).round(digits), queries, database


def several(seed):
    """What is searched in three species."""
    parts = [protocols.find(*example(seed + number), 3) for number in range(3)]
    named = [part.assign(species=name) for part, name in zip(parts, "xyz", strict=True)]
    return pd.concat(named, ignore_index=True)


def slow_nearest(similar, candidates, individual):
    """The nearest candidate's individual; a tie with a wrong one goes to that."""
    best = max(cosine for cosine, _ in candidates)
    tied = [name for cosine, name in candidates if cosine == best]
    return next((name for name in tied if name != individual), individual)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_a_search_is_what_the_loop_finds(seed):
    cosine, queries, database = example(seed, digits=1)
    found = protocols.find(cosine, queries, database, 1)
    everybody = set(database["individual"])
    for row, query, similar in zip(found.itertuples(), queries.itertuples(), cosine, strict=True):
        candidates = list(zip(similar, database.itertuples(), strict=True))
        named = [(value, other.individual) for value, other in candidates]
        assert row.known == (query.individual in everybody)
        assert row.score == pytest.approx(similar.max(), abs=1e-5)
        assert row.nearest == row.vote
        assert row.right == (row.nearest == query.individual)
        assert (row.nearest == query.individual) == (
            slow_nearest(similar, named, query.individual) == query.individual
        )
        own = [other for _, other in candidates if other.individual == query.individual]
        assert row.chance == pytest.approx(len(own) / len(candidates))
        day = query.date.date() if pd.notna(query.date) else "unknown"
        assert row.same_day == any(pd.notna(o.date) and o.date.date() == day for o in own)
        dated = [(v, o) for v, o in candidates if pd.notna(o.date) and pd.notna(query.date)]
        others = [(v, o.individual) for v, o in dated if o.date.date() != day]
        if query.individual not in {name for _, name in others}:
            assert row.apart == ""
        else:
            right = slow_nearest(similar, others, query.individual) == query.individual
            assert (row.apart == query.individual) == right


def slow_average_precision(similar, right):
    """Mean over recall steps of the precision there, by falling similarity."""
    total, recall = 0.0, 0.0
    for level in sorted(set(similar), reverse=True):
        shown = [hit for value, hit in zip(similar, right, strict=True) if value >= level]
        total += (sum(shown) / sum(right) - recall) * sum(shown) / len(shown)
        recall = sum(shown) / sum(right)
    return total


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_average_precision_is_that_of_the_definition(seed):
    cosine, queries, database = example(seed, digits=8)
    found = protocols.find(cosine, queries, database, 1)
    for row, similar in zip(found.itertuples(), cosine, strict=True):
        right = (database["individual"] == row.individual).tolist()
        if any(right):
            assert row.average_precision == pytest.approx(slow_average_precision(similar, right))
        else:
            assert np.isnan(row.average_precision)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 7))
def test_the_vote_is_that_of_wildlife_tools(seed, k):
    rng = np.random.default_rng(seed)
    names = rng.choice(["a", "b", "c"], (20, k)).astype(object)
    scores = np.sort(rng.uniform(size=(20, k)))[:, ::-1]
    for shown, row, score in zip(protocols.vote(names, scores), names, scores, strict=True):
        counts = Counter(row)
        tied = [name for name in counts if counts[name] == max(counts.values())]
        assert shown == max(tied, key=lambda name: score[row == name].mean())


def slow_balanced(rows, threshold, known):
    """AnimalCLEF's BAKS or BAUS: the mean over individuals of the share of right answers."""
    shares = {}
    for row in rows.itertuples():
        if row.known == known:
            answer = "new" if row.score < threshold else row.nearest
            shares.setdefault(row.individual, []).append(
                answer == (row.individual if known else "new")
            )
    return np.mean([np.mean(own) for own in shares.values()]) if shares else np.nan


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**31))
def test_baks_and_baus_are_those_of_animalclef(seed):
    found = several(seed)
    swept = protocols.sweep(found).set_index(["species", "threshold"])
    for species, rows in found.groupby("species"):
        for threshold in protocols.THRESHOLDS[::17]:
            known, new = (slow_balanced(rows, threshold, side) for side in (True, False))
            row = swept.loc[(species, threshold)]
            assert row["BAKS"] == pytest.approx(100 * known)
            assert row["BAUS"] == pytest.approx(100 * new)
            assert row["geometric"] == pytest.approx(100 * np.sqrt(known * new))


def test_to_call_all_new_or_none_scores_nothing():
    swept = protocols.sweep(several(0)).groupby("threshold")[protocols.OPEN].mean()
    assert swept.loc[-1.0].drop("BAKS").tolist() == [0, 0]
    all_new = protocols.sweep(several(0).assign(score=-2)).iloc[0]
    assert all_new[protocols.OPEN].tolist() == [0, 100, 0]


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**31))
def test_a_threshold_is_chosen_without_the_species_that_is_measured(seed):
    found = several(seed)
    chosen = protocols.chosen_elsewhere(protocols.sweep(found))
    swept = protocols.sweep(found)
    for species in "xyz":
        others = swept[swept["species"] != species].groupby("threshold")["geometric"].mean()
        assert others[chosen.loc[species, "threshold"]] == others.max()
        changed = found.assign(score=found["score"].mask(found["species"] == species, 0.1))
        again = protocols.chosen_elsewhere(protocols.sweep(changed))
        assert again.loc[species, "threshold"] == chosen.loc[species, "threshold"]
    alone = protocols.sweep(found[found["species"] == "x"])
    assert protocols.chosen_elsewhere(alone).empty


def test_a_summary_is_the_means_of_its_definitions():
    found = several(3)
    table = protocols.summary(found).set_index("species")
    for species, rows in found.groupby("species"):
        row, known = table.loc[species], rows[rows["known"]]
        assert row["top_1"] == pytest.approx(100 * (known["nearest"] == known["individual"]).mean())
        assert row["vote"] == pytest.approx(100 * (known["vote"] == known["individual"]).mean())
        assert row["mAP"] == pytest.approx(100 * known["average_precision"].mean())
        people = rows.groupby("individual")["score"].agg(list)
        old, new = (
            people[people.index.isin(own["individual"])] for own in (known, rows[~rows["known"]])
        )
        pairs = [
            np.mean([(high > low) + 0.5 * (high == low) for high in one for low in other])
            for one in old
            for other in new
        ]
        assert row["AUROC"] == pytest.approx(100 * np.mean(pairs))  # individuals count alike
        assert row["known"] == len(known)
        assert row["new"] == len(rows) - len(known)
        assert row[["known_individuals", "new_individuals"]].tolist() == [len(old), len(new)]
        for side, name in ((True, "BAKS"), (False, "BAUS")):
            assert row[name] == pytest.approx(100 * slow_balanced(rows, row["threshold"], side))
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    means = table.drop("mean")[[*protocols.MEASURES]].mean()
    assert table.loc["mean", means.index].tolist() == pytest.approx(means.tolist())


def test_species_without_new_individuals_have_no_open_set_scores():
    found = several(4)
    found = found[found["known"] | (found["species"] == "x")]
    table = protocols.summary(found).set_index("species")
    assert table.loc["y", ["BAUS", "AUROC", "geometric"]].isna().all()
    assert table.loc["x", "AUROC"] == table.loc["mean", "AUROC"]
    assert table.loc["x", ["BAUS", "geometric"]].isna().all()  # there is no other to choose on
    assert table.loc["mean", protocols.SIZES].tolist() == [18, 3, 9, 2]
    lowest = protocols.floors({protocols.RANDOM: found})
    shown = protocols.readable({protocols.RANDOM: table.reset_index()}, lowest).set_index("split")
    assert shown[protocols.RANDOM].tolist()[:6] == [3, 1, 18, 3, 9, 2]
    random, untrained = shown.loc[
        ["top-1 of a random ranking (%)", "top-1 of the untrained network (%)"], protocols.RANDOM
    ]
    assert random == f"{lowest['random'].iloc[0]:.1f}"
    assert untrained == shown.loc["top-1 (%)", protocols.RANDOM]  # here it is the same network


def test_what_the_photos_of_the_day_are_worth():
    found = pd.DataFrame(
        {
            "annotation_id": list("pqrstu"),
            "species": ["ant"] * 5 + ["bee"],
            "individual": ["a", "a", "b", "b", "c", "d"],
            "right": [True, True, True, False, True, True],
            "apart": ["a", "b", "a", "a", "", "d"],
            "same_day": [False, True, True, False, True, False],
        }
    )
    table = protocols.without_the_day(found).set_index("species")
    assert table.index.tolist() == ["ant", "mean"]  # no bee has a photo of its day to lose
    assert table.loc["ant", ["queries", "value", "same_day"]].tolist() == [4, 50, 50]
    assert table["alone"].tolist() == [1, 1]  # c, whose photos are all of its day
    words = protocols.days_in_words(table.reset_index())
    assert "no change of top-1 is shown: -50.0 points (95 % interval " in words
    assert "queries: 4 of 1 species. Of these 50 % have such a photo" in words
    for nothing in (found.assign(apart=""), found.assign(same_day=False)):
        assert "not measured" in protocols.days_in_words(protocols.without_the_day(nothing))


def test_all_species_are_searched_in_blocks(monkeypatch):
    """Against one search of each species; a species without a database has no rows."""
    monkeypatch.setattr(protocols, "BLOCK", 2)
    rng = np.random.default_rng(0)
    test = pd.concat([animals(0, [2, 3]), animals(1, [2, 2], "bee"), animals(2, [2], "cat")])
    train = pd.concat([animals(3, [3, 3], "bee"), animals(4, [3, 2, 1])])
    test, train = (rows.reset_index(drop=True) for rows in (test, train))
    vectors = {
        len(rows): rng.normal(size=(len(rows), 4)).astype(np.float32) for rows in (test, train)
    }
    study = SimpleNamespace(
        test=test, train=train, embeddings=lambda training, rows: vectors[len(rows)]
    )
    found = protocols.searches(study, None, 2)
    assert set(found["species"]) == {"ant", "bee"}
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors.values()]
    for species, rows in found.groupby("species"):
        queries, own = (frame["species"] == species for frame in (test, train))
        cosine = unit[0][queries] @ unit[1][own].T
        expected = protocols.find(cosine, test[queries], train[own], 2)
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="neighbours"):
        protocols.searches(study, None, 0)


def test_a_catalog_without_dates_has_no_split_by_date(small_catalog, tmp_path):
    study = open_study(str(small_catalog), figures_dir=str(tmp_path), runs_dir=str(tmp_path))
    assert [*protocols.networks(study)] == [protocols.RANDOM]


def test_the_network_of_earlier_days_takes_as_many_steps(small_catalog, tmp_path):
    table = pd.read_csv(small_catalog)
    table["date"] = ["2020-01-01", "2020-01-01", "2020-01-01", "2020-01-02"] * 6
    folder = small_catalog.parent
    table.to_csv(folder / "dated.csv", index=False)
    study = open_study(str(folder / "dated.csv"), runs_dir=str(tmp_path))
    networks = protocols.networks(study)
    photos = {name: training.photos for name, (_, training) in networks.items()}
    assert photos[protocols.RANDOM] == photos[protocols.TIMED]
    later, _ = networks[protocols.TIMED]
    for _, rows in later.annotations.groupby("species"):
        days = rows.set_index("annotation_id")["date"]
        train, test = (
            days.reindex(part["annotation_id"]).dropna() for part in (later.train, later.test)
        )
        assert train.max() < test.min()


def test_section_3_3_is_also_summed_up_over_the_species_of_the_split_by_date():
    found = several(6)
    later = found[found["species"] != "x"]
    tables = protocols.summaries({protocols.RANDOM: found, protocols.TIMED: later})
    assert {name: len(table) for name, table in tables.items()} == {
        protocols.RANDOM: 4,
        protocols.TIMED: 3,
        protocols.DATED: 3,
    }
    pd.testing.assert_frame_equal(tables[protocols.DATED], tables[protocols.TIMED])
    lowest = protocols.floors({protocols.RANDOM: found, protocols.TIMED: later})
    for name, rows in ((protocols.RANDOM, found), (protocols.DATED, later)):
        known = rows[rows["known"]].groupby("species")
        assert lowest.loc[name, "random"] == pytest.approx(100 * known["chance"].mean().mean())
        assert lowest.loc[name, "untrained"] == pytest.approx(100 * known["right"].mean().mean())
    assert lowest.loc[protocols.DATED].equals(lowest.loc[protocols.TIMED])
    assert [*protocols.readable(tables, lowest)] == ["split", *tables]
    assert [*protocols.summaries({protocols.RANDOM: found})] == [protocols.RANDOM]


def test_the_answer_leads_with_what_may_be_called_new():
    table = protocols.summary(several(6))
    top_1, known, new = (f"{table[name].iloc[-1]:.1f} % (" for name in ("top_1", "BAKS", "BAUS"))
    words = protocols.in_words(table, "it")
    assert words.startswith(f"Where it must name an animal or call it new, it is right for {known}")
    assert f" of known and {new}" in words
    assert f" The nearest training photo is right for {top_1}" in words
    alone = protocols.summary(several(6).query("species == 'x'"))  # it has no threshold
    assert protocols.in_words(alone).startswith("The nearest training photo is right for ")
    for rows in (table, alone):
        told, later = protocols.details({protocols.RANDOM: rows, protocols.TIMED: rows})
        assert later.endswith(protocols.in_words(rows, "another network")[1:])
        assert protocols.details({protocols.RANDOM: rows}) == [told]
        species = rows[:-1].set_index("species")
        least, most = species["top_1"].idxmin(), species["top_1"].idxmax()
        ends = [f"{species['top_1'][name]:.0f} % ({name})" for name in (least, most)]
        assert f"top-1 {' to '.join(ends)}" in told
        assert ("BAUS" in told) == (len(rows) > 2)


def test_the_usual_top_1_is_that_of_the_same_queries():
    found = several(7)
    ranks = found[["annotation_id", "species", "individual"]].assign(relevant=1, candidates=5)
    ranks["first_match_rank"] = np.where(found["known"], 1 + np.arange(len(found)) % 2, 2.0)
    ranks.loc[found["known"].idxmax(), "first_match_rank"] = np.nan  # no query of section 3.4
    counted = found["known"] & ranks["first_match_rank"].notna()
    rows, among = found[counted], ranks["first_match_rank"][counted] == 1
    usual, here, gain = (
        100 * values.groupby(rows["species"]).mean().mean()
        for values in (among, rows["right"], rows["right"].astype(int) - among)
    )
    told = protocols.usual_in_words(ranks, found)
    assert f"top-1 is {usual:.1f} % (" in told
    assert f"on the {counted.sum()} queries of known individuals." in told
    assert f" it is {here:.1f} % (" in told
    assert f"): {gain:+.1f} points (95 % interval " in told
    none = protocols.usual_in_words(ranks, found.assign(known=False))
    assert none.startswith("No known individual's photo")


@pytest.mark.parametrize("both", [True, False])
def test_the_figure_has_a_panel_a_split_with_new_individuals(both):
    found = several(5)
    later = found[found["species"] != "x"] if both else found[found["known"]]
    drawn = protocols.curves({"section 3.3": found, "by date": later}, "A title")
    titles = ["split section 3.3, 3 species", "split by date, 2 species"][: 1 + both]
    assert [axes.get_title(loc="left") for axes in drawn.axes] == titles
    none = protocols.curves({"section 3.3": found[found["known"]]}, "A title")
    assert none.axes[0].get_title(loc="left") == "split section 3.3, 0 species"
    assert none.png()

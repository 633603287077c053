"""The threshold by its definition, on scores whose answers are known, and its refusals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from miewid_core.beyond_paper import threshold
from miewid_core.runs.embeddings import LABELS, Embeddings


def embedded(individuals, encounters, seed, prefix, species="ant"):
    count = len(individuals)
    rows = pd.DataFrame({"annotation_id": [f"{prefix}{i}" for i in range(count)]})
    rows = rows.assign(species=species, individual=individuals, encounter=encounters, chip="")
    vectors = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return Embeddings(rows[LABELS], vectors, "w", "p")


def made(count, seed=0, known_mean=0.7, per=4):
    """Searches of `count` individuals, `per` each: own around `known_mean`, other around 0.5."""
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame({"individual": np.repeat(np.arange(count), per).astype(str)})
    rows["own"] = generator.normal(known_mean, 0.1, len(rows))
    rows["other"] = generator.normal(0.5, 0.1, len(rows))
    return rows


class TestNeeded:
    @pytest.mark.parametrize(("rate", "count"), [(0.1, 30), (0.05, 60), (0.01, 300), (0.3, 10)])
    def test_is_the_rule_of_three(self, rate, count):
        assert threshold.needed(rate) == count
        # with that many and no error among them, the exact bound at 95 % is no higher than the rate
        assert 1 - 0.05 ** (1 / count) <= rate

    @pytest.mark.parametrize("rate", [0, 1, -0.1, 5])
    def test_a_rate_lies_between_0_and_1(self, rate):
        with pytest.raises(ValueError, match="between 0 and 1"):
            threshold.needed(rate)


class TestCarve:
    def photos(self, names):
        return pd.DataFrame({"annotation_id": range(3 * len(names)), "individual": 3 * names})

    def test_takes_individuals_of_training_that_no_test_has(self):
        train = self.photos([f"i{i}" for i in range(80)])
        test = self.photos([f"i{i}" for i in range(40)])
        rest, validation = threshold.carve(train, test, 0.1, 0)
        assert validation["individual"].nunique() == 30
        assert len(validation) == 90
        assert not set(validation["individual"]) & set(test["individual"])
        assert not set(validation["individual"]) & set(rest["individual"])
        assert len(rest) + len(validation) == len(train)
        again = threshold.carve(train.sample(frac=1, random_state=1), test, 0.1, 0)[1]
        assert set(again["individual"]) == set(validation["individual"])

    @pytest.mark.parametrize(("train", "tested", "rate"), [(59, 0, 0.1), (80, 51, 0.1), (80, 0, 0)])
    def test_takes_none_where_too_much_would_be_lost(self, train, tested, rate):
        photos = self.photos([f"i{i}" for i in range(train)])
        test = photos[photos["individual"].isin([f"i{i}" for i in range(tested)])]
        rest, validation = threshold.carve(photos, test, rate, 0)
        assert (len(rest), len(validation)) == (len(photos), 0)


class TestSearches:
    def test_a_double_loop_agrees(self, monkeypatch):
        monkeypatch.setattr(threshold, "BLOCK", 3)
        generator = np.random.default_rng(0)
        names, visits = (generator.choice(list("abcd"), 24), generator.choice(["", "v", "w"], 24))
        database = embedded(names, visits, 0, "k", np.repeat(["ant", "bee"], 12))
        queries = database.of(generator.random(24) < 0.6)
        found = threshold.searches(queries, database).set_index("annotation_id")
        assert len(found) == len(queries.rows)
        for place, query in enumerate(queries.rows.itertuples()):
            own, other = [], []
            for row, candidate in enumerate(database.rows.itertuples()):
                a, b = queries.vectors[place], database.vectors[row]
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                same = query.individual == candidate.individual
                if query.species != candidate.species:
                    continue
                if same and query.annotation_id != candidate.annotation_id:
                    if query.encounter == "" or query.encounter != candidate.encounter:
                        own.append(cosine)
                elif not same:
                    other.append(cosine)
            wanted = [max(scores, default=np.nan) for scores in (own, other)]
            got = found.loc[query.annotation_id, ["own", "other"]].to_numpy(float)
            assert got == pytest.approx(wanted, abs=1e-5, nan_ok=True)

    def test_a_lone_individual_finds_nothing(self):
        alone = embedded(["a"], [""], 0, "k")
        assert threshold.searches(alone, alone)[["own", "other"]].isna().all(axis=None)


class TestChoose:
    @settings(max_examples=50, deadline=None)
    @given(
        scores=st.lists(st.sampled_from(np.linspace(0, 1, 9)), min_size=30, max_size=90),
        rate=st.sampled_from([0.1, 0.2, 0.35]),
    )
    def test_is_the_lowest_that_keeps_the_rate(self, scores, rate):
        rows = pd.DataFrame({"individual": [str(i) for i in range(len(scores))]})
        rows = rows.assign(own=0.5, other=scores)
        chosen = threshold.choose(rows, rate).value
        assert np.mean(np.array(scores) > chosen) <= rate
        lower = max((score for score in scores if score < chosen), default=None)
        if (
            lower is not None
        ):  # a ninth of a step lower, and one search more than allowed is accepted
            assert np.sum(np.array(scores) > lower) > rate * (len(scores) - 1)

    def test_refuses_too_few_and_says_how_many_and_why(self):
        with pytest.raises(threshold.TooFewIndividualsError, match="it takes 30") as caught:
            threshold.choose(made(29), 0.1)
        assert "29 individuals" in str(caught.value)
        assert "3 / 30 of all" in str(caught.value)
        assert "rule of three" in str(caught.value)
        threshold.choose(made(30), 0.1)

    def test_many_photos_of_few_individuals_do_not_help(self):
        with pytest.raises(threshold.TooFewIndividualsError):
            threshold.choose(made(10, per=100), 0.1)

    def test_the_stated_rate_holds_on_other_individuals_of_the_kind(self):
        chosen = threshold.choose(made(400), 0.1)
        table = threshold.rates(made(400, seed=1), chosen, 0).set_index("measure")
        assert table.loc["false_match", "low"] <= 10 <= table.loc["false_match", "high"]

    def test_it_holds_in_the_database_that_it_was_chosen_in_not_in_a_larger_one(self):
        names = np.repeat([f"i{i}" for i in range(400)], 3)
        database = embedded(names, "", 0, "k")
        chosen_on = database.of(np.arange(1200) < 600)
        tested = threshold.searches(database.of(np.arange(1200) >= 600), database)
        exceeded = {
            name: threshold.rates(
                tested, threshold.choose(threshold.searches(chosen_on, searched), 0.1), 0
            )["rate"][0]
            for name, searched in (("half", chosen_on), ("whole", database))
        }
        assert exceeded["whole"] == pytest.approx(10, abs=3)
        assert exceeded["half"] > 1.4 * exceeded["whole"]  # 1 - 0.9 ** 2 is 0.19


class TestCalibration:
    def test_probabilities_are_those_that_made_the_answers(self):
        generator = np.random.default_rng(0)
        score = generator.uniform(0.2, 0.9, 20_000)
        right = generator.random(20_000) < 1 / (1 + np.exp(-(10 * score - 5)))
        rows = pd.DataFrame({"individual": np.arange(20_000).astype(str)})
        rows["own"], rows["other"] = np.where(right, score, 0.1), np.where(right, 0.1, score)
        chosen = threshold.choose(rows, 0.1)
        assert (chosen.slope, chosen.intercept) == pytest.approx((10, -5), rel=0.05)
        assert chosen.probability(np.array([0.5])) == pytest.approx([0.5], abs=0.02)

    def test_all_right_is_no_certainty(self):
        rows = made(30).assign(own=0.9, other=0.1)
        chosen = threshold.choose(rows, 0.1)
        assert chosen.probability(0.3) == pytest.approx(121 / 122)  # 120 searches, all right
        assert chosen.probability(0.9) == chosen.probability(0.3)

    def test_reliability_of_calibrated_scores_lies_on_the_diagonal(self):
        chosen = threshold.choose(made(400, known_mean=0.55), 0.1)
        table = threshold.reliability(made(400, 1, known_mean=0.55), chosen, 0)
        assert len(table) == threshold.BINS
        assert table["searches"].sum() == 1600
        inside = table["stated"].between(table["low"] - 3, table["high"] + 3)
        assert inside.all()
        assert table["stated"].is_monotonic_increasing

    def test_other_scores_are_seen_to_be_off(self):
        chosen = threshold.choose(made(100, known_mean=0.8), 0.1)
        table = threshold.reliability(made(100, 1, known_mean=0.4), chosen, 0)
        assert (table["high"] < table["stated"])[3:].all()  # where it claims to be rather sure


class TestRates:
    def test_by_hand(self):
        chosen = threshold.Threshold(0.5, 0.1, 30, 30, 1, 0)
        rows = pd.DataFrame({"individual": list("aabbcc")})
        rows["own"] = [0.9, 0.4, 0.6, np.nan, 0.5, 0.7]
        rows["other"] = [0.6, 0.3, 0.8, 0.5, 0.2, np.nan]
        table = threshold.rates(rows, chosen, 0).set_index("measure")
        # new: 0.6 and 0.8 of five; known: 0.4 and 0.5 aren't above; 0.6 loses to 0.8
        assert table["rate"].tolist() == pytest.approx([40, 40, 20])
        assert table["searches"].tolist() == [5, 5, 5]

    def test_no_error_among_few_is_no_proof(self):
        chosen = threshold.Threshold(0.5, 0.1, 30, 30, 1, 0)
        rows = made(20).assign(own=0.9, other=0.1)
        table = threshold.rates(rows, chosen, 0)
        assert table["rate"].tolist() == [0, 0, 0]
        square = stats.t.isf(0.025, 19) ** 2
        high = 100 * square / (20 + square)  # Wilson's, of 20 individuals
        assert table["high"].tolist() == pytest.approx([high] * 3)
        none = threshold.rates(rows.assign(other=0.95), chosen, 0)
        assert none.loc[0, ["low", "high"]].tolist() == pytest.approx([100 - high, 100])

    def test_intervals_cover_the_truth_about_as_often_as_they_say(self):
        chosen = threshold.Threshold(0.6, 0.1, 30, 30, 1, 0)
        truth, inside = 15.87, 0  # of a normal distribution, above one deviation
        for seed in range(60):
            row = threshold.rates(made(40, seed, per=2), chosen, seed).iloc[0]
            inside += row["low"] <= truth <= row["high"]
        assert inside >= 51


class TestReport:
    def test_says_what_it_chose_and_whether_it_held(self):
        report = threshold.report(made(400), made(200, 1), 0.1, 0)
        assert f"**{report.threshold.value:.2f}**" in report.words
        assert "was not shown to be exceeded" in report.words
        worse = made(200, 1).assign(other=lambda rows: rows["other"] + 0.1)
        assert "was exceeded" in threshold.report(made(60), worse, 0.1, 0).words

    def test_a_refusal_leaves_empty_tables_and_draws(self):
        report = threshold.report(made(9), made(9, 1), 0.1, 0)
        assert report.threshold is None
        assert "No threshold can be stated" in report.words
        assert list(report.rates) == threshold.RATES
        assert threshold.notes(pd.DataFrame(), None) == {}
        assert threshold.reliability_curve(report.reliability, "x").png(40)[:4] == b"\x89PNG"

    def test_rate_zero_asks_for_none(self):
        assert "No threshold was asked for" in threshold.report(made(9), made(9), 0, 0).words

    def test_the_curve_draws_the_table(self):
        report = threshold.report(made(60), made(200, 1), 0.1, 0)
        axes = threshold.reliability_curve(report.reliability, "x").axes[0]
        drawn = axes.lines[1].get_xydata()
        assert drawn == pytest.approx(report.reliability[["stated", "observed"]].to_numpy())

    def test_notes_speak_of_the_best_candidate(self):
        chosen = threshold.Threshold(0.5, 0.1, 30, 30, 10, -5)
        found = pd.DataFrame({"query": list("aabb"), "rank": [1, 2, 1, 2]})
        found["score"] = [0.5, 0.4, 0.7, 0.6]
        notes = threshold.notes(found, chosen)
        assert notes["a"].startswith("perhaps a new animal: best score 0.50")
        assert "right with 88 %" in notes["b"]  # 1 / (1 + exp(-2))

"""The threshold by its definition, on scores whose answers are known, and its refusals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from miewid_core.beyond_paper.identify import embeddings, threshold
from miewid_core.beyond_paper.identify.embeddings import LABELS, Embeddings
from miewid_core.paper.intervals import Estimate


def embedded(individuals, encounters, seed, prefix, species="ant"):
    count = len(individuals)
    rows = pd.DataFrame({"annotation_id": [f"{prefix}{i}" for i in range(count)]})
    rows = rows.assign(species=species, individual=individuals, encounter=encounters, chip="")
    vectors = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return Embeddings(rows[LABELS], vectors, "w", "p")


def made(count, seed=0, known_mean=0.7, per=4, species="ant", learned=False):
    """Searches of `count` individuals, `per` each: true around `known_mean`, other around 0.5."""
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame({"individual": np.repeat(np.arange(count), per).astype(str)})
    rows["true_score"] = generator.normal(known_mean, 0.1, len(rows))
    rows["other_score"] = generator.normal(0.5, 0.1, len(rows))
    return rows.assign(species=species, learned=learned, annotation_id=rows.index.astype(str))


def limit(value=0.5):
    return Estimate(value, value, value)


class TestNeeded:
    @pytest.mark.parametrize(("rate", "count"), [(0.1, 22), (0.05, 45), (0.01, 230), (0.3, 7)])
    def test_one_of_so_many_reaches_the_true_threshold(self, rate, count):
        assert threshold.needed(rate) == count
        assert 1 - (1 - rate) ** count >= 0.9 > 1 - (1 - rate) ** (count - 1)

    @pytest.mark.parametrize("rate", [0, 1, -0.1, 5])
    def test_a_rate_lies_between_0_and_1(self, rate):
        with pytest.raises(ValueError, match="between 0 and 1"):
            threshold.needed(rate)


class TestSearches:
    def test_a_double_loop_agrees(self, monkeypatch):
        monkeypatch.setattr(embeddings, "BLOCK", 3)
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
            got = found.loc[query.annotation_id, ["true_score", "other_score"]].to_numpy(float)
            assert got == pytest.approx(wanted, abs=1e-5, nan_ok=True)

    def test_a_lone_individual_finds_nothing(self):
        alone = embedded(["a"], [""], 0, "k")
        found = threshold.searches(alone, alone)
        assert found[["true_score", "other_score"]].isna().all(axis=None)

    def test_a_new_animal_finds_what_is_left_without_its_photos(self):
        """`other_score` is the best score once the individual's photos are taken out."""
        database = embedded(list("aabbcc"), [""] * 6, 0, "k")
        found = threshold.searches(database, database, frozenset("b"))
        assert found["learned"].tolist() == [False, False, True, True, False, False]
        for place, name in enumerate(database.rows["individual"]):
            rest = database.of(database.rows["individual"] != name)
            unit = rest.vectors / np.linalg.norm(rest.vectors, axis=1, keepdims=True)
            query = database.vectors[place] / np.linalg.norm(database.vectors[place])
            assert found["other_score"][place] == pytest.approx((unit @ query).max(), abs=1e-5)


class TestChoose:
    @settings(max_examples=30, deadline=None)
    @given(
        scores=st.lists(st.sampled_from(np.linspace(0, 1, 9)), min_size=22, max_size=90),
        rate=st.sampled_from([0.1, 0.2, 0.35]),
    )
    def test_is_the_lowest_that_keeps_the_rate(self, scores, rate):
        rows = made(len(scores), per=1).assign(other_score=scores)
        chosen = threshold.choose(rows, rate, 0).value
        assert np.mean(np.array(scores) > chosen) <= rate
        lower = max((score for score in scores if score < chosen), default=None)
        if lower is not None:
            assert np.mean(np.array(scores) > lower) > rate

    def test_individuals_count_alike_however_many_photos_they_have(self):
        rows = made(30, per=1)
        much = pd.concat([rows, *[rows[:1].assign(other_score=0.99)] * 100], ignore_index=True)
        value = threshold.choose(much, 0.1, 0).value
        assert value < 0.9  # 100 of 130 searches, but one of 30 individuals
        assert value == np.sort(rows["other_score"])[-3]

    def test_too_few_have_none_and_26_have_one(self):
        assert threshold.choose(made(21), 0.1, 0) is None
        assert threshold.choose(made(10, per=100), 0.1, 0) is None
        assert threshold.choose(made(26), 0.1, 0)

    def test_learned_individuals_stand_for_no_new_ones(self):
        rows = pd.concat([made(30), made(60, 1, learned=True).assign(other_score=0.95)])
        rows["individual"] += rows["learned"].astype(str)
        chosen = threshold.choose(rows, 0.1, 0)
        assert chosen.value == threshold.choose(made(30), 0.1, 0).value

    def test_its_interval_holds_the_true_threshold_about_as_often_as_it_says(self):
        truth, inside = 0.5 + 0.1 * stats.norm.ppf(0.9), 0
        for seed in range(60):
            chosen = threshold.choose(made(26, seed, per=3), 0.1, seed)
            assert chosen.low <= chosen.value <= chosen.high
            inside += chosen.low <= truth <= chosen.high
        assert inside >= 51

    def test_it_holds_in_the_database_that_it_was_chosen_in_not_in_a_larger_one(self):
        names = np.repeat([f"i{i}" for i in range(400)], 3)
        database = embedded(names, "", 0, "k")
        first = database.of(np.arange(1200) < 600)
        tested = threshold.searches(database.of(np.arange(1200) >= 600), database)
        above = {
            name: (
                tested["other_score"]
                > threshold.choose(threshold.searches(first, searched), 0.1, 0).value
            ).mean()
            for name, searched in (("half", first), ("whole", database))
        }
        assert above["whole"] == pytest.approx(0.1, abs=0.03)
        assert above["half"] > 1.4 * above["whole"]  # 1 - 0.9 ** 2 is 0.19


class TestCalibration:
    def test_probabilities_are_those_that_made_the_answers(self):
        generator = np.random.default_rng(0)
        score = generator.uniform(0.2, 0.9, 20_000)
        right = generator.random(20_000) < 1 / (1 + np.exp(-(10 * score - 5)))
        rows = made(2_000, per=10)
        rows["true_score"] = np.where(right, score, 0.1)
        rows["other_score"] = np.where(right, 0.1, score)
        chosen = threshold.calibrated(rows)
        stated = chosen.predict_proba([[0.5], [0.6]])[:, 1]
        assert stated == pytest.approx([0.5, 1 / (1 + np.exp(-1))], abs=0.02)

    def test_all_right_is_no_certainty(self):
        chosen = threshold.calibrated(made(30).assign(true_score=0.9, other_score=0.1))
        stated = chosen.predict_proba([[0.3], [0.9]])[:, 1]
        assert stated == pytest.approx(121 / 122)  # 120 searches, all right

    def test_what_is_stated_is_observed(self):
        table = threshold.reliability(made(400, known_mean=0.55))
        assert len(table) == threshold.BINS
        assert table["searches"].sum() == 1600
        assert table["stated"].between(table["low"] - 3, table["high"] + 3).all()
        assert table["stated"].is_monotonic_increasing
        assert threshold.calibration_error(table) < 4

    def test_an_individual_says_nothing_of_its_own_probability(self):
        """Scores that tell nothing are stated as the share of right ones, not learned by heart."""
        rows = made(24, per=2).assign(true_score=lambda r: 0.5 + 0.1 * (r.index // 2 % 2))
        rows["other_score"] = 0.55
        rows.loc[rows["individual"] == "1", "true_score"] = 0.551
        changed = rows.assign(true_score=rows["true_score"].where(rows["individual"] != "1", 0.549))
        known = [threshold._known(table) for table in (rows, changed)]
        place = (rows["individual"] == "1").to_numpy()
        assert threshold._stated(known[0])[place] == pytest.approx(
            threshold._stated(known[1])[place], abs=0.05
        )

    def test_the_calibration_error_by_hand(self):
        table = pd.DataFrame({"stated": [10, 90.0], "observed": [20, 60.0], "searches": [3, 1]})
        assert threshold.calibration_error(table) == pytest.approx((3 * 10 + 30) / 4)


class TestRates:
    def test_by_hand(self):
        rows = pd.DataFrame({"individual": list("aabbcc"), "learned": True})
        rows["true_score"] = [0.9, 0.4, 0.6, np.nan, 0.5, 0.7]
        rows["other_score"] = [0.6, 0.3, 0.8, 0.5, 0.2, np.nan]
        found = threshold.rates(rows, limit(), 0.1)
        # a: one of two is called new; b: taken for another; c: 0.5 isn't above, 0.7 is found
        assert found["called_new"] == pytest.approx(100 * (1 / 2 + 0 + 1 / 2) / 3)
        assert found["wrong_match"] == pytest.approx(100 / 3)
        assert found["FNIR"] == pytest.approx(200 / 3)
        assert np.isnan(found["FPIR"])  # all were learned
        assert found["known_individuals"] == 3

    def test_each_is_judged_by_the_threshold_of_the_others(self):
        """Of 22 scores the highest is above what the others choose; its own choice hides it."""
        rows = made(22, per=1).assign(other_score=np.arange(22) / 100, true_score=np.nan)
        rate = 0.045  # none of 22 may be above, one of 23 could
        assert threshold.rates(rows, limit(0.21), rate)["FPIR"] == pytest.approx(100 / 22)

    def test_no_error_among_few_is_no_proof(self):
        rows = made(20, learned=True).assign(true_score=0.9, other_score=0.1)
        found = threshold.rates(rows, limit(), 0.1)
        assert [found[name] for name in threshold.MEASURES[1:]] == [0, 0, 0]
        square = stats.t.isf(0.025, 19) ** 2
        high = 100 * square / (20 + square)  # Wilson's, of 20 individuals
        assert found["FNIR_high"] == pytest.approx(high)
        none = threshold.rates(rows.assign(true_score=0.2), limit(), 0.1)
        assert (none["FNIR_low"], none["FNIR_high"]) == pytest.approx((100 - high, 100))

    def test_the_stated_rate_holds_on_other_individuals_of_the_kind(self):
        chosen = threshold.choose(made(400), 0.1, 0)
        above = made(400, seed=1)["other_score"] > chosen.value
        assert 100 * above.mean() == pytest.approx(10, abs=2)
        found = threshold.rates(made(400), chosen, 0.1)
        assert found["FPIR_low"] <= 10 <= found["FPIR_high"]


class TestDetection:
    def test_curves_by_a_double_loop(self):
        rows = pd.concat(
            [made(9, 3, per=2), made(5, 4, 0.55, 3, "bee"), made(4, 5, learned=True)],
            ignore_index=True,
        )
        rows["individual"] = rows["species"] + rows["individual"] + rows["learned"].astype(str)
        scores = ["true_score", "other_score"]
        rows[scores] = rows[scores].round(4)
        new, known = [], []
        for _, own in rows.groupby("species"):
            free = own[~own["learned"]]
            for row in free.itertuples():
                share = 1 / (free["individual"] == row.individual).sum()
                new.append((row.other_score, share / free["individual"].nunique()))
            for row in own.itertuples():
                share = 1 / (own["individual"] == row.individual).sum()
                best = max(row.true_score, row.other_score)
                right = row.true_score > row.other_score
                known.append((best, right, share / own["individual"].nunique()))
        table = threshold.detection(rows)
        pooled = table[table["thresholds"] == "one for all"].dropna()
        for row in pooled.iloc[::5].itertuples():
            fpir = sum(v for score, v in new if score >= row.threshold) / 2
            missed = sum(w for best, right, w in known if not right or best < row.threshold) / 2
            by_hand = (100 * fpir, 100 * missed)
            assert row[3:] == pytest.approx(by_hand)

    def test_last_bits_of_scores_move_no_row(self):
        rows, scores = made(60), ["true_score", "other_score"]
        rows[scores] = rows[scores].round(2)  # ties
        moved = rows.assign(**{name: rows[name] + 1e-8 * np.arange(len(rows)) for name in scores})
        pd.testing.assert_frame_equal(threshold.detection(moved), threshold.detection(rows))

    def test_species_of_other_scores_need_thresholds_of_their_own(self):
        low = made(60, 1, species="bee")
        low[["true_score", "other_score"]] -= 0.4
        table = threshold.detection(pd.concat([made(60), low], ignore_index=True))
        missed = {
            name: np.interp(10, rows["FPIR"], rows["FNIR"])
            for name, rows in table.groupby("thresholds")
        }
        assert missed["one per species"] + 10 < missed["one for all"]

    def test_without_known_or_new_animals_there_is_nothing_to_say(self):
        lost = made(9).assign(true_score=np.nan)
        assert threshold.detection(lost).empty
        assert "nothing can be said" in threshold.report(lost, 0.1, 0).words


class TestReport:
    def rows(self):
        high = made(40, 1, 0.95, species="bee")
        high["other_score"] += 0.1
        some = pd.concat([made(40, 0, 0.9), high, made(9, 2, species="cat")], ignore_index=True)
        return some.assign(individual=some["species"] + "/" + some["individual"])

    def test_each_species_has_its_threshold_or_none(self):
        report = threshold.report(self.rows(), 0.1, 0)
        assert list(report.thresholds) == ["ant", "bee"]
        table = report.rates.set_index("species")
        assert table.loc["bee", "threshold"] > table.loc["ant", "threshold"] + 0.05
        assert table["FPIR"].dropna().between(5, 15).all()
        assert np.isnan(table.loc["cat", "threshold"])
        assert table.loc["cat", "new_individuals"] == 9
        assert "**No threshold** for cat (9): it takes 22 individuals" in report.words

    def test_words_name_the_measures_and_what_helps_nobody(self):
        words = threshold.report(self.rows(), 0.1, 0).words
        assert "FPIR" in words
        assert "FNIR" in words
        assert "consistent with the 10 % asked for" in words
        assert "not used" not in words
        assert "89 individuals" in words
        useless = threshold.report(made(60, known_mean=0.52), 0.1, 0)
        assert "**The threshold is not used** for" in useless.words
        assert useless.thresholds == {}  # no note on the page asks for a new animal
        assert useless.rates["threshold"].notna().any()

    def test_a_refusal_leaves_tables_that_draw(self):
        report = threshold.report(made(9), 0.1, 0)
        assert report.thresholds == {}
        assert "No threshold" in report.words
        assert list(report.rates) == threshold.RATES
        assert threshold.notes(pd.DataFrame({"rank": []}), {}, {}) == {}
        assert threshold.reliability_curve(report.reliability, "x").png(40)[:4] == b"\x89PNG"
        assert threshold.detection_curve(report.detection, "x").png(40)[:4] == b"\x89PNG"

    def test_rate_zero_asks_for_none(self):
        report = threshold.report(made(9), 0, 0)
        assert "No threshold was asked for" in report.words
        assert list(report.rates) == threshold.RATES

    def test_the_curves_draw_the_tables(self):
        report = threshold.report(made(60), 0.1, 0)
        axes = threshold.reliability_curve(report.reliability, "x").axes[0]
        drawn = axes.lines[1].get_xydata()
        assert drawn == pytest.approx(report.reliability[["stated", "observed"]].to_numpy())
        axes = threshold.detection_curve(report.detection, "x").axes[0]
        rows = report.detection[report.detection["thresholds"] == "one per species"]
        assert axes.lines[1].get_xydata() == pytest.approx(rows[["FPIR", "FNIR"]].to_numpy())

    def test_notes_speak_of_the_best_candidate_by_its_species(self):
        found = pd.DataFrame({"query": list("aabbc"), "rank": [1, 2, 1, 2, 1]})
        found["score"] = [0.5, 0.4, 0.7, 0.6, 0.7]
        found["individual"] = ["ant/x", "ant/y", "ant/x", "ant/y", "bee/x"]
        score = np.linspace(0, 1, 2000)[:, None]
        right = np.random.default_rng(0).random(2000) < 1 / (1 + np.exp(5 - 10 * score[:, 0]))
        sure = {"ant": LogisticRegression(C=1e9).fit(score, right)}
        sure["bee"] = DummyClassifier(strategy="uniform").fit(score, right)
        notes = threshold.notes(found, {"ant": limit(0.5)}, sure)
        assert notes["a"] == "perhaps a new animal: best score 0.50, threshold 0.50"
        told = 100 * sure["ant"].predict_proba([[0.7]])[0, 1]
        assert f"right with {told:.0f} %" in notes["b"]
        assert "right with 50 %" in notes["c"]  # a species without a threshold

"""The comparison table and its verdict, on ranks made by hand and against loops."""

import numpy as np
import pandas as pd
import pytest

from miewid_core.paper import intervals
from miewid_core.paper.comparison import (
    beside_paper,
    briefly,
    by_relatives,
    compare,
    each_training,
    same_sign,
    verdict,
)
from miewid_core.paper.intervals import Spread
from miewid_core.paper.printed import printed_table
from tests.paper.made import CANDIDATES, ranks, training

WORDS = {"multi": "one network for all species", "single": "one each"}


TRAIN = training(hyena=20, nyala=30)
THIRD = 100 / 3


@pytest.fixture
def three():
    """Hyenas and nyalas with a network each, and ants with too little to train one."""
    return {
        "multi": ranks(nyala=[1, 1, 1, 2], hyena=[1, 2, 6], ant=[1, 1]),
        "single": ranks(nyala=[1, 2, 6, 2], hyena=[6, 2, 1]),
        "untrained": ranks(nyala=[6, 6, 6, 1], hyena=[6, 6, 6], ant=[6, 6]),
    }


def many(seed, shares, species=("a", "b", "c"), queries=60):
    """Ranks of so many queries a species, with a match at once in about these shares."""
    rng = np.random.default_rng(seed)
    firsts = {
        name: np.where(rng.random(queries) < share, 1, rng.integers(2, 9, queries))
        for name, share in zip(species, shares, strict=True)
    }
    return ranks(**firsts)


class TestCompare:
    def test_by_hand(self, three):
        table = compare(three, TRAIN).set_index("species")
        assert table.index.tolist() == ["nyala", "hyena", "ant", "mean"]
        nan = np.nan
        expected = {
            "queries": [4, 3, 2, 7],  # of the mean as of its species
            "individuals": [2, 2, 1, 4],
            "train_annotations": [30, 20, 0, 50],
            "multi": [75, THIRD, 100, (75 + THIRD) / 2],  # over species that all have
            "single": [25, THIRD, nan, (25 + THIRD) / 2],
            "untrained": [25, 0, 0, 12.5],
            "gain_over_single": [50, 0, nan, 25],
            "gain_over_untrained": [50, THIRD, 100, (50 + THIRD) / 2],
            "multi_trainings": [1] * 4,
            "chance": [100 / CANDIDATES] * 4,
        }
        for column, values in expected.items():
            assert table[column].tolist() == pytest.approx(values, nan_ok=True), column

    def test_columns_in_their_order(self, three):
        found = compare({name: three[name] for name in ("multi", "single")}, TRAIN).columns
        networks = [f"{name}{end}" for name in WORDS for end in ("", "_low", "_high", "_trainings")]
        gains = [f"gain_over_single{end}" for end in ("", "_low", "_high", "_p")]
        counts = ["queries", "individuals", "train_annotations"]
        halves = [f"{name}_{part}" for name in WORDS for part in ("seen", "new")]
        halves = [f"{part}{end}" for part in halves for end in ("", "_low", "_high")]
        assert found.tolist() == ["species", *counts, *networks, *gains, "chance", *halves]

    def test_seen_and_new_individuals_apart(self, three):
        """The split's two halves; here the first individual of each species is in training."""
        table = compare(three, TRAIN.replace("hyena0", "another")).set_index("species")
        nan = np.nan
        expected = {  # nyala, hyena, ant, mean
            "multi_seen": [100, nan, nan, 100],
            "multi_new": [50, THIRD, 100, (50 + THIRD) / 2],
            "single_seen": [50, nan, nan, 50],
            "single_new": [0, THIRD, nan, THIRD / 2],
        }
        for column, values in expected.items():
            assert table[column].tolist() == pytest.approx(values, nan_ok=True), column
        named = compare(three, TRAIN, seen={"ant0"}).set_index("species")
        assert named["multi_seen"].tolist() == pytest.approx([nan, nan, 100, nan], nan_ok=True)

    def test_both_halves_have_the_intervals_of_a_table_of_their_own(self):
        one = many(0, (0.7, 0.5, 0.9))
        seen = {f"{species}{i}" for species in "abc" for i in range(0, 30, 2)}
        table = compare({"multi": one, "single": many(1, (0.5, 0.5, 0.4))}, seen=seen)
        for part, own in (("seen", one["individual"].isin(seen)), ("new", None)):
            rows = one[own] if own is not None else one[~one["individual"].isin(seen)]
            alone = compare({"multi": rows})
            for end in ("", "_low", "_high"):
                expected = alone[f"multi{end}"].tolist()
                assert table[f"multi_{part}{end}"].tolist() == pytest.approx(expected)

    def test_other_k_and_k_beyond_the_candidates(self, three):
        assert compare(three, TRAIN, k=2)["multi"].tolist() == pytest.approx(
            [100, 200 / 3, 100, 250 / 3]
        )
        beyond = compare(three, TRAIN, k=20).set_index("species")
        assert beyond.loc["hyena", ["multi", "single", "chance"]].tolist() == [100, 100, 100]

    def test_intervals_are_those_of_by_species(self):
        one, other = many(0, (0.7, 0.5, 0.9)), many(1, (0.5, 0.5, 0.4))
        table = compare({"multi": one, "single": other}).set_index("species")
        hits = [(rows["first_match_rank"] == 1).astype(float) for rows in (one, other)]
        for name, own in zip(WORDS, hits, strict=True):
            expected = 100 * intervals.by_species(own, one).set_index("species")
            columns = [f"{name}{end}" for end in ("", "_low", "_high")]
            np.testing.assert_allclose(table[columns], expected[["value", "low", "high"]])
        gain = intervals.by_species(hits[0], one, hits[1]).set_index("species")
        columns = [f"gain_over_single{end}" for end in ("", "_low", "_high")]
        np.testing.assert_allclose(table[columns], 100 * gain[["value", "low", "high"]])
        p = gain["p"].iloc[:-1]
        np.testing.assert_allclose(table["gain_over_single_p"].iloc[:-1], intervals.holm(p))
        assert table.loc["mean", "gain_over_single_p"] == gain["p"].iloc[-1]

    def test_gain_is_paired_by_query_whatever_the_order(self, three):
        shuffled = three | {"single": three["single"].sample(frac=1, random_state=0)}
        pd.testing.assert_frame_equal(compare(shuffled, TRAIN), compare(three, TRAIN))

    def test_the_other_way_round_the_sign_changes(self):
        pair = {"multi": many(0, (0.7, 0.5, 0.9)), "single": many(1, (0.5, 0.5, 0.4))}
        there, back = compare(pair), compare(dict(reversed(pair.items())))
        np.testing.assert_allclose(there["gain_over_single"], -back["gain_over_multi"])
        np.testing.assert_allclose(there["gain_over_single_low"], -back["gain_over_multi_high"])

    def test_a_ranking_does_not_differ_from_itself(self):
        one = many(0, (0.7, 0.5, 0.9))
        table = compare({"multi": one, "single": one})
        assert (table["gain_over_single"] == 0).all()
        assert (table["gain_over_single_p"] == 1).all()

    def test_queries_without_a_match_do_not_count(self, three):
        alone = {
            name: pd.concat([ranks(aardvark=[1]).assign(relevant=0), own], ignore_index=True)
            for name, own in three.items()
        }
        alone["multi"]["first_match_rank"] = alone["multi"]["first_match_rank"].mask(
            alone["multi"]["relevant"] == 0
        )
        table, expected = compare(alone, TRAIN), compare(three, TRAIN)
        rest = table[table["species"] != "aardvark"].reset_index(drop=True)
        pd.testing.assert_frame_equal(rest, expected, check_dtype=False)
        assert table.set_index("species").loc["aardvark", ["queries", "multi"]].isin([0]).any()

    def test_one_ranking_and_no_training_set(self, three):
        table = compare({"multi": three["multi"]})
        assert table["species"].tolist() == ["ant", "hyena", "nyala", "mean"]
        assert "train_annotations" not in table
        assert not table.columns.str.startswith("gain").any()
        assert table["multi"].iloc[-1] == pytest.approx((175 + THIRD) / 3)

    def test_rankings_of_other_queries_are_refused(self, three):
        with pytest.raises(ValueError, match=r"1 queries are in one ranking only: \['hyena6'\]"):
            compare(three | {"single": three["single"][:-1]}, TRAIN)
        strange = ranks(nyala=[1, 2, 6, 2], bee=[1])
        with pytest.raises(ValueError, match="bee"):
            compare({"multi": three["multi"], "single": strange})
        others = three["single"].assign(relevant=2)
        with pytest.raises(ValueError, match="7 queries"):
            compare({"multi": three["multi"], "single": others})
        with pytest.raises(ValueError, match="1 queries"):
            compare({"multi": [three["multi"], three["multi"][1:]]})


class TestTrainings:
    def several(self):
        multi = [many(seed, (0.7, 0.5, 0.4)) for seed in (1, 2, 3)]
        return {"multi": multi, "single": many(9, (0.4, 0.5, 0.5))}

    def test_by_loops(self):
        rankings = self.several()
        table = compare(rankings).set_index("species")
        single = rankings["single"]
        for species in "abc":
            gains = []
            for run in rankings["multi"]:
                hit, other = (
                    (rows.loc[rows["species"] == species, "first_match_rank"] == 1).mean()
                    for rows in (run, single)
                )
                gains.append(100 * (hit - other))
            mean = np.mean(gains)
            alike = sum(np.sign(round(gain, 9)) == np.sign(round(mean, 9)) for gain in gains)
            assert table.loc[species, "gain_over_single"] == pytest.approx(mean)
            assert table.loc[species, "gain_over_single_same_sign"] == alike
        assert table.loc["mean", "gain_over_single"] == pytest.approx(
            table["gain_over_single"].iloc[:-1].mean()
        )
        assert (table["multi_trainings"] == 3).all()
        assert (table["single_trainings"] == 1).all()

    def test_each_stands_by_itself_and_together_they_are_the_mean(self):
        rankings = self.several()
        table = each_training(rankings["multi"], rankings["single"])
        whole = compare(rankings)
        assert table["seed"].tolist() == [0, 1, 2]
        assert table["top-1 (%)"].mean() == pytest.approx(whole["multi"].iloc[-1])
        assert table["gain (points)"].mean() == pytest.approx(whole["gain_over_single"].iloc[-1])
        alone = compare({"multi": rankings["multi"][1], "single": rankings["single"]})
        assert table["gain (points)"][1] == pytest.approx(alone["gain_over_single"].iloc[-1])
        assert table["species ahead"][1] == (alone["gain_over_single"][:-1] > 0).sum()
        assert table["species behind"][1] == (alone["gain_over_single"][:-1] < 0).sum()

    def test_a_known_spread_widens(self):
        rankings = self.several()
        width = {}
        for name, arguments in {
            "mean": {},
            "known": {"training_sd": {"single": Spread(mean=3.0)}},
        }.items():
            row = compare(rankings, **arguments).iloc[-1]
            width[name] = row["gain_over_single_high"] - row["gain_over_single_low"]
        assert width["mean"] < width["known"]
        single = compare(rankings, training_sd={"single": Spread(mean=3.0)}).iloc[-1]
        assert single["single_low"] < compare(rankings).iloc[-1]["single_low"]
        assert single["multi_low"] == compare(rankings).iloc[-1]["multi_low"]

    def test_same_sign_by_hand(self):
        runs = pd.DataFrame([[1, 2, -1], [-1, -1, -1], [0.0, 0, 0]], index=["a", "b", "c"])
        gain = pd.Series([2 / 3, -1, 0, np.nan], index=["a", "b", "c", "d"])
        assert same_sign(runs, gain).tolist() == [2, 3, 3, pd.NA]

    def test_all_of_several_networks_may_be_trained_often(self):
        rankings = self.several()
        rankings["single"] = [many(seed, (0.4, 0.5, 0.5)) for seed in (9, 10)]
        table = compare(rankings)
        assert table["single_trainings"].tolist() == [2] * 4
        swapped = compare(rankings | {"single": rankings["single"][::-1]})
        pd.testing.assert_frame_equal(table, swapped)


def test_holm_is_rs_p_adjust():
    p = pd.Series([0.01, 0.04, np.nan, 0.03, 0.005], index=list("abcde"))
    expected = [0.03, 0.06, np.nan, 0.06, 0.02]
    assert intervals.holm(p).tolist() == pytest.approx(expected, nan_ok=True)
    assert intervals.holm(pd.Series([0.6, 0.7])).tolist() == [1, 1]


class TestVerdict:
    def table(self, low, high, trainings=1):
        rows = {"gain_over_single": [5.0, 5.0, -5.0, 3.0, np.nan, (low + high) / 2]}
        rows |= {"gain_over_single_low": low, "gain_over_single_high": high}
        rows |= {"gain_over_single_p": [0.01, 0.2, 0.01, 0.04, np.nan, 0.03]}
        rows |= {
            "queries": 90.0,
            "multi": 60.0,
            "single": 50.0,
            "single_trainings": 1,
            "multi_trainings": trainings,
        }
        if trainings > 1:
            rows["gain_over_single_same_sign"] = [trainings, 1, trainings, trainings, pd.NA, 1]
        return pd.DataFrame({"species": [*"abcde", "mean"], **rows})

    @pytest.mark.parametrize(
        ("low", "high", "words"),
        [
            (1, 3, "One network for all species is better than one each: "),
            (-3, -1, "One network for all species is worse than one each: "),
            (-1, 3, "No difference is shown between one network for all species and one each: "),
            (0, 2, "No difference is shown between"),
        ],
    )
    def test_the_interval_decides(self, low, high, words):
        table = self.table(low, high)
        found = verdict(table, WORDS, 5)
        assert found.startswith(words)
        assert found.startswith(briefly(table, WORDS, 5))
        gain = f"{(low + high) / 2:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
        assert f"top-5 60.0 against 50.0 %, {gain}. Means over 4 species and 90 queries" in found
        assert found.endswith(
            "trainings: 1 and 1, whose luck the interval leaves out. On 2 species one network for "
            "all species is shown (by a Holm-corrected test) to be better, on 1 worse."
        )

    def test_of_several_trainings_it_says_so_and_gives_no_verdict_by_species(self):
        found = verdict(self.table(1, 3, trainings=3), WORDS)
        assert found.endswith(
            "trainings: 3 and 1. On 2 species all 3 trainings are better, on 1 worse."
        )
        assert "Holm" not in found

    def test_without_an_interval_nothing_is_claimed(self):
        found = verdict(self.table(np.nan, np.nan), WORDS)
        assert found.startswith("No difference is shown")
        assert "no interval" in found

    def test_of_a_table_of_compare(self, three):
        found = verdict(compare(three, TRAIN), WORDS)
        assert found.startswith("No difference is shown between one network for all species and")
        assert "Means over 2 species and 7 queries" in found


class TestPaper:
    def test_printed_columns_stand_beside_the_species_they_are_of(self, three):
        table = compare(three, TRAIN)
        both = beside_paper(table, 2, {"multi": "multi_species", "single": "single_species"})
        printed = both.set_index("species")[["paper_multi", "paper_single"]]
        assert printed.loc["nyala"].tolist() == [43.4, 21.8]
        assert printed.loc["ant"].isna().all()
        means = printed_table(2)[["multi_species", "single_species"]].mean()
        assert printed.loc["mean"].tolist() == pytest.approx(means.tolist())
        pd.testing.assert_frame_equal(both[table.columns], table)

    def test_table_3(self, three):
        columns = {"descriptor": "megadescriptor_l_384", "left_out": "miewid_leave_one_out"}
        names = {"species": {"ant": "Fin whale"}}
        table = compare({name: rows.replace(names) for name, rows in three.items()})
        both = beside_paper(table, 3, columns).set_index("species")
        printed = both.loc["Fin whale", ["paper_descriptor", "paper_left_out"]]
        assert printed.tolist() == [24.9, 49.2]


class TestRelatives:
    def table(self):
        related = [("a", "cats", "b"), ("b", "cats", "a"), ("c", "dogs", ""), ("d", "", "")]
        return pd.DataFrame(related, columns=["species", "family", "relatives"])

    def test_groups_have_the_means_of_compare(self):
        shares, names = (0.7, 0.5, 0.9, 0.1), "abcd"
        multi = [many(seed, shares, names) for seed in (1, 2)]
        rankings = {"multi": multi, "left_out": many(3, (0.4, 0.5, 0.5, 0.1), names)}
        found = by_relatives(rankings, self.table()).set_index("relative")
        whole = compare(rankings).set_index("species")
        assert found["species"].to_dict() == {"yes": 2, "no": 1}  # of d nobody knows
        assert found.loc["yes", "multi"] == pytest.approx(whole.loc[["a", "b"], "multi"].mean())
        gain = "gain_over_left_out"
        assert found.loc["no", gain] == pytest.approx(whole.loc["c", gain])
        assert found[f"{gain}_low"].lt(found[gain]).all()

    def test_without_families_there_is_no_group(self):
        nobody = self.table().assign(family="", relatives="")
        assert by_relatives({"multi": many(0, (0.7, 0.5, 0.9))}, nobody).empty

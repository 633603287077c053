"""Few individuals of a species: what is trained on what, and the tables of the results."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from miewid_core.__main__ import main
from miewid_core.beyond_paper import identify
from miewid_core.config import FineTuneConfig, preset
from miewid_core.paper import few_shot, plan
from miewid_core.paper.comparison import compare
from miewid_core.paper.intervals import NO_SPREAD, Spread
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import Study
from miewid_core.runs import bill

BEFORE = {"ant": 30.0}  # top-1 of the untrained network
TINY = preset("demo", image_size=32, batch_size=8, epochs=1, warmup_epochs=0)


@pytest.fixture
def study(photos, tmp_path):
    """Two species of three individuals; two photos of each are trained, two are tested."""
    later = photos.groupby("individual").cumcount() >= 2
    parts = photos[~later].reset_index(drop=True), photos[later].reset_index(drop=True)
    folders = [tmp_path / name for name in ("figures", "runs", "chips")]
    return Study("small", False, photos, pd.DataFrame(), *parts, TINY, 0, *folders)


def test_targets_are_the_species_with_most_individuals_unless_named(study):
    assert few_shot.targets(study) == ["ant", "bee"]
    assert few_shot.targets(dataclasses.replace(study, drawn=True)) == ["ant"]
    assert few_shot.targets(study, ["bee"]) == ["bee"]
    with pytest.raises(
        ValueError, match="targets: cow is not trained and tested; there are ant, b"
    ):
        few_shot.targets(study, ["cow", "bee"])


def test_cells_hold_what_tables_4_and_5_train_on(study):
    asked = list(few_shot.cells(study, ["ant"], counts=[0, 2, 100], draws=3))
    found = {(cell.individuals, cell.draw, cell.method): cell for cell in asked}
    # none: one network; all: one draw, but three trainings of the multi-species network
    assert len(found) == len(asked) == 2 + 3 * 3 + 3 + 2
    few_shot.check_nested(asked)
    for (n, _, method), cell in found.items():
        species = set(cell.training.rows["species"])
        own = cell.training.rows[cell.training.rows["species"] == "ant"]
        assert own["individual"].nunique() == (0 if n == 0 else n)
        assert cell.annotations == len(own) == 2 * n
        assert species == {"ant"} if method != "joint" and n else "bee" in species
    assert found[0, 0, "joint"].training.key == study.left_out(["ant"])["ant"].key
    assert found[3, 0, "joint"].training.key == study.multi().key
    assert found[3, 0, "species_only"].training.key == study.single(matched=True)["ant"].key
    tuned = found[2, 1, "fine_tuned"].training
    assert tuned.start.key == found[0, 0, "joint"].training.key
    assert isinstance(tuned.config, FineTuneConfig)
    assert tuned.config.epochs == TINY.epochs + tuned.config.frozen_epochs


def test_draws_differ_in_individuals_or_seed(study):
    asked = list(few_shot.cells(study, ["ant"], ["joint"], counts=[1], draws=6))
    assert len({cell.training.key for cell in asked}) == 6
    drawn = {tuple(cell.training.rows["annotation_id"]) for cell in asked}
    assert len(drawn) == 3  # one of three ants


def test_larger_numbers_hold_smaller_ones_or_it_is_said(study):
    one, two = few_shot.cells(study, ["ant"], ["joint"], [1, 2], 1)
    few_shot.check_nested([two, one])
    (bees,) = few_shot.cells(study, ["bee"], ["joint"], [2], 1)
    swapped = few_shot.Cell("ant", 3, 4, "joint", 0, bees.training)
    with pytest.raises(AssertionError, match="ant"):
        few_shot.check_nested([two, swapped])


def test_the_paper_numbers_are_the_default(study):
    cells = few_shot.cells(study, ["ant"], ["joint"], trainings=1)
    assert [cell.individuals for cell in cells] == [0, 3]  # 25 and more are clipped to all
    assert tuple(sorted(set(printed_table(4)["individuals"]))) == few_shot.PAPER_COUNTS


@pytest.mark.parametrize("counts", [[0], [-1, 2]])
def test_numbers_that_compare_nothing_are_refused(study, counts):
    with pytest.raises(ValueError, match="give numbers of individuals, one above zero"):
        list(few_shot.cells(study, ["ant"], counts=counts))


@pytest.mark.slow
def test_trained_and_ranked_on_the_same_queries(study):
    asked = list(few_shot.cells(study, ["ant"], counts=[0, 2], draws=2))
    ranked = few_shot.ranks(study, asked)
    few_shot.check_same_queries(ranked)
    table = few_shot.summary(ranked, few_shot.untrained(study, ["ant"]), NO_SPREAD)
    assert len(table) == 2 + 3
    none = table[table["individuals"] == 0]
    assert none["seen"].isna().all()  # of a species that is left out
    assert none["new"].tolist() == pytest.approx(none["top_k"].tolist())
    shares = ranked[ranked["n"] == 2].groupby(["method", "draw"])["seen"].mean()
    assert set(shares) == {2 / 3}  # of three individuals
    shown = table.set_index(["individuals", "method"])["photos_shown"][2]
    everyone = len(study.train) - 2  # photos: of the ants one is left out
    tuned = 4 * (1 + 3)  # for the head alone, three more epochs
    assert shown.to_dict() == {"fine_tuned": tuned, "joint": everyone, "species_only": everyone}
    times = table.set_index(["individuals", "method"])["times"]
    assert times[0].isna().all()  # the photos are of other species
    assert times[2].to_dict() == {"fine_tuned": 4, "joint": 1, "species_only": everyone / 4}
    draws = table.set_index(["individuals", "method"])["draws"]
    assert draws[0].tolist() == [1, 1]
    assert draws[2].tolist() == [2, 2, 2]
    with pytest.raises(AssertionError):
        few_shot.check_same_queries(ranked.drop(index=0))


def test_single_trainings_are_given_the_spread_of_the_multi_species_network(study):
    multi = study.multi_seeds(2)
    variances = []
    for species in ("ant", "bee"):
        ranks = [study.ranks({species: training}) for training in multi]
        tops = [100 * (own["first_match_rank"].dropna() == 1).mean() for own in ranks]
        variances.append((tops[0] - tops[1]) ** 2 / 2)
    sd = np.mean(variances) ** 0.5
    assert few_shot.spread(study, multi) == pytest.approx((sd, sd, 2, 2))
    assert few_shot.spread(study, multi[:1]) == NO_SPREAD  # one tells nothing


def test_the_spread_widens_intervals_of_single_trainings_alone():
    once, twice = [[9, 1, 1, 9]], [[1, 1, 1, 9], [9, 1, 9, 9]]
    for joint, both in ((once, 2**0.5), (twice, 1)):
        rows = ranked(joint=joint, species_only=once)
        found = few_shot.differences(rows, "joint", "species_only", Spread(7.0, 7.0)).iloc[0]
        pair = {name: [own for _, own in part.groupby("draw")] for name, part in by_method(rows)}
        known = Spread(mean=7.0 * both)
        expected = compare(pair, training_sd={"joint": known}).iloc[-1]
        ends = [f"gain_over_species_only{end}" for end in ("", "_low", "_high")]
        assert found[["difference", "low", "high"]].tolist() == pytest.approx([*expected[ends]])
        tables = [few_shot.summary(rows, BEFORE, sd) for sd in (NO_SPREAD, Spread(7.0, 7.0))]
        narrow, wide = ((own["high"] - own["low"]).to_numpy() for own in tables)
        methods = tables[0]["method"].eq("joint") & (len(joint) > 1)
        assert (narrow == wide).tolist() == methods.tolist()
        assert (narrow <= wide).all()


def by_method(rows):
    return [(name, rows[rows["method"] == name]) for name in ("joint", "species_only")]


def ranked(**first_ranks):
    """Ranks by hand: method to a list of first-match ranks for each draw, n = 5, one individual a
    query."""
    rows = [
        {"method": method, "draw": draw, "annotation_id": str(query), "first_match_rank": rank}
        for method, draws in first_ranks.items()
        for draw, ranks in enumerate(draws)
        for query, rank in enumerate(ranks)
    ]
    table = pd.DataFrame(rows).assign(
        species="ant", n=5, trained_on=10, photos_shown=2000, times=12
    )
    table = table.assign(relevant=1, candidates=9)
    table["individual"] = table["annotation_id"]
    table["seen"] = table["annotation_id"].isin(["0", "1"])
    return table.astype({"first_match_rank": "Int64"})


def test_summary_by_hand():
    table = few_shot.summary(ranked(joint=[[1, 1, 2, 9], [1, 1, 1, 1]]), BEFORE, NO_SPREAD)
    assert table[["individuals", "draws", "annotations", "queries"]].to_numpy().tolist() == [
        [5, 2, 10, 4]
    ]
    assert table["top_k"].item() == pytest.approx(75)
    assert table["deviation"].item() == pytest.approx(np.std([50, 100], ddof=1))
    assert table[["seen", "new"]].to_numpy().tolist() == [[100, 50]]
    assert table["new_low"].item() < 50 < table["new_high"].item()


def test_summary_has_the_untrained_network_beside_each_row():
    table = few_shot.summary(
        ranked(joint=[[1, 9]]), pd.Series({"ant": 30.0, "bee": 9.0}), NO_SPREAD
    )
    assert table["untrained"].tolist() == [30]


def test_a_reader_sees_what_a_training_took():
    table = few_shot.summary(ranked(joint=[[1, 1, 2, 9]]), pd.Series({"ant": 30.0}), NO_SPREAD)
    (row,) = few_shot.readable(table).to_dict("records")
    assert row["method"] == "joint training"
    columns = ["photos", "photos shown", "times each", "trainings"]
    assert [row[name] for name in columns] == [10, 2000, 12, 1]


def test_without_any_individual_all_methods_are_one_network():
    table = few_shot.summary(ranked(joint=[[1]], fine_tuned=[[1]]), BEFORE, NO_SPREAD).assign(
        individuals=0
    )
    assert few_shot.readable(table)["method"].tolist() == ["leave-one-out"]


def test_differences_are_paired_over_queries_and_draws():
    table = few_shot.differences(
        ranked(joint=[[1, 1, 1, 1], [1, 1, 1, 9]], species_only=[[9, 1, 1, 1], [1, 9, 9, 9]]),
        *("joint", "species_only", NO_SPREAD),
    )
    assert table["difference"].item() == pytest.approx(100 * (7 - 4) / 8)
    assert table["low"].item() <= table["difference"].item() <= table["high"].item()
    same = ranked(joint=[[1, 9]], species_only=[[1, 9]])
    row = few_shot.differences(same, "joint", "species_only", NO_SPREAD).iloc[0]
    assert row["difference"] == 0
    assert row["low"] == -row["high"] < 0  # two individuals can't show that there is none


def verdicts(intervals, **facts):
    """A table of differences with these intervals by n."""
    rows = [("ant", n, (low + high) / 2, low, high) for n, (low, high) in intervals.items()]
    table = pd.DataFrame(rows, columns=["species", "individuals", "difference", "low", "high"])
    facts = {"method": "joint", "against": "species_only", "times": 10.0, "one": 60.0} | facts
    return table.assign(
        **{"draws": 3, "other_draws": 1, "other_times": 49.2, "other": 55.0} | facts
    )


def test_all_of_a_species_have_the_trainings_of_the_multi_species_network(study):
    asked = list(few_shot.cells(study, ["ant"], counts=[1, 3], draws=2, trainings=4))
    joint = [cell for cell in asked if (cell.individuals, cell.method) == (3, "joint")]
    multi = [training.key for training in study.multi_seeds(4)]
    assert [cell.training.key for cell in joint] == multi
    assert [cell.draw for cell in joint] == [0, 1, 2, 3]
    assert {cell.annotations for cell in joint} == {6}
    some = few_shot.cells(study, ["ant"], counts=[1], draws=2, trainings=4)
    assert len(list(some)) == 2 * 3  # not asked for where not all are
    alone = few_shot.cells(study, ["ant"], ["species_only"], [3], 1)
    assert len(list(alone)) == 1


def test_differences_count_the_trainings_of_both():
    table = few_shot.differences(
        ranked(joint=[[1, 1], [1, 9]], species_only=[[9, 1]]),
        *("joint", "species_only", NO_SPREAD),
    )
    row = table.iloc[0]
    assert [row["draws"], row["other_draws"]] == [2, 1]
    assert [row["times"], row["other_times"]] == [12, 12]
    assert [row["one"], row["other"], row["difference"]] == pytest.approx([75, 50, 25])


def test_words_follow_the_intervals():
    table = verdicts({1: (1, 9), 25: (-2, 3), 50: (-9, -1), 100: (0, 4)})
    whale = table[:2].assign(species="fin_whale", other_times=[49.2, 211.8])
    ant, fin = few_shot.in_words(pd.concat([table, whale]))
    assert fin == (
        "On n individuals of fin whale, joint training is better than species-only training at "
        "n = 1 (+5.0 points, 95 % interval +1.0 to +9.0), not shown to differ from it at n = 25."
    )
    assert ant.endswith(
        "not shown to differ from it at n = 25 and 100, worse than it at n = 50 (-5.0 "
        "points, 95 % interval -9.0 to -1.0)."
    )
    assert few_shot.claim(table) == (
        "Joint training is better than species-only training at n = 1, not shown to "
        "differ from it at n = 25 and 100, worse than it at n = 50"
    )
    assert few_shot.claim(pd.concat([table[1:], whale[:1]])).endswith(
        "at n = 25 (ant) and 100 (ant), worse than it at n = 50 (ant), better than it "
        "at n = 1 (fin whale)"
    )


def test_words_say_how_much_a_training_of_each_method_shows():
    table = few_shot.summary(ranked(joint=[[1]], species_only=[[9]]), BEFORE, NO_SPREAD)
    more = table.assign(times=[10.2, 211.8], photos_shown=[3000, 2000], individuals=9)
    none = table[:1].assign(times=np.nan, individuals=0, photos_shown=9)
    whole = pd.concat([none, table, more])
    assert few_shot.shown_in_words(whole, "photos_shown") == (
        "Photos shown in one training: 2,000 by species-only training, 2,000 to 3,000 by joint "
        "training."
    )
    assert few_shot.shown_in_words(whole, "times").endswith(
        "the species: 12 to 212 by species-only training, 10 to 12 by joint training."
    )


def test_each_comparison_has_a_sentence():
    table = verdicts({10: (-19, 18), 51: (-42, 4)})
    better = verdicts({10: (6, 24), 51: (-12, 24)}, against="fine_tuned")
    alone = verdicts({10: (np.nan, np.nan)}, against=few_shot.NONE).assign(difference=-7.4)
    said, bee = few_shot.in_words(pd.concat([table, table.assign(species="bee")]), better, alone)
    assert said == (
        "On n individuals of ant, joint training is not shown to differ from species-only training "
        "at n = 10 and 51. Joint training is better than fine-tuning at n = 10 (+15.0 points, 95 % "
        "interval +6.0 to +24.0), not shown to differ from it at n = 51. Joint training is not "
        "shown to differ from leave-one-out at n = 10."
    )
    assert few_shot.in_words(table)[0] == bee.replace("of bee", "of ant")
    assert said.startswith(few_shot.in_words(table)[0])


def test_fine_tuning_is_set_against_the_network_that_it_starts_from():
    none = ranked(fine_tuned=[[9, 1]]).assign(n=0, times=np.nan)
    both = pd.concat([none, none.assign(method="joint"), ranked(fine_tuned=[[1, 1], [1, 9]])])
    table = few_shot.differences(both, "fine_tuned", few_shot.NONE, NO_SPREAD)
    row = table.iloc[0]
    assert [row["individuals"], row["draws"], row["other_draws"]] == [5, 2, 1]
    assert [row["one"], row["other"], row["difference"]] == pytest.approx([75, 50, 25])
    (words,) = few_shot.in_words(table)
    assert words.endswith("is not shown to differ from leave-one-out at n = 5.")
    known = both[both["n"] == 5]
    assert few_shot.differences(known, "fine_tuned", few_shot.NONE, NO_SPREAD).empty


def test_readable_gains_have_one_row_for_each_comparison():
    table = verdicts({5: (1, 9)}).assign(species="fin_whale")
    none = table.assign(against=few_shot.NONE, other_times=np.nan)
    shown = few_shot.readable_gains(table, none)
    assert shown["against"].tolist() == ["species-only training", "leave-one-out"]
    assert shown.drop(columns="against").iloc[0].to_dict() == {
        "species": "fin whale",
        "individuals": 5,
        "method": "joint training",
        "gain (points)": "5.0 (1.0 to 9.0)",
    }


def test_networks_no_better_than_untrained_are_named():
    ours = ranked(joint=[[1, 1, 2, 9]], species_only=[[9, 1, 9, 9]])
    assert few_shot.no_better_in_words(few_shot.summary(ours, {"ant": 25.0}, NO_SPREAD)) == (
        "**No better than the untrained network**: species-only training, n = 5, ant."
    )
    words = few_shot.no_better_in_words(few_shot.summary(ours, {"ant": 24.0}, NO_SPREAD))
    assert words == "Every network scores above the untrained one."


def test_where_fine_tuning_falls_behind_in_the_papers_table_5():
    # as notebook 09 says; beluga 44.5 > 32.5, 49.9 > 42.4, but 54.2 < 57.3
    printed = printed_table(5).query("individuals > 0 and fine_tuning <= species_only")
    found = printed.groupby("species")["individuals"].min()
    assert found.to_dict() == {"beluga_whale": 100, "grey_whale": 200, "lion": 200}


def test_beside_paper_has_its_means():
    ours = few_shot.summary(ranked(joint=[[1]], species_only=[[9]]), BEFORE, NO_SPREAD).assign(
        individuals=25
    )
    table = few_shot.beside_paper(ours).set_index("individuals")
    assert table.loc[25, ["species_only", "joint"]].tolist() == [0, 100]
    paper = printed_table(4)
    expected = paper.loc[paper["individuals"] == 200, "joint_training"].mean()
    assert table.loc[200, "paper_joint_training"] == pytest.approx(expected)
    assert np.isnan(table.loc[200, "joint"])


def test_the_figure_draws_the_table():
    ours = ranked(joint=[[1, 1], [1, 9]], species_only=[[9, 9], [1, 9]])
    five = few_shot.summary(ours, {"ant": 40.0}, NO_SPREAD)
    table = pd.concat([five, five.assign(individuals=9, top_k=80, low=70, high=90)])
    paper, axes = few_shot.curves_figure(table, "Title · demo").axes
    means = [line for line in paper.lines if line.get_marker() != "None"]
    for line, column in zip(means, ("species_only", "joint_training"), strict=True):
        printed = printed_table(4).groupby("individuals")[column].mean()
        np.testing.assert_allclose(line.get_ydata(), printed)
        assert line.get_xdata().tolist() == printed.index.tolist()
    drawn = {line.get_label(): line for line in axes.lines}
    assert [*drawn] == ["species-only training", "joint training", "untrained"]
    assert set(drawn["untrained"].get_ydata()) == {40}
    bars = [np.array(lines.get_segments()) for lines in axes.collections]
    for method, ends in zip(("species_only", "joint"), bars, strict=True):
        rows = table[table["method"] == method]
        line = drawn[few_shot.METHODS[method]]
        np.testing.assert_array_equal(line.get_ydata(), rows["top_k"])
        np.testing.assert_array_equal(ends[:, :, 1], rows[["low", "high"]])
        assert np.abs(line.get_xdata() - rows["individuals"]).max() < 0.5
    assert "2 queries" in axes.get_title("left")
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["5\n(10)", "9\n(10)"]  # individuals (annotations)


class TestPlan:
    def test_counts_each_training_once(self, study):
        table = bill.summary(plan.asked(study, "demo"), TINY, rate=10).set_index("notebook")
        assert table.loc["00", ["trainings", "new", "done"]].tolist() == [1, 1, 0]
        assert table.loc["03", ["trainings", "new", "done"]].tolist() == [1, 0, 0]
        assert table.loc["04", ["trainings", "new"]].tolist() == [
            7,
            6,
        ]  # three seeds, two baselines
        # of two species, all but one is the other alone
        assert table.loc["05", ["trainings", "new"]].tolist() == [5, 0]
        assert table.loc["11", ["trainings", "new"]].tolist() == [7, 0]
        assert table.loc["all", "new"] == table["new"][:-1].sum()
        assert table.loc["00", "photos"] == table.loc["00", "to_do"] == 12
        assert table.loc["all", "hours"] == pytest.approx(table.loc["all", "to_do"] / 36_000)

    def test_takes_the_parameters_of_few_shot_notebooks(self, study, monkeypatch, capsys):
        monkeypatch.setattr("miewid_core.paper.study.open_study", lambda: study)
        main(["plan", "TARGETS=ant", "COUNTS=1,2", "DRAWS=2", "RATE=10"])
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        trainings = {words[0]: words[1] for words in lines if words[0] in ("07", "09")}
        assert trainings == {
            "07": "11",
            "09": "15",
        }  # each count twice, in two or three ways; three seeds

    def test_knows_what_is_done(self, study):
        study.multi().run()
        table = bill.summary({"03": [study.multi()]}, TINY)
        assert table[["new", "done", "to_do", "hours"]].iloc[0].tolist() == [1, 1, 0, 0]
        assert bill.in_words(table) == "The network is already trained."

    def test_your_animals_take_the_network_that_others_trained(self, study, monkeypatch):
        monkeypatch.setattr(identify.network, "LEAST", 1)
        run = study.multi().run()
        assert identify.choose(study).weights == run.weights
        (training,) = identify.asked(study)
        assert training.finished
        assert training.key == study.multi().key

    def test_measures_a_rate(self, monkeypatch):
        monkeypatch.setattr(bill, "SECONDS", 0.1)
        assert 1 < bill.rate_of(TINY) < 1e6

    def test_how_often_each_photo_is_shown(self, study):
        fewer = dataclasses.replace(study, train=study.train[:-2])
        multi, matched = fewer.multi(), fewer.single(matched=True)
        table = bill.passes({"multi": multi, "matched": matched}).set_index("species")
        assert table["annotations"].to_dict() == fewer.train["species"].value_counts().to_dict()
        assert table["multi"].tolist() == [1, 1]  # epoch
        expected = len(fewer.train) / table["annotations"]
        assert table["matched"].tolist() == expected.tolist()

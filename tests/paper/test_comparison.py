"""What is made of a table of comparison: text, verdicts on its rows, and figures that hold it."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from miewid_core.paper import comparison
from miewid_core.paper.comparison import compare
from miewid_core.paper.intervals import Estimate, Spread
from miewid_core.paper.printed import SPELLINGS, printed_table
from tests.paper.made import ranks, training

TITLE = "A title of about the usual length for it · demo"
WORDS = {name: comparison.NETWORKS[name] for name in ("multi", "matched", "untrained")}


def drawn(names, seed, most):
    """Ranks of 30 queries of each of `names`, the first match drawn from the `most` nearest."""
    rng = np.random.default_rng(seed)
    return ranks(**{name: rng.integers(1, most + 1, 30) for name in names})


def many(n, k=1, lacking=0):
    """A table of the three networks on n species, of which some lack a network of their own."""
    rng = np.random.default_rng(n)
    names = rng.permutation(list(SPELLINGS))[:n]
    sizes = rng.permutation(np.arange(20, 20 + 7 * n, 7))
    rankings = {
        "multi": [drawn(names, seed, 3) for seed in (1, 2)],
        "matched": drawn(names[: n - lacking], 3, 5),
        "untrained": drawn(names, 4, 9),
    }
    train = training(**dict(zip(names, sizes, strict=True)))
    return compare(rankings, train, k, training_sd={"matched": Spread(7.0, 2.0)})


class TestReadable:
    def table(self):
        table = pd.DataFrame({"species": ["fin_whale", "ant", "mean"]})
        table = table.assign(train_annotations=[90, 10, 100], queries=[40, 6, 46])
        table = table.assign(multi=[58.66, 50, 54.33], multi_low=[49.74, np.nan, 40])
        table = table.assign(multi_high=[67.04, np.nan, 68.3], single=[np.nan, 3, 3])
        table = table.assign(single_low=[np.nan, 1, 1], single_high=[np.nan, 5, 5])
        table = table.assign(
            gain_over_single=[np.nan, 47, 47], gain_over_single_low=[np.nan, -1, 2]
        )
        return table.assign(gain_over_single_high=[np.nan, 90, 88.04])

    def test_by_hand(self):
        words = {"multi": "multi-species", "single": "single-species"}
        shown = comparison.readable(self.table(), words, "single")
        assert shown.to_dict("list") == {
            "species": ["fin whale", "ant", "mean"],
            "training annotations": [90, 10, 100],
            "queries": [40, 6, 46],
            "multi-species": ["58.7 (49.7 to 67.0)", "50.0", "54.3 (40.0 to 68.3)"],
            "single-species": ["", "3.0 (1.0 to 5.0)", "3.0 (1.0 to 5.0)"],
            "gain (points)": ["", "47.0 (-1.0 to 90.0)", "47.0 (2.0 to 88.0)"],
        }

    def test_of_a_table_of_compare(self):
        table = many(3)
        shown = comparison.readable(table, WORDS, "matched")
        row, text = table.iloc[-1], shown.iloc[-1]
        interval = (f"gain_over_matched{end}" for end in ("", "_low", "_high"))
        assert text["gain (points)"] == "{:.1f} ({:.1f} to {:.1f})".format(*row[[*interval]])

    def test_some_networks_have_no_interval(self):
        table = many(3)
        shown = comparison.readable(table, WORDS, "matched", plain=["untrained"])
        assert shown["untrained"].tolist() == table["untrained"].tolist()
        assert [*shown][-1] == "untrained"
        assert shown[WORDS["matched"]].str.contains("to").all()


def test_seen_and_new_individuals_are_told_apart():
    table = many(3)
    seen, new = table.iloc[-1][["multi_seen", "multi_new"]]
    said = comparison.halves_in_words(table, "multi")
    assert said.endswith(f"top-1 is {seen:.1f} %; of new ones {new:.1f} %.")


def test_other_k_have_their_gains():
    tables = {k: many(3, k) for k in (1, 5, 10)}
    told = comparison.other_k_in_words(tables, "matched")
    for k in (5, 10):
        assert f"top-{k} {Estimate.of(tables[k].iloc[-1], 'gain_over_matched')}" in told
    assert "top-1 " not in told


class TestNoBetterThanUntrained:
    def table(self):
        table = pd.DataFrame({"species": ["fin_whale", "ant", "bee", "mean"]})
        table = table.assign(multi=[50, 60, 70, 1], single=[9, 10, np.nan, 1])
        return table.assign(untrained=[10, 10, 10, 100])

    def test_equal_is_no_better_and_the_mean_no_species(self):
        assert comparison.no_better(self.table(), "multi") == []
        assert comparison.no_better(self.table(), "single") == ["fin_whale", "ant"]

    def test_in_words(self):
        assert comparison.no_better_in_words(self.table(), ["multi", "single"]) == (
            "- multi-species: above untrained on all 3 species.\n"
            "- **single-species, equal epochs: no better than untrained on 2 of 2 species** "
            "(fin whale, ant)."
        )


class TestOrder:
    def test_increasing_keeps_the_mean_last_and_changes_no_row(self):
        table = many(5)
        rising = comparison.increasing(table)
        assert rising["species"].iloc[-1] == "mean"
        assert rising["train_annotations"][:-1].is_monotonic_increasing
        again = rising.set_index("species").loc[table["species"]].reset_index()
        pd.testing.assert_frame_equal(again[table.columns], table)

    def test_increasing_keeps_the_order_of_equal_species(self):
        table = pd.DataFrame({"species": ["b", "a", "c", "mean"]})
        table["train_annotations"] = [5, 5, 1, 11]
        assert comparison.increasing(table)["species"].tolist() == ["c", "b", "a", "mean"]

    def test_tables_of_several_k_below_each_other(self):
        tables = {k: many(3, k) for k in (5, 1)}
        both = comparison.by_k(tables)
        assert both["k"].tolist() == [5] * 4 + [1] * 4
        for k, table in tables.items():
            own = both[both["k"] == k].drop(columns="k").reset_index(drop=True)
            pd.testing.assert_frame_equal(own, table)


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([9, 7, 5, 3, 2, -2], "falls with a species' training annotations (Spearman's rho -1.00"),
        ([1, 2, 3, 5, 7, 9], "rises with a species' training annotations (Spearman's rho +1.00"),
        ([1, 9, 2, 7, 3, 5], "shows no trend with a species' training annotations (Spearman's"),
        ([1, 2, 3], "shows no trend with a species' training annotations (3 species are too few"),
        ([1, 2, np.nan, 3], "shows no trend with a species' training annotations (3 species are"),
        ([4, 3, 2, 1], "shows no trend with a species' training annotations (4 species are too"),
        ([1, 2, 3, 5, 4], "shows no trend"),  # p = 10 / 120 by all orders
        ([1, 2, 3, 4, 5], "rises with"),  # p = 2 / 120
    ],
)
def test_trend_in_words(gains, words):
    rows = [(f"s{i}", 10 * i + 10, gain) for i, gain in enumerate(gains)]
    rows.append(("mean", 1000, -100))  # is no species
    table = pd.DataFrame(rows, columns=["species", "train_annotations", "gain_over_single"])
    found = comparison.trend_in_words(table, "single")
    assert found.startswith(f"The gain {words}")
    if gains[0] == 9:
        assert found.endswith(
            "The mean gain is +7.0 points for the 3 smallest species and +1.0 for the 3 largest."
        )


class TestTrainingSpread:
    def trainings(self, species=("ant", "bee", "cow"), count=4):
        return [drawn(species, seed, 3) for seed in range(count)]

    def test_by_loops(self):
        """Each species varies by itself, so their mean by the root mean square over sqrt(S)."""
        trainings, k = self.trainings(), 2
        variances = []
        for species in ("ant", "bee", "cow"):
            shares = []
            for rows in trainings:
                places = rows.loc[rows["species"] == species, "first_match_rank"]
                shares.append(100 * sum(place <= k for place in places) / len(places))
            mean = sum(shares) / len(shares)
            variances.append(sum((share - mean) ** 2 for share in shares) / (len(shares) - 1))
        expected = (sum(variances) / len(variances)) ** 0.5
        found = comparison.training_spread(trainings, k)
        assert found == pytest.approx((expected, expected / len(variances) ** 0.5, 9, 9))
        assert expected > 0

    def test_of_one_network_for_all_species_the_mean_has_its_own(self):
        trainings = self.trainings()
        means = [compare({"top_1": rows})["top_1"].iloc[-1] for rows in trainings]
        found = comparison.training_spread(trainings, common=True)
        assert found.mean == pytest.approx(np.std(means, ddof=1))
        assert found.mean_freedom == 3
        assert found[::2] == comparison.training_spread(trainings)[::2]

    def test_queries_without_a_match_do_not_count(self):
        trainings = self.trainings()
        more = [
            pd.concat([rows, ranks(ant=[9, 9]).assign(relevant=0, annotation_id=["x", "y"])])
            for rows in trainings
        ]
        spread = comparison.training_spread(trainings)
        assert comparison.training_spread(more) == pytest.approx(spread)

    def test_equal_trainings_have_none(self):
        assert comparison.training_spread([drawn(["ant"], 0, 3)] * 3)[:2] == (0, 0)
        assert comparison.training_spread([drawn(["ant"], 0, 3)])[:2] == (0, 0)  # one tells nothing


def segments(axes):
    """(N, 2, 2) ends of the intervals that are drawn."""
    made = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return np.array([part for lines in made for part in lines.get_segments() if len(part)])


def rows_of(axes):
    """The names of the rows, from the top."""
    assert axes.yaxis_inverted()
    return [label.get_text() for label in axes.get_yticklabels()]


def check_scores(axes, table, words, barred=2):
    """Dots of the networks and bars of the first are the table's, each row's within its band."""
    by_name = {line.get_label(): line for line in axes.lines}
    bars = segments(axes)[:, :, 0]
    known = [table[[f"{name}_low", f"{name}_high"]].dropna() for name in [*words][:barred]]
    if not barred:
        values = table[[*words]]
        known = [np.stack([values.min(axis=1), values.max(axis=1)], axis=1)]
    np.testing.assert_array_equal(bars, np.concatenate(known))
    for name, label in words.items():
        line = by_name[label]
        np.testing.assert_array_equal(line.get_xdata(), table[name])
        assert np.abs(line.get_ydata() - axes.get_yticks()).max() < 0.3
    if "chance" in table:
        np.testing.assert_array_equal(by_name["random ranking"].get_xdata(), table["chance"])


class TestDots:
    @pytest.mark.parametrize(("n", "lacking"), [(3, 0), (12, 2), (49, 1)])
    def test_draws_the_table(self, n, lacking):
        table = many(n, 5, lacking)
        left, right = comparison.dots({"top-5": table}, WORDS, TITLE, gain="matched").axes
        check_scores(left, table, WORDS)
        names = table["species"][:-1].str.replace("_", " ").tolist()
        assert rows_of(left) == [*names, f"mean of {n - lacking} species"]
        assert left.get_xlabel() == "top-5"
        ends = table[["gain_over_matched_low", "gain_over_matched_high"]].dropna()
        np.testing.assert_array_equal(segments(right)[:, :, 0], ends)
        assert right.get_xlabel() == "gain over\nsingle-species, equal steps (points)"
        np.testing.assert_array_equal(left.get_yticks(), right.get_yticks())

    def test_gains_whose_interval_holds_zero_are_open(self):
        table = many(4)
        table["gain_over_matched_low"] = [1.0, -1.0, -3.0, 0.0, 0.5]
        table["gain_over_matched_high"] = [2.0, 1.0, -2.0, 2.0, 1.0]
        axes = comparison.dots({"": table}, WORDS, TITLE, gain="matched").axes[1]
        filled, hollow = (line for line in axes.lines if line.get_marker() == "s")
        np.testing.assert_array_equal(
            filled.get_xdata(), table["gain_over_matched"].iloc[[0, 2, 4]]
        )
        np.testing.assert_array_equal(hollow.get_xdata(), table["gain_over_matched"].iloc[[1, 3]])
        np.testing.assert_array_equal(filled.get_ydata(), axes.get_yticks()[[0, 2, 4]])
        assert hollow.get_markerfacecolor() == "white"
        assert filled.get_markerfacecolor() == "black"

    def test_networks_of_other_names(self):
        table = many(4).rename(columns=lambda name: name.replace("matched", "other_backbone"))
        words = {"multi": "efficientnet", "other_backbone": "swin"}
        left, right = comparison.dots({"": table}, words, TITLE, gain="other_backbone").axes
        check_scores(left, table, words)
        assert right.get_xlabel() == "gain over\nswin (points)"
        assert rows_of(left)[-1] == "mean of 4 species"


def test_each_table_is_drawn_in_its_panel_and_rows_are_named_once():
    tables = {k: comparison.increasing(many(6, k, lacking=1)) for k in (1, 5, 10, 20)}
    panels = comparison.dots({f"top-{k}": own for k, own in tables.items()}, WORDS, TITLE).axes
    assert [axes.get_xlabel() for axes in panels] == [f"top-{k}" for k in tables]
    for axes, table in zip(panels, tables.values(), strict=True):
        check_scores(axes, table, WORDS)
    names = tables[1]["species"][:-1].str.replace("_", " ").tolist()
    assert rows_of(panels[0]) == [*names, "mean of 5 species"]
    assert not any(any(rows_of(axes)) for axes in panels[1:])


def counted_by_table_1(species):
    """Annotations of a species' image sets together; -1 where one of them can't be read."""
    counts = [row.annotations for row in printed_table(1).itertuples() if row.species == species]
    return -1 if not counts or any(map(pd.isna, counts)) else sum(counts)


class TestBesideThePaper:
    @pytest.mark.parametrize("names", [["multi", "single"], ["multi", "left_out"], ["single"]])
    def test_the_papers_rows_are_those_of_table_2_in_the_order_of_table_1(self, names):
        columns = [comparison.PRINTED[2][name] for name in names]
        printed = printed_table(2).dropna(subset=columns).set_index("species")[columns]
        found = comparison.printed_by_size(names)
        order = sorted(printed.index, key=counted_by_table_1, reverse=True)
        assert found["species"].tolist() == [*order, "mean"]
        assert found[names][:-1].to_numpy().tolist() == printed.loc[order].to_numpy().tolist()
        assert found[names].iloc[-1].tolist() == pytest.approx(printed.mean().tolist())

    def test_both_panels_hold_their_tables(self):
        table = many(12)
        words = {"multi": "multi-species", "untrained": "untrained"}
        printed = comparison.printed_by_size(["multi"])
        left, right = comparison.dots({"paper": printed, "here": table}, words, TITLE).axes
        check_scores(left, printed, {"multi": "multi-species"}, barred=0)
        check_scores(right, table, words)
        names = printed["species"][:-1].str.replace("_", " ").tolist()
        assert rows_of(left) == [*names, f"mean of {len(names)} species"]
        assert rows_of(right)[0] == table["species"][0].replace("_", " ")

    def test_a_network_looks_alike_in_both(self):
        words = {"multi": "multi-species", "matched": "m", "single": "s"}
        table = many(4).assign(single=1.0)
        printed = comparison.printed_by_size(["multi", "single"])
        panels = comparison.dots({"paper": printed, "here": table}, words, TITLE).axes
        for name in ("multi-species", "s"):
            one, other = (
                next(line for line in axes.lines if line.get_label() == name) for axes in panels
            )
            assert one.get_marker() == other.get_marker()
            assert one.get_color() == other.get_color()


class TestGainBySize:
    @pytest.mark.parametrize(("n", "lacking"), [(3, 0), (12, 2), (49, 1)])
    def test_draws_the_table(self, n, lacking):
        table = many(n, lacking=lacking)
        shown = table.iloc[:-1].dropna(subset="gain_over_matched")
        (axes,) = comparison.gain_by_size(table, TITLE, "matched").axes
        points = next(line for line in axes.lines if line.get_marker() == "o")
        wanted = shown[["train_annotations", "gain_over_matched"]]
        np.testing.assert_array_equal(points.get_xydata(), wanted)
        ends = shown[["gain_over_matched_low", "gain_over_matched_high"]]
        np.testing.assert_array_equal(segments(axes)[:, :, 1], ends)
        np.testing.assert_array_equal(segments(axes)[:, 0, 0], shown["train_annotations"])
        assert axes.get_xscale() == "log"
        mean = table.iloc[-1]
        band = next(patch for patch in axes.patches if isinstance(patch, Rectangle))
        assert band.get_y() == mean["gain_over_matched_low"]
        top = band.get_y() + band.get_height()
        assert top == pytest.approx(mean["gain_over_matched_high"])
        line = next(line for line in axes.lines if line.get_label().startswith("mean"))
        assert set(line.get_ydata()) == {mean["gain_over_matched"]}
        assert line.get_label().startswith(f"mean of {n - lacking} species: ")
        assert axes.get_ylabel() == "gain over\nsingle-species, equal steps (points)"

    @pytest.mark.parametrize("n", [1, 4, 12])
    def test_names_all_of_few_species(self, n):
        self.check_names(many(n), many(n)["species"][:-1])

    def test_names_the_six_that_gain_most_and_least_of_many(self):
        table = many(20)
        gains = table[:-1].set_index("species")["gain_over_matched"].sort_values(kind="stable")
        self.check_names(table, [*gains.index[:6], *gains.index[-6:]])

    def check_names(self, table, names):
        (axes,) = comparison.gain_by_size(table, TITLE, "matched").axes
        ends = {*names}
        assert len(axes.texts) == len(ends)
        dots = table.set_index("species")[["train_annotations", "gain_over_matched"]]
        for text in axes.texts:
            name = re.sub(" ", "_", text.get_text())
            assert name in ends
            assert text.xy == tuple(dots.loc[name])

"""Two models compared, on ranks made by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from miewid_core.paper import comparison
from miewid_core.paper.printed import printed_table

CANDIDATES, RELEVANT = 9, 1


def ranks(**firsts):
    """Ranks with one individual a query: `firsts` has each species' ranks of the first match."""
    rows = [(species, place) for species, places in firsts.items() for place in places]
    table = pd.DataFrame(rows, columns=["species", "first_match_rank"])
    table["annotation_id"] = [f"{species}{i}" for i, species in enumerate(table["species"])]
    table["individual"] = table["annotation_id"]
    table["first_match_rank"] = table["first_match_rank"].astype("Int64")
    return table.assign(candidates=CANDIDATES, relevant=RELEVANT, encounter="")


def training(**counts):
    return pd.DataFrame({"species": [name for name, n in counts.items() for _ in range(n)]})


@pytest.fixture
def three():
    """Hyenas and nyalas with a network each, and ants with too little to train one."""
    multi = ranks(nyala=[1, 1, 1, 2], hyena=[1, 2, 6], ant=[1, 1])
    single = ranks(nyala=[1, 2, 6, 2], hyena=[6, 2, 1])
    untrained = ranks(nyala=[6, 6, 6, 1], hyena=[6, 6, 6], ant=[6, 6])
    train = training(hyena=20, nyala=30)
    return multi, single, untrained, train


def test_by_hand(three):
    table = comparison.multi_against_single(*three, k=1).set_index("species")
    assert table.index.tolist() == ["nyala", "hyena", "ant", "mean"]
    assert table["queries"].tolist() == [4, 3, 2, 7]  # of the mean as of its species
    assert table["train_annotations"].tolist() == [30, 20, 0, 50]
    third, nan = 100 / 3, np.nan
    expected = {
        "multi": [75, third, 100, (75 + third) / 2],  # the mean is over species that both have
        "single": [25, third, nan, (25 + third) / 2],
        "gain": [50, 0, nan, 25],
        "untrained": [25, 0, 0, 12.5],
        "chance": [100 / CANDIDATES] * 4,
        "paper_multi": [43.4, 71.0, nan, printed_table(2)["multi_species"].mean()],
        "paper_single": [21.8, 49.7, nan, printed_table(2)["single_species"].mean()],
    }
    for column, values in expected.items():
        assert table[column].tolist() == pytest.approx(values, nan_ok=True), column


def test_intervals_hold_their_values(three):
    table = comparison.multi_against_single(*three, k=1)
    for column in ("multi", "single", "gain"):
        known = table.dropna(subset=[f"{column}_low"])
        assert len(known) >= 2
        assert (known[f"{column}_low"] <= known[column]).all()
        assert (known[column] <= known[f"{column}_high"]).all()
        assert known[[f"{column}_low", f"{column}_high"]].abs().max().max() <= 100


def test_the_gain_is_paired_by_query(three):
    multi, single, untrained, train = three
    shuffled = single.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        comparison.multi_against_single(multi, shuffled, untrained, train, k=1),
        comparison.multi_against_single(multi, single, untrained, train, k=1),
        check_exact=False,
        rtol=0.2,  # the intervals' draws follow the order of the rows
    )


def test_other_k_have_no_printed_numbers(three):
    table = comparison.multi_against_single(*three, k=5)
    assert table[["paper_multi", "paper_single"]].isna().all(axis=None)
    assert table.set_index("species").loc["nyala", "multi"] == 100


def test_k_beyond_the_candidates_always_finds_it(three):
    table = comparison.multi_against_single(*three, k=20).set_index("species")
    assert table.loc["hyena", ["multi", "single", "chance"]].tolist() == [100, 100, 100]


def test_increasing_keeps_the_mean_last(three):
    table = comparison.multi_against_single(*three, k=1)
    turned = comparison.increasing(table)
    assert turned["species"].tolist() == ["ant", "hyena", "nyala", "mean"]
    again = turned.set_index("species").loc[table["species"]].reset_index()
    pd.testing.assert_frame_equal(again[table.columns], table)


def test_increasing_keeps_the_order_of_equal_species():
    table = pd.DataFrame({"species": ["b", "a", "c", "mean"], "train_annotations": [5, 5, 1, 11]})
    assert comparison.increasing(table)["species"].tolist() == ["c", "b", "a", "mean"]


def test_paper_in_words_is_recomputed():
    # its text says 12.5 points, at least -0.2: neither follows from its Table 2
    assert comparison.paper_in_words() == (
        "The paper's Table 2 gives a mean gain of 18.8 points over 45 species (from -0.3 to +77.3)."
    )


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([9, 7, 5, 3, 2, 1], "Small species gain most (Spearman's rho -1.00"),
        ([1, 2, 3, 5, 7, 9], "Large species gain most (Spearman's rho +1.00"),
        ([1, 9, 2, 7, 3, 5], "No trend"),
        ([1, 2, 3], "With 3 species, no trend"),
        ([4, 3, 2, 1], "No trend of the gain with a species' training annotations is shown ("),
        ([1, 2, 3, 5, 4], "No trend"),  # p = 10 / 120, where the t of rho says 0.037
        ([1, 2, 3, 4, 5], "Large species gain most (Spearman's rho +1.00, p = 0.017"),  # 2 / 120
    ],
)
def test_trend_in_words(gains, words):
    rows = [(f"s{i}", 10 * i + 10, gain) for i, gain in enumerate(gains)]
    rows.append(("mean", 1000, -100))  # is no species
    table = pd.DataFrame(rows, columns=["species", "train_annotations", "gain"])
    assert comparison.trend_in_words(table).startswith(words)


def test_left_out_by_hand(three):
    multi, single, untrained, train = three
    table = comparison.multi_against_left_out(multi, single, untrained, train, k=1)
    same = comparison.multi_against_single(multi, single, untrained, train, k=1)
    renamed = same.rename(columns=lambda name: name.replace("single", "left_out"))
    columns = [name for name in table if name != "paper_left_out"]
    pd.testing.assert_frame_equal(table[columns], renamed[columns])
    printed = printed_table(2).set_index("species")["leave_one_out"]
    found = table.set_index("species")["paper_left_out"]
    assert found["nyala"] == printed["nyala"] == 15.6
    assert found["mean"] == pytest.approx(printed.mean())
    words = comparison.in_words(table, 1)
    assert "a network that was trained on the species" in words
    assert "one that never saw it" in words
    assert "one each" in comparison.in_words(same, 1)


def test_the_paper_gain_over_left_out_is_recomputed():
    gain = printed_table(2).eval("multi_species - leave_one_out").dropna()
    assert f"a mean gain of {gain.mean():.1f} points" in comparison.paper_in_words("left_out")


def test_transfer_by_hand(three):
    _, left_out, untrained, _ = three
    table = comparison.transfer(left_out, untrained)
    assert table["species"].tolist() == ["hyena", "nyala", "mean"]  # none of ants
    rows = table.set_index("species")[["left_out", "untrained", "gain_over_untrained"]]
    assert rows.loc["nyala"].tolist() == pytest.approx([25, 25, 0])
    assert rows.loc["hyena"].tolist() == pytest.approx([100 / 3, 0, 100 / 3])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=4, max_size=6).filter(lambda gains: len({*gains}) > 1))
def test_p_of_few_species_is_the_share_of_all_orders(gains):
    sizes = np.arange(len(gains))
    rho, p = comparison._rank_correlation(pd.Series(sizes), pd.Series(gains))
    every = [spearmanr(sizes, order).statistic for order in itertools.permutations(gains)]
    tails = [np.mean(np.array(every) >= rho - 1e-9), np.mean(np.array(every) <= rho + 1e-9)]
    assert p == pytest.approx(min(1, 2 * min(tails)))

"""Two models on ranks made by hand: table, words, Table 3, and figures that hold their numbers."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from miewid_core.paper import backbones, comparison
from miewid_core.paper.printed import SPELLINGS, printed_table

WORDS = {"ours": "our network", "theirs": "the other one"}
TITLE = "A title of about the usual length for it · demo"
CANDIDATES = 9


def ranks(**firsts):
    """Ranks with one individual a query: `firsts` has each species' ranks of the first match."""
    rows = [(species, place) for species, places in firsts.items() for place in places]
    table = pd.DataFrame(rows, columns=["species", "first_match_rank"])
    table["annotation_id"] = [f"{species}{i}" for i, species in enumerate(table["species"])]
    table["individual"] = table["annotation_id"]
    table["first_match_rank"] = table["first_match_rank"].astype("Int64")
    return table.assign(candidates=CANDIDATES, relevant=1)


def training(**counts):
    return pd.DataFrame({"species": [name for name, n in counts.items() for _ in range(n)]})


@pytest.fixture
def three():
    ours = ranks(ant=[1, 1], hyena=[1, 2, 6], nyala=[1, 1, 1, 2])
    theirs = ranks(ant=[2, 1], hyena=[6, 2, 1], nyala=[1, 2, 6, 2])
    return {"ours": ours, "theirs": theirs}


def many(n, seed=0):
    """Rankings of `n` species in which the first model is better, and some training annotations."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(list(SPELLINGS))[:n]
    firsts = [{name: rng.integers(1, top, 30) for name in names} for top in (3, 9)]
    train = training(**{name: int(size) for name, size in zip(names, rng.integers(5, 900, n))})  # noqa: B905
    return comparison.versus({"ours": ranks(**firsts[0]), "theirs": ranks(**firsts[1])}, train)


def test_by_hand(three):
    table = comparison.versus(three, training(nyala=30, hyena=40), k=1).set_index("species")
    assert table.index.tolist() == ["hyena", "nyala", "ant", "mean"]
    third = 100 / 3
    expected = {
        "queries": [3, 4, 2, 9],
        "train_annotations": [40, 30, 0, 70],
        "ours": [third, 75, 100, (third + 175) / 3],
        "theirs": [third, 25, 50, (third + 75) / 3],
        "gain": [0, 50, 50, 100 / 3],
        "chance": [100 / CANDIDATES] * 4,
    }
    for column, values in expected.items():
        assert table[column].tolist() == pytest.approx(values), column
    for column in ("ours", "theirs", "gain"):
        known = table[table[column].notna()]
        assert (known[f"{column}_low"] <= known[column] + 1e-9).all()
        assert (known[column] <= known[f"{column}_high"] + 1e-9).all()


def test_rankings_of_other_queries_are_refused(three):
    with pytest.raises(ValueError, match="in one ranking only"):
        comparison.versus(three | {"theirs": three["theirs"][:-1]}, training(ant=1))


class TestTable3:
    def test_species_that_the_paper_has_stand_beside_it(self, three):
        renamed = {
            name: frame.replace({"species": {"ant": "Fin whale"}}) for name, frame in three.items()
        }
        table = comparison.versus(renamed, training(nyala=1))
        both = comparison.beside_table3(table).set_index("species")
        printed = both[["paper_megadescriptor", "paper_leave_one_out"]]
        assert printed.loc["Fin whale"].tolist() == [24.9, 49.2]
        assert printed.loc["nyala"].isna().all()  # not among the 33 of Table 3
        means = printed_table(3).iloc[:, 1:].mean()
        assert printed.loc["mean"].tolist() == pytest.approx(means.tolist())
        pd.testing.assert_frame_equal(both[table.columns[1:]].reset_index(), table)

    def test_in_words_has_the_papers_own_numbers(self):
        words = comparison.table3_in_words()
        assert "33 species" in words
        assert "from +0.5 to +76.1" in words  # wild horse, and spinner dolphin: 95.2 - 19.1


def written(figure):
    """Every text that is seen."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += axes.texts
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [axis.label, *(label for t in ticks for label in (t.label1, t.label2))]
    return [text for text in texts if text.get_visible() and text.get_text()]


def costs():
    return pd.DataFrame(
        {
            "network": ["ours", "theirs"],
            "parameters": [99_709, 86_900_000],
            "multiply_adds": [20_541_632, 28_410_880],
            "photos_per_second": [900.0, 450.0],
            "slowest": [850.0, 400.0],
            "fastest": [930.0, 470.0],
        }
    )


def accuracy_and_costs():
    return comparison.beside_costs(many(12), costs(), WORDS)


def test_costs_stand_beside_the_means():
    table, both = many(12), accuracy_and_costs()
    mean = table.iloc[-1]
    assert both["name"].tolist() == list(WORDS.values())
    assert both["species"].tolist() == [12, 12]
    for row in both.itertuples():
        ends = mean[[row.network, f"{row.network}_low", f"{row.network}_high"]].tolist()
        assert [row.top_1, row.top_1_low, row.top_1_high] == ends
    pd.testing.assert_frame_equal(both[costs().columns], costs())


FIGURES = {
    "3 species": lambda: comparison.by_species(many(3), WORDS, TITLE, 5),
    "12 species": lambda: comparison.by_species(many(12), WORDS, TITLE),
    "49 species": lambda: comparison.by_species(many(49), WORDS, TITLE),
    "cost": lambda: backbones.accuracy_against_cost(accuracy_and_costs(), TITLE),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_text_is_inside_apart_and_large_enough(kind):
    figure = FIGURES[kind]()
    texts = written(figure)
    boxes = [matplotlib.text.Text.get_window_extent(text) for text in texts]
    width, height = figure.get_size_inches() * figure.dpi
    assert figure.get_size_inches()[0] in (3.4, 6.5)
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_fontsize() >= 7
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text.get_text()!r} leaves the figure"
    for one, other in itertools.combinations(range(len(texts)), 2):
        a, b = boxes[one], boxes[other]
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{texts[one].get_text()!r} covers {texts[other].get_text()!r}"


def segments(axes):
    """(N, 2, 2) ends of the intervals that are drawn."""
    made = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return np.array([part for lines in made for part in lines.get_segments()])


def test_by_species_draws_the_table():
    table = many(12)
    left, right = comparison.by_species(table, WORDS, TITLE, 5).axes
    drawn = {line.get_label(): line.get_xdata() for line in left.lines}
    for column, name in WORDS.items():
        np.testing.assert_array_equal(drawn[name], table[column])
    ends = [table[[f"{column}_low", f"{column}_high"]] for column in WORDS]
    np.testing.assert_array_equal(segments(left)[:, :, 0], np.concatenate(ends))
    np.testing.assert_array_equal(segments(right)[:, :, 0], table[["gain_low", "gain_high"]])
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names[:-1] == table["species"][:-1].str.replace("_", " ").tolist()
    assert names[-1] == "mean of 12 species"
    assert left.yaxis_inverted()


def test_gains_whose_interval_holds_zero_are_open():
    table = many(4)
    table["gain_low"], table["gain_high"] = [1.0, -1.0, -3.0, 0.0, 0.5], [2.0, 1.0, -2.0, 2.0, 1.0]
    axes = comparison.by_species(table, WORDS, TITLE).axes[1]
    filled, hollow = (line for line in axes.lines if line.get_marker() == "s")
    np.testing.assert_array_equal(filled.get_xdata(), table["gain"].iloc[[0, 2, 4]])
    np.testing.assert_array_equal(hollow.get_xdata(), table["gain"].iloc[[1, 3]])
    assert hollow.get_markerfacecolor() == "white"


def test_cost_draws_the_table():
    table = accuracy_and_costs()
    left, right = backbones.accuracy_against_cost(table, TITLE).axes
    for axes, column, scale in (
        (left, "multiply_adds", 1e6),
        (right, "photos_per_second", 1),
    ):
        points = np.array([line.get_xydata()[0] for line in axes.lines])
        np.testing.assert_allclose(points[:, 0], table[column] / scale)
        np.testing.assert_allclose(points[:, 1], table["top_1"])
        assert {line.get_marker() for line in axes.lines} == {"o", "D"}
    ends = segments(right)
    np.testing.assert_array_equal(ends[::2, :, 1], table[["top_1_low", "top_1_high"]])
    np.testing.assert_array_equal(ends[1::2, :, 0], table[["slowest", "fastest"]])


def test_rounds_far_apart_fit_a_logarithmic_axis():
    table = accuracy_and_costs().assign(slowest=2.0, fastest=2000.0)
    _, right = backbones.accuracy_against_cost(table, TITLE).axes  # once a warning: an error
    assert 0 < right.get_xlim()[0] < 2
    assert right.get_xlim()[1] > 2000


def test_a_species_without_a_query_that_counts_moves_no_other_gain(three):
    whole = comparison.versus(three, training(nyala=30, hyena=40))
    alone = {
        name: pd.concat([ranks(aardvark=[1]).assign(relevant=0), own], ignore_index=True)
        for name, own in three.items()
    }
    table = comparison.versus(alone, training(nyala=30, hyena=40)).set_index("species")
    expected = whole.set_index("species")["gain"]
    assert table.loc[expected.index, "gain"].tolist() == pytest.approx(expected.tolist())
    assert np.isnan(table.loc["aardvark", "gain"])

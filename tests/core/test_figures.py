"""Figures hold the numbers of their tables, say them legibly, and are the same bytes each time."""

import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from PIL import Image

from miewid_core import figures
from miewid_core.paper import comparison, split_report, table1, training_report
from miewid_core.paper.printed import SPELLINGS

ROOT = Path(__file__).parents[2]
SIZES = [3, 10, 49]
KS = (1, 5, 10, 20)
TITLE = "A title of about the usual length for it · demo"


def names(n):
    """Species names of the paper, short and long ones."""
    return list(np.random.default_rng(0).permutation(list(SPELLINGS))[:n])


WORDS = {name: comparison.NETWORKS[name] for name in ("multi", "matched", "single", "untrained")}


def compared(n):
    """A table as of `comparison.compare`; of more than 3 species the last lacks some networks."""
    rng = np.random.default_rng(1)
    size = np.sort(np.ceil(10 ** rng.uniform(1, 4.5, n)))[::-1].astype(int)
    table = pd.DataFrame({"species": names(n), "queries": 2 * size, "individuals": size})
    table = table.assign(train_annotations=size, multi=rng.uniform(30, 95, n))
    for name, less in (("matched", 12), ("single", 20), ("untrained", 40)):
        gain = rng.normal(less, 15, n)
        table[name] = (table["multi"] - gain).clip(0, 100)
        table[f"gain_over_{name}"] = table["multi"] - table[name]
    table["chance"] = rng.uniform(1, 10, n)
    if n > 3:
        table.loc[n - 1, [c for c in table if c.endswith(("matched", "single"))]] = np.nan
    counts = table[["queries", "individuals", "train_annotations"]].sum()
    last = {"species": "mean", **table.mean(numeric_only=True), **counts}
    table = pd.concat([table, pd.DataFrame([last])], ignore_index=True)
    values = [*WORDS, *(name for name in table if name.startswith("gain"))]
    wide = np.append(60 / np.sqrt(size), 2)
    ends = {f"{name}_low": table[name] - wide for name in values}
    ends |= {f"{name}_high": table[name] + wide for name in values}
    return table.assign(**ends, **{f"{name}_trainings": 1 for name in WORDS})


def tails(n):
    counts = {"per_individual": [1, 2, 5, 40], "individuals": [30, 12, 3, 1]}
    parts = [pd.DataFrame(counts).assign(species=name) for name in names(n)]
    return pd.concat(parts, ignore_index=True)


def splits(n):
    parts = np.random.default_rng(2).integers(1, 900, (n, 4))
    columns = [f"{part}_annotations" for part in ("train", "shared", "new", "unused")]
    table = pd.DataFrame(parts, columns=columns).assign(species=names(n), individuals=1234)
    return table.assign(annotations=parts.sum(axis=1))


def mapped(n):
    rng = np.random.default_rng(3)
    table = pd.DataFrame(rng.normal(0, 30, (n * 5, 2)), columns=["x", "y"])
    return table.assign(individual=np.repeat([f"ant/a_{place}" for place in range(n)], 5))


def history(runs):
    parts = [{"run": f"run {r}", "epoch": e, "loss": 9 / e, "rate": 1e-4 * e} for r in range(runs)
             for e in range(1, 31)]  # fmt: skip
    return pd.DataFrame(parts)


def margins():
    return pd.DataFrame({"annotations": [3, 3, 3, 10, 200], "margin": [0.5, 0.5, 0.5, 0.4, 0.2]})


KINDS = {
    "dots": lambda n: comparison.dots({"top-5": compared(n)}, WORDS, TITLE, gain="matched"),
    "dots_by_k": lambda n: comparison.dots({f"{k}": compared(n) for k in KS}, WORDS, TITLE),
    "beside_the_paper": lambda n: comparison.dots(
        {"paper": comparison.printed_by_size(["multi", "single"]), "here": compared(n)},
        WORDS,
        TITLE,
    ),
    "gain_by_size": lambda n: comparison.gain_by_size(compared(n), TITLE, "matched"),
    "long_tail": lambda n: table1.long_tail_figure(tails(n), TITLE),
    "split_bars": lambda n: split_report.split_figure(splits(n), TITLE),
    "embedding_map": lambda n: training_report.embedding_map(mapped(min(n, 6)), TITLE),
    "curves": lambda n: training_report.epochs_figure(history(min(n, 3)), TITLE),
    "margins": lambda n: training_report.margins_figure(margins(), TITLE),
}


def written(figure):
    """Every text that is seen: of ticks only those within the axis's view."""
    figure.draw_without_rendering()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    children = [child for axes in figure.axes for child in axes.child_axes]
    for axes in [*figure.axes, *children]:
        texts += axes.texts
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [
                axis.label,
                *(label for tick in ticks for label in (tick.label1, tick.label2)),
            ]
    return [text for text in texts if text.get_visible() and text.get_text()]


@pytest.fixture(scope="module", params=itertools.product(KINDS, SIZES), ids=str)
def any_figure(request):
    kind, n = request.param
    return KINDS[kind](n)


class TestLegible:
    def test_no_text_covers_another_or_leaves_the_figure(self, any_figure):
        texts = written(any_figure)
        boxes = [matplotlib.text.Text.get_window_extent(text) for text in texts]
        width, height = any_figure.get_size_inches() * any_figure.dpi
        for text, box in zip(texts, boxes, strict=True):
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            assert inside, f"{text.get_text()!r} leaves the figure"
        for one, other in itertools.combinations(range(len(texts)), 2):
            a, b = boxes[one], boxes[other]
            apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
            assert apart, f"{texts[one].get_text()!r} covers {texts[other].get_text()!r}"

    def test_text_has_at_least_7_points_at_the_width_of_a_column_or_a_page(self, any_figure):
        assert min(text.get_fontsize() for text in written(any_figure)) >= 7
        assert any_figure.get_size_inches()[0] in (3.4, 6.5)

    def test_both_axes_are_named(self, any_figure):
        for axes in any_figure.axes:
            assert axes.get_xlabel() or axes.get_shared_x_axes().get_siblings(axes)
            if axes.get_subplotspec().colspan.start:
                continue  # its rows are those of the first panel
            rows = [label.get_text() for label in axes.get_yticklabels()]
            assert axes.get_ylabel() or names(1)[0].replace("_", " ") in rows


class TestGrey:
    def test_no_two_of_six_individuals_look_alike_on_the_map(self):
        (axes,) = training_report.embedding_map(mapped(6), TITLE).axes
        assert len({line.get_marker() for line in axes.lines}) == 6
        assert len({to_hex(line.get_markerfacecolor()) for line in axes.lines}) == 6

    def test_lines_differ_in_dashes_too(self):
        axes = training_report.epochs_figure(history(7), TITLE).axes[0]
        assert len({line._unscaled_dash_pattern for line in axes.lines}) == 7


def segments(axes):
    """(N, 2, 2) ends of the intervals that are drawn."""
    made = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return np.array([part for lines in made for part in lines.get_segments() if len(part)])


def labelled(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


class TestNumbers:
    def test_long_tail_by_hand(self):
        tail = pd.DataFrame(
            {
                "species": ["ant", "ant", "bee"],
                "per_individual": [1, 3, 3],
                "individuals": [2, 1, 1],
            }
        )
        axes = table1.long_tail_figure(tail, TITLE).axes[0]
        ant, bee, every, alike, tenth = axes.lines
        np.testing.assert_allclose(ant.get_xydata()[:2], [[0, 0], [100 / 3, 60]])
        assert bee.get_xydata().tolist() == [[0, 0], [100, 100]]
        np.testing.assert_allclose(every.get_ydata(), [0, 37.5, 75, 87.5, 100])
        assert every.get_label() == "all 4 individuals"
        assert list(alike.get_ydata()) == [0, 100]
        assert tenth.get_xydata().tolist() == [[10, 37.5]]  # one of four: no tenth is fewer

    def test_split_bars_are_percentages_that_stack(self):
        table = splits(10)
        axes = split_report.split_figure(table, TITLE).axes[0]
        bars = np.array([[bar.get_width() for bar in part] for part in axes.containers])
        shares = table[list(split_report.PARTS)].div(table["annotations"], axis=0)
        np.testing.assert_allclose(bars.T, 100 * shares)
        np.testing.assert_allclose(bars.sum(axis=0), 100)
        last = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
        np.testing.assert_allclose(last, 100)

    def test_curves_share_epochs_not_an_axis(self):
        table = history(1)
        above, below = training_report.epochs_figure(table, TITLE).axes
        np.testing.assert_array_equal(above.lines[0].get_xydata(), table[["epoch", "loss"]])
        np.testing.assert_array_equal(below.lines[0].get_xydata(), table[["epoch", "rate"]])
        assert above.get_shared_x_axes().joined(above, below)

    def test_margins_by_hand(self):
        above, below = training_report.margins_figure(margins(), TITLE).axes
        assert above.lines[0].get_xydata().tolist() == [[3, 0.5], [10, 0.4], [200, 0.2]]
        assert segments(below)[:, 1].tolist() == [[3, 3], [10, 1], [200, 1]]

    def test_map_draws_every_annotation(self):
        data = mapped(6)
        figure = training_report.embedding_map(data, TITLE)
        points = np.concatenate([line.get_xydata() for line in figure.axes[0].lines])
        np.testing.assert_array_equal(
            points, data.sort_values("individual", kind="stable")[["x", "y"]]
        )
        named = [text.get_text() for text in figure.legends[0].get_texts()]
        assert named == [f"a {place}" for place in range(6)]


def chips(n):
    return [np.full((8, 8, 3), 20 * number, np.uint8) for number in range(n)]


class TestPhotos:
    def test_chips_and_captions_stand_in_their_rows(self):
        captions = ["ant\na", "ant\nb", "bee\nc", "bee\nd", "cow\ne"]
        panels = [(chip, caption, None) for chip, caption in zip(chips(5), captions, strict=True)]
        axes = figures.match_panels([panels[:2], panels[2:]], "", columns=4).axes[0]
        places = pd.DataFrame([image.get_extent() for image in axes.images])[[3, 0]]
        rows, columns = (places[edge].round(2).rank(method="dense") for edge in places)
        assert rows.tolist() == [1, 1, 2, 2, 2]
        assert columns.tolist() == [1, 2, 1, 2, 3]
        assert [text.get_text() for text in axes.texts] == captions
        for image, chip in zip(axes.images, chips(5), strict=True):
            np.testing.assert_array_equal(image.get_array(), chip)

    def test_right_and_wrong_are_told_by_colour_line_and_word(self):
        panel = list(zip(chips(3), ["ant\nquery a", "a\n0.9", "b\n0.8"], [None, True, False]))  # noqa: B905
        axes = figures.match_panels([panel], TITLE).axes[0]
        right, wrong = axes.patches
        assert to_hex(right.get_edgecolor()) != to_hex(wrong.get_edgecolor())
        assert (right.get_linestyle(), wrong.get_linestyle()) == ("-", ":")
        texts = [text.get_text() for text in axes.texts]
        assert texts == ["ant\nquery a", "right: a\n0.9", "wrong: b\n0.8"]

    @pytest.mark.parametrize("rows", [1, 12])
    def test_title_stays_above_the_first_row(self, rows):
        panel = [(chips(1)[0], "ant\nquery a", None)]
        figure = figures.match_panels([panel] * rows, TITLE)
        figure.canvas.draw()
        title = next(text for text in figure.texts if text.get_text().startswith("A title"))
        highest = max(image.get_window_extent().y1 for image in figure.axes[0].images)
        assert title.get_window_extent().y0 > highest

    def test_captions_stay_below_their_chips(self):
        long = "an individual of a very long name, number 12345"
        figure = figures.match_panels([[(chip, f"{long}\n{long}", None) for chip in chips(6)]], "")
        boxes = [text.get_window_extent() for text in written(figure)]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        assert all(text.get_text().endswith("2345") for text in written(figure))


class TestSaved:
    def test_the_data_and_the_same_bytes_whatever_the_readers_style(self, tmp_path):
        table = compared(3)
        for folder, size in (("a", 10), ("b", 20)):
            with matplotlib.rc_context({"font.size": size, "axes.grid": False}):
                figure = comparison.dots({"top-1": table}, WORDS, TITLE, gain="single")
                figures.save(table, "figure1", tmp_path / folder, figure)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a" / "figure1.csv"), table)
        for name in ("figure1.png", "figure1.csv"):
            one, other = ((tmp_path / folder / name).read_bytes() for folder in "ab")
            assert one == other
        with Image.open(tmp_path / "a" / "figure1.png") as image:
            assert image.size[0] == 1300  # 6.5 in at 200 dots per inch
            assert "Software" not in image.info

    def test_table_as_csv_and_markdown(self, tmp_path):
        table = pd.DataFrame(
            {"a|b": ["x|y", "two\nlines", None], "n": [1, 2, 3], "share": [1 / 3, np.nan, 2e-5]}
        )
        figures.save(table, "table", tmp_path)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table.csv"), table)
        figures.save(table.assign(n=pd.array([1, None, 1234567], "Int64")), "b", tmp_path)
        assert (tmp_path / "b.md").read_text() == (
            "| a\\|b | n | share |\n"
            "| --- | ---: | ---: |\n"
            "| x\\|y | 1 | 0.333 |\n"
            "| two lines |  |  |\n"
            "|  | 1,234,567 | 2.00e-05 |\n"
        )


class TestNotebooks:
    def test_a_figure_shows_itself_once_and_small(self):
        figure = comparison.dots({"top-1 accuracy (%)": compared(10)}, WORDS, TITLE)
        picture, described = figure._repr_png_()
        assert picture.startswith(b"\x89PNG")
        assert figure._repr_jpeg_() is None
        assert len(picture) < 35_000
        assert described["alt"].startswith(TITLE.split(" · ")[0])
        assert "top-1 accuracy (%)" in described["alt"]
        sheet = figures.match_panels([[(chip, "ant\na", None) for chip in chips(6)]], "")
        assert sheet._repr_png_() is None
        assert sheet._repr_jpeg_()[0].startswith(b"\xff\xd8")

    def test_nothing_leaks_into_pyplot_or_the_readers_style(self):
        with matplotlib.rc_context({"font.size": 31}):
            before = dict(matplotlib.rcParams)
            for draw in KINDS.values():
                draw(3).png()
            assert dict(matplotlib.rcParams) == before
        assert pyplot.get_fignums() == []

    def test_needs_no_torch(self):
        code = "import sys, miewid_core.figures; sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class TestExtremes:
    def test_one_species_one_individual(self):
        tail = pd.DataFrame({"species": ["ant"], "per_individual": [1], "individuals": [1]})
        assert table1.long_tail_figure(tail, TITLE).png()
        equal = pd.DataFrame({"annotations": [4, 4], "margin": [0.35, 0.35]})
        assert training_report.margins_figure(equal, TITLE).png()
        assert training_report.embedding_map(mapped(1), TITLE).png()
        assert training_report.epochs_figure(history(1).head(1), TITLE).png()
        assert split_report.split_figure(splits(1), TITLE).png()
        one = compared(3).iloc[[0, -1]].reset_index(drop=True)
        assert comparison.dots({"top-1": one}, WORDS, TITLE, gain="single").png()
        assert comparison.gain_by_size(one, TITLE, "single").png()

    def test_no_species_has_both_models(self):
        table = compared(3)
        table.loc[
            :, [name for name in table if "single" in name and not name.endswith("trainings")]
        ] = np.nan
        assert comparison.dots({"top-1": table}, WORDS, TITLE, gain="single").png()
        assert comparison.gain_by_size(table, TITLE, "single").png()


def test_odd_names_are_drawn_as_they_are():
    data = mapped(3).replace({"ant/a_0": "cost_$5_and_$6"})
    figure = training_report.embedding_map(data, TITLE)
    assert "cost $5 and $6" in [text.get_text() for text in written(figure)]
    assert not any(text.get_parse_math() for text in written(figure))

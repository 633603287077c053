"""The plots hold their tables' numbers, tell lines apart in grey, and say what n is."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from miewid_core import evaluation
from miewid_core.beyond_paper import gallery_size
from miewid_core.evaluation import one_vs_all, random_top_k
from miewid_core.paper import database_size, top_k
from miewid_core.paper.comparison import compare
from miewid_core.paper.intervals import ENDS
from miewid_core.paper.printed import SPELLINGS

SIZES = [1, 3, 13]


def names(n):
    return list(SPELLINGS)[:n]


def ranked(n=3, seed=0, people=6):
    """Ranks of n species with so many individuals of 4 annotations, by random embeddings."""
    rng = np.random.default_rng(seed)
    species = np.repeat(names(n), 4 * people)
    individuals = [f"{s}/{i // 4 % people}" for i, s in enumerate(species)]
    return one_vs_all(rng.normal(size=(len(species), 8)).astype(np.float32), individuals, species)


def top_k_table(n):
    """A table as of `curves.top_k`, of made-up numbers."""
    ks = np.array(top_k.KS)
    parts = []
    for species in [*names(n), "mean"]:
        for number, model in enumerate(top_k.LOOKS):
            score = 100 * (1 - np.exp(-ks / (5 + 4 * number)))
            columns = {"top_k": score, "low": score - 5, "high": score + 3, "chance": 2 * ks}
            fixed = {"model": model, "species": species, "queries": 1234, "individuals": 210}
            parts.append(pd.DataFrame({"k": ks} | columns).assign(**fixed))
    return pd.concat(parts, ignore_index=True)


def gallery_curve(n):
    rows = [
        (size, species, 1234, 100 / size, 90 / size, 110 / size)
        for number, species in enumerate([*names(n), "mean"])
        for size in (2, 3, 5, 9, 20 * (number + 1))[: 4 if species == "mean" else 5]
    ]
    return pd.DataFrame(rows, columns=["size", "species", "queries", "top_1", "low", "high"])


def database_summary():
    limits = np.arange(1, 11)
    table = pd.DataFrame({"limit": limits, "species": 12, "queries": 2884})
    for k, top in ((1, 60), (5, 80)):
        table[f"top_{k}"] = top - 20 / limits
        table[f"top_{k}_deviation"] = 9.0
    return table


def bands(axes):
    """Lower and upper edges of what is filled, in the order drawn."""
    for band in axes.collections:
        vertices = band.get_paths()[0].vertices
        x = np.unique(vertices[:, 0])
        ends = [vertices[vertices[:, 0] == place, 1] for place in x]
        yield x, np.array([end.min() for end in ends]), np.array([end.max() for end in ends])


def test_top_k_is_the_cmc_with_the_intervals_of_compare():
    rankings = {"multi": ranked(seed=0), "single": ranked(seed=1)}
    train = pd.DataFrame({"species": [names(3)[1]] * 3 + [names(3)[2]] * 2, "individual": "x"})
    table = top_k.top_k(rankings, train, ks=range(1, 6))
    order = [names(3)[1], names(3)[2], names(3)[0], "mean"]  # by training annotations
    assert table["species"].unique().tolist() == order
    assert len(table) == 2 * 5 * 4
    for model, ranks in rankings.items():
        for species, own in ranks.groupby("species"):
            found = table[(table["model"] == model) & (table["species"] == species)]
            curve = [100 * evaluation.top_k(own, k) for k in range(1, 6)]
            np.testing.assert_allclose(found["top_k"], curve)
            chance = [100 * random_top_k(own, k) for k in range(1, 6)]
            np.testing.assert_allclose(found["chance"], chance)
        mean = table[(table["model"] == model) & (table["species"] == "mean")].set_index("k")
        expected = compare({"own": ranks}, k=3).iloc[-1]
        got = mean.loc[3, ["top_k", "low", "high"]].tolist()
        assert got == pytest.approx([expected["own"], expected["own_low"], expected["own_high"]])


def test_of_several_trainings_the_spread_counts_and_certain_answers_have_no_band():
    runs = [ranked(seed=seed) for seed in range(3)]
    once = top_k.top_k({"multi": runs[0], "single": runs[1]}, runs[0], ks=[1, 23])
    several = top_k.top_k({"multi": runs, "single": runs[1]}, runs[0], ks=[1, 23])
    for table in (once, several):
        all_of = table[table["k"] == 23]  # of 23 candidates
        assert (all_of[["top_k", "low", "high", "chance"]] == 100).all(axis=None)
    width = [
        table[(table["species"] == "mean") & (table["k"] == 1)].eval("high - low").tolist()
        for table in (once, several)
    ]
    assert width[1][1] > width[0][1]  # trained once, it spreads as the other does
    shown = top_k.readable(several)
    assert shown["k"].tolist() == [1]
    mean = compare({"multi": runs}).iloc[-1]
    words = "{multi:.1f} ({multi_low:.1f} to {multi_high:.1f})".format_map(mean)
    assert shown["multi (%)"].tolist() == [words]
    assert shown["random ranking (%)"].tolist() == [pytest.approx(mean["chance"])]


def test_means_are_over_the_species_that_all_models_have():
    multi, single = ranked(seed=0), ranked(seed=1)
    lacking = single[single["species"] != names(3)[1]]
    table = top_k.top_k(dict(zip(top_k.LOOKS, (multi, lacking), strict=False)), multi, ks=[1])
    assert table["species"].tolist().count(names(3)[1]) == 1
    rows = table[table["model"] == "multi-species"].set_index("species")
    both = [names(3)[0], names(3)[2]]
    assert rows.loc["mean", "top_k"] == pytest.approx(rows.loc[both, "top_k"].mean())
    assert rows.loc["mean", "queries"] == 2 * 24
    titles = [axes.get_title("left") for axes in top_k.top_k_panels(table, "t").axes]
    assert titles[0].startswith("mean of 2 species\n48 / 12")


def test_words_and_table_name_the_first_k_that_is_enough():
    table = pd.DataFrame({"k": [1, 2, 5], "top_k": [50, 90, 95], "low": [40, 80, 90]})
    table = table.assign(high=[95, 95, 99], model="multi", species="mean")
    never = table.assign(model="single", top_k=[1, 2, 3], low=0, high=[5, 6, 91])
    both = pd.concat([table, never])
    assert top_k.needed(both, [90, 95]).to_numpy().tolist() == [
        ["multi", "2 (1 to 5)", "5 (1 to over 5)"],
        ["single", "over 5 (5 to over 5)", "over 5 (over 5 to over 5)"],
    ]
    assert top_k.in_words(both) == (
        "The multi network's 2 (95 % interval 1 to 5) nearest annotations hold the right "
        "individual in 90 % of searches, on average over species."
    )


@pytest.mark.parametrize("n", SIZES)
def test_top_k_panels_draw_every_species_and_model(n):
    table = top_k_table(n)
    axes = top_k.top_k_panels(table, "A title · demo").axes
    assert len(axes) == n + 1
    for name, panel in zip(["mean", *names(n)], axes, strict=True):
        drawn = {line.get_label(): line.get_xydata() for line in panel.lines}
        assert set(drawn) == {*top_k.LOOKS, "random ranking"}
        own = table[table["species"] == name]
        for model in top_k.LOOKS:
            np.testing.assert_allclose(drawn[model], own.loc[own["model"] == model, ["k", "top_k"]])
        ((x, low, high),) = bands(panel)
        rows = own[own["model"] == next(iter(top_k.LOOKS))]
        np.testing.assert_allclose(x, rows["k"])
        least = np.minimum(rows["chance"], rows["top_k"])  # of a random ranking
        np.testing.assert_allclose((low, high), (np.maximum(rows["low"], least), rows["high"]))
        assert panel.get_title("left").endswith("1,234 / 210")


@pytest.mark.parametrize("n", SIZES)
def test_gallery_curves_are_drawn_and_named(n):
    curve = gallery_curve(n)
    (axes,) = gallery_size.gallery_figure(curve, "A title · demo").axes
    *species, mean, common = axes.lines
    for name, line in zip([*names(n), "mean"], [*species, mean], strict=True):
        own = curve[curve["species"] == name]
        np.testing.assert_allclose(line.get_xydata(), own[["size", "top_1"]])
    ((_, low, high),) = bands(axes)
    np.testing.assert_allclose((low, high), (own["low"], own["high"]))
    assert set(common.get_xdata()) == {9}
    ends = curve[curve["species"] != "mean"].groupby("species").last()
    named = {text.get_text().replace(" ", "_"): text.xy for text in axes.texts}
    at_nine = curve[(curve["size"] == 9) & (curve["species"] != "mean")]
    at_nine = at_nine.sort_values("top_1")["species"]
    assert [*named] == [*dict.fromkeys(at_nine.iloc[[0, -1]])]  # the worst and the best
    for name, place in named.items():
        assert tuple(place) == tuple(ends.loc[name, ["size", "top_1"]])


def test_gallery_figure_takes_what_the_gallery_makes():
    rng = np.random.default_rng(0)
    ranks = ranked(2)
    embeddings = rng.normal(size=(len(ranks), 8)).astype(np.float32)
    curve = gallery_size.curve([gallery_size.ahead(embeddings, ranks)])
    (axes,) = gallery_size.gallery_figure(curve, "A title").axes
    assert len(axes.texts) == 2


def database_species():
    parts = [
        pd.DataFrame({"species": name, "limit": range(1, 11), "top_1": 50 + place, "top_5": 70})
        for place, name in enumerate(names(4))
    ]
    return pd.concat(parts)


def database_cost():
    ends = {f"cost_{k}{end}": k + place for k in (1, 5) for place, end in enumerate(ENDS)}
    return pd.DataFrame({"limit": range(1, 11)}).assign(**ends)


def test_database_size_draws_mean_and_species_and_says_the_drop_and_n():
    table, each = database_summary(), database_species()
    figure = database_size.accuracy_figure(table, each, database_cost(), "A title · demo")
    for k, axes in zip((1, 5), figure.axes, strict=True):
        *species, mean = axes.lines
        np.testing.assert_allclose(mean.get_xydata(), table[["limit", f"top_{k}"]])
        for line, (_, own) in zip(species, each.groupby("species"), strict=True):
            np.testing.assert_allclose(line.get_ydata(), own[f"top_{k}"])
        drop = f"{k}.0 points lower ({k + 1}.0 to {k + 2}.0)"
        assert axes.get_title("left") == f"top-{k}: with one {drop}"
        last = each[each["limit"] == 10].sort_values(f"top_{k}", kind="stable")
        ends = last["species"].iloc[[0, -1]].str.replace("_", " ").tolist()
        assert k == 5 or [text.get_text() for text in axes.texts] == ends  # the worst, the best
    assert mean.get_label() == "mean of 12 species, 2,884 queries"


def test_lines_differ_in_grey():
    """By dashes and by lightness."""
    weights = np.array([0.299, 0.587, 0.114])
    dashes = [look["ls"] for look in top_k.LOOKS.values()]
    assert len(set(dashes)) == len(dashes)
    light = sorted(weights @ to_rgb(look["color"]) for look in top_k.LOOKS.values())
    assert np.diff(light).min() > 0.1


FIGURES = {
    "top_k": lambda n: top_k.top_k_panels(top_k_table(n), "A title · demo"),
    "gallery": lambda n: gallery_size.gallery_figure(gallery_curve(n), "A title · demo"),
    "database": lambda n: database_size.accuracy_figure(
        database_summary(), database_species(), database_cost(), "A title · demo"
    ),
}


@pytest.mark.parametrize(
    ("kind", "n"), [("top_k", 49), ("top_k", 3), ("gallery", 12), ("database", 0)]
)
def test_no_title_covers_another_panel_and_text_is_legible(kind, n):
    figure = FIGURES[kind](n)
    figure.draw_without_rendering()
    titles = [axes._left_title for axes in figure.axes]
    boxes = [title.get_window_extent() for title in titles if title.get_text()]
    assert not any(box.count_overlaps(boxes[:i]) for i, box in enumerate(boxes))
    page = figure.get_window_extent()
    texts = [*figure.texts, *titles, figure._suptitle]
    assert all(text.get_fontsize() >= 7 for text in texts)
    assert all(box.x0 >= page.x0 and box.x1 <= page.x1 for box in boxes)


def test_the_same_table_gives_the_same_bytes():
    first, again = (FIGURES["top_k"](3).png() for _ in range(2))
    assert first == again

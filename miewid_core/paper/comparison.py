"""All species' network against another, species by species, beside the paper's Table 2."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import permutation_test, rankdata, spearmanr

from miewid_core.evaluation import overview, paired_difference
from miewid_core.figures import (
    BLUE,
    COLUMN,
    GREY,
    MANY,
    ORANGE,
    PAGE,
    Figure,
    _plain,
    _words,
    styled,
)
from miewid_core.paper.labels import label_points
from miewid_core.paper.printed import printed_table, species_name


@styled()
def gain_by_size(table: pd.DataFrame, title: str) -> Figure:
    """Gain of one model for all, with 95 % interval, against a species' training annotations.

    `table`: as for `comparison`; the mean's gain and interval are a line and a band. Species that
    only one model has are left out.
    """
    shown = table[table["gain"].notna() & (table["species"] != "mean")]
    mean = table[table["species"] == "mean"].iloc[0]
    few, many = len(shown) <= 6, len(shown) > MANY
    drawn = Figure(title, 3 if few else 6 if many else 3.6, COLUMN if few else PAGE)
    axes = drawn.subplots()
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhspan(mean["gain_low"], mean["gain_high"], color=ORANGE, alpha=0.3, linewidth=0)
    words = f"mean of {len(shown)} species: {mean['gain']:+.1f}"
    axes.axhline(mean["gain"], color=ORANGE, linestyle="--", label=words)
    places, bars = shown[["train_annotations", "gain"]], shown[["gain_low", "gain_high"]]
    axes.vlines(places["train_annotations"], *bars.to_numpy().T, BLUE, linewidth=1, alpha=0.6)
    words = "species with 95 % interval" + ("" if many else " (n queries)")
    axes.plot(*places.to_numpy().T, "o", color=BLUE, label=words)
    axes.set(xscale="log", xlabel="training annotations of the species")
    axes.set(ylabel="gain in accuracy (points)")
    axes.margins(x=0.12, y=0.15)
    _plain(axes.xaxis)
    drawn.legend(loc="outside lower left")
    numbers = zip(shown["species"], shown["queries"], strict=True)
    names = [_words(name) if many else f"{_words(name)} ({n:,})" for name, n in numbers]
    label_points(axes, places.to_numpy(), bars.to_numpy(), names)
    return drawn


EXACT = 7  # species: up to so many, all orders of them are tried (5,040)
ENDS = ["", "_low", "_high"]
PRINTED = {"multi": "multi_species", "single": "single_species", "left_out": "leave_one_out"}
OTHERS = {  # what all species' network is set against: how the two are called in a verdict
    "single": ("one network for all species", "one each"),
    "left_out": ("a network that was trained on the species", "one that never saw it"),
}


def multi_against_single(
    multi: pd.DataFrame,
    single: pd.DataFrame,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Top-k of two models in percent, with 95 % intervals: the data of Figures 1 and 5 to 8.

    `multi`, `single`, `untrained`: ranks of the same queries; species that `single` lacks (nothing
    to train on) keep their row, with NaN. `train`: the training annotations. One row per species by
    decreasing number of training annotations, then the mean over species that both models have;
    `gain` is multi minus single in percentage points, paired over queries, its interval
    bootstrapped over individuals. `chance` is a random ranking's top-k. `paper_multi` and
    `paper_single` are Table 2's top-1 (NaN for other k, and for species that it lacks).
    """
    return _against(multi, single, "single", untrained, train, k, seed)


def multi_against_left_out(
    multi: pd.DataFrame,
    left_out: pd.DataFrame,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
    seed: int = 0,
) -> pd.DataFrame:
    """As `multi_against_single`, with networks that never saw a species: Figures 2 and 9 to 12.

    Column `left_out` takes the place of `single`, and `paper_left_out` that of `paper_single`.
    """
    return _against(multi, left_out, "left_out", untrained, train, k, seed)


def _against(
    multi: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
    seed: int,
) -> pd.DataFrame:
    table = pd.concat(_parts(multi, other, name, untrained, k, seed))
    counts = train["species"].value_counts()
    table["train_annotations"] = counts.reindex(table.index, fill_value=0)
    mean = table.index == "mean"
    averaged = ~mean & table["gain"].notna()
    table.loc[mean, "train_annotations"] = table.loc[averaged, "train_annotations"].sum()
    table = table.sort_values("train_annotations", ascending=False, kind="stable")
    table = pd.concat([table[table.index != "mean"], table[table.index == "mean"]])
    measured = [f"{column}{end}" for column in ("multi", name, "gain") for end in ENDS]
    first = ["species", "queries", "individuals", "train_annotations"]
    last = ["untrained", "chance", "paper_multi", f"paper_{name}"]
    return _with_paper(table.reset_index(), name, k)[[*first, *measured, *last]]


def _parts(
    multi: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    untrained: pd.DataFrame,
    k: int,
    seed: int,
) -> list[pd.DataFrame]:
    """Scores of the species that both models have, with their mean; and of the other species."""
    both, before = (ranks["species"].isin(other["species"]) for ranks in (multi, untrained))
    rankings = {"multi": multi[both], name: other, "untrained": untrained[before]}
    table = overview(rankings, seed, k).set_index("species")
    gain = paired_difference(multi[both], other, k, seed).set_index("species")
    table[[f"gain{end}" for end in ENDS]] = 100 * gain[["difference", "low", "high"]]
    if both.all():
        return [table]
    rest = overview({"multi": multi[~both], "untrained": untrained[~before]}, seed, k)
    return [table, rest.set_index("species").drop("mean")]


def _with_paper(table: pd.DataFrame, name: str, k: int) -> pd.DataFrame:
    """The table with Table 2's columns of both models, which are top-1, beside it."""
    printed = printed_table(2).set_index("species")[list(PRINTED.values())]
    printed.loc["mean"] = printed.mean()
    known = table["species"].map(species_name)
    found = printed.reindex(known) if k == 1 else printed.reindex([None] * len(table))
    for column in ("multi", name):
        table[f"paper_{column}"] = found[PRINTED[column]].to_numpy()
    return table


def increasing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by increasing number of training annotations, as Figures 5 to 8; the mean last."""
    mean = table["species"] == "mean"
    rows = table[~mean].sort_values("train_annotations", kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def in_words(table: pd.DataFrame, k: int) -> str:
    """What a table of this module shows, in a sentence that its numbers decide."""
    one, other = next((words for name, words in OTHERS.items() if name in table), OTHERS["single"])
    mean = table[table["species"] == "mean"].iloc[0]
    n = int(table["gain"].notna().sum()) - 1
    low, high = mean["gain_low"], mean["gain_high"]
    interval = f"{mean['gain']:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"
    if low > 0:
        verdict = f"{one} is better than {other}"
    elif high < 0:
        verdict = f"{one} is worse than {other}"
    else:
        verdict = f"no difference shown between {one} and {other}"
    return f"Top-{k}, mean over {n} species: {verdict} ({interval})."


def paper_in_words(other: str = "single") -> str:
    """The gain in top-1 over "single" or "left_out" that Table 2 shows, from its rows."""
    printed = printed_table(2)
    gain = (printed["multi_species"] - printed[PRINTED[other]]).dropna()
    return (
        f"The paper's Table 2 gives a mean gain of {gain.mean():.1f} points over {len(gain)} "
        f"species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )


def trend_in_words(table: pd.DataFrame) -> str:
    """Do small species gain most? Rank correlation of gain with training annotations, in words."""
    rows = table[(table["species"] != "mean") & table["gain"].notna()]
    if len(rows) < 4:
        return f"With {len(rows)} species, no trend of the gain with their size can be shown."
    rho, p = _rank_correlation(rows["train_annotations"], rows["gain"])
    shown = f"Spearman's rho {rho:+.2f}, p = {p:.2g}, {len(rows)} species"
    if not p < 0.05:
        return f"No trend of the gain with a species' training annotations is shown ({shown})."
    return f"{'Small' if rho < 0 else 'Large'} species gain most ({shown})."


def _rank_correlation(sizes: pd.Series, gains: pd.Series) -> tuple[float, float]:
    """Spearman's rho and its two-sided p, which is exact where so few species make its t bold."""
    rho, p = spearmanr(sizes, gains)
    if len(sizes) <= EXACT:
        ranks = rankdata(gains)

        def products(order: np.ndarray, axis: int) -> np.ndarray:
            return (order * ranks).sum(axis)  # rises with rho

        every = {"permutation_type": "pairings", "n_resamples": np.inf}
        p = permutation_test((rankdata(sizes),), products, vectorized=True, **every).pvalue
    return rho, p


def transfer(left_out: pd.DataFrame, untrained: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Top-1 in percent on species that a network never saw, against the untrained network.

    Columns species, queries, individuals, left_out, untrained, difference, low, high (points, 95 %
    interval over individuals); last the mean over species.
    """
    before = untrained[untrained["species"].isin(left_out["species"])]
    table = paired_difference(left_out, before, 1, seed)
    table = table.rename(columns={"a": "left_out", "b": "untrained"})
    numbers = ["left_out", "untrained", "difference", "low", "high"]
    return table.assign(**100 * table[numbers])


def transfer_in_words(table: pd.DataFrame) -> str:
    """What a table of `transfer` shows, in a sentence that its numbers decide."""
    mean, rows = table.iloc[-1], table[:-1]
    better, worse = (rows["low"] > 0).sum(), (rows["high"] < 0).sum()
    shown = (
        "no carry-over is shown"
        if mean["low"] <= 0 <= mean["high"]
        else (
            "what was learned of other species carries over"
            if mean["low"] > 0
            else "training on other species makes it worse"
        )
    )
    return (
        f"Mean over {len(rows)} unseen species: {mean['left_out']:.1f} against "
        f"{mean['untrained']:.1f} before training: {shown} ({mean['difference']:+.1f} points, 95 % "
        f"interval {mean['low']:+.1f} to {mean['high']:+.1f}); better on {better} of them, worse "
        f"on {worse}, no difference shown on {len(rows) - better - worse}."
    )


def versus(
    rankings: Mapping[str, pd.DataFrame], train: pd.DataFrame, k: int = 1, seed: int = 0
) -> pd.DataFrame:
    """Top-k in percent of two rankings of the same queries, and the first's gain over the second.

    One row per species by decreasing number of its training annotations in `train`, then the mean
    over species. Columns species, queries, individuals, train_annotations; each model's name with
    name_low and name_high (95 % interval); chance, a random ranking's top-k; gain, gain_low and
    gain_high in percentage points, paired over queries, bootstrapped over individuals. Raises
    ValueError when the queries differ.
    """
    first, second = rankings.values()
    table = overview(rankings, seed, k)
    gain = paired_difference(first, second, k, seed).set_index("species")
    for column, name in (("gain", "difference"), ("gain_low", "low"), ("gain_high", "high")):
        table[column] = table["species"].map(100 * gain[name])
    counts = train["species"].value_counts()
    table.insert(3, "train_annotations", table["species"].map(counts).fillna(0).astype(int))
    mean = table["species"] == "mean"
    table.loc[mean, "train_annotations"] = table["train_annotations"].sum()
    rows = table[~mean].sort_values("train_annotations", ascending=False, kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def beside_table3(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `versus` with the paper's Table 3 for the species that it has, and its means."""
    printed = printed_table(3).set_index("species")
    printed.loc["mean"] = printed.mean()
    found = printed.reindex(table["species"].map(species_name)).reset_index(drop=True)
    found.columns = ["paper_megadescriptor", "paper_leave_one_out"]
    return table.join(found)


def beside_costs(
    table: pd.DataFrame, costs: pd.DataFrame, words: Mapping[str, str]
) -> pd.DataFrame:
    """Costs (of `cost.costs`) with each network's name and mean top-1 from a table of `versus`.

    Columns network, name, species (how many the mean is over), top_1, top_1_low, top_1_high
    (percent), then those of the costs.
    """
    mean, networks = table.iloc[-1], costs["network"]
    scores = {
        f"top_1{end}": [mean[f"{name}{end}"] for name in networks] for end in ("", "_low", "_high")
    }
    who = {"network": networks, "name": networks.map(words), "species": len(table) - 1}
    return pd.DataFrame(who | scores).join(costs.drop(columns="network"))


def versus_in_words(table: pd.DataFrame, words: Mapping[str, str], k: int = 1) -> str:
    """Which model of a table of `versus` is better, in a sentence that its numbers decide.

    `words`: the two columns' names in text, the first model's first.
    """
    first, second = words.values()
    mean, rows = table.iloc[-1], table[:-1]
    low, high = mean["gain_low"], mean["gain_high"]
    verdict = f"no difference shown between {first} and {second}"
    if low > 0 or high < 0:
        verdict = f"{first} is {'better' if low > 0 else 'worse'} than {second}"
    return (
        f"Top-{k}, mean over {len(rows)} species: {verdict} ({mean['gain']:+.1f} points, 95 % "
        f"interval {low:+.1f} to {high:+.1f}). For single species it is shown to be better on "
        f"{(rows['gain_low'] > 0).sum()}, worse on {(rows['gain_high'] < 0).sum()}."
    )


def table3_in_words() -> str:
    """The gain over MegaDescriptor that the paper's Table 3 shows, recomputed from its rows."""
    printed = printed_table(3)
    gain = printed["miewid_leave_one_out"] - printed["megadescriptor_l_384"]
    return (
        f"The paper's Table 3 gives a mean gain of {gain.mean():.1f} points over {len(gain)} "
        f"species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )


LOOKS = [  # of the first and the second model: marker, colour, fill, shift in rows
    ("o", BLUE, BLUE, -0.17),
    ("D", ORANGE, "white", 0.17),
]


@styled()
def by_species(table: pd.DataFrame, words: Mapping[str, str], title: str, k: int = 1) -> Figure:
    """Top-k of two models by species on the left, the first's gain on the right (Figure 4).

    `table`: of `versus.versus`; `words`: the two columns' names in text, the first model's first.
    Bars are 95 % intervals; gains whose interval holds zero are open.
    """
    drawn = Figure(title, 1.5 + 0.18 * len(table), PAGE)
    left, right = drawn.subplots(1, 2, width_ratios=[3, 2])
    places = np.append(np.arange(len(table) - 1), len(table) - 0.6)  # the mean stands apart
    _scores(left, table, words, places)
    left.set(xlim=(-3, 103), xlabel=f"top-{k} accuracy (%)")
    _gains(right, table, places)
    right.set_xlabel("gain of the first (points)")
    names = [*table["species"][:-1].str.replace("_", " "), f"mean of {len(table) - 1} species"]
    counts = table[["queries", "individuals", "train_annotations"]].itertuples(index=False)
    _rows(left, places, names)
    right.yaxis.tick_right()
    _rows(right, places, [" / ".join(f"{n:,}" for n in row) for row in counts])
    head = "queries / individuals /\ntraining annotations"
    right.annotate(head, (1, 1), (4, 3), "axes fraction", "offset points", va="bottom")
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def _scores(axes: Axes, table: pd.DataFrame, words: Mapping[str, str], places: np.ndarray) -> None:
    for (column, name), (marker, colour, fill, shift) in zip(words.items(), LOOKS, strict=True):
        bars = table[f"{column}_low"], table[f"{column}_high"]
        axes.hlines(places + shift, *bars, colour, linewidth=1)
        look = {"color": colour, "markerfacecolor": fill, "ls": "", "label": name}
        axes.plot(table[column], places + shift, marker, **look)
    look = {"color": GREY, "markersize": 5, "ls": "", "label": "random ranking"}
    axes.plot(table["chance"], places, "|", **look)


def _gains(axes: Axes, table: pd.DataFrame, places: np.ndarray) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    look = {"linewidth": 1, "label": "95 % interval"}
    axes.hlines(places, table["gain_low"], table["gain_high"], "black", **look)
    shown = (table["gain_low"] > 0) | (table["gain_high"] < 0)
    axes.plot(table["gain"][shown], places[shown], "s", color="black", ls="")
    look = {"color": "black", "markerfacecolor": "white", "ls": ""}
    axes.plot(table["gain"][~shown], places[~shown], "s", **look)


def _rows(axes: Axes, places: np.ndarray, names: list[str]) -> None:
    """Label the rows, the first on top, and part the mean from them."""
    axes.set_yticks(places, names)
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    axes.axhline(places[-1] - 0.7, color="black", linewidth=0.6)
    axes.yaxis.set_tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)

"""Networks compared on the same queries, species by species: one table, and one verdict on it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import permutation_test, rankdata, spearmanr

from miewid_core import evaluation
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

EXACT = 7  # species: up to so many, all orders of them are tried (5,040)
Ranking = pd.DataFrame | Sequence[pd.DataFrame]
QUERY = ["annotation_id", "species", "individual", "relevant"]
ENDS = ["", "_low", "_high"]
CLAIMS = (
    "{first} is better than {second}",
    "{first} is worse than {second}",
    "no difference shown between {first} and {second}",
)
CARRIED = (  # of a network that never saw a species, against an untrained one
    "what was learned of other species carries over",
    "training on other species makes it worse",
    "no carry-over is shown",
)


def compare(
    rankings: Mapping[str, Ranking],
    train: pd.DataFrame | None = None,
    k: int = 1,
    next_training: bool = False,
    training_sd: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Top-k in percent of each ranking of the same queries, and the first's gain over each other.

    `rankings`: by name, ranks as of `evaluation.one_vs_all`, or a list of them, one a training of
    the network with another seed; a ranking may lack species of the first. `train`: the training
    annotations. One row per species, by decreasing number of these, then the "mean" over the
    species that all rankings have. Columns species, queries, individuals, train_annotations; of
    each ranking its name, name_low, name_high and name_trainings, how many; of each but the first
    gain_over_name with _low, _high (points, paired by query), _p (two-sided; of species corrected
    by Holm) and, if the first has several trainings, _same_sign: in how many of them the gain has
    the sign of their mean; chance, a random ranking's top-k.

    Intervals (95 %) are those of `evaluation.by_species`: of other individuals of these species in
    this gallery, and of the mean over trainings where a ranking has several, else of this one
    training. `next_training` gives those of one more training of each instead; `training_sd` in
    points, by name, adds to the mean's what is known from elsewhere. Raises ValueError when the
    queries differ.
    """
    hits = {name: _hits(ranks, k) for name, ranks in rankings.items()}
    (first, one), *others = hits.items()
    ranks = _all_of(next(iter(rankings.values())))[0]
    queries = ranks.set_index(QUERY, drop=False).rename_axis([None] * len(QUERY))
    for _, other in others:
        _check_same(one, other)
    shared = sorted(set.intersection(*(_species(other) for other in hits.values())))
    spread = {name: (training_sd or {}).get(name, 0) / 100 for name in hits}
    table = _measured(one, queries, shared, None, next_training, spread[first])
    table = _named(table, first).assign(**{f"{first}_trainings": one.shape[1]})
    for name, other in others:
        own = _measured(other, queries, shared, None, next_training, spread[name])
        table = table.join(_named(own, name)[[name + end for end in ENDS]])
        table[f"{name}_trainings"] = other.shape[1]
    for name, other in others:
        sd = np.hypot(spread[first], spread[name])
        matched = one[_species_of(one).isin(_species(other))]
        gain = _measured(matched, queries, shared, other, next_training, sd)
        table = table.join(_gain(gain, matched, other, f"gain_over_{name}", shared))
    table["chance"] = _chance(ranks, k, shared)
    return _ordered(table, train, shared).reset_index()


def _all_of(ranking: Ranking) -> list[pd.DataFrame]:
    return [ranking] if isinstance(ranking, pd.DataFrame) else [*ranking]


def _hits(ranking: Ranking, k: int) -> pd.DataFrame:
    """Whether each counted query (index QUERY) has a match among its k nearest, by training."""
    columns = [ranks.set_index(QUERY)["first_match_rank"] for ranks in _all_of(ranking)]
    for column in columns[1:]:
        _check_same(columns[0].to_frame(), column.to_frame())
    table = pd.concat(columns, axis=1, keys=range(len(columns))).rename_axis([None] * len(QUERY))
    return table[table.index.get_level_values(3) > 0].le(k).astype(float)


def _species_of(hits: pd.DataFrame) -> pd.Index:
    return hits.index.get_level_values(1)


def _species(hits: pd.DataFrame) -> set[str]:
    return set(_species_of(hits))


def _check_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Both have the same queries of each species that `other` has."""
    kept = one.index[_species_of(one).isin(_species(other))]
    strange = kept.symmetric_difference(other.index).get_level_values(0).unique().tolist()
    if strange:
        raise ValueError(f"{len(strange)} queries are in one ranking only: {strange[:5]}")


def _measured(
    hits: pd.DataFrame,
    queries: pd.DataFrame,
    shared: list[str],
    against: pd.DataFrame | None,
    next_training: bool,
    sd: float,
) -> pd.DataFrame:
    """A table of `by_species` in percent, indexed by species; the mean over `shared` alone."""
    arguments = {"next_training": next_training, "training_sd": sd}
    table = evaluation.by_species(hits, queries, against, **arguments)
    if len(table) - 1 > len(shared):
        own = queries[queries["species"].isin(shared)]
        mean = evaluation.by_species(hits, own, against, **arguments)
        table = pd.concat([table[:-1], mean[-1:]])
    table[["value", "low", "high"]] *= 100
    return table.set_index("species")


def _named(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.rename(columns={"value": name, "low": f"{name}_low", "high": f"{name}_high"})


def _gain(
    table: pd.DataFrame, one: pd.DataFrame, other: pd.DataFrame, name: str, shared: list[str]
) -> pd.DataFrame:
    """The columns of a gain: its interval, corrected p, and in how many trainings it is alike."""
    species = table.index != "mean"
    table.loc[species, "p"] = holm(table.loc[species, "p"])
    table = _named(table.drop(columns=evaluation.KEYS[1:]), name).rename(columns={"p": f"{name}_p"})
    if one.shape[1] > 1:
        runs = one.sub(other.mean(axis=1), axis=0)
        runs = runs.groupby(level=1).mean()
        runs.loc["mean"] = runs.loc[shared].mean()
        table[f"{name}_same_sign"] = same_sign(runs, table[name])
    return table


def same_sign(runs: pd.DataFrame, gain: pd.Series) -> pd.Series:
    """In how many trainings (columns) the gain of each species (rows) has the sign of `gain`."""
    runs = runs.reindex(gain.index)
    alike = np.sign(runs.round(9)).eq(np.sign(gain.round(9)), axis=0).sum(axis=1).astype("Int64")
    return alike.mask(gain.isna())


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction of p values for their number; NaN stay so, and don't count."""
    known = p.dropna().sort_values()
    steps = known * np.arange(len(known), 0, -1)
    return steps.cummax().clip(upper=1).reindex(p.index)


def _chance(ranks: pd.DataFrame, k: int, shared: list[str]) -> pd.Series:
    grouped = ranks.groupby("species")
    chance = {species: 100 * evaluation.random_top_k(own, k) for species, own in grouped}
    return pd.Series(chance | {"mean": pd.Series(chance, dtype=float)[shared].mean()})


def _ordered(table: pd.DataFrame, train: pd.DataFrame | None, shared: list[str]) -> pd.DataFrame:
    """With the number of training annotations; species that have most first, and the mean last."""
    if train is None:
        return table
    counts = train["species"].value_counts().reindex(table.index, fill_value=0)
    counts["mean"] = counts[shared].sum()
    table.insert(2, "train_annotations", counts)
    order = counts.drop("mean").sort_values(ascending=False, kind="stable").index
    return table.loc[[*order, "mean"]]


def verdict(
    table: pd.DataFrame,
    words: Mapping[str, str],
    k: int = 1,
    claims: tuple[str, str, str] = CLAIMS,
) -> str:
    """Which of two networks of a table of `compare` is better, in words that its numbers decide.

    `words`: the two columns' names in text, the table's first ranking first. `claims`: what is said
    if it is better, worse, or neither. The sentence names the trainings that it is about. With one
    training it counts the species that are better or worse (Holm-corrected); with several, those
    on which all of them agree, which is no verdict.
    """
    (first, one), (second, other) = words.items()
    gain = f"gain_over_{second}"
    mean = table.iloc[-1]
    rows = table[:-1].dropna(subset=[name for name in table if name.startswith("gain_over_")])
    low, high = mean[f"{gain}_low"], mean[f"{gain}_high"]
    claim = claims[0] if low > 0 else claims[1] if high < 0 else claims[2]
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    if np.isnan(low):
        interval = "no interval, as no species has two individuals"
    species = _by_species(rows, gain, int(mean[f"{first}_trainings"]))
    return (
        f"Top-{k}, mean over {len(rows)} species, {_trainings(mean, first, second)}: "
        f"{claim.format(first=one, second=other)} ({mean[first]:.1f} against {mean[second]:.1f} %, "
        f"{mean[gain]:+.1f} points, {interval}). {species}"
    )


def _trainings(mean: pd.Series, first: str, second: str) -> str:
    one, other = int(mean[f"{first}_trainings"]), int(mean[f"{second}_trainings"])
    if one == other == 1:
        return "for this one training"
    if one == other:
        return f"mean over {one} trainings of each"
    return f"mean over {one} training{'s' * (one > 1)} of the first and {other} of the second"


def _by_species(rows: pd.DataFrame, gain: str, trainings: int) -> str:
    if trainings > 1:
        agreed = rows[rows[f"{gain}_same_sign"] == trainings]
        return (
            f"All of the first's trainings are ahead on {(agreed[gain] > 0).sum()} species and "
            f"behind on {(agreed[gain] < 0).sum()} of {len(rows)}."
        )
    shown = rows[rows[f"{gain}_p"] < 0.05]
    better, worse = (shown[gain] > 0).sum(), (shown[gain] < 0).sum()
    return (
        f"Species by species (Holm-corrected) it is better on {better}, worse on {worse}, with no "
        f"difference shown on {len(rows) - better - worse}."
    )


def beside_paper(table: pd.DataFrame, number: int, columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of `compare` with columns of the paper's Table `number`, which are top-1, in percent.

    `columns`: by the name that each gets, "paper_" before it; a species that the paper lacks has
    NaN, the mean that of the paper's own rows.
    """
    printed = printed_table(number).set_index("species")[[*columns.values()]]
    printed.columns = [f"paper_{name}" for name in columns]
    printed.loc["mean"] = printed.mean()
    found = printed.reindex(table["species"].map(species_name))
    return table.join(found.reset_index(drop=True))


def printed_gain_in_words(number: int, first: str, second: str) -> str:
    """The mean gain of column `first` over `second` of the paper's Table `number`, from its rows.

    Its Table 2 has multi_species, single_species, leave_one_out; its Table 3 miewid_leave_one_out
    and megadescriptor_l_384.
    """
    printed = printed_table(number)
    gain = (printed[first] - printed[second]).dropna()
    return (
        f"The paper's Table {number} gives a mean gain of {gain.mean():.1f} points over "
        f"{len(gain)} species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )


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
    `gain` is multi minus single in percentage points, paired over queries. `chance` is a random
    ranking's top-k. `paper_multi` and `paper_single` are Table 2's top-1 (NaN for other k, and for
    species that it lacks).
    """
    return _against(multi, single, "single", untrained, train, k)


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
    return _against(multi, left_out, "left_out", untrained, train, k)


def _against(
    multi: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    untrained: pd.DataFrame,
    train: pd.DataFrame,
    k: int,
) -> pd.DataFrame:
    table = compare({"multi": multi, name: other, "untrained": untrained}, train, k)
    table = table.rename(columns=lambda column: column.replace(f"gain_over_{name}", "gain"))
    columns = {"multi": PRINTED["multi"], name: PRINTED[name]}
    table = beside_paper(table, 2, columns)
    if k != 1:
        table[[f"paper_{column}" for column in columns]] = np.nan
    return table


def increasing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by increasing number of training annotations, as Figures 5 to 8; the mean last."""
    mean = table["species"] == "mean"
    rows = table[~mean].sort_values("train_annotations", kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def in_words(table: pd.DataFrame, k: int) -> str:
    """What a table of this module shows, in a sentence that its numbers decide."""
    name = next((name for name in OTHERS if name in table), "single")
    columns = table.columns.str.replace("^gain(?!_over)", f"gain_over_{name}", regex=True)
    return verdict(
        table.set_axis(columns, axis=1), dict(zip(("multi", name), OTHERS[name], strict=True)), k
    )


def paper_in_words(other: str = "single") -> str:
    """The gain in top-1 over "single" or "left_out" that Table 2 shows, from its rows."""
    return printed_gain_in_words(2, "multi_species", PRINTED[other])


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
    """Top-1 in percent on species that a network never saw, against the untrained network."""
    before = untrained[untrained["species"].isin(left_out["species"])]
    return compare({"left_out": left_out, "untrained": before})


def transfer_in_words(table: pd.DataFrame) -> str:
    """What a table of `transfer` shows, in a sentence that its numbers decide."""
    words = {"left_out": "the network that never saw the species", "untrained": "an untrained one"}
    return verdict(table, words, 1, CARRIED)


def versus(
    rankings: Mapping[str, pd.DataFrame], train: pd.DataFrame, k: int = 1, seed: int = 0
) -> pd.DataFrame:
    """A table of `compare` of two rankings, the gain's columns named gain, gain_low, gain_high."""
    _, second = rankings
    table = compare(rankings, train, k)
    return table.rename(columns=lambda column: column.replace(f"gain_over_{second}", "gain"))


def beside_table3(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `versus` with the paper's Table 3 for the species that it has, and its means."""
    columns = {"megadescriptor": "megadescriptor_l_384", "leave_one_out": "miewid_leave_one_out"}
    return beside_paper(table, 3, columns)


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
    """Which model of a table of `versus` is better, in a sentence that its numbers decide."""
    _, second = words
    named = table.rename(columns=lambda column: column.replace("gain", f"gain_over_{second}"))
    return verdict(named, words, k)


def table3_in_words() -> str:
    """The gain over MegaDescriptor that the paper's Table 3 shows, recomputed from its rows."""
    return printed_gain_in_words(3, "miewid_leave_one_out", "megadescriptor_l_384")


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

"""Networks compared on the same queries, species by species: one table, and one verdict on it."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from miewid_core import evaluation, figures
from miewid_core.figures import BLUE, GREY, ORANGE, PAGE, VERMILION, Figure, spelt, styled
from miewid_core.paper import intervals
from miewid_core.paper.intervals import ENDS, NO_SPREAD, Estimate, Spread, sentence, with_heads
from miewid_core.paper.printed import combined_table1, printed_table, species_name

NETWORKS = {  # the columns of comparisons, and how text and figures call these networks
    "multi": "multi-species",
    "matched": "single-species, equal steps",
    "single": "single-species, equal epochs",
    "left_out": "leave-one-out",
    "untrained": "untrained",
}
PRINTED = {  # number of the paper's table: our column, and its own
    2: {"multi": "multi_species", "single": "single_species", "left_out": "leave_one_out"},
    3: {"left_out": "miewid_leave_one_out", "descriptor": "megadescriptor_l_384"},
}
LOOKS = {  # of a network's dots: marker, colour, fill; others take these in turn
    "multi": ("o", BLUE, BLUE),
    "matched": ("D", ORANGE, "white"),
    "single": ("s", VERMILION, "white"),
    "left_out": ("^", ORANGE, "white"),
    "descriptor": ("v", VERMILION, VERMILION),
    "untrained": ("x", GREY, GREY),
}
NAMED = 6  # species at most that a figure names at each end
Ranking = pd.DataFrame | Sequence[pd.DataFrame]
QUERY = ["annotation_id", "species", "individual", "relevant"]
SIZES = ["queries", "individuals"]


def compare(
    rankings: Mapping[str, Ranking],
    train: pd.DataFrame | None = None,
    k: int = 1,
    training_sd: Mapping[str, Spread] | None = None,
    seen: Collection[str] | None = None,
) -> pd.DataFrame:
    """Top-k in percent of each ranking of the same queries, and the first's gain over each other.

    `rankings`: by name, ranks as of `evaluation.one_vs_all`, or a list of them, one a training with
    another seed; a ranking may lack species of the first. `train`: the training annotations.
    `training_sd`: in points, by name, what is known from elsewhere of the spread between trainings
    (`training_spread`). Raises ValueError when the queries differ.

    One row per species, by decreasing number of training annotations, then the "mean" over the
    species that all rankings have. Columns species, queries, individuals, train_annotations; of
    each ranking name, name_low, name_high (95 %, as of `intervals.by_species`), name_trainings; of
    each but the first gain_over_name with _low, _high (points, paired by query), _p (of species by
    Holm) and, if the first has several trainings, _same_sign: in how many of them the gain has the
    sign of their mean; chance, a random ranking's top-k; name_seen and name_new with _low, _high,
    section 3.3's halves of the test set: individuals in `seen` (else those of `train`) or not.
    """
    hits = {name: _hits(ranks, k) for name, ranks in rankings.items()}
    first, *others = hits
    for name in others:
        _check_same(hits[first], hits[name])
    shared = sorted(set.intersection(*map(_species, hits.values())))
    known = {name: (training_sd or {}).get(name, NO_SPREAD) for name in hits}
    spread = {
        name: own._replace(species=own.species / 100, mean=own.mean / 100)
        for name, own in known.items()
    }
    ranks = _all_of(rankings[first])[0]
    queries = ranks.set_index(QUERY, drop=False).rename_axis([None] * len(QUERY))

    def measured(name: str, values: pd.DataFrame, own: list[Spread], *against: pd.DataFrame):
        """By species, the value and its ends named after `name`, in percent."""
        found = intervals.by_species(values, queries, *against, spreads=own, averaged=shared)
        found[["value", "low", "high"]] *= 100
        heads = {"value": name} | {end: f"{name}_{end}" for end in ("low", "high", "p")}
        return found.rename(columns=heads).set_index("species")

    scores = {name: measured(name, own, [spread[name]]) for name, own in hits.items()}
    table = scores[first][SIZES]
    for name, own in scores.items():
        table = table.join(own.drop(columns=SIZES))
        table[f"{name}_trainings"] = hits[name].shape[1]
    for name in others:
        gain = f"gain_over_{name}"
        one = hits[first][_species_of(hits[first]).isin(_species(hits[name]))]
        own = measured(gain, one, [spread[first], spread[name]], hits[name])
        own.loc[own.index != "mean", f"{gain}_p"] = intervals.holm(own[f"{gain}_p"].drop("mean"))
        table = table.join(own.drop(columns=SIZES))
        if one.shape[1] > 1:
            runs = one.sub(hits[name].mean(axis=1), axis=0).groupby(level=1).mean()
            runs.loc["mean"] = runs.loc[shared].mean()
            table[f"{gain}_same_sign"] = same_sign(runs, table[gain])
    table["chance"] = _chance(ranks, k, shared)
    if seen is None and train is not None:
        seen = set(train["individual"])
    for name, own in hits.items() if seen is not None else ():
        known = own.index.get_level_values(2).isin(seen)
        for half, values in ((f"{name}_seen", own[known]), (f"{name}_new", own[~known])):
            table = table.join(measured(half, values, [spread[name]]).drop(columns=SIZES))
    return (table if train is None else _by_size(table, train, shared)).reset_index()


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


def same_sign(runs: pd.DataFrame, gain: pd.Series) -> pd.Series:
    """In how many trainings (columns) the gain of each species (rows) has the sign of `gain`."""
    runs = runs.reindex(gain.index)
    alike = np.sign(runs.round(9)).eq(np.sign(gain.round(9)), axis=0).sum(axis=1).astype("Int64")
    return alike.mask(gain.isna())


def _chance(ranks: pd.DataFrame, k: int, shared: list[str]) -> pd.Series:
    grouped = ranks.groupby("species")
    chance = {name: 100 * evaluation.random_top_k(own, k) for name, own in grouped}
    return pd.Series(chance | {"mean": pd.Series(chance, dtype=float)[shared].mean()})


def _by_size(table: pd.DataFrame, train: pd.DataFrame, shared: list[str]) -> pd.DataFrame:
    """With the number of training annotations; species that have most first, and the mean last."""
    counts = train["species"].value_counts().reindex(table.index, fill_value=0)
    counts["mean"] = counts[shared].sum()
    table.insert(2, "train_annotations", counts)
    order = counts.drop("mean").sort_values(ascending=False, kind="stable").index
    return table.loc[[*order, "mean"]]


def each_training(runs: Sequence[pd.DataFrame], against: pd.DataFrame) -> pd.DataFrame:
    """Each training of a network set against one ranking: how far the gain moves between them.

    For a reader: seed, top-1 and gain (means over species), on how many species it is ahead.
    """
    rows = []
    for seed, ranks in enumerate(runs):
        table = compare({"top_1": ranks, "other": against})
        gains = table["gain_over_other"][:-1].round(9)
        mean = table.iloc[-1][["top_1", "gain_over_other"]]
        rows.append([seed, *mean, int((gains > 0).sum()), int((gains < 0).sum())])
    heads = ["seed", "top-1 (%)", "gain (points)", "species ahead", "species behind"]
    return pd.DataFrame(rows, columns=heads)


def training_spread(trainings: Sequence[pd.DataFrame], k: int = 1, common: bool = False) -> Spread:
    """How far, in points, top-k of networks that are trained once lies from its expectation.

    By several `trainings` of one network: of a species the root mean square of the species'
    standard deviations between them. Of the mean that over the root of the number of species, for a
    network for each; of one network `common` to all, the deviation of its mean. None of a single.
    """
    if len(trainings) < 2:
        return NO_SPREAD
    shares = 100 * _hits(trainings, k).groupby(level=1).mean()
    each, freedom = np.sqrt(shares.var(axis=1, ddof=1).mean()), len(trainings) - 1
    if common:
        mean = Spread(mean=float(shares.mean().std(ddof=1)), mean_freedom=freedom)
    else:
        mean = Spread(mean=float(each / np.sqrt(len(shares))), mean_freedom=freedom * len(shares))
    return mean._replace(species=float(each), species_freedom=freedom * len(shares))


def by_relatives(rankings: Mapping[str, Ranking], relatives: pd.DataFrame) -> pd.DataFrame:
    """The first network against each other, apart for species with and without a relative.

    `rankings`: as for `compare`; `relatives`: of `table1.relatives`; species of unknown family are
    left out. Rows as the "mean" of `compare`, with `relative` ("yes", "no"), `species` their
    number. The spread of networks trained once is that of the first on the same species.
    """
    rows = []
    shared = set.intersection(*({*_all_of(ranks)[0]["species"]} for ranks in rankings.values()))
    known = relatives[(relatives["family"] != "") & relatives["species"].isin(shared)]
    has = known["relatives"].ne("").map({True: "yes", False: "no"})
    for relative, names in known["species"].groupby(has):
        own = {
            name: [ranks[ranks["species"].isin(names)] for ranks in _all_of(ranking)]
            for name, ranking in rankings.items()
        }
        sd = training_spread(next(iter(own.values())))
        once = {name: sd for name in own if len(own[name]) == 1 and name != "untrained"}
        table = compare(own, training_sd=once)
        rows.append(table.iloc[-1].to_dict() | {"relative": relative, "species": len(table) - 1})
    return pd.DataFrame(rows)


def claim(table: pd.DataFrame, words: Mapping[str, str]) -> str:
    """Which of two networks of a table of `compare` is better, for titles.

    `words`: the two columns' names in text, the table's first ranking first.
    """
    return Estimate.of(table.iloc[-1], f"gain_over_{[*words][1]}").verdict(*words.values())


def briefly(table: pd.DataFrame, words: Mapping[str, str], k: int = 1) -> str:
    """The claim as a sentence, with both top-k and the gain; `words` as for `claim`."""
    mean, (first, second) = table.iloc[-1], words
    gain = Estimate.of(mean, f"gain_over_{second}")
    scores = f"top-{k} {mean[first]:.1f} against {mean[second]:.1f} %"
    return sentence(f"{claim(table, words)}: {scores}, {gain}")


def verdict(
    table: pd.DataFrame, words: Mapping[str, str], k: int = 1, assumed: bool = False
) -> str:
    """Which of two networks is better, what that rests on, and on how many species it holds.

    `words`: as for `claim`. Where the first network has one training, the sentence says that the
    interval leaves out the luck of it, unless its spread is `assumed` (`training_sd` of `compare`).
    """
    (first, second), mean, rows = words, table.iloc[-1], _averaged(table)
    gain, trainings = f"gain_over_{second}", int(mean[f"{first}_trainings"])
    if trainings > 1:
        agreed = rows.loc[rows[f"{gain}_same_sign"] == trainings, gain]
        how = f"all {trainings} trainings are"
    else:
        agreed = rows.loc[rows[f"{gain}_p"] < 0.05, gain]
        how = f"{words[first]} is shown (by a Holm-corrected test) to be"
    luck = "" if trainings > 1 or assumed else ", whose luck the interval leaves out"
    return (
        f"{briefly(table, words, k)} Means over {len(rows)} species and {mean['queries']:,.0f} "
        f"queries; trainings: {trainings} and {mean[f'{second}_trainings']:.0f}{luck}. On "
        f"{(agreed > 0).sum()} species {how} better, on {(agreed < 0).sum()} worse."
    )


def other_k_in_words(tables: Mapping[int, pd.DataFrame], second: str) -> str:
    """The gain over `second` at every k but 1 of tables of `compare`, by k."""
    gains = {k: Estimate.of(own.iloc[-1], f"gain_over_{second}") for k, own in tables.items()}
    told = (f"top-{k} {gain}" for k, gain in gains.items() if k > 1)
    return f"The gain at other k: {'; '.join(told)}."


def trend_in_words(table: pd.DataFrame, against: str) -> str:
    """Does the gain of a table of `compare` change with a species' training annotations?

    After the first sentence's brackets, what the smaller half of the species gains on average, and
    the larger.
    """
    gain = f"gain_over_{against}"
    rows = table[:-1].dropna(subset=gain).sort_values("train_annotations", kind="stable")
    rho = intervals.rank_correlation(rows["train_annotations"], rows[gain])
    trend = rho.shown("rises with", "falls with", "shows no trend with")
    small, large = rows[gain][: len(rows) // 2], rows[gain][len(rows) // 2 :]
    said = f"The gain {trend} a species' training annotations"
    if len(rows) < intervals.FEWEST:
        return f"{said} ({len(rows)} species are too few for one)."
    return (
        f"{said} (Spearman's rho {rho.value:+.2f}, 95 % interval over species {rho.low:+.2f} to "
        f"{rho.high:+.2f}). The mean gain is {small.mean():+.1f} points for the {len(small)} "
        f"smallest species and {large.mean():+.1f} for the {len(large)} largest."
    )


def beside_paper(table: pd.DataFrame, number: int, columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of `compare` with columns of the paper's Table `number`: top-1, in percent.

    `columns`: the paper's, by the name that each gets, "paper_" before it. The mean is of its rows.
    """
    printed = printed_table(number).set_index("species")[[*columns.values()]]
    printed.columns = [f"paper_{name}" for name in columns]
    printed.loc["mean"] = printed.mean()
    found = printed.reindex(table["species"].map(species_name))
    return table.join(found.reset_index(drop=True))


def readable(
    table: pd.DataFrame, words: Mapping[str, str], gain: str, plain: Collection[str] = ()
) -> pd.DataFrame:
    """A table of `compare` for a reader: species, sizes, networks, and the gain.

    `words`: columns and their heads; those in `plain` stand last, without interval. `gain`: the
    column that the first is set against.
    """
    first, gain = next(iter(words)), f"gain_over_{gain}"
    shown = "annotations left out" if first == "left_out" else "training annotations"
    heads = {"species": "species", "train_annotations": shown}
    heads |= {"queries": "queries", **{name: words[name] for name in words if name not in plain}}
    heads |= {gain: "gain (points)"}
    return with_heads(table, heads | {name: words[name] for name in plain}, plain)


def halves_in_words(table: pd.DataFrame, name: str) -> str:
    """A network's top-1 on individuals seen in training, and on new ones (of `compare`)."""
    seen, new = table[[f"{name}_seen", f"{name}_new"]].iloc[-1]
    return (
        f"Of individuals that {NETWORKS[name]} training saw, in other photos, top-1 is "
        f"{seen:.1f} %; of new ones {new:.1f} %."
    )


def no_better(table: pd.DataFrame, name: str, start: str = "untrained") -> list[str]:
    """The species on which a network is no better than the untrained one, its `start`."""
    rows = table[:-1]
    return rows.loc[rows[name] <= rows[start], "species"].tolist()


def no_better_in_words(
    table: pd.DataFrame,
    names: Sequence[str],
    words: Mapping[str, str] = NETWORKS,
    start: str = "untrained",
) -> str:
    """Which of the networks `names`, called `words`, end no better than they began, by species."""
    lines = []
    for name in names:
        lost, count = no_better(table, name, start), table[name][:-1].notna().sum()
        line = f"{words[name]}: above untrained on all {count} species."
        if lost:
            line = f"**{words[name]}: no better than untrained on {len(lost)} of {count} "
            line += f"species** ({', '.join(map(spelt, lost))})."
        lines.append(f"- {line}")
    return "\n".join(lines)


def increasing(table: pd.DataFrame) -> pd.DataFrame:
    """The rows by increasing number of training annotations, as Figures 5 to 8; the mean last."""
    mean = table["species"] == "mean"
    rows = table[~mean].sort_values("train_annotations", kind="stable")
    return pd.concat([rows, table[mean]], ignore_index=True)


def by_k(tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Tables of `compare` for several k below each other, k in the last column."""
    return pd.concat([table.assign(k=k) for k, table in tables.items()], ignore_index=True)


@styled()
def gain_by_size(table: pd.DataFrame, title: str, against: str) -> Figure:
    """The first network's gain, with 95 % interval, against a species' training annotations.

    `table`: of `compare`; the mean's gain and interval are a line and a band. The species with the
    largest and the smallest gains are named, NAMED of each at most.
    """
    gain, low, high = (f"gain_over_{against}{end}" for end in ENDS)
    mean, shown = table.iloc[-1], table[:-1].dropna(subset=gain)
    drawn = Figure(title, 4.4, PAGE)
    axes = drawn.subplots()
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhspan(mean[low], mean[high], color=ORANGE, alpha=0.3, linewidth=0)
    label = f"mean of {len(shown)} species: {mean[gain]:+.1f}, with 95 % interval"
    axes.axhline(mean[gain], color=ORANGE, linestyle="--", label=label)
    axes.vlines(shown["train_annotations"], shown[low], shown[high], BLUE, linewidth=1, alpha=0.6)
    axes.plot(shown["train_annotations"], shown[gain], "o", color=BLUE, label="species")
    axes.set(xscale="log", xlabel="training annotations of the species")
    axes.set(ylabel=f"gain over\n{NETWORKS[against]} (points)")
    axes.margins(x=0.2)
    figures.plain_numbers(axes.xaxis)
    ranked = shown.sort_values(gain, kind="stable")
    _name(axes, pd.concat([ranked[:NAMED], ranked[NAMED:][-NAMED:]]), gain)
    drawn.legend(loc="outside lower left", ncols=2)
    return drawn


def _name(axes: Axes, rows: pd.DataFrame, gain: str) -> None:
    """Name species beside their dots, each on the side whose next one is further off."""
    rows = rows.sort_values("train_annotations", kind="stable")
    gaps = np.diff(np.log(rows["train_annotations"]), prepend=0, append=np.inf)
    look = {"textcoords": "offset points", "va": "center"}
    for row, before, after in zip(rows.itertuples(), gaps[:-1], gaps[1:], strict=True):
        at, left = (row.train_annotations, getattr(row, gain)), after < before
        side = {"xytext": (-5, 0), "ha": "right"} if left else {"xytext": (5, 0), "ha": "left"}
        axes.annotate(spelt(row.species), at, **side, **look)


@styled()
def dots(
    panels: Mapping[str, pd.DataFrame], words: Mapping[str, str], title: str, gain: str = ""
) -> Figure:
    """Accuracy of networks by species, a panel for each table (Figures 1, 2, 4 to 12).

    `panels`: by the words below their axes, tables of `compare` in the order to draw, the mean
    last, or of `printed_by_size`; neighbours of the same species share their names. `words`:
    columns and what they are called. `gain`: a column that the first is set against on the right,
    open where the interval holds zero. Bars are the 95 % intervals of these two, or else of the
    first two of `words`.
    """
    rows = max(map(len, panels.values()))
    widths = [1] * len(panels) + [0.75] * bool(gain)
    drawn = Figure(title, 1.2 + rows * (0.25 if rows <= 20 else 0.145), PAGE)
    grid = drawn.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    named = None
    for axes, (label, table) in zip(grid, panels.items(), strict=False):
        known = {name: words[name] for name in words if name in table}
        barred = [next(iter(known)), gain] if gain else [*known][:2]
        places = _scores(axes, table, known, barred if f"{barred[0]}_low" in table else [])
        axes.set_xlabel(label)
        if table["species"].equals(named):
            axes.set_yticklabels([])
        named = table["species"]
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    if gain:
        _gains(grid[-1], table, places, f"gain_over_{gain}")
        grid[-1].set_xlabel(f"gain over\n{words[gain]} (points)")
        size = "annotations\nleft out" if barred[0] == "left_out" else "training\nannotations"
        heads = {"queries": "queries", "individuals": "test\nindividuals"}
        heads["train_annotations"] = size
        columns = table[[*heads]].rename(columns=heads)
        figures.number_columns(grid[-1], places, columns)
    return drawn


def printed_by_size(names: Sequence[str], number: int = 2) -> pd.DataFrame:
    """The paper's Table 2 or 3, by the annotations that Table 1 counts, the mean last."""
    columns = {PRINTED[number][name]: name for name in names}
    table = printed_table(number)[["species", *columns]].rename(columns=columns).dropna()
    sizes = combined_table1().set_index("species")["annotations"]
    order = table["species"].map(sizes).sort_values(ascending=False, kind="stable").index
    mean = table[names].mean().to_frame().T.assign(species="mean")
    return pd.concat([table.loc[order], mean], ignore_index=True)


def _averaged(table: pd.DataFrame) -> pd.DataFrame:
    """The species that all networks have: those that the mean is over."""
    networks = [name.removesuffix("_trainings") for name in table if name.endswith("_trainings")]
    known = [name for own in networks for name in (own, f"gain_over_{own}") if name in table]
    return table[:-1].dropna(subset=known)


def _scores(
    axes: Axes, table: pd.DataFrame, words: Mapping[str, str], barred: Collection[str] = ()
) -> np.ndarray:
    """Dots of networks, a row for each species and one apart for their mean: the rows' heights.

    Networks in `barred` have their intervals, each at a height of its own; the dots of the others
    are smaller where there are such, and joined by a line where there are none.
    """
    places = np.append(np.arange(len(table) - 1), len(table) - 0.6)
    shifts = dict(zip(barred, np.linspace(-0.17, 0.17, len(barred)), strict=True))
    looks = dict(zip(words, LOOKS.values(), strict=False)) | LOOKS
    if not barred:
        ends = table[[*words]].min(axis=1), table[[*words]].max(axis=1)
        axes.hlines(places, *ends, GREY, linewidth=0.8, zorder=1)
    for name, label in words.items():
        marker, colour, fill = looks[name]
        at = places + shifts.get(name, 0)
        if name in barred:
            axes.hlines(at, table[f"{name}_low"], table[f"{name}_high"], colour, linewidth=1)
        fill = "none" if fill == "white" and not barred else fill  # one may lie on the other
        look = {"color": colour, "markerfacecolor": fill, "ls": "", "label": label}
        look |= {"markersize": 3} if barred and name not in barred else {}
        axes.plot(table[name], at, marker, **look)
    if "chance" in table:
        look = {"color": GREY, "markersize": 5, "ls": "", "label": "random ranking"}
        axes.plot(table["chance"], places, "|", **look)
    axes.axhline(places[-1] - 0.7, color="black", linewidth=0.6)
    mean = f"mean of {len(_averaged(table))} species"
    figures.label_rows(axes, places, [*table["species"][:-1], mean])
    axes.set(xlim=(-3, 103), xticks=range(0, 101, 20))
    return places


def _gains(axes: Axes, table: pd.DataFrame, places: np.ndarray, gain: str) -> None:
    low, high = table[f"{gain}_low"], table[f"{gain}_high"]
    axes.axvline(0, color="black", linewidth=0.8)
    axes.hlines(places, low, high, "black", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    shown = (low > 0) | (high < 0)
    for rows, fill in ((shown, "black"), (~shown, "white")):
        look = {"color": "black", "markerfacecolor": fill, "ls": ""}
        axes.plot(table[gain][rows], places[rows], "s", **look)
    axes.axhline(places[-1] - 0.7, color="black", linewidth=0.6)
    figures.label_rows(axes, places, [""] * len(table))

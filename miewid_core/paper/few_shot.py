"""A species with few individuals: alone, with all others, or fine-tuned (sections 5.4 and 5.5)."""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from miewid_core import splits
from miewid_core.evaluation import hits, top_k
from miewid_core.figures import BLUE, GREY, ORANGE, PAGE, VERMILION, Figure, spelt, styled
from miewid_core.paper.comparison import compare, training_spread
from miewid_core.paper.intervals import (
    ENDS,
    Estimate,
    Spread,
    mean_interval,
    sentence,
    with_heads,
)
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import Study
from miewid_core.runs.run import Training

METHODS = {  # how a network meets a new species, in the words of the paper's Tables 4 and 5
    "species_only": "species-only training",
    "joint": "joint training",
    "fine_tuned": "fine-tuning",
}
NONE = "left_out"  # of no individual: the leave-one-out network, whatever the method
WORDS = METHODS | {NONE: "leave-one-out"}
HEADS = {  # of `readable`
    "species": "species",
    "individuals": "individuals",
    "method": "method",
    "annotations": "photos",
    "photos_shown": "photos shown",
    "times": "times each",
    "draws": "trainings",
    "top_k": "top-1 (%)",
}
GAINS = {  # of `readable_gains`
    "species": "species",
    "individuals": "individuals",
    "method": "method",
    "against": "against",
    "difference": "gain (points)",
}
DEMO_COUNTS = (0, 10)  # drawn species are small, and the demo is to end in minutes
PAPER_COUNTS = (0, 25, 50, 100, 200)
ALL = 10**9  # individuals: as many as there are
PRINTED = {  # number of the paper's table, and its column
    "species_only": (4, "species_only"),  # as in Table 5
    "joint": (4, "joint_training"),
    "fine_tuned": (5, "fine_tuning"),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of Table 4 or 5: `individuals` of a species drawn at random, `draw` times."""

    species: str
    individuals: int
    annotations: int
    method: str
    draw: int
    training: Training


def targets(study: Study, wanted: Sequence[str] = ()) -> list[str]:
    """Species to vary: `wanted`, or the two tested ones with the most training individuals.

    Of the demo it is one. Raises ValueError for a species that is not both trained and tested.
    """
    train = study.train[study.train["species"].isin(study.test["species"])]
    sizes = train.groupby("species")["individual"].nunique()
    if strange := ", ".join(sorted(set(wanted) - set(sizes.index))):
        there = ", ".join(sizes.index)
        raise ValueError(f"targets: {strange} is not trained and tested; there are {there}")
    return list(wanted) or sizes.nlargest(1 if study.drawn else 2).index.tolist()


def cells(
    study: Study,
    species: Sequence[str],
    methods: Collection[str] = tuple(METHODS),
    counts: Sequence[int] = (),
    draws: int = 3,
    trainings: int = 0,
) -> Iterator[Cell]:
    """All trainings of Tables 4 and 5: each of `species` with each number of its individuals.

    `counts`: numbers of individuals, clipped to what there is; by default the paper's. A smaller
    number's individuals are some of the larger one's (`splits.few_shot`). Each draw has its own
    individuals and its own seed of the training. None and all of them can't be drawn: n = 0 is the
    leave-one-out network, which never saw the species; all have one training of each method, but
    joint training is the multi-species network with as many as it has elsewhere (`trainings`, as of
    `Study.multi_seeds`). One cell at a time: at the paper's scale the rows of all take gigabytes.
    Raises ValueError where no number is above zero.
    """
    counts = counts or (*(DEMO_COUNTS if study.drawn else PAPER_COUNTS), ALL)
    if min(counts) < 0 or not any(counts):
        raise ValueError(f"counts is {[*counts]}; give numbers of individuals, one above zero")
    for own in species:
        whole = study.train.loc[study.train["species"] == own, "individual"].nunique()
        start = study.left_out([own])[own]
        sizes = sorted({min(count, whole) for count in counts})
        for n in sizes:
            for draw in range(draws if 0 < n < whole else 1):
                rows, by_method = _drawn(study, start, own, n, draw)
                for method in (name for name in methods if name in by_method):
                    yield Cell(own, n, rows, method, draw, by_method[method])
        if whole in sizes and "joint" in methods:
            for draw, multi in enumerate(study.multi_seeds(trainings)[1:], 1):
                yield Cell(own, whole, rows, "joint", draw, multi)


def _drawn(
    study: Study, start: Training, species: str, n: int, draw: int
) -> tuple[int, dict[str, Training]]:
    """Annotations of n individuals, and the training by each method that can be trained on them."""
    joint = splits.few_shot(study.train, species, n, study.seed + draw)
    own = joint[joint["species"] == species]
    if n == 0:
        return 0, {"joint": start, "fine_tuned": start}
    words = f"{n} {species} (draw {draw + 1})"
    return len(own), {
        # as many steps as with the others: few photos for as many epochs teach nothing
        "species_only": study.training(own, f"{words} alone", seed=draw, epoch_photos=len(joint)),
        "joint": study.training(joint, f"{words} and all others", seed=draw),
        "fine_tuned": study.training(own, f"{words} fine-tuned", start=start, seed=draw),
    }


def check_nested(asked: Sequence[Cell]) -> None:
    """Raise AssertionError unless a smaller n's training rows are some of a larger one's."""
    smaller: dict[tuple, set[str]] = {}
    for cell in sorted(asked, key=lambda cell: cell.individuals):
        key, rows = (cell.species, cell.method, cell.draw), set(cell.training.rows["annotation_id"])
        assert smaller.get(key, set()) <= rows, cell.species
        if cell.individuals:  # none is the leave-one-out network, of other species' rows
            smaller[key] = rows


def check_same_queries(ranked: pd.DataFrame) -> None:
    """Raise AssertionError unless every network of a species was asked the same queries."""
    queries = ranked.groupby(["species", "n", "method", "draw"])["annotation_id"].agg(frozenset)
    assert (queries.groupby("species").nunique() == 1).all()


def ranks(study: Study, asked: Sequence[Cell]) -> pd.DataFrame:
    """Ranks of each cell's species by its network, trained now where it isn't yet.

    Rows as of `one_vs_all`, with n, trained_on (annotations), photos_shown, times (that training
    shows each photo of the species; NaN without any), method, draw, and seen: whether the
    individual is one of the n.
    """
    study.run([cell.training for cell in asked])  # side by side
    parts = []
    for cell in asked:
        found = study.ranks({cell.species: cell.training})
        seen = found["individual"].isin(cell.training.rows["individual"])
        facts = {"n": cell.individuals, "trained_on": cell.annotations, "method": cell.method}
        facts["photos_shown"] = cell.training.photos
        each = cell.training.photos / len(cell.training.rows)
        facts["times"] = each if cell.individuals else float("nan")
        parts.append(found.assign(**facts, draw=cell.draw, seen=seen))
    return pd.concat(parts, ignore_index=True)


def spread(study: Study, multi: Sequence[Training]) -> Spread:
    """Standard deviation of a species' top-1, in points, between trainings of one network.

    By the trainings `multi` of the multi-species network, root mean square over species; assumed of
    each network that is trained once. 0 where `multi` is a single one.
    """
    study.run(multi)  # side by side
    rankings = [study.ranks(training) for training in multi]
    found = training_spread(rankings)
    return found._replace(mean=found.species, mean_freedom=found.species_freedom)


def summary(ranked: pd.DataFrame, before: Mapping[str, float], spread: Spread) -> pd.DataFrame:
    """Top-1 in percent by species, n and method, with the 95 % interval of the mean over draws.

    `before`: of `untrained`; `spread`: of `spread`, which the interval of a single training has.
    Columns species, individuals, annotations, photos_shown (repeats count) and times (each photo of
    the species is shown; all three are means over draws), method, queries, draws, top_k, low, high,
    deviation (standard, over draws; NaN for one), seen and new with _low, _high, _queries (of test
    individuals trained on, and of others; draws together), untrained.
    """
    rows = []
    for (species, n, method), own in ranked.groupby(["species", "n", "method"]):
        draws = _draws(own)
        found = _compared({"top_k": draws}, spread)
        sizes = own.groupby("draw")[["trained_on", "photos_shown", "times"]].first().mean()
        deviation = pd.Series([100 * top_k(draw, 1) for draw in draws]).std()
        scores = *(found[f"top_k{end}"] for end in ENDS), deviation
        halves = *_top_1(own[own["seen"]]), *_top_1(own[~own["seen"]])
        rows.append([species, n, *sizes, method, found["queries"], len(draws), *scores, *halves])
    columns = ["species", "individuals", "annotations", "photos_shown", "times", "method"]
    columns += ["queries"]
    columns += ["draws", "top_k", "low", "high", "deviation"]
    columns += [f"{half}{end}" for half in ("seen", "new") for end in (*ENDS, "_queries")]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(untrained=table["species"].map(before))


def _top_1(ranked: pd.DataFrame) -> list[float]:
    """Top-1 in percent with its 95 % interval, NaN without queries; the number of queries."""
    found = hits(ranked, 1).astype(float)
    ends = mean_interval(found, ranked.loc[found.index, "individual"])
    return [*(100 * value for value in (found.mean(), *ends)), len(found)]


def _draws(ranked: pd.DataFrame) -> list[pd.DataFrame]:
    return [own for _, own in ranked.groupby("draw")]


def _compared(networks: Mapping[str, list[pd.DataFrame]], spread: Spread) -> pd.Series:
    """The row of `compare` for networks of one species; `spread` is that of single trainings."""
    once = {name: spread for name, draws in networks.items() if len(draws) == 1}
    return compare(networks, training_sd=once).iloc[-1]


def differences(ranked: pd.DataFrame, one: str, other: str, spread: Spread) -> pd.DataFrame:
    """Top-1 of method `one` minus `other` at each n, in points, paired by query, as of `compare`.

    `other` may be NONE, the network that saw no individual of the species. The interval is that of
    other individuals and of the trainings: of the mean over draws, where a method has several, and
    else the `spread` (of `spread`). Columns species, individuals, method and against (`one` and
    `other`), draws and other_draws (how many of each), times and other_times (that they show each
    photo of the species), one and other (top-1 in percent), difference, low, high.
    """
    found = []
    none = ranked[ranked["n"] == 0].drop_duplicates(["species", "annotation_id"])
    ranked = pd.concat([ranked, *(none.assign(n=n, method=NONE) for n in set(ranked["n"]) - {0})])
    for (species, n), own in ranked.groupby(["species", "n"]):
        pair = {method: _draws(own[own["method"] == method]) for method in (one, other)}
        if all(pair.values()):
            row = _compared(pair, spread)
            gain = Estimate.of(row, f"gain_over_{other}")
            times = [own.loc[own["method"] == method, "times"].mean() for method in pair]
            sizes = *map(len, pair.values()), *times
            found.append([species, n, one, other, *sizes, row[one], row[other], *gain])
    columns = ["species", "individuals", "method", "against", "draws", "other_draws", "times"]
    columns += ["other_times", "one", "other", "difference", "low", "high"]
    return pd.DataFrame(found, columns=columns)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `summary` for a reader; without any individual all methods are one network."""
    none = table["individuals"] == 0
    shown = table.assign(method=table["method"].map(METHODS).mask(none, WORDS[NONE]))
    shown = shown.drop_duplicates(["species", "individuals", "method"])
    whole = shown[["annotations", "photos_shown", "times"]].round().astype("Int64")
    return with_heads(shown.assign(**whole), HEADS)


def readable_gains(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables of `differences` for a reader."""
    table = pd.concat([own for own in tables if len(own)], ignore_index=True)
    return with_heads(table.assign(**table[["method", "against"]].replace(WORDS)), GAINS)


def untrained(study: Study, species: Sequence[str]) -> pd.Series:
    """Top-1 in percent of the untrained network on each of `species`."""
    ranks = study.ranks(study.untrained())
    return pd.Series({name: 100 * top_k(ranks[ranks["species"] == name], 1) for name in species})


def no_better_in_words(table: pd.DataFrame) -> str:
    """Which trainings of a table of `summary` end no better than the untrained network."""
    lost = [
        f"{METHODS[row.method]}, n = {row.individuals}, {spelt(row.species)}"
        for row in table[table["top_k"] <= table["untrained"]].itertuples()
    ]
    if not lost:
        return "Every network scores above the untrained one."
    return f"**No better than the untrained network**: {'; '.join(lost)}."


def _gains(table: pd.DataFrame) -> list[Estimate]:
    rows = table[["difference", "low", "high"]].itertuples(index=False)
    return [Estimate(*row) for row in rows]


VERDICTS = "better than", "worse than", "not shown to differ from"


def in_words(*tables: pd.DataFrame) -> list[str]:
    """What tables of `differences` show, a text a species; with points where a gain is shown."""
    words = []
    for species in tables[0]["species"].unique():
        parts = (own[own["species"] == species] for own in tables)
        said = [_verdicts(own, _numbers(own)) for own in parts if len(own)]
        said[0] = f"on n individuals of {spelt(species)}, {said[0]}"
        words.append(" ".join(map(sentence, said)))
    return words


def _numbers(table: pd.DataFrame) -> pd.Series:
    """Each row's n, and the gain with its interval where one is shown."""
    numbers = []
    for n, gain in zip(table["individuals"], _gains(table), strict=True):
        points = str(gain).replace(" (", ", ").rstrip(")")
        numbers.append(f"{n:,}" + gain.shown(f" ({points})", f" ({points})", ""))
    return pd.Series(numbers, table.index)


def claim(table: pd.DataFrame) -> str:
    """Which n a table of `differences` shows which method to be better with, for a title."""
    sizes = table["individuals"].map("{:,}".format)
    if table["species"].nunique() > 1:
        sizes += " (" + table["species"].map(spelt) + ")"
    said = _verdicts(table, sizes)
    return said[:1].upper() + said[1:]


def _verdicts(table: pd.DataFrame, sizes: pd.Series) -> str:
    """What is shown of the two methods with which `sizes`, a text for each row."""
    one, other = (WORDS[table[name].iloc[0]] for name in ("method", "against"))
    verdicts = pd.Series([gain.shown(*VERDICTS) for gain in _gains(table)], table.index)
    clauses = []
    for verdict, those in sizes.groupby(verdicts, sort=False):
        clauses.append(f"{verdict} {'it' if clauses else other} at n = {' and '.join(those)}")
    return f"{one} is {', '.join(clauses)}"


SHOWN = {  # columns of `summary`, and what one training of a method has of them
    "photos_shown": "Photos shown in one training",
    "times": "Times that one training shows each photo of the species",
}


def shown_in_words(table: pd.DataFrame, name: str) -> str:
    """How far a column of SHOWN goes with each method of a table of `summary`."""
    counts = table[table["individuals"] > 0].groupby("method")[name]
    methods = filter(counts.groups.__contains__, METHODS)
    said = [f"{_span(counts.get_group(method))} by {METHODS[method]}" for method in methods]
    return f"{SHOWN[name]}: {', '.join(said)}."


def _span(values: pd.Series) -> str:
    return " to ".join(dict.fromkeys(f"{end:,.0f}" for end in (values.min(), values.max())))


def beside_paper(table: pd.DataFrame) -> pd.DataFrame:
    """Means over species at each n: ours (of `summary`), and the paper's six (Tables 4 and 5)."""
    methods = _methods(table)
    ours = table.pivot_table(index="individuals", columns="method", values="top_k")[methods]
    paper = {f"paper_{PRINTED[name][1]}": _printed(name).mean(axis=1) for name in methods}
    return ours.join(pd.DataFrame(paper), how="outer").rename_axis("individuals").reset_index()


def _methods(table: pd.DataFrame) -> list[str]:
    return [method for method in METHODS if table["method"].eq(method).any()]


def _printed(method: str) -> pd.DataFrame:
    """The paper's top-1 in percent by a method: a row for each n, a column for each species."""
    number, column = PRINTED[method]
    return printed_table(number).pivot(index="individuals", columns="species", values=column)


LOOKS = {  # of a method's line
    "species_only": {"color": ORANGE, "ls": ":", "marker": "D", "markerfacecolor": "white"},
    "joint": {"color": BLUE, "ls": "-", "marker": "o"},
    "fine_tuned": {"color": VERMILION, "ls": "--", "marker": "s"},
}


@styled()
def curves_figure(table: pd.DataFrame, title: str) -> Figure:
    """Top-1 against the number of individuals, a line each method: the paper's, then our species.

    `table`: of `summary`. The first panel has the means of the paper's six species.
    """
    species = table["species"].unique()
    rows = -(-(1 + len(species)) // 2)
    drawn = Figure(title, 1.2 + 2.4 * rows, PAGE)
    first, *panels = drawn.subplots(rows, 2, squeeze=False).flat
    _printed_panel(first, _methods(table))
    for axes, name in itertools.zip_longest(panels, species):
        if name is None:
            axes.remove()
        else:
            _panel(axes, table[table["species"] == name])
    for axes in drawn.axes:
        axes.set(ylabel="top-1 accuracy (%)", ylim=(0, 100))
    drawn.legend(*panels[0].get_legend_handles_labels(), ncols=4, loc="outside lower left")
    return drawn


def _printed_panel(axes: Axes, methods: Sequence[str]) -> None:
    """The paper's numbers, the means of its six species."""
    for method in methods:
        mean = _printed(method).mean(axis=1)
        axes.plot(mean, **LOOKS[method])
    axes.set_xticks(mean.index)
    axes.set_xlabel("training individuals\n(equal epochs; mean of six species)")
    tables = " and ".join(sorted({f"Table {PRINTED[method][0]}" for method in methods}))
    axes.set_title(f"the paper ({tables})", loc="left")


def _panel(axes: Axes, own: pd.DataFrame) -> None:
    step = 0.025 * own["individuals"].max()  # apart, so that no bar covers another
    for number, (method, look) in enumerate(LOOKS.items()):
        rows = own[own["method"] == method].sort_values("individuals")
        at = rows["individuals"] + (number - 1) * step
        if len(rows):
            axes.plot(at, rows["top_k"], label=METHODS[method], **look)
            axes.vlines(at, rows["low"], rows["high"], look["color"], linewidth=1)
    look = {"color": GREY, "ls": (0, (5, 3)), "linewidth": 0.8, "label": "untrained"}
    axes.axhline(own["untrained"].iloc[0], **look)
    seen = own.groupby("individuals")["annotations"].max()
    axes.set_xticks(seen.index, [f"{n:,}\n({photos:,.0f})" for n, photos in seen.items()])
    unequal = ", but for fine-tuning" * ("fine_tuned" in {*own["method"]})
    axes.set_xlabel(f"training individuals (annotations)\n(equal steps{unequal})")
    species, queries = own[["species", "queries"]].iloc[0]
    axes.set_title(f"here: {spelt(species)} ({queries:,} queries)", loc="left")

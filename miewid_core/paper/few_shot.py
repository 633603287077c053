"""A species with few individuals: alone, with all others, or fine-tuned (sections 5.4 and 5.5)."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes

from miewid_core import splits
from miewid_core.config import TrainConfig, fine_tuning
from miewid_core.evaluation import hits, top_k
from miewid_core.figures import BLUE, GREY, ORANGE, PAGE, VERMILION, Figure, spelt, styled
from miewid_core.paper.comparison import ENDS, compare, with_interval
from miewid_core.paper.intervals import mean_interval
from miewid_core.paper.printed import printed_table
from miewid_core.paper.study import Study
from miewid_core.runs.run import Training

METHODS = {  # how a network meets a new species, in the words of the paper's Tables 4 and 5
    "species_only": "species-only training",
    "joint": "joint training",
    "fine_tuned": "fine-tuning",
}
DEMO_COUNTS = (0, 10)  # drawn species are small, and the demo is to end in minutes
PAPER_COUNTS = (0, 25, 50, 100, 200)
ALL = 10**9  # individuals: as many as there are
PRINTED = {  # number of the paper's table, and its column
    "species_only": (4, "species_only"),  # as in Table 5
    "joint": (4, "joint_training"),
    "fine_tuned": (5, "fine_tuning"),
}


def stages_in_words(config: TrainConfig) -> str:
    """The two stages of fine-tuning a network that was trained with `config`, in a sentence."""
    tuned = fine_tuning(config)
    head = f"a rate of {tuned.head_rate:g}" if tuned.head_rate else "the schedule's first rates"
    return (
        f"{tuned.frozen_epochs} epochs of the head alone at {head}, BatchNorm in "
        f"{'training' if tuned.batchnorm_adapts else 'evaluation'} mode, then "
        f"{tuned.epochs - tuned.frozen_epochs} epochs of the whole network by the schedule, "
        f"whose highest rate is {tuned.peak_rate:g}."
    )


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

    Rows as of `one_vs_all`, with n, trained_on (annotations), method, draw, and seen: whether the
    individual is one of the n.
    """
    study.run([cell.training for cell in asked])  # side by side
    parts = []
    for cell in asked:
        found = study.ranks({cell.species: cell.training})
        seen = found["individual"].isin(cell.training.rows["individual"])
        facts = {"n": cell.individuals, "trained_on": cell.annotations, "method": cell.method}
        parts.append(found.assign(**facts, draw=cell.draw, seen=seen))
    return pd.concat(parts, ignore_index=True)


def summary(ranked: pd.DataFrame, before: Mapping[str, float]) -> pd.DataFrame:
    """Top-1 in percent by species, n and method, with the 95 % interval of the mean over draws.

    `before`: of `untrained`. Columns species, individuals, annotations (mean over draws), method,
    queries, draws, top_k, low, high, deviation (standard, over draws; NaN for one), seen and new
    with _low, _high (of test individuals trained on, and of others; draws together), untrained.
    """
    rows = []
    for (species, n, method), own in ranked.groupby(["species", "n", "method"]):
        draws = _draws(own)
        found = compare({"top_k": draws}).iloc[0]
        size = own.groupby("draw")["trained_on"].first().mean()
        deviation = pd.Series([100 * top_k(draw, 1) for draw in draws]).std()
        scores = *(found[f"top_k{end}"] for end in ENDS), deviation
        halves = *_top_1(own[own["seen"]]), *_top_1(own[~own["seen"]])
        rows.append([species, n, size, method, found["queries"], len(draws), *scores, *halves])
    columns = ["species", "individuals", "annotations", "method", "queries", "draws"]
    columns += ["top_k", "low", "high", "deviation"]
    columns += [f"{half}{end}" for half in ("seen", "new") for end in ENDS]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(untrained=table["species"].map(before))


def _top_1(ranked: pd.DataFrame) -> list[float]:
    """Top-1 in percent with its 95 % interval, NaN without queries."""
    found = hits(ranked, 1).astype(float)
    ends = mean_interval(found, ranked.loc[found.index, "individual"])
    return [100 * value for value in (found.mean(), *ends)]


def _draws(ranked: pd.DataFrame) -> list[pd.DataFrame]:
    return [own for _, own in ranked.groupby("draw")]


def differences(ranked: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Top-1 of method `one` minus `other` at each n, in points, paired by query, as of `compare`.

    The interval is that of other individuals and, where a method has several
    draws, of the mean over these and their trainings. Columns species, individuals, draws and
    other_draws (how many of each method), one and other (top-1 in percent), difference, low, high.
    """
    found = []
    for (species, n), own in ranked.groupby(["species", "n"]):
        pair = {method: _draws(own[own["method"] == method]) for method in (one, other)}
        if all(pair.values()):
            row = compare(pair).iloc[0]
            gain = [row[f"gain_over_{other}{end}"] for end in ENDS]
            found.append([species, n, *map(len, pair.values()), row[one], row[other], *gain])
    columns = ["species", "individuals", "draws", "other_draws", "one", "other"]
    return pd.DataFrame(found, columns=[*columns, "difference", "low", "high"])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `summary` for a reader: top-1 with its interval, a last row for the untrained.

    Without any individual all methods are the leave-one-out network.
    """
    shown = table.assign(
        species=table["species"].map(spelt),
        method=table["method"].map(METHODS).mask(table["individuals"] == 0, "leave-one-out"),
        individuals=table["individuals"].astype("Int64"),
        draws=table["draws"].astype("Int64"),
    )
    shown["top-1 (%)"] = with_interval(table, "top_k", "low", "high")
    before = shown.groupby("species", as_index=False)["untrained"].first()
    before["top-1 (%)"] = before.pop("untrained").map("{:.1f}".format)
    shown = pd.concat([shown, before.assign(method="untrained")], ignore_index=True)
    shown = shown.drop_duplicates(["species", "individuals", "method"])
    shown = shown.sort_values("species", kind="stable")
    columns = ["species", "individuals", "method", "top-1 (%)", "draws", "deviation", "seen", "new"]
    heads = {"draws": "trainings", "deviation": "SD (points)"}
    return shown[columns].rename(columns=heads)


def readable_gains(table: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """A table of `differences` for a reader, with what is compared in the heads."""
    names = METHODS[one], METHODS[other]
    shown = table[["species", "individuals"]].assign(species=table["species"].map(spelt))
    for name, column in zip(names, ("one", "other"), strict=True):
        shown[f"{name} (%)"] = table[column]
    shown["gain (points)"] = with_interval(table, "difference", "low", "high")
    return shown.assign(trainings=[_counted(row) for row in table.itertuples()])


def _counted(row: tuple) -> str:
    """How many trainings of each method stand behind a row of `differences`."""
    one, other = row.draws, row.other_draws
    return f"{one} of each" if one == other else f"{one} and {other}"


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
        return "Every network is better than the untrained one."
    return f"**No better than the untrained network**: {'; '.join(lost)}."


def in_words(table: pd.DataFrame, one: str, other: str) -> list[str]:
    """What a table of `differences` of methods `one` and `other` shows of each species."""
    better, worse = table["low"] > 0, table["high"] < 0
    first, second = METHODS[one], METHODS[other]
    verdicts = {  # the first that is said names both
        ("no difference is shown", f"no difference between {first} and {second} is shown"): (
            ~(better | worse)
        ),
        (f"{first} is better", f"{first} is better than {second}"): better,
        (f"{first} is worse", f"{first} is worse than {second}"): worse,
    }
    sentences = []
    for species, own in table.groupby("species").groups.items():
        numbers = {
            words: table.loc[own, "individuals"][holds[own]].tolist()
            for words, holds in verdicts.items()
            if holds[own].any()
        }
        (_, said), *others = sorted(numbers, key=lambda words: numbers[words][0])
        counts = [_listed(found) for found in sorted(numbers.values())]
        parts = [f"{said} with {counts[0]} individual{'s' * (counts[0] != '1')}"]
        parts += [f"with {n} {words}" for (words, _), n in zip(others, counts[1:], strict=True)]
        sentences.append(f"For {spelt(species)} {'; '.join(parts)}.")
    return sentences


def claim(table: pd.DataFrame, one: str, other: str) -> str:
    """What a table of `differences` shows, in a few words, for titles."""
    better, worse = (table["low"] > 0).sum(), (table["high"] < 0).sum()
    return (
        f"Here {METHODS[one]} is better than {METHODS[other]} at {better} of {len(table)} sizes, "
        f"worse at {worse}"
    )


def starts_in_words(table: pd.DataFrame) -> str:
    """What a table of `summary` says of no individual at all, by species."""
    none = table[table["individuals"] == 0].drop_duplicates("species")
    return " ".join(
        f"Without any photo of {spelt(row.species)} the leave-one-out network has {row.top_k:.1f} "
        f"%, an untrained one {row.untrained:.1f} %."
        for row in none.itertuples()
    )


def _listed(numbers: Sequence[int]) -> str:
    """1, 2 and 3"""
    words = [f"{number:,}" for number in numbers]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def numbers_in_words(table: pd.DataFrame, one: str, other: str) -> list[str]:
    """What stands behind `in_words`: of each row of `differences` both scores and the gain."""
    return [
        f"With {row.individuals:,} individuals of {spelt(row.species)}: {METHODS[one]} "
        f"{row.one:.1f}, {METHODS[other]} {row.other:.1f} %, difference {row.difference:+.1f} "
        f"points (95 % interval {row.low:+.1f} to {row.high:+.1f}; trainings: {_counted(row)})."
        for row in table.itertuples()
    ]


def conclusion(table: pd.DataFrame, one: str, other: str) -> list[str]:
    """What a table of `differences` shows, in sentences.

    First the first species' verdict with the numbers of its least and largest n; then the other
    species' verdicts, and all other numbers.
    """
    first = table[table["species"] == table["species"].iloc[0]]
    ends = first.iloc[[0, -1]].drop_duplicates()
    return [
        " ".join(in_words(first, one, other) + numbers_in_words(ends, one, other)),
        *in_words(table.drop(first.index), one, other),
        *numbers_in_words(table.drop(ends.index), one, other),
    ]


def stops_paying(table: pd.DataFrame) -> pd.DataFrame:
    """Where fine-tuning stops paying: the least n from which on it is not shown to be better.

    `table`: of `differences`, fine_tuned minus species_only. Columns species, individuals (NaN when
    it is better at every n).
    """
    return _after_last_better(table.assign(better=table["low"] > 0)).reset_index()


def stops_in_words(stops: pd.DataFrame) -> str:
    """A table of `stops_paying` in words, and the same of the paper's Table 5."""
    printed = printed_table(5).query("individuals > 0")
    better = printed["fine_tuning"] > printed["species_only"]
    paper = _after_last_better(printed.assign(better=better)).reset_index()
    return (
        f"Here fine-tuning is no longer shown to be better than species-only training: "
        f"{_froms(stops)}. By the paper's Table 5, which has no intervals: {_froms(paper)}."
    )


def _froms(stops: pd.DataFrame) -> str:
    found = stops.dropna(subset="individuals")
    words = [f"{spelt(row.species)} from {row.individuals:.0f} on" for row in found.itertuples()]
    always = stops.loc[stops["individuals"].isna(), "species"].map(spelt)
    return ", ".join([*words, *(f"{name} never" for name in always)])


def _after_last_better(table: pd.DataFrame) -> pd.Series:
    """By species, the least n above all at which it is `better`; NaN where there is none."""
    last = table["individuals"].where(table["better"]).groupby(table["species"]).transform("max")
    after = table["individuals"].where(table["individuals"] > last.fillna(-1))
    return pd.to_numeric(after.groupby(table["species"]).min(), downcast="integer")


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


LOOKS = {  # method: marker, line, colour, fill
    "species_only": ("D", ":", ORANGE, "white"),
    "joint": ("o", "-", BLUE, BLUE),
    "fine_tuned": ("s", "--", VERMILION, VERMILION),
}


@styled()
def curves_figure(table: pd.DataFrame, title: str) -> Figure:
    """Top-1 against the number of individuals, a line each method: the paper's, then our species.

    `table`: of `summary`. The first panel has the paper's six species and their mean.
    """
    species = table["species"].unique()
    rows = -(-(1 + len(species)) // 2)
    drawn = Figure(title, 1.2 + 2.4 * rows, PAGE)
    first, *panels = drawn.subplots(rows, 2, squeeze=False).flat
    _printed_panel(first, _methods(table))
    for axes, name in zip(panels, species, strict=False):
        _panel(axes, table[table["species"] == name])
    for axes in panels[len(species) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, ncols=4, loc="outside lower left")
    return drawn


def _printed_panel(axes: Axes, methods: Sequence[str]) -> None:
    """The paper's numbers: each species a thin line, their mean a thick one."""
    for method in methods:
        marker, line, colour, fill = LOOKS[method]
        by_species = _printed(method)
        axes.plot(by_species, color=colour, ls=line, linewidth=0.7, alpha=0.7)
        look = {"color": colour, "ls": line, "markerfacecolor": fill}
        axes.plot(by_species.mean(axis=1), marker=marker, **look)
    axes.set_xticks(by_species.index)
    axes.set(ylabel="top-1 accuracy (%)", ylim=(0, 100))
    axes.set_xlabel("training individuals\n(mean of six species; thin: each of them)")
    numbers = sorted({PRINTED[method][0] for method in methods})
    words = f"Table{'s' * (len(numbers) > 1)} {' and '.join(map(str, numbers))}"
    axes.set_title(f"the paper, equal epochs (its {words})", loc="left")


def _panel(axes: Axes, own: pd.DataFrame) -> None:
    step = 0.012 * own["individuals"].max()  # apart, so that no bar covers another
    for number, (method, (marker, line, colour, fill)) in enumerate(LOOKS.items()):
        rows = own[own["method"] == method].sort_values("individuals")
        at = rows["individuals"] + (number - 1) * step
        look = {"color": colour, "ls": line, "markerfacecolor": fill, "label": METHODS[method]}
        if len(rows):
            axes.plot(at, rows["top_k"], marker, **look)
            axes.vlines(at, rows["low"], rows["high"], colour, linewidth=1)
    look = {"color": GREY, "ls": (0, (5, 3)), "linewidth": 0.8, "label": "untrained"}
    axes.axhline(own["untrained"].iloc[0], **look)
    seen = own.groupby("individuals")["annotations"].max()
    axes.set_xticks(seen.index, [f"{n:,}\n({photos:,.0f})" for n, photos in seen.items()])
    axes.set(xlabel="training individuals (annotations)", ylabel="top-1 accuracy (%)")
    species, queries = own[["species", "queries"]].iloc[0]
    axes.set_title(f"here, equal steps: {spelt(species)} ({queries:,} queries)", loc="left")
    axes.set_ylim(0, 100)

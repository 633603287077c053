"""A species with few individuals: alone, with all others, or fine-tuned (sections 5.4 and 5.5)."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from miewid_core import splits
from miewid_core.evaluation import hits, mean_interval, top_k
from miewid_core.figures import BLUE, GREY, ORANGE, PAGE, VERMILION, Figure, spelt, styled
from miewid_core.paper.comparison import ENDS, compare, with_interval
from miewid_core.paper.printed import printed_table, species_name
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


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training of Table 4 or 5: `individuals` of a species drawn at random, `draw` times."""

    species: str
    individuals: int
    annotations: int
    method: str
    draw: int
    training: Training


def targets(study: Study, wanted: Sequence[str] = (), most: int = 0) -> list[str]:
    """Species to vary: `wanted`, or the `most` tested ones with the most training individuals.

    `most` 0: two, and one of the demo.
    Raises ValueError for a species that is not both trained and tested.
    """
    train = study.train[study.train["species"].isin(study.test["species"])]
    sizes = train.groupby("species")["individual"].nunique()
    strange = ", ".join(sorted(set(wanted) - set(sizes.index)))
    if strange:
        there = ", ".join(sizes.index)
        raise ValueError(f"targets: {strange} is not trained and tested; there are {there}")
    return (
        list(wanted)
        or sizes.sort_index().nlargest(most or (1 if study.drawn else 2)).index.tolist()
    )


def cells(
    study: Study,
    species: Sequence[str],
    methods: Sequence[str] = tuple(METHODS),
    counts: Sequence[int] = (),
    draws: int = 3,
) -> list[Cell]:
    """All trainings of Tables 4 and 5: each of `species` with each number of its individuals.

    `counts`: numbers of individuals, clipped to what there is; by default the paper's. A smaller
    number's individuals are some of the larger one's (`splits.few_shot`). Each draw has its own
    individuals and its own seed of the training. None and all of them can't be drawn: they have one
    training, n = 0 the leave-one-out network, which never saw the species.
    """
    return list(each_cell(study, species, methods, counts, draws))


def each_cell(
    study: Study,
    species: Sequence[str],
    methods: Sequence[str] = tuple(METHODS),
    counts: Sequence[int] = (),
    draws: int = 3,
) -> Iterator[Cell]:
    """The same, one at a time: at the paper's scale the rows of all of them take gigabytes."""
    counts = counts or (*(DEMO_COUNTS if study.drawn else PAPER_COUNTS), ALL)
    for own in species:
        whole = study.train.loc[study.train["species"] == own, "individual"].nunique()
        start = study.left_out([own])[own]
        for n in sorted({min(count, whole) for count in counts}):
            for draw in range(draws if 0 < n < whole else 1):
                yield from _draw(study, start, own, n, draw, methods)


def _draw(
    study: Study, start: Training, species: str, n: int, draw: int, methods: Sequence[str]
) -> list[Cell]:
    joint = splits.few_shot(study.train, species, n, study.seed + draw)
    own = joint[joint["species"] == species]
    if n == 0:
        trainings = {"joint": start, "fine_tuned": start}
    else:
        words = f"{n} {species} (draw {draw + 1})"
        trainings = {
            # as many steps as with the others: few photos for as many epochs teach nothing
            "species_only": study.training(
                own, f"{words} alone", seed=draw, epoch_photos=len(joint)
            ),
            "joint": study.training(joint, f"{words} and all others", seed=draw),
            "fine_tuned": study.training(own, f"{words} fine-tuned", start=start, seed=draw),
        }
    return [
        Cell(species, n, len(own), method, draw, trainings[method])
        for method in methods
        if method in trainings
    ]


def check_nested(asked: Sequence[Cell]) -> None:
    """Raise AssertionError unless a smaller n's training rows are some of a larger one's."""
    groups: dict[tuple, list[Cell]] = {}
    for cell in (cell for cell in asked if cell.individuals):
        groups.setdefault((cell.species, cell.method, cell.draw), []).append(cell)
    for own in groups.values():
        own.sort(key=lambda cell: cell.individuals)
        rows = [set(cell.training.rows["annotation_id"]) for cell in own]
        assert all(few <= more for few, more in itertools.pairwise(rows)), own[0].species


def check_same_queries(ranked: pd.DataFrame) -> None:
    """Raise AssertionError unless every network of a species was asked the same queries."""
    keys = ["species", "n", "method", "draw"]
    queries = ranked.groupby(keys)["annotation_id"].agg(lambda ids: tuple(sorted(ids)))
    assert (queries.groupby("species").nunique() == 1).all()


def ranks(study: Study, asked: Sequence[Cell]) -> pd.DataFrame:
    """Ranks of each cell's species by its network, trained now where it isn't yet.

    Rows as of `one_vs_all`, with n, trained_on (annotations), method, draw, and seen: whether the
    individual is one of the n. The queries never change with n.
    """
    study.run([cell.training for cell in asked])  # side by side
    parts = []
    for cell in asked:
        found = study.ranks({cell.species: cell.training})
        seen = found["individual"].isin(cell.training.rows["individual"])
        facts = {"n": cell.individuals, "trained_on": cell.annotations, "method": cell.method}
        parts.append(found.assign(**facts, draw=cell.draw, seen=seen))
    return pd.concat(parts, ignore_index=True)


def summary(
    ranked: pd.DataFrame, before: Mapping[str, float] | None = None, k: int = 1
) -> pd.DataFrame:
    """Top-k in percent of each species, n and method, with its 95 % interval.

    The interval is that of the mean over draws, each with a training of its own, where there are
    several. `before`: of `untrained`. Columns species, individuals, annotations (mean over draws),
    method, queries, draws, top_k, low, high, deviation (standard, over draws; NaN for one), seen
    and new with _low, _high (the same of test individuals that were trained on, and of those that
    were not; draws together), untrained.
    """
    rows = []
    for (species, n, method), own in ranked.groupby(["species", "n", "method"]):
        draws = _draws(own)
        found = compare({"top_k": draws}, k=k).iloc[0]
        each = [100 * top_k(draw, k) for draw in draws]
        size = own.groupby("draw")["trained_on"].first().mean()
        deviation = np.std(each, ddof=1) if len(each) > 1 else np.nan
        scores = [found[f"top_k{end}"] for end in ENDS]
        rows.append([species, n, size, method, found["queries"], len(draws), *scores, deviation])
        rows[-1] += [*_top_k(own[own["seen"]], k), *_top_k(own[~own["seen"]], k)]
    columns = ["species", "individuals", "annotations", "method", "queries", "draws"]
    columns += ["top_k", "low", "high", "deviation"]
    columns += [f"{part}{end}" for part in ("seen", "new") for end in ENDS]
    table = pd.DataFrame(rows, columns=columns)
    return table if before is None else table.assign(untrained=table["species"].map(before))


def _top_k(ranked: pd.DataFrame, k: int) -> list[float]:
    """Top-k in percent with its 95 % interval, NaN without queries."""
    found = hits(ranked, k).astype(float)
    ends = mean_interval(found, ranked.loc[found.index, "individual"])
    return [100 * value for value in (found.mean(), *ends)]


def _draws(ranked: pd.DataFrame) -> list[pd.DataFrame]:
    return [own for _, own in ranked.groupby("draw")]


def differences(ranked: pd.DataFrame, one: str, other: str, k: int = 1) -> pd.DataFrame:
    """Top-k of method `one` minus `other` at each n, in points, with its 95 % interval.

    Paired by query. The interval is that of other individuals and, where there are several draws,
    of the mean over draws and their trainings. Columns species, individuals, draws, difference,
    low, high.
    """
    found = []
    for (species, n), own in ranked.groupby(["species", "n"]):
        pair = {method: _draws(own[own["method"] == method]) for method in (one, other)}
        if all(pair.values()):
            row = compare(pair, k=k).iloc[0]
            gain = [row[f"gain_over_{other}{end}"] for end in ENDS]
            found.append([species, n, len(pair[one]), *gain])
    columns = ["species", "individuals", "draws", "difference", "low", "high"]
    return pd.DataFrame(found, columns=columns)


def readable(table: pd.DataFrame, value: str, head: str) -> pd.DataFrame:
    """A table of `summary` or `differences` for a reader, its interval in the column `head`.

    Left out is what the figure says, to keep to nine columns: annotations and queries.
    """
    shown = table.assign(species=table["species"].map(spelt))
    shown[head] = with_interval(table, value, "low", "high")
    if "method" in table:
        shown["method"] = table["method"].map(METHODS)
        ends = [f"{part}_{end}" for part in ("seen", "new") for end in ("low", "high")]
        shown = shown.drop(columns=[*ends, "annotations", "queries"])
        shown = shown.rename(columns={"seen": "seen animals", "new": "new ones"})
    return shown.drop(columns=[value, "low", "high"])


def untrained(study: Study, species: Sequence[str], k: int = 1) -> pd.Series:
    """Top-k in percent of the untrained network on each of `species`."""
    ranks = study.ranks(study.untrained())
    return pd.Series({name: 100 * top_k(ranks[ranks["species"] == name], k) for name in species})


def no_better_in_words(table: pd.DataFrame, before: pd.Series) -> str:
    """Which trainings of a table of `summary` end no better than `before`, by `untrained`."""
    lost = table[table["top_k"] <= table["species"].map(before)]
    names = [
        f"{METHODS[row.method]}, n = {row.individuals}, {spelt(row.species)}"
        for row in lost.itertuples()
    ]
    if not names:
        return "Every network is better than the untrained one."
    return f"**No better than the untrained network**: {'; '.join(names)}."


def in_words(table: pd.DataFrame, one: str, other: str) -> list[str]:
    """What a table of `differences` shows of each species: at which n which method is better."""
    verdicts = {
        f"{METHODS[one]} is better than {METHODS[other]}": table["low"] > 0,
        f"{METHODS[other]} is better than {METHODS[one]}": table["high"] < 0,
        "no difference shown": ~((table["low"] > 0) | (table["high"] < 0)),
    }
    sentences = []
    for species, own in table.groupby("species"):
        parts = [
            f"{words} at n = {', '.join(map(_with_draws, own[holds[own.index]].itertuples()))}"
            for words, holds in verdicts.items()
            if holds[own.index].any()
        ]
        sentences.append(f"{spelt(species)}: {'; '.join(parts)}.")
    return sentences


def _with_draws(row: tuple) -> str:
    return f"{row.individuals}" + (" (one training)" if row.draws == 1 else "")


def stops_paying(table: pd.DataFrame) -> pd.DataFrame:
    """Where fine-tuning stops paying: the least n from which on it is not shown to be better.

    `table`: of `differences`, fine_tuned minus species_only. Columns species, individuals (NaN when
    it is better at every n), of_the_paper: the same by Table 5's printed numbers.
    """
    rows = []
    for species, own in table.sort_values("individuals").groupby("species"):
        better = (own["low"] > 0).to_numpy()
        rows.append((species, _first_after_last(own["individuals"].tolist(), better)))
    found = pd.DataFrame(rows, columns=["species", "individuals"])
    return found.assign(of_the_paper=found["species"].map(species_name).map(_printed_stop()))


def _first_after_last(counts: list[int], better: Sequence[bool]) -> float:
    """The count after the last at which it is better; NaN where that is the last of all."""
    after = max((place + 1 for place, holds in enumerate(better) if holds), default=0)
    return counts[after] if after < len(counts) else float("nan")


def _printed_stop() -> dict[str, float]:
    printed = printed_table(5)
    printed = printed[printed["individuals"] > 0]
    return {
        species: _first_after_last(
            own["individuals"].tolist(), (own["fine_tuning"] > own["species_only"]).tolist()
        )
        for species, own in printed.groupby("species")
    }


def beside_paper(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Means over species at each n: ours (of `summary`), and the paper's six (Tables 4 and 5)."""
    ours = table.pivot_table(index="individuals", columns="method", values="top_k")
    ours = ours.reindex(columns=list(methods))
    for method in methods:
        number, column = PRINTED[method]
        mean = printed_table(number).groupby("individuals")[column].mean()
        ours = ours.join(mean.rename(f"paper_{column}"), how="outer")
    return ours.reset_index()


LOOKS = {  # method: marker, line, colour, fill
    "species_only": ("D", ":", ORANGE, "white"),
    "joint": ("o", "-", BLUE, BLUE),
    "fine_tuned": ("s", "--", VERMILION, VERMILION),
}


@styled()
def curves_figure(
    table: pd.DataFrame, before: pd.Series, title: str, methods: Sequence[str], k: int = 1
) -> Figure:
    """Top-k against the number of individuals, a line each method: the paper's, then our species.

    `table`: of `summary`, whose intervals are the bars. `before`: of `untrained`, a dashed line.
    The first panel has the paper's six species, thin, and their mean (Tables 4 and 5).
    """
    species = table["species"].unique()
    rows = -(-(1 + len(species)) // 2)
    drawn = Figure(title, 1.2 + 2.4 * rows, PAGE)
    first, *panels = drawn.subplots(rows, 2, squeeze=False).flat
    _printed_panel(first, methods)
    for axes, name in zip(panels, species, strict=False):
        _panel(axes, table[table["species"] == name], before[name])
        axes.set_ylabel(f"top-{k} accuracy (%)")
    for axes in panels[len(species) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    drawn.legend(handles, labels, ncols=4, loc="outside lower left")
    return drawn


def _printed_panel(axes: Axes, methods: Sequence[str]) -> None:
    """The paper's numbers: each species a thin line, their mean a thick one."""
    numbers = sorted({PRINTED[method][0] for method in methods})
    for method in methods:
        number, column = PRINTED[method]
        marker, line, colour, fill = LOOKS[method]
        by_species = printed_table(number).pivot(
            index="individuals", columns="species", values=column
        )
        axes.plot(by_species, color=colour, ls=line, linewidth=0.5, alpha=0.5)
        look = {"color": colour, "ls": line, "markerfacecolor": fill}
        axes.plot(by_species.mean(axis=1), marker=marker, **look)
    axes.set_xticks(by_species.index)
    axes.set(ylabel="top-1 accuracy (%)", ylim=(0, 100))
    axes.set_xlabel("training individuals\n(mean of six species; thin: each of them)")
    words = f"Table{'s' * (len(numbers) > 1)} {' and '.join(map(str, numbers))}"
    axes.set_title(f"the paper (redrawn from its {words})", loc="left")


def _panel(axes: Axes, own: pd.DataFrame, before: float) -> None:
    step = 0.012 * own["individuals"].max()  # apart, so that no bar covers another
    for number, (method, (marker, line, colour, fill)) in enumerate(LOOKS.items()):
        rows = own[own["method"] == method].sort_values("individuals")
        at = rows["individuals"] + (number - 1) * step
        look = {"color": colour, "ls": line, "markerfacecolor": fill, "label": METHODS[method]}
        if len(rows):
            axes.plot(at, rows["top_k"], marker, **look)
            axes.vlines(at, rows["low"], rows["high"], colour, linewidth=1)
    axes.axhline(before, color=GREY, ls=(0, (5, 3)), linewidth=0.8, label="untrained")
    seen = own.groupby("individuals")["annotations"].max()
    axes.set_xticks(seen.index, [f"{n:,}\n({photos:,.0f})" for n, photos in seen.items()])
    axes.set_xlabel("training individuals (annotations)")
    queries = own["queries"].iloc[0]
    axes.set_title(f"here: {spelt(own['species'].iloc[0])} ({queries:,} queries)", loc="left")
    axes.set_ylim(0, 100)

"""How many annotations of an individual the database needs (section 5.4, Figure 3)."""

import dataclasses
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from miewid_core import progress
from miewid_core.evaluation import BLOCK, unit_vectors
from miewid_core.figures import BLUE, GREY, PAGE, THIN, Figure, spelt, styled
from miewid_core.paper.intervals import ENDS, by_species, with_interval
from miewid_core.ranking import TIE

TOPS = (1, 5)  # Figure 3 shows top-1 and top-5
DRAWS = 20  # random databases for each limit


@dataclasses.dataclass(frozen=True)
class Database:
    """The n annotations of one species, each of which is matched against the others (section 4).

    `rows` (n,): their places among all annotations, sorted by individual; `first`, `last` (n,):
    where the individual of each begins and ends among these; `unit` (n, D): embeddings of length 1.
    """

    species: str
    rows: np.ndarray
    first: np.ndarray
    last: np.ndarray
    unit: np.ndarray

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Some queries (B,) at a time, and cosines (B, n) to their true matches and to all others.

        A query is neither among its true matches nor among the others; what a matrix leaves out
        is -inf in it. Only such blocks are held, never all n by n cosines.
        """
        column = np.arange(len(self.rows))
        for start in range(0, len(self.rows), BLOCK):
            queries = column[start : start + BLOCK]
            cosine = self.unit[queries] @ self.unit.T
            own = (column >= self.first[queries, None]) & (column < self.last[queries, None])
            others = np.where(own, -np.inf, cosine)
            own &= column != queries[:, None]
            yield queries, np.where(own, cosine, -np.inf), others


def databases(embeddings: np.ndarray, annotations: pd.DataFrame) -> Iterator[Database]:
    """The database of each species of `annotations`, one at a time.

    `embeddings`: (N, D), a row for each of `annotations` (annotation_id, species, individual).
    Raises ValueError where they don't fit.
    """
    if len(embeddings) != len(annotations):
        raise ValueError(f"{len(embeddings)} embeddings for {len(annotations)} annotations")
    for species, rows in annotations.groupby("species").indices.items():
        individuals = pd.factorize(annotations["individual"].to_numpy()[rows])[0]
        order = np.argsort(individuals, kind="stable")
        rows, individuals = rows[order], individuals[order]
        ends = (np.searchsorted(individuals, individuals, side) for side in ("left", "right"))
        yield Database(species, rows, *ends, unit_vectors(embeddings, rows, annotations))


def ranks(
    embeddings: np.ndarray,
    annotations: pd.DataFrame,
    limits: Sequence[int],
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Rank of the first true match (N, draws, limits) with at most so many of each individual.

    `embeddings`, `annotations`: as for `databases`. Each draw orders each individual's rows at
    random and a database takes the first of them. A query is never in its own database, and is
    asked at every limit; without any true match it has NaN. A tie with a wrong candidate counts as
    behind it. Raises ValueError for a limit below 1.
    """
    if min(limits, default=0) < 1:
        raise ValueError(f"limits are {list(limits)}; a database needs at least one annotation")
    found = np.full((len(annotations), draws, len(limits)), np.nan, np.float32)
    species = annotations["species"].nunique()
    for database in progress(databases(embeddings, annotations), "species", species):
        rng = np.random.default_rng([seed, zlib.crc32(str(database.species).encode())])
        turns = [_turns(database, rng) for _ in range(draws)]
        for queries, true, wrong in database.blocks():
            for draw, turn in enumerate(turns):
                place = database.rows[queries], draw
                found[place] = _limited(true, wrong, turn, turn[queries], limits)
    return found


def _turns(database: Database, rng: np.random.Generator) -> np.ndarray:
    """(n,) 0, 1, ...: the random order in which an individual's annotations enter the database."""
    order = np.lexsort([rng.random(len(database.rows)), database.first])
    turn = np.empty(len(order), int)
    turn[order] = np.arange(len(order)) - database.first  # individuals stay where they are
    return turn


def _limited(
    true: np.ndarray, wrong: np.ndarray, turn: np.ndarray, own: np.ndarray, limits: Sequence[int]
) -> np.ndarray:
    """Ranks (B, limits) of queries whose own turns are `own` (B,), from cosines (B, n)."""
    order = np.argsort(turn, kind="stable")
    true, wrong, turn = true[:, order], wrong[:, order], turn[order]
    best_so_far = np.maximum.accumulate(true, axis=1)
    ranks = np.full((len(own), len(limits)), np.nan)
    for place, limit in enumerate(limits):
        # a query leaves its turn to the next of its individual, whose database is as large then
        within = np.searchsorted(turn, limit + (own < limit))
        best = best_so_far[np.arange(len(own)), within - 1]
        ahead = wrong[:, : np.searchsorted(turn, limit)] >= (best - np.float32(TIE))[:, None]
        ranks[:, place] = np.where(np.isneginf(best), np.nan, 1 + ahead.sum(axis=1))
    return ranks


def limits(annotations: pd.DataFrame) -> range:
    """1, 2, 3, ... to the most annotations that any individual has, which is all of them."""
    return range(1, int(annotations.groupby(["species", "individual"]).size().max()) + 1)


def by_draw(ranks: np.ndarray, annotations: pd.DataFrame, limits: Sequence[int]) -> pd.DataFrame:
    """Top-1 and top-5 in percent: species, draw, limit, queries, top_1, top_5 (from `ranks`)."""
    parts = []
    for species, rows in annotations.groupby("species").indices.items():
        own = ranks[rows][~np.isnan(ranks[rows, 0, 0])]  # (queries, draws, limits)
        axes = [[species], range(ranks.shape[1]), limits]
        index = pd.MultiIndex.from_product(axes, names=["species", "draw", "limit"])
        if len(own):
            tops = {f"top_{k}": 100 * (own <= k).mean(axis=0).ravel() for k in TOPS}
            parts.append(pd.DataFrame({"queries": len(own)} | tops, index))
    return pd.concat(parts).reset_index()


def summary(by_draw: pd.DataFrame) -> pd.DataFrame:
    """Figure 3's data: per limit the mean over species, in percent, and the standard deviations.

    Columns limit, species (their number), queries; for each top-k its mean, `_deviation` (over
    species, each the mean of its draws) and `_draws` (of that mean from draw to draw).
    """
    tops = [f"top_{k}" for k in TOPS]
    species = by_draw.groupby(["limit", "species"])[["queries", *tops]].mean()
    draws = by_draw.groupby(["limit", "draw"])[tops].mean().groupby("limit").std()
    over = species.groupby("limit")
    table = over["queries"].agg(species="size", queries="sum").astype(int)
    for top in tops:
        table[top], table[f"{top}_deviation"] = over[top].mean(), over[top].std()
        table[f"{top}_draws"] = draws[top]
    return table.reset_index()


def cost(ranks: np.ndarray, annotations: pd.DataFrame, limits: Sequence[int]) -> pd.DataFrame:
    """What each limit costs against the largest one, in points, as a mean over species.

    Columns limit; for each top-k `cost_k` with its 95 % interval `_low`, `_high` (paired over
    queries); `fewer`: percent of the queries with more true matches than the limit lets in.
    """
    others = annotations.groupby(["species", "individual"])["individual"].transform("size") - 1
    counted, last = annotations[others > 0], len(limits) - 1
    table = pd.DataFrame({"limit": limits})
    for k in TOPS:
        hits = pd.DataFrame((ranks[others > 0] <= k).mean(axis=1), counted.index)
        means = [by_species(hits[last], counted, hits[place]).iloc[-1] for place in hits]
        costs = 100 * pd.DataFrame(means)[["value", "low", "high"]].to_numpy(float)
        costs[last] = 0  # against itself
        table[[f"cost_{k}{end}" for end in ENDS]] = costs
    more = [100 * (others[others > 0] > limit) for limit in limits]
    return table.assign(fewer=[own.groupby(counted["species"]).mean().mean() for own in more])


def in_words(cost: pd.DataFrame) -> str:
    """What one, two and three annotations of each individual cost in top-1, from `cost`."""
    one, *more = with_interval(cost[:-1][:3], "cost_1", unit=" points lower")
    one = one.replace("(", "(95 % interval ")
    words = f"With one annotation of each individual top-1 is {one} than with all (at most "
    words += f"{cost['limit'].iloc[-1]})."
    return words + (f" With two it is {', with three '.join(more)}." if more else "")


@styled()
def accuracy_figure(
    summary: pd.DataFrame, by_species: pd.DataFrame, cost: pd.DataFrame, title: str
) -> Figure:
    """Figure 3: a panel each for top-1 and top-5 against the annotations in the database.

    `summary`: mean over species, thick; `cost`: what the first limit costs, above each panel;
    `by_species`: species, limit, top_1, top_5, a thin line each, the best and the worst named.
    """
    drawn = Figure(title, 3.2, PAGE)
    limits, (species, queries) = summary["limit"], summary[["species", "queries"]].iloc[-1]
    for axes, k in zip(drawn.subplots(1, len(TOPS), sharey=True), TOPS, strict=True):
        each = by_species.pivot(index="limit", columns="species", values=f"top_{k}")
        for number, name in enumerate(each):
            axes.plot(each[name], label="_" * (number > 0) + "one species", **THIN)
        label = f"mean of {species} species, {queries:,} queries"
        axes.plot(limits, summary[f"top_{k}"], "o-", color=BLUE, label=label)
        axes.set(ylim=(0, 102), xlabel="most annotations per individual in the database")
        (lost,) = with_interval(cost[:1], f"cost_{k}", unit=" points lower")
        axes.set_title(f"top-{k}: with one {lost}", loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.label_outer()
        last = each.iloc[-1].sort_values()
        named = {last.index[0]: ("top", -2)} | {last.index[-1]: ("bottom", 2)}
        for name, (side, offset) in named.items():
            place = {"textcoords": "offset points", "ha": "right", "va": side, "color": GREY}
            axes.annotate(spelt(name), (limits.iloc[-1], last[name]), (0, offset), **place)
    drawn.axes[0].set_ylabel("accuracy (%)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return drawn

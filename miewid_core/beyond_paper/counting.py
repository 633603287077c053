"""How many individuals would be counted: matches above a threshold joined, set beside the truth."""

import zlib

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from sklearn.metrics.cluster import contingency_matrix
from sklearn.preprocessing import normalize
from tqdm import tqdm

from miewid_core.figures import BLUE, ORANGE, PAGE, VERMILION, Figure, styled

BLOCK = 256  # annotations at once: 256 x 20,000 similarities are 41 MB
THRESHOLDS = np.linspace(0, 1, 51).round(2)  # of the cosine similarity
HALVES = 400  # of the individuals, drawn for an interval
NUMBERS = ["annotations", "individuals", "count", "splits", "merges"]
MEASURES = ["ratio", "split_rate", "merge_rate", "ari"]
LIMITS = [0, 0, 0, -0.5], [np.inf, np.inf, np.inf, 1]  # least and greatest that each can be
COLUMNS = [
    *["species", "threshold", *NUMBERS],
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
]


def spanning_tree(embeddings: np.ndarray, block: int = BLOCK) -> csr_array:
    """Maximum spanning tree of the cosine similarities of `embeddings` (N, D), N at least 1.

    (N, N) with N - 1 entries 3 - similarity, in [2, 4]. At any threshold its connected components
    are those of all N * (N - 1) / 2 similarities, of which `block` rows are held at a time. Raises
    ValueError for embeddings that are not finite (scikit-learn's).
    """
    unit = normalize(np.asarray(embeddings, dtype=np.float64))
    tree = csr_array((len(unit), len(unit)))
    for start in range(0, len(unit), block):
        # each pair once; 3 - similarity, as a sparse graph takes an entry of 0 for no edge
        distance = np.triu(3 - unit[start : start + block] @ unit[start:].T, k=1)
        row, column = np.nonzero(distance)
        edges = csr_array((distance[row, column], (row + start, column + start)), tree.shape)
        tree = csr_array(minimum_spanning_tree(tree + edges))
    return tree


def join(tree: csr_array, threshold: float) -> np.ndarray:
    """Counted individual (N,) of each annotation: those linked by matches of at least `threshold`.

    Links chain (single linkage): one false match makes two animals one.
    """
    kept = tree.copy()
    kept.data[kept.data > 3 - threshold] = 0
    kept.eliminate_zeros()
    return connected_components(kept, directed=False)[1]


def cells(individuals: np.ndarray, counted: np.ndarray) -> csr_array:
    """Annotations (I, C) of each true individual, in sorted order, in each counted one."""
    codes = pd.factorize(np.asarray(individuals, dtype=object), sort=True)[0]
    return csr_array(contingency_matrix(codes, counted, sparse=True))


def shares(table: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Pieces (I,) that each true individual is in, and its share (I,) of the count.

    `table`: of `cells`. A counted individual that holds m true ones is 1 / m for each. The shares
    sum to the count, pieces - 1 to the false splits and pieces - share to the false merges, so that
    count = individuals + splits - merges, always.
    """
    present = table.astype(bool).astype(float)
    return present.sum(axis=1), present @ (1 / present.sum(axis=0))


def adjusted_rand(table: csr_array, weights: np.ndarray) -> np.ndarray:
    """Adjusted Rand index (H,) of `table` (of `cells`) without the individuals of weight 0.

    `weights` (H, I) of 0 and 1. As scikit-learn's adjusted_rand_score, many subsets at once:
    1 is perfect, 0 what chance gives.
    """
    sizes = table.sum(axis=1)
    both, own = weights @ _pairs(table).sum(axis=1), weights @ _pairs(sizes)
    joined, every = _pairs(weights @ table).sum(axis=1), _pairs(weights @ sizes)
    chance = own * joined / np.maximum(every, 1)
    most = (own + joined) / 2
    same = most == chance  # only where both groupings are alike
    return np.where(same, 1.0, (both - chance) / np.where(same, 1, most - chance))


def _pairs(counts: np.ndarray | csr_array) -> np.ndarray | csr_array:
    """Pairs among so many annotations, element by element."""
    return (counts * counts - counts) / 2


def _halves(n: int, seed: list[int]) -> np.ndarray:
    """(HALVES, n) of 0 and 1: random halves of n individuals, whose means spread as those of n do.

    Half-samples without replacement, as a bootstrap's second copy of an animal would be a merge.
    """
    order = np.random.default_rng(seed).random((HALVES, n)).argsort(axis=1)
    return (order < n // 2).astype(float)


def sweep(
    embeddings: np.ndarray, photos: pd.DataFrame, thresholds: np.ndarray = THRESHOLDS, seed: int = 0
) -> pd.DataFrame:
    """The count of each species at each threshold, then that of "mean": rows of COLUMNS.

    `embeddings` (N, D) of `photos` (catalog rows). `splits` and `merges` are the false ones, their
    rates are per true individual, `ratio` is count / individuals, `ari` the adjusted Rand index.
    95 % intervals come from half-samples of the individuals, what is joined held fixed: they are
    too narrow where most animals are one chain. "mean" has the sums of the numbers, and the means
    over species of the measures.
    """
    draws: dict[float, list[np.ndarray]] = {threshold: [] for threshold in thresholds}
    rows = []
    for species, place in tqdm(photos.groupby("species").indices.items(), "counting"):
        people = photos["individual"].to_numpy(object)[place]
        tree = spanning_tree(embeddings[place])
        halves = _halves(len(set(people)), [seed, zlib.crc32(str(species).encode())])
        for threshold in thresholds:
            numbers, drawn = _count(cells(people, join(tree, threshold)), halves)
            draws[threshold].append(drawn)
            rows.append([species, threshold, len(people), *numbers, *_intervals(drawn)])
    table = pd.DataFrame(rows, columns=COLUMNS)
    sums = table.groupby("threshold")[NUMBERS].sum()
    mean = [
        ["mean", threshold, *sums.loc[threshold], *_intervals(np.mean(drawn, axis=0))]
        for threshold, drawn in draws.items()
    ]
    return pd.concat([table, pd.DataFrame(mean, columns=COLUMNS)], ignore_index=True)


def _count(table: csr_array, halves: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Individuals, count, splits, merges; MEASURES (4, 1 + HALVES), those of all animals first."""
    weights = np.vstack([np.ones(halves.shape[1]), halves])
    pieces, share = shares(table)
    n, count = table.shape
    splits = round(pieces.sum()) - n
    each = np.column_stack([share, pieces - 1, pieces - share])  # (I, 3)
    means = (weights @ each).T / np.maximum(weights.sum(axis=1), 1)
    return [n, count, splits, n + splits - count], np.vstack([means, adjusted_rand(table, weights)])


def _intervals(draws: np.ndarray) -> list[float]:
    """Each measure of all animals (the first draw), then its interval from the halves.

    Their spread is put around it: the ARI of fewer animals is another one on average.
    """
    whole, halves = draws[:, 0], draws[:, 1:]
    spread = np.quantile(halves, [0.025, 0.975], axis=1) - halves.mean(axis=1)
    low, high = (whole + spread).clip(*LIMITS)
    return np.column_stack([whole, low, high]).ravel().tolist()


def chosen_elsewhere(table: pd.DataFrame) -> pd.DataFrame:
    """For each species of a `sweep`, its rows at the thresholds that the other species choose.

    Column `goal` says for what: "identities", the best mean ARI of the others; "count", their mean
    ratio nearest to 1 as a factor. So nothing is chosen on the animals that are counted with it.
    A single species has no others: no rows.
    """
    species = table[table["species"] != "mean"]
    grid = species.pivot(index="threshold", columns="species")
    ari, ratio = grid["ari"], grid["ratio"]
    if ari.shape[1] < 2:
        return species.head(0).assign(goal="")
    parts = []
    for name in ari:
        others = ari.columns != name
        best = {
            "identities": ari.loc[:, others].mean(axis=1).idxmax(),
            "count": np.log(ratio.loc[:, others].mean(axis=1)).abs().idxmin(),
        }
        own = species[species["species"] == name].set_index("threshold", drop=False)
        parts += [own.loc[[threshold]].assign(goal=goal) for goal, threshold in best.items()]
    return pd.concat(parts, ignore_index=True)


def in_words(table: pd.DataFrame, chosen: pd.DataFrame) -> str:
    """What a `sweep` and its `chosen_elsewhere` show, in sentences that their numbers decide."""
    mean = table[table["species"] == "mean"]
    fair = mean.loc[np.log(mean["ratio"]).abs().idxmin()]
    told = (
        f"At a cosine of {fair['threshold']:.2f}, which only hindsight can choose, the counts are "
        f"nearest to the truth on average (ratio {fair['ratio']:.2f}, 95 % interval "
        f"{fair['ratio_low']:.2f} to {fair['ratio_high']:.2f}), with "
        f"{100 * fair['split_rate']:.0f} false splits and {100 * fair['merge_rate']:.0f} false "
        f"merges per 100 individuals; ARI {fair['ari']:.2f}."
    )
    if chosen.empty:
        told += " With one species alone, no other can choose its threshold."
    for goal, rows in chosen.groupby("goal"):
        off = (rows["ratio_low"] > 1) | (rows["ratio_high"] < 1)
        told += (
            f" With the threshold that the other species choose for {goal}, the count is "
            f"{rows['ratio'].min():.2f} to {rows['ratio'].max():.2f} times the true number "
            f"(median {rows['ratio'].median():.2f}, {len(rows)} species), with an interval that "
            f"excludes 1 for {off.sum()} of them; mean ARI {rows['ari'].mean():.2f}."
        )
    return told


GOALS = {  # of `ecology.chosen_elsewhere`: marker, colour, fill, shift in rows
    "identities": ("o", BLUE, BLUE, -0.17),
    "count": ("D", ORANGE, "white", 0.17),
}


@styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Ratio, false splits and merges, and ARI against the threshold (`table`: of `ecology.sweep`).

    Bands are the 95 % intervals of the means over species.
    """
    drawn = Figure(title, 2.9, PAGE)
    ratio, errors, ari = drawn.subplots(1, 3)
    own = dict(list(table.groupby("species")))
    mean = own.pop("mean")
    for axes, name in ((ratio, "ratio"), (ari, "ari")):
        for number, rows in enumerate(own.values()):
            label = None if number else f"each of {len(own)} species"
            axes.plot(rows["threshold"], rows[name], color="#AAAAAA", linewidth=0.5, label=label)
        _mean(axes, mean, name, BLUE, "-", "mean")
    _mean(errors, mean, "split_rate", VERMILION, "-", "false splits, mean", 100)
    _mean(errors, mean, "merge_rate", "black", "--", "false merges, mean", 100)
    ratio.axhline(1, color="black", linewidth=0.6)
    ratio.set(yscale="log", ylabel="counted / true individuals")
    _factors(ratio.yaxis)
    errors.set_ylabel("per 100 true individuals")
    ari.set_ylabel("adjusted Rand index")
    changing = mean["threshold"][mean["count"].between(len(own) + 1, mean["annotations"] - 1)]
    low, high = changing.agg(["min", "max"]) if len(changing) else (-1, 1)
    for axes in (ratio, errors, ari):
        axes.set(xlim=(low - 0.02, high + 0.02), xlabel="threshold (cosine)")
    n = f"{mean['individuals'].iloc[0]:,} individuals, {mean['annotations'].iloc[0]:,} annotations"
    lines = [line for axes in (ratio, errors) for line in axes.get_legend_handles_labels()[0]]
    look = {"loc": "outside lower left", "alignment": "left"}
    drawn.legend(handles=lines, ncols=4, title=f"with 95 % intervals; n = {n}", **look)
    return drawn


def _mean(
    axes: Axes, mean: pd.DataFrame, name: str, colour: str, line: str, label: str, times: float = 1
) -> None:
    """A line with its interval as a band."""
    low, high = times * mean[f"{name}_low"], times * mean[f"{name}_high"]
    axes.fill_between(mean["threshold"], low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(mean["threshold"], times * mean[name], line, color=colour, label=label)


def _factors(axis: Axis) -> None:
    """Ticks of a log axis at 1, 2 and 5 times powers of ten, written out."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@styled()
def counts(chosen: pd.DataFrame, title: str) -> Figure:
    """Counted per true individuals of each species, with interval (of `ecology.chosen_elsewhere`).

    Species by decreasing number of individuals.
    """
    species = chosen.drop_duplicates("species").sort_values("individuals", ascending=False)
    drawn = Figure(title, 1.5 + 0.19 * len(species))
    axes = drawn.subplots()
    if chosen.empty:
        axes.set_axis_off()
        axes.text(0, 0.5, "this needs two species: each has the threshold of the others")
        return drawn
    places = np.arange(len(species))
    axes.axvline(1, color="black", linewidth=0.6)
    for goal, (marker, colour, fill, shift) in GOALS.items():
        rows = chosen[chosen["goal"] == goal].set_index("species").loc[species["species"]]
        axes.hlines(places + shift, rows["ratio_low"], rows["ratio_high"], colour, linewidth=1)
        look = {"color": colour, "markerfacecolor": fill, "ls": "", "label": f"best {goal}"}
        axes.plot(rows["ratio"], places + shift, marker, **look)
    names = species["species"].str.replace("_", " ") + " (" + species["individuals"].map(str) + ")"
    axes.set_yticks(places, names)
    axes.set_ylim(len(species) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set(xscale="log", xlabel="counted / true individuals (n)")
    _factors(axes.xaxis)
    words = "with 95 % interval, threshold of other species for"
    drawn.legend(title=words, loc="outside lower left", ncols=2, alignment="left")
    return drawn

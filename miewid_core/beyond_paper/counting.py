"""How many individuals would be counted: matches above a threshold joined, set beside the truth."""

import math
import zlib

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet, fcluster, linkage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestNeighbors

from miewid_core import progress
from miewid_core.figures import BLUE, ORANGE, PAGE, Figure, label_rows, plain_numbers, spelt, styled
from miewid_core.paper.intervals import ENDS, sentence

LINKAGES = {  # joined by the best match, or by the mean of all; how it is drawn
    "single": (BLUE, "-", "o"),
    "average": (ORANGE, "--", "D"),
}
THRESHOLDS = np.linspace(0, 1, 51).round(2)  # of the cosine similarity
HALVES = 400  # of the individuals, drawn for an interval
NUMBERS = ["annotations", "individuals", "count", "splits", "merges"]
PAIRS = ["pair_precision", "pair_recall"]
MEASURES = ["ratio", "split_rate", "merge_rate"]
REVIEWED = ["by", "reviewed", "individuals", "count", "error", "ari", "ami"]
POINTS = 41  # numbers of reviews
NEAREST = 20  # candidates of an annotation that a reviewer goes through
COLUMNS = [
    *["linkage", "species", "threshold", *NUMBERS, *PAIRS],
    *(f"{name}{end}" for name in MEASURES for end in ENDS),
]


def joined(embeddings: np.ndarray, thresholds: np.ndarray, method: str) -> list[np.ndarray]:
    """Counted individual (N,) of each of `embeddings` (N, D), at each of the cosine `thresholds`.

    By "single" linkage any match of at least the threshold joins, so that one false match makes two
    animals one; by "average" the mean of all matches must reach it. Takes 16 N^2 bytes. Raises
    ValueError for embeddings that are not finite (scikit-learn's).
    """
    apart = squareform(cosine_distances(np.asarray(embeddings, float)), checks=False)
    if not len(apart):
        return [np.zeros(1, dtype=int)] * len(thresholds)
    tree = linkage(apart, method)
    return [fcluster(tree, 1 - threshold, "distance") for threshold in thresholds]


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


def pair_measures(table: csr_array) -> list[float]:
    """Pairwise precision and recall (`table`: of `cells`); 1 where there is no such pair.

    The share of the joined pairs of annotations that are of one animal, and the share of an
    animal's pairs that are joined.
    """
    same, linked, true = (
        (counts * (counts - 1)).sum()
        for counts in (table.data, table.sum(axis=0), table.sum(axis=1))
    )
    return [same / linked if linked else 1.0, same / true if true else 1.0]


def _halves(n: int, seed: list[int]) -> np.ndarray:
    """(HALVES, n) of 0 and 1: random halves of n individuals, whose means spread as those of n do.

    Half-samples without replacement, as a bootstrap's second copy of an animal would be a merge.
    """
    order = np.random.default_rng(seed).random((HALVES, n)).argsort(axis=1)
    return (order < n // 2).astype(float)


def sweep(
    embeddings: np.ndarray,
    annotations: pd.DataFrame,
    thresholds: np.ndarray = THRESHOLDS,
    seed: int = 0,
) -> pd.DataFrame:
    """The count of each species at each threshold by each linkage, then that of "mean": COLUMNS.

    `embeddings` (N, D) of `annotations` (catalog rows). `splits` and `merges` are the false ones,
    their rates are per true individual, `ratio` is count / individuals; PAIRS of `pair_measures`.
    95 % intervals come from half-samples of the individuals, what is joined held fixed: they are
    too narrow where most animals are one chain. "mean" has the sums of the numbers, and the means
    over species of the rest.
    """
    draws: dict[tuple, list[np.ndarray]] = {}
    rows = []
    for species, place in progress(annotations.groupby("species").indices.items(), "counting"):
        people = annotations["individual"].to_numpy(object)[place]
        halves = _halves(len(set(people)), [seed, zlib.crc32(str(species).encode())])
        for method in LINKAGES:
            counts = joined(embeddings[place], thresholds, method)
            for threshold, counted in zip(thresholds, counts, strict=True):
                numbers, drawn = _count(cells(people, counted), halves)
                draws.setdefault((method, threshold), []).append(drawn)
                rows.append([method, species, threshold, len(people), *numbers, *_intervals(drawn)])
    table = pd.DataFrame(rows, columns=COLUMNS)
    grouped = table.groupby(["linkage", "threshold"])
    sums, means = grouped[NUMBERS].sum(), grouped[PAIRS].mean()
    mean = []
    for key, drawn in draws.items():
        measures = _intervals(np.mean(drawn, axis=0))
        mean.append([key[0], "mean", key[1], *sums.loc[key], *means.loc[key], *measures])
    return pd.concat([table, pd.DataFrame(mean, columns=COLUMNS)], ignore_index=True)


def _count(table: csr_array, halves: np.ndarray) -> tuple[list[float], np.ndarray]:
    """NUMBERS from the individuals on, PAIRS; MEASURES (3, 1 + HALVES), of all animals first."""
    weights = np.vstack([np.ones(halves.shape[1]), halves])
    pieces, share = shares(table)
    n, count = table.shape
    splits = round(pieces.sum()) - n
    each = np.column_stack([share, pieces - 1, pieces - share])  # (I, 3)
    # row by row, as the last bits of a mean hang on it
    means = np.ascontiguousarray((weights @ each).T) / np.maximum(weights.sum(axis=1), 1)
    return [n, count, splits, n + splits - count, *pair_measures(table)], means


def _intervals(draws: np.ndarray) -> list[float]:
    """Each measure of all animals (the first draw), the halves' spread around it its interval."""
    value, halves = draws[:, 0], draws[:, 1:]
    spread = np.quantile(halves, [0.025, 0.975], axis=1) - halves.mean(axis=1)
    low, high = (value + spread).clip(0)
    return np.column_stack([value, low, high]).ravel().tolist()


def chosen_elsewhere(table: pd.DataFrame) -> pd.DataFrame:
    """For each species and linkage of a `sweep`, its row at the threshold that others choose.

    There the others' mean ratio is nearest to 1, as a factor. So nothing is chosen on the animals
    that are counted with it. A single species has no others: no rows.
    """
    species = table[table["species"] != "mean"]
    parts = [species.head(0)]
    for _, rows in species.groupby("linkage", sort=False):
        ratios = rows.pivot(index="threshold", columns="species", values="ratio")
        for name, own in rows.groupby("species") if len(ratios.columns) > 1 else ():
            others = ratios.drop(columns=name).mean(axis=1)
            parts.append(own[own["threshold"] == np.log(others).abs().idxmin()])
    return pd.concat(parts, ignore_index=True)


def headline(chosen: pd.DataFrame) -> str:
    """How far off counts by average linkage are (`chosen_elsewhere`), for a title."""
    if chosen.empty:
        return "A count by a threshold of others needs two species"
    ratio = chosen.loc[chosen["linkage"] == "average", "ratio"]
    return f"Average linkage counts {ratio.min():.2f} to {ratio.max():.2f} times the true number"


def details(chosen: pd.DataFrame) -> str:
    """How far counts by the threshold that is right for the other species are off."""
    if chosen.empty:
        return "With one species, no other can choose its threshold."
    told = []
    for method in reversed(LINKAGES):
        rows = chosen[chosen["linkage"] == method].sort_values("ratio")
        ends = (
            f"{row['ratio']:.2f} ({spelt(row['species'])})"
            for _, row in rows.iloc[[0, -1]].iterrows()
        )
        told.append(f"{method} linkage counts {' to '.join(ends)} times the true number")
    average = chosen[chosen["linkage"] == "average"]
    varies = ~np.isclose(average["ratio_low"], average["ratio_high"])  # else there is no interval
    few, many = average["ratio_high"][varies] < 1, average["ratio_low"][varies] > 1
    precision, recall = (100 * average[name].mean() for name in PAIRS)
    return (
        f"By a threshold that is right for the other species, {told[0]}: too few for {few.sum()} "
        f"and too many for {many.sum()} of {len(average)} species (by the 95 % intervals). Of the "
        f"pairs that it joins {precision:.0f} % are of one animal, and of an animal's pairs it "
        f"joins {recall:.0f} % (means over species). {sentence(told[1])}"
    )


def reviews(
    embeddings: np.ndarray, annotations: pd.DataFrame, chosen: pd.DataFrame
) -> pd.DataFrame:
    """Count and identities by a threshold, then by so many reviewed pairs alone: REVIEWED.

    First the average linkage of `chosen` (of `chosen_elsewhere`), if any. Then every annotation is
    an individual of its own until a reviewer, who knows the truth, links it (see `_asked`).
    `reviewed` pairs, of `pairs` within species, are those of all species together. Means over
    species: `error`, of abs(count / individuals - 1); `ari` and `ami`, scikit-learn's.
    """
    places = annotations.groupby("species").indices
    people = {name: annotations["individual"].to_numpy(object)[own] for name, own in places.items()}
    parts = [
        _asked(embeddings[own], people[name]).assign(species=name) for name, own in places.items()
    ]
    used = chosen[chosen["linkage"] == "average"].set_index("species")["threshold"]
    joins = {
        name: joined(embeddings[places[name]], [at], "average")[0] for name, at in used.items()
    }
    rows = [["threshold", 0, *_agreement(people, joins)]] if joins else []
    pairs = pd.concat(parts).sort_values("cosine", ascending=False, kind="stable")
    numbers = np.unique(np.linspace(0, len(pairs), POINTS).round().astype(int))
    for number in numbers.tolist():
        linked, groups = pairs[:number][pairs["same"][:number]], {}
        for name, individuals in people.items():
            own, size = linked[linked["species"] == name], len(individuals)
            graph = csr_array((np.ones(len(own)), (own["one"], own["other"])), (size, size))
            groups[name] = connected_components(graph)[1]
        rows.append(["reviews", number, *_agreement(people, groups)])
    possible = sum(math.comb(len(individuals), 2) for individuals in people.values())
    return pd.DataFrame(rows, columns=REVIEWED).assign(pairs=possible)


def _agreement(people: dict[str, np.ndarray], counted: dict[str, np.ndarray]) -> list[float]:
    """REVIEWED from individuals on: true and counted individuals (N,), by species."""
    indices = adjusted_rand_score, adjusted_mutual_info_score
    each = [
        [len({*own}), len({*counted[name]}), *(index(own, counted[name]) for index in indices)]
        for name, own in people.items()
    ]
    true, count, ari, ami = np.array(each).T
    return [int(true.sum()), int(count.sum()), abs(count / true - 1).mean(), ari.mean(), ami.mean()]


def _asked(embeddings: np.ndarray, people: np.ndarray) -> pd.DataFrame:
    """The pairs that are reviewed, in order: one, other, cosine, same (individual).

    Each annotation's nearest ones, the most similar pair first; a pair is left out where earlier
    reviews tell: its ends must be linked by a chain of others, or can't be, as their groups can't.
    """
    if len(people) < 2:
        return pd.DataFrame(columns=["one", "other", "cosine", "same"])
    index = NearestNeighbors(metric="cosine").fit(embeddings)
    distances, others = index.kneighbors(n_neighbors=min(NEAREST, len(people) - 1))
    ends = {"one": np.arange(len(people)).repeat(others.shape[1]), "other": others.ravel()}
    pairs = pd.DataFrame(ends | {"cosine": 1 - distances.ravel()})
    groups, rows = DisjointSet(range(len(people))), []
    apart: dict[int, set[int]] = {place: set() for place in range(len(people))}
    for row in pairs.sort_values("cosine", ascending=False, kind="stable").itertuples(index=False):
        one, other = groups[row.one], groups[row.other]
        if one == other or other in apart[one]:
            continue
        rows.append([*row, people[one] == people[other]])
        if rows[-1][-1]:
            groups.merge(one, other)
            kept, gone = groups[one], ({one, other} - {groups[one]}).pop()
            apart[kept] |= apart.pop(gone)
            for far in apart[kept]:
                apart[far] = apart[far] - {gone} | {kept}
        else:
            apart[one].add(other)
            apart[other].add(one)
    return pd.DataFrame(rows, columns=[*pairs, "same"])


def _ends(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series, pd.Series, str]:
    """Of `reviews`: the row by threshold, if any; without a review; after all; pairs a photo."""
    by, rows = (table[table["by"] == name] for name in ("threshold", "reviews"))
    begun, last = rows.iloc[0], rows.iloc[-1]  # to begin with, a photo is an individual
    return by, begun, last, f"{last['reviewed'] / begun['count']:.2g}"


def in_words(table: pd.DataFrame) -> str:
    """How far off a count is by a threshold, and after all `reviews`."""
    by, _, last, pairs = _ends(table)
    threshold = "".join(f"by {100 * error:.0f} % with a threshold, and " for error in by["error"])
    return (
        f"On average a species' count is off {threshold}by {100 * last['error']:.0f} % after "
        f"{pairs} error-free reviews a photo."
    )


def reviews_in_words(table: pd.DataFrame) -> str:
    """What `reviews` do to the count and to identities."""
    by, begun, last, pairs = _ends(table)
    threshold = "".join(f"; by the threshold it is {ari:.2f}" for ari in by["ari"])
    return (
        f"Without a review each of the {begun['count']:,} photos counts as an individual, "
        f"{begun['count'] / begun['individuals']:.1f} times the true number. After "
        f"{last['reviewed']:,} reviewed pairs ({pairs} a photo) of {last['pairs']:,} possible "
        f"ones, all that are asked, {last['count']:,} individuals are counted, of "
        f"{last['individuals']:,} true. The "
        f"ARI is then {last['ari']:.2f}{threshold}."
    )


@styled()
def reviews_figure(table: pd.DataFrame, title: str) -> Figure:
    """Counts and identities by reviewed pairs, and by the threshold (`table`: of `reviews`)."""
    drawn = Figure(title, 2.7, PAGE)
    panels, (by, begun, *_) = drawn.subplots(1, 2), _ends(table)
    rows, photos = table[table["by"] == "reviews"], begun["count"]
    for axes, name, times in zip(panels, ("error", "ari"), (100, 1), strict=True):
        axes.plot(rows["reviewed"] / photos, times * rows[name], color=BLUE, label="reviewed pairs")
        for value in times * by[name]:
            axes.axhline(value, color=ORANGE, linestyle="--", label="threshold, no review")
        axes.set_xlabel(f"reviewed pairs a photo (of {begun['pairs'] / photos:.0f} possible)")
    panels[0].set(ylabel="count off by (%)", ylim=(0, None))
    panels[1].set(ylabel="ARI", ylim=(0, 1.02))
    look = {"loc": "outside lower left", "alignment": "left", "ncols": 2}
    drawn.legend(*panels[0].get_legend_handles_labels(), title="means over species", **look)
    return drawn


PANELS = {  # column of a `sweep`: label of the axis, factor
    "ratio": ("counted / true individuals\n(log axis)", 1),
    "split_rate": ("false splits\nper 100 individuals", 100),
    "merge_rate": ("false merges\nper 100 individuals", 100),
}


@styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Means over species against the threshold, with 95 % bands (`table`: of `sweep`)."""
    drawn = Figure(title, 2.7, PAGE)
    axes = drawn.subplots(1, 3)
    mean, species = table[table["species"] == "mean"], table["species"].nunique() - 1
    for panel, (name, (label, times)) in zip(axes, PANELS.items(), strict=True):
        for method, rows in mean.groupby("linkage", sort=False):
            colour, line, _ = LINKAGES[method]
            value, low, high = (times * rows[name + end] for end in ENDS)
            panel.fill_between(rows["threshold"], low, high, color=colour, alpha=0.25, linewidth=0)
            panel.plot(rows["threshold"], value, line, color=colour, label=method)
        panel.set(ylabel=label, xlabel="threshold (cosine)")
    axes[0].axhline(1, color="black", linewidth=0.6)
    axes[0].set_yscale("log")
    plain_numbers(axes[0].yaxis)
    first, least = mean.iloc[0], mean.loc[mean["count"] == species, "ratio"]
    changing = mean[mean["count"].between(species + 1, first["annotations"] - 1)]
    if len(changing):
        low, high = changing["threshold"].agg(["min", "max"])
        for panel in axes:
            panel.set_xlim(low - 0.02, high + 0.02)
    for floor in least[:1]:
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes[0].annotate("all one group", (1, floor), (0, 2), ha="right", **place)
        axes[0].axhline(floor, color="black", linewidth=0.6, linestyle=":")
    n = f"{first['individuals']:,} individuals, {first['annotations']:,} annotations"
    words = f"linkage, mean over species with 95 % interval; n = {n}"
    look = {"loc": "outside lower left", "alignment": "left", "ncols": 2, "title": words}
    drawn.legend(*axes[0].get_legend_handles_labels(), **look)
    return drawn


@styled()
def counts(chosen: pd.DataFrame, title: str) -> Figure:
    """Counted per true individuals of each species by each linkage, with interval.

    `chosen`: of `chosen_elsewhere`. Species by decreasing number of individuals.
    """
    rows = chosen.sort_values("individuals", ascending=False)
    names = rows["species"] + " (" + rows["individuals"].astype(str) + ")"
    drawn = Figure(title, 1.5 + 0.19 * names.nunique())
    axes = drawn.subplots()
    if chosen.empty:
        axes.set_axis_off()
        axes.text(0, 0.5, "this needs two species: each has the threshold of the others")
        return drawn
    places, labels = pd.factorize(names)
    axes.axvline(1, color="black", linewidth=0.6)
    for shift, (method, (colour, _, marker)) in zip((-0.17, 0.17), LINKAGES.items(), strict=True):
        of_method = rows["linkage"] == method
        own, place = rows[of_method], places[of_method] + shift
        axes.hlines(place, own["ratio_low"], own["ratio_high"], colour, linewidth=1)
        axes.plot(own["ratio"], place, marker, color=colour, label=f"{method} linkage")
    label_rows(axes, np.arange(len(labels)), labels)
    axes.set(xscale="log", xlabel="counted / true individuals (log axis)")
    plain_numbers(axes.xaxis)
    words = "each species (true number) by the threshold of\nthe others; lines: 95 % intervals"
    drawn.legend(title=words, loc="outside lower left", ncols=2, alignment="left")
    return drawn

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
from miewid_core.paper.intervals import ENDS, Estimate, sentence

LINKAGES = {  # joined by the best match, or by the mean of all; how it is drawn
    "single": (BLUE, "-", "o"),
    "average": (ORANGE, "--", "D"),
}
THRESHOLDS = np.linspace(0, 1, 51).round(2)  # of the cosine similarity
HALVES = 400  # of the individuals, drawn for an interval
NUMBERS = ["annotations", "individuals", "count", "splits", "merges"]
MEASURES = ["ratio", "split_rate", "merge_rate", "pair_precision", "pair_recall", "ari"]
LIMITS = [0, 0, 0, 0, 0, -0.5], [np.inf, np.inf, np.inf, 1, 1, 1]  # least and greatest of each
REVIEWED = ["by", "reviewed", "individuals", "count", "error", "ari", "ami"]
POINTS = 41  # numbers of reviews
NEAREST = 20  # candidates of an annotation that a reviewer goes through
COLUMNS = [
    *["linkage", "species", "threshold", *NUMBERS],
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


def pair_measures(table: csr_array, weights: np.ndarray) -> np.ndarray:
    """Pairwise precision, recall and adjusted Rand index (3, H), of so many subsets at once.

    `table`: of `cells`; `weights` (H, I) of 0 and 1 leave individuals out. Precision: the share of
    the joined pairs of annotations that are one animal's; recall: the share of an animal's pairs
    that are joined; 1 where there is none. The index is scikit-learn's adjusted_rand_score: 1 is
    perfect, 0 what chance gives.
    """
    sizes = table.sum(axis=1)
    both, own = weights @ _pairs(table).sum(axis=1), weights @ _pairs(sizes)
    linked, every = _pairs(weights @ table).sum(axis=1), _pairs(weights @ sizes)
    chance = own * linked / np.maximum(every, 1)
    most = (own + linked) / 2
    alike = most == chance  # only where both groupings are
    rand = np.where(alike, 1.0, (both - chance) / np.where(alike, 1, most - chance))
    shares = [np.where(of > 0, both / np.maximum(of, 1), 1.0) for of in (linked, own)]
    return np.vstack([*shares, rand])


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
    embeddings: np.ndarray,
    annotations: pd.DataFrame,
    thresholds: np.ndarray = THRESHOLDS,
    seed: int = 0,
) -> pd.DataFrame:
    """The count of each species at each threshold by each linkage, then that of "mean": COLUMNS.

    `embeddings` (N, D) of `annotations` (catalog rows). `splits` and `merges` are the false ones,
    their rates are per true individual, `ratio` is count / individuals; `pair_measures` for the
    rest. 95 % intervals come from half-samples of the individuals, what is joined held fixed: they
    are too narrow where most animals are one chain. "mean" has the sums of the numbers, and the
    means over species of the measures.
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
    sums = table.groupby(["linkage", "threshold"])[NUMBERS].sum()
    mean = [
        [method, "mean", at, *sums.loc[(method, at)], *_intervals(np.mean(drawn, axis=0))]
        for (method, at), drawn in draws.items()
    ]
    return pd.concat([table, pd.DataFrame(mean, columns=COLUMNS)], ignore_index=True)


def _count(table: csr_array, halves: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Individuals, count, splits, merges; MEASURES (6, 1 + HALVES), those of all animals first."""
    weights = np.vstack([np.ones(halves.shape[1]), halves])
    pieces, share = shares(table)
    n, count = table.shape
    splits = round(pieces.sum()) - n
    each = np.column_stack([share, pieces - 1, pieces - share])  # (I, 3)
    means = (weights @ each).T / np.maximum(weights.sum(axis=1), 1)
    return [n, count, splits, n + splits - count], np.vstack([means, pair_measures(table, weights)])


def _intervals(draws: np.ndarray) -> list[float]:
    """Each measure of all animals (the first draw), then its interval from the halves.

    Their spread is put around it: the ARI of fewer animals is another one on average.
    """
    value, halves = draws[:, 0], draws[:, 1:]
    spread = np.quantile(halves, [0.025, 0.975], axis=1) - halves.mean(axis=1)
    low, high = (value + spread).clip(*LIMITS)
    return np.column_stack([value, low, high]).ravel().tolist()


def chosen_elsewhere(table: pd.DataFrame) -> pd.DataFrame:
    """For each species and linkage of a `sweep`, its rows at the thresholds that others choose.

    Column `goal` says for what: "identities", the best mean ARI of the others; "count", their mean
    ratio nearest to 1 as a factor. So nothing is chosen on the animals that are counted with it.
    A single species has no others: no rows.
    """
    species = table[table["species"] != "mean"]
    parts = [species.head(0).assign(goal="")]
    for _, rows in species.groupby("linkage", sort=False):
        grid = rows.pivot(index="threshold", columns="species", values=["ari", "ratio"])
        for name, own in rows.groupby("species") if rows["species"].nunique() > 1 else ():
            others = grid.drop(columns=name, level="species").T.groupby(level=0).mean().T
            best = {
                "identities": others["ari"].idxmax(),
                "count": np.log(others["ratio"]).abs().idxmin(),
            }
            parts += [own[own["threshold"] == at].assign(goal=goal) for goal, at in best.items()]
    return pd.concat(parts, ignore_index=True)


def headline(chosen: pd.DataFrame) -> str:
    """How far off counts by average linkage are (`chosen_elsewhere`), for a title."""
    if chosen.empty:
        return "A count by a threshold of others needs two species"
    ratio = chosen.loc[(chosen["goal"] == "count") & (chosen["linkage"] == "average"), "ratio"]
    return f"Average linkage counts {ratio.min():.2f} to {ratio.max():.2f} times the true number"


def in_words(chosen: pd.DataFrame) -> str:
    """How far counts by the threshold that is right for other species are off, by each linkage."""
    if chosen.empty:
        return "With one species, no other can choose its threshold."
    own, told = chosen[chosen["goal"] == "count"], []
    for method in reversed(LINKAGES):
        table = own[own["linkage"] == method].sort_values("ratio")
        alike = np.isclose(table["ratio_low"], table["ratio_high"])  # nothing varies: no interval
        rows, sure = (part.to_dict("records") for part in (table, table[~alike]))
        ends = (
            f"{row['ratio']:.2f} times ({spelt(row['species'])})" for row in (rows[0], rows[-1])
        )
        off = [Estimate.of(row, "ratio").above(1).shown("many", "few", "") for row in sure]
        limits = [row["threshold"] for row in rows]
        told.append(
            f"{method} linkage counts {' to '.join(ends)} the true number of individuals: by the "
            f"interval too few for {off.count('few')} and too many for {off.count('many')} of "
            f"{len(rows)} species{_without_interval(table[alike])} (thresholds: cosines of "
            f"{min(limits):.2f} to {max(limits):.2f})"
        )
    told[0] = f"by the threshold that is right for the other species, {told[0]}"
    return " ".join(map(sentence, told))


def _without_interval(rows: pd.DataFrame) -> str:
    """Which species have no interval, and why: `rows` whose animals all count alike."""
    if rows.empty:
        return ""
    why = "all one group" if (rows["count"] == 1).all() else "whose individuals all count alike"
    return f"; no interval for {', '.join(map(spelt, rows['species']))}, {why}"


def briefly(chosen: pd.DataFrame, reviewed: pd.DataFrame) -> str:
    """How far off counts by average linkage are, and the `reviews` that give better ones."""
    if chosen.empty:
        return in_words(chosen)
    pairs = {name: _pairs_needed(reviewed, name) for name in ("ari", "error")}
    return (
        f"By a threshold that is right for the other species, {_lower(headline(chosen))}. "
        f"{pairs['ari'].capitalize()} pairs over all species, reviewed without error, give better "
        f"identities (ARI) than that, {pairs['error']} a nearer count."
    )


def _lower(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}"


def _pairs_needed(table: pd.DataFrame, name: str) -> str:
    """After how many reviewed pairs a measure of `reviews` is better than by the threshold."""
    by, rows = table.iloc[0], table[1:]
    ahead = rows[name] < by[name] if name == "error" else rows[name] > by[name]
    some = rows["reviewed"][ahead]
    return f"about {some.iloc[0]:,}" if len(some) else f"more than {table['reviewed'].iloc[-1]:,}"


def sizes_in_words(annotations: pd.DataFrame) -> str:
    """How many annotations an individual has, and how far too high a count can be."""
    sizes = annotations.groupby("individual").size()
    return (
        f"The {len(sizes):,} individuals have {sizes.min()} to {sizes.max()} test annotations, so "
        f"a count that joins nothing would be {len(annotations) / len(sizes):.1f} times the true "
        "number."
    )


def reviews(
    embeddings: np.ndarray, annotations: pd.DataFrame, chosen: pd.DataFrame
) -> pd.DataFrame:
    """Count and identities by a threshold, then by so many reviewed pairs alone: REVIEWED.

    First the average linkage of `chosen` (of `chosen_elsewhere`, for counts). Then every annotation
    is an individual of its own until a reviewer, who knows the truth, links it (see `_asked`).
    `reviewed` pairs, of `pairs` within species, are those of all species together. Means over
    species: `error`, of abs(count / individuals - 1); `ari` and `ami`, scikit-learn's.
    """
    used = chosen[(chosen["goal"] == "count") & (chosen["linkage"] == "average")]
    people, parts, joins = {}, [], {}
    for name, threshold in zip(used["species"], used["threshold"], strict=True):
        own = (annotations["species"] == name).to_numpy()
        people[name] = annotations["individual"].to_numpy(object)[own]
        parts.append(_asked(embeddings[own], people[name]).assign(species=name))
        (joins[name],) = joined(embeddings[own], [threshold], "average")
    if not parts:
        return pd.DataFrame(columns=REVIEWED)
    pairs = pd.concat(parts).sort_values("cosine", ascending=False, kind="stable")
    numbers = np.unique(np.linspace(0, len(pairs), POINTS).round().astype(int))
    rows = [["threshold", 0, *_agreement(people, joins)]]
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


def reviews_in_words(table: pd.DataFrame) -> str:
    """How many reviewed pairs a better count takes, from a table of `reviews`."""
    if table.empty:
        return "Reviews are compared with the threshold of other species, and there is one species."
    by, last = table.iloc[0], table.iloc[-1]
    ari, ami, nearer = (_pairs_needed(table, name) for name in ("ari", "ami", "error"))
    return (
        f"By the threshold, a count by average linkage is off by {100 * by['error']:.0f} % on "
        f"average over species (ARI {by['ari']:.2f}, AMI {by['ami']:.2f}). By reviewed pairs "
        f"alone, of all species together, identities are better by ARI after {ari} pairs, by AMI "
        f"after {ami}, and counts are nearer after {nearer}. After {last['reviewed']:,} of "
        f"{last['pairs']:,} possible pairs within species, {last['count']:,} individuals are "
        f"counted, of {last['individuals']:,} true; a species' count is off by "
        f"{100 * last['error']:.0f} % on average (ARI {last['ari']:.2f}, AMI {last['ami']:.2f})."
    )


@styled()
def reviews_figure(table: pd.DataFrame, title: str) -> Figure:
    """Identities and counts by reviewed pairs, and by the threshold (`table`: of `reviews`)."""
    drawn = Figure(title, 2.9, PAGE)
    left, right = drawn.subplots(1, 2)
    of = f" (of {table['pairs'].iloc[0]:,})" if len(table) else ""
    for name, (axes, colour, line, times) in {
        "ari": (left, BLUE, "-", 1),
        "ami": (left, ORANGE, "--", 1),
        "error": (right, BLUE, "-", 100),
    }.items():
        by = times * table.loc[table["by"] == "threshold", name]
        rows = table[table["by"] == "reviews"]
        label = name.upper() if axes is left else "count"
        look = {"color": colour, "linestyle": line}
        axes.plot(rows["reviewed"], times * rows[name], label=f"{label}, by reviews", **look)
        for value in by:
            axes.axhline(value, label=f"{label}, by threshold", linewidth=0.7, **look)
        axes.set_xlabel(f"reviewed pairs of all species{of}")
    left.set(ylabel="ARI, AMI (mean over species)", ylim=(0, 1.02))
    right.set(ylabel="count off by (%, mean)", ylim=(0, None))
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4)
    return drawn


PANELS = {  # column of a `sweep`: label of the axis, factor
    "ratio": ("counted / true individuals", 1),
    "ari": ("adjusted Rand index", 1),
    "split_rate": ("false splits\nper 100 individuals", 100),
    "merge_rate": ("false merges\nper 100 individuals", 100),
    "pair_precision": ("pairwise precision (%)", 100),
    "pair_recall": ("pairwise recall (%)", 100),
}


@styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Means over species against the threshold, with 95 % bands (`table`: of `sweep`)."""
    drawn = Figure(title, 4.4, PAGE)
    axes = drawn.subplots(2, 3, sharex=True).T.ravel()
    mean = table[table["species"] == "mean"]
    for panel, (name, (label, times)) in zip(axes, PANELS.items(), strict=True):
        for method, rows in mean.groupby("linkage", sort=False):
            colour, line, _ = LINKAGES[method]
            value, low, high = (times * rows[name + end] for end in ENDS)
            panel.fill_between(rows["threshold"], low, high, color=colour, alpha=0.25, linewidth=0)
            panel.plot(rows["threshold"], value, line, color=colour, label=method)
        panel.set(ylabel=label, xlabel="threshold (cosine)" if panel in axes[1::2] else "")
    axes[0].axhline(1, color="black", linewidth=0.6)
    axes[0].set_yscale("log")
    plain_numbers(axes[0].yaxis)
    first = mean.iloc[0]
    changing = mean[mean["count"].between(table["species"].nunique(), first["annotations"] - 1)]
    if len(changing):
        low, high = changing["threshold"].agg(["min", "max"])
        axes[0].set_xlim(low - 0.02, high + 0.02)
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
    rows = chosen[chosen["goal"] == "count"].sort_values("individuals", ascending=False)
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
    axes.set(xscale="log", xlabel="counted / true individuals (n)")
    plain_numbers(axes.xaxis)
    words = "with 95 % interval, threshold of other species for count"
    drawn.legend(title=words, loc="outside lower left", ncols=2, alignment="left")
    return drawn

"""Which labels may be wrong: annotations that look more like another individual than their own."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from miewid_core import progress
from miewid_core.beyond_paper.identify.embeddings import nearest
from miewid_core.chips import ChipStore
from miewid_core.figures import BLUE, GREY, PAGE, Figure, Panel, plain_numbers, styled
from miewid_core.paper.intervals import ENDS, with_interval

SUB_CENTERS = 3  # of an individual, as in the paper's loss (A.1)
SHOWN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # shares of the list that someone looks through
SCORES = "suspicion", "away"  # by nearest neighbours, and by sub-centers
NOT_JUDGED = {  # why a score has no say
    "suspicion": "have no second encounter under their name, as planting can leave one, or no "
    "other individual of their species",
    "away": f"are under names with fewer than {2 * SUB_CENTERS} annotations",
}
KINDS = {"random": "random", "look_alike": "look-alike"}  # wrong labels to plant
MEASURES = {  # label of the axis, its end
    "precision": ("wrong among\nthose shown (%)", None),
    "recall": ("wrong labels\nfound (%)", 103),
}
COLUMNS = [
    *["annotation_id", "species", "individual", "encounter", "suspicion", "own", "other"],
    *["nearest_own", "nearest_other", "proposed", "sub_center_share", "away", "photo"],
]


def audit(embeddings: np.ndarray, annotations: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The annotations with the most suspicious labels first: rows of COLUMNS.

    `embeddings` (N, D) of `annotations` (catalog rows), by a network that was not trained on these
    labels: such a one has learnt the wrong ones too. `own` and `other` are the cosines to the
    nearest annotation of the same individual in another encounter and to that of any other one of
    the species, `suspicion` is other - own, in [-2, 2]; `proposed` is the other's individual. An
    individual seen in one encounter only can't be judged: NaN, last. `photo`: file and folder.

    A run keeps its network without the head that has the sub-centers (section 4), so these are
    k-means centers of an individual's embeddings, where it has twice as many annotations:
    `sub_center_share` is the share of its annotations at the same center, `away` 1 - the cosine
    to the center that has most (Deng et al. 2020 drop what is far from that). NaN for the others.
    """
    wide = np.asarray(embeddings, dtype=np.float64)
    listed = annotations[COLUMNS[:4]].reset_index(drop=True)
    listed["photo"] = ["/".join(Path(path).parts[-2:]) for path in annotations["path"]]
    ids = listed["annotation_id"].to_numpy(object)
    listed[["sub_center_share", "away"]] = np.nan
    for rows in listed.groupby("species").indices.values():
        given = wide[rows], listed.iloc[rows]
        for kind, place, cosine in zip(("own", "other"), *nearest(*given, *given), strict=True):
            listed.loc[rows, kind] = cosine
            listed.loc[rows, f"nearest_{kind}"] = np.where(np.isnan(cosine), "", ids[rows[place]])
    for rows in listed.groupby("individual").indices.values():
        if len(rows) >= 2 * SUB_CENTERS:
            listed.loc[rows, ["sub_center_share", "away"]] = _sub_centers(wide[rows], seed)
    people = listed.set_index("annotation_id")["individual"]
    listed["proposed"] = listed["nearest_other"].map(people).fillna("")
    listed["suspicion"] = listed["other"] - listed["own"]
    return listed.sort_values(["suspicion", "annotation_id"], ascending=[False, True])[COLUMNS]


def _sub_centers(vectors: np.ndarray, seed: int) -> np.ndarray:
    """(n, 2): share of the n annotations at each one's center, and 1 - cosine to the main one."""
    unit = normalize(vectors)
    fitted = KMeans(SUB_CENTERS, n_init=4, random_state=seed).fit(unit)
    sizes = np.bincount(fitted.labels_, minlength=SUB_CENTERS)
    main = normalize(fitted.cluster_centers_[[sizes.argmax()]])[0]
    return np.column_stack([sizes[fitted.labels_] / len(unit), 1 - unit @ main])


def plant(
    annotations: pd.DataFrame,
    share: float,
    generator: np.random.Generator,
    look_alike: np.ndarray | None = None,
) -> pd.DataFrame:
    """The rows with a `share` of them, at least one, filed under another individual.

    It is one of the same species, seen from the same side, as a wrong name doesn't change the side:
    a random one, or that of `look_alike` (N,), such as `look_alikes` gives. `planted` says which
    rows are wrong. Raises ValueError where nobody has such another.
    """
    group = (annotations["species"] + " " + annotations["viewpoint"]).to_numpy(object)
    labels = annotations["individual"].to_numpy(object).copy()
    people = {key: sorted(set(labels[group == key])) for key in set(group)}
    able = np.flatnonzero([len(people[key]) > 1 for key in group])
    if not len(able):
        raise ValueError("no species has two individuals: there is no wrong label to plant")
    count = min(max(1, round(share * len(annotations))), len(able))
    chosen = generator.choice(able, count, replace=False)
    for row in chosen:
        others = [name for name in people[group[row]] if name != labels[row]]
        labels[row] = generator.choice(others) if look_alike is None else look_alike[row]
    planted = np.isin(np.arange(len(annotations)), chosen)
    return annotations.assign(individual=labels, planted=planted)


def look_alikes(embeddings: np.ndarray, annotations: pd.DataFrame) -> np.ndarray:
    """The other individual (N,) of the same species and side that `audit` proposes; "" for none."""
    groups = annotations["species"] + " " + annotations["viewpoint"]
    proposed = audit(embeddings, annotations.assign(species=groups)).set_index("annotation_id")
    return proposed.loc[annotations["annotation_id"], "proposed"].to_numpy(object)


def found(listed: pd.DataFrame, planted: Sequence[str], score: str, share: float) -> list[float]:
    """Precision and recall of the top `share` of a list (of `audit`) ordered by `score`.

    `planted`: annotation ids of the wrong labels. What the score can't judge comes last, by id.
    """
    top = listed.sort_values([score, "annotation_id"], ascending=[False, True])["annotation_id"]
    hits = top.head(max(1, round(share * len(top)))).isin(planted)
    return [float(hits.mean()), float(hits.sum() / len(planted))]


def planting_test(
    embeddings: np.ndarray,
    annotations: pd.DataFrame,
    share: float = 0.02,
    plantings: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """How many wrong labels the top of the list holds, when a `share` of the labels is made wrong.

    Per kind of wrong label (of KINDS), score and share of the list looked at: wrong, score, shown,
    annotations (in the list), judged (by the score, mean), planted (wrong labels each time),
    plantings; precision and recall in [0, 1], and the range that 95 % of the plantings are in:
    precision_low, precision_high, recall_low, recall_high.
    """
    rows, alike = [], {"random": None, "look_alike": look_alikes(embeddings, annotations)}
    for number, kind in progress(
        [*itertools.product(range(plantings), KINDS)], "planting wrong labels"
    ):
        generator = np.random.default_rng([seed, number])
        wrong = plant(annotations, share, generator, alike[kind])
        listed = audit(embeddings, wrong, seed)
        planted = wrong.loc[wrong["planted"], "annotation_id"]
        for score in SCORES:
            sizes = [len(listed), listed[score].count(), len(planted)]
            rows += [
                [kind, score, top, *sizes, *found(listed, planted, score, top)] for top in SHOWN
            ]
    keys = ["wrong", "score", "shown"]
    numbers = ["annotations", "judged", "planted", "precision", "recall"]
    groups = pd.DataFrame(rows, columns=[*keys, *numbers]).groupby(keys, sort=False)
    table = groups.mean().join(groups.size().rename("plantings"))
    for end, level in (("low", 0.025), ("high", 0.975)):
        table = table.join(groups[["precision", "recall"]].quantile(level).add_suffix(f"_{end}"))
    return table.reset_index()


def _first(table: pd.DataFrame, score: str, shown: float) -> dict[str, list[str]]:
    """Recall and precision in percent of a part of a `planting_test`'s list, for KINDS."""
    rows = table[(table["score"] == score) & (table["shown"] == shown)].set_index("wrong")
    rows = 100 * rows.loc[[*KINDS], [name + end for name in MEASURES for end in ENDS]]
    return {name: with_interval(rows, name, decimals=0, unit=" %") for name in MEASURES}


def _helps(table: pd.DataFrame, score: str) -> str:
    """From which share of a `planting_test`'s list on it beats a random order, for both KINDS."""
    told = []
    for kind, words in KINDS.items():
        rows = table[(table["wrong"] == kind) & (table["score"] == score)]
        last = rows["shown"][rows["recall_low"] <= rows["shown"]].max()
        longer = [*(100 * rows["shown"][~(rows["shown"] <= last)])]
        where = f"from its first {longer[0]:.0f} % on" if longer else "from no length on"
        told.append(f"{where} for {words} ones")
    return f"The list is shown to beat a random order {', '.join(told)}."


def in_words(table: pd.DataFrame, score: str = "suspicion") -> str:
    """How many wrong labels the first fifth of a `planting_test`'s list holds."""
    random, alike = _first(table, score, 0.2)["recall"]
    return (
        f"The first fifth of the list by `{score}` holds {random} of random wrong labels and "
        f"{alike} of look-alike ones, where chance would give 20 %."
    )


def details(table: pd.DataFrame, score: str = "suspicion") -> str:
    """How good a short list is, what it can't judge, and where a `planting_test`'s list helps."""
    first, told = table[table["score"] == score].iloc[0], []
    for share in (SHOWN[0], 0.2):
        random, alike = _first(table, score, share)["precision"]
        labels = max(1, round(share * first["annotations"]))
        told.append(
            f"Of its first {100 * share:.0f} % ({labels:,} labels) {random} are wrong for random "
            f"errors, {alike} for look-alike ones."
        )
    if (lost := first["annotations"] - first["judged"]) >= 1:
        told.append(
            f"The score judges {first['judged']:,.0f} of {first['annotations']:,.0f} annotations "
            f"on average over plantings; the other {lost:,.0f} {NOT_JUDGED[score]}. They come "
            "last, so wrong labels among them count as missed."
        )
    return " ".join([*told, _helps(table, score)])


def planting_in_words(table: pd.DataFrame) -> str:
    """What a `planting_test` was made on."""
    first = table.iloc[0]
    return (
        f"For this, {first['planted']:.0f} of {first['annotations']:,.0f} labels "
        f"({100 * first['planted'] / first['annotations']:.2g} %) were made wrong; brackets: the "
        f"middle 95 % of {first['plantings']} repetitions. Other animals and trainings are not "
        "covered."
    )


def claim(table: pd.DataFrame) -> str:
    """`in_words` for a title."""
    random, alike = (text.partition(" (")[0] for text in _first(table, "suspicion", 0.2)["recall"])
    return f"The first fifth of the list holds {random} of random and {alike} of look-alike errors"


def memory_in_words(unseen: pd.DataFrame, seen: pd.DataFrame) -> str:
    """How often a network disagrees with labels that it never saw, and with those it learnt.

    Lists (of `audit`) of test annotations, of which individuals in training are told apart, and of
    training annotations.
    """
    known = unseen["individual"].isin(seen["individual"])
    test, old, new, train = (
        _nearer_to_another(rows) for rows in (unseen, unseen[known], unseen[~known], seen)
    )
    return (
        f"{test} test annotations are nearer to another individual than to their own: {old} of "
        f"individuals that the network was trained on with other photos, {new} of new ones. Of "
        f"the training annotations {train} are. An annotation without another encounter of its "
        f"individual can't be judged and isn't counted: {unseen['suspicion'].isna().sum():,} test, "
        f"{seen['suspicion'].isna().sum():,} training annotations."
    )


def _nearer_to_another(listed: pd.DataFrame) -> str:
    judged = listed["suspicion"].dropna()
    return f"{100 * (judged > 0).mean():.0f} % of {len(judged):,}" if len(judged) else "0 of 0"


@styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """Precision above and recall below, by how much of the list is looked at, and kind of error.

    `table`: of `planting_test`, by suspicion; bars are the range of 95 % of the plantings.
    """
    drawn, first = Figure(title, 3.8, PAGE), table.iloc[0]
    grid, shown = drawn.subplots(2, 2, sharex=True, sharey="row"), 100 * np.array(SHOWN)
    chance = {"recall": shown}
    chance["precision"] = np.full(len(shown), 100 * first["planted"] / first["annotations"])
    for column, (kind, words) in zip(grid.T, KINDS.items(), strict=True):
        own = table[(table["wrong"] == kind) & (table["score"] == "suspicion")]
        for axes, name in zip(column, MEASURES, strict=True):
            value, low, high = (100 * own[name + end] for end in ENDS)
            axes.vlines(shown, low, high, BLUE, linewidth=1)
            axes.plot(shown, value, "o-", color=BLUE, label="this list")
            axes.plot(shown, chance[name], ":", color=GREY, label="random order")
        column[0].set_title(f"{words} wrong labels")
        column[1].set_xlabel(
            f"first part of the list (% of {first['annotations']:,.0f} annotations)"
        )
    for axes, (label, top) in zip(grid[:, 0], MEASURES.values(), strict=True):
        axes.set(xscale="log", ylabel=label, ylim=(0, top))
    plain_numbers(grid[1, 0].xaxis)
    words = (
        f"{first['planted']:.0f} wrong labels, {first['plantings']} times; bars: the middle 95 %"
    )
    lines = grid[0, 0].get_legend_handles_labels()
    drawn.legend(*lines, title=words, loc="outside lower left", alignment="left", ncols=3)
    return drawn


def panels(
    listed: pd.DataFrame, annotations: pd.DataFrame, chips_dir: Path, n: int = 12, size: int = 128
) -> list[list[Panel]]:
    """The first `n` of a list (of `audit`) to look at, two in a row of `figures.match_panels`.

    Each is three chips: the annotation, the nearest one filed under the same individual, and the
    nearest of all others. An annotation that could not be judged is left out.
    """
    rows = annotations.set_index("annotation_id")
    store = ChipStore(chips_dir, size)
    triples = []
    for row in listed[listed["suspicion"].notna()].head(n).itertuples():
        three = rows.loc[[row.annotation_id, row.nearest_own, row.nearest_other]]
        name, _, another = three["name"]
        captions = [
            f"{row.species}\nfiled as {name}",
            f"also {name}\ncosine {row.own:.2f}",
            f"like {another}\ncosine {row.other:.2f}",
        ]
        chips = [store.read(key) for key in store.build(three)]
        triples.append(list(zip(chips, captions, [None] * 3, strict=True)))
    pairs = itertools.zip_longest(triples[::2], triples[1::2], fillvalue=[])
    return [first + second for first, second in pairs]

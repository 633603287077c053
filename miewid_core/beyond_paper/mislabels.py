"""Which labels may be wrong: annotations that look more like another individual than their own."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core import progress
from miewid_core.beyond_paper.identify.embeddings import nearest
from miewid_core.chips import ChipStore
from miewid_core.figures import (
    BLUE,
    COLUMN,
    GREY,
    ORANGE,
    Figure,
    Panel,
    plain_numbers,
    spelt,
    styled,
)
from miewid_core.paper.intervals import ENDS, Estimate, with_interval

SHOWN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # shares of the list that someone looks through
KINDS = {  # of wrong labels to plant: in words, and how they are drawn
    "random": ("random", BLUE, "o-"),
    "look_alike": ("look-alike", ORANGE, "D--"),
}
COLUMNS = [
    *["annotation_id", "species", "individual", "encounter", "suspicion", "own", "other"],
    *["nearest_own", "nearest_other", "proposed", "photo"],
]


def audit(embeddings: np.ndarray, annotations: pd.DataFrame) -> pd.DataFrame:
    """The annotations with the most suspicious labels first: rows of COLUMNS.

    `embeddings` (N, D) of `annotations` (catalog rows), by a network that was not trained on these
    labels: such a one has learnt the wrong ones too. `own` and `other` are the cosines to the
    nearest annotation of the same individual in another encounter and to that of any other one of
    the species, `suspicion` is other - own, in [-2, 2]; `proposed` is the other's individual. An
    individual seen in one encounter only can't be judged: NaN, last. `photo`: file and folder.
    """
    wide = np.asarray(embeddings, dtype=np.float64)
    listed = annotations[COLUMNS[:4]].reset_index(drop=True)
    listed["photo"] = ["/".join(Path(path).parts[-2:]) for path in annotations["path"]]
    ids = listed["annotation_id"].to_numpy(object)
    for rows in listed.groupby("species").indices.values():
        given = wide[rows], listed.iloc[rows]
        for kind, place, cosine in zip(("own", "other"), *nearest(*given, *given), strict=True):
            listed.loc[rows, kind] = cosine
            listed.loc[rows, f"nearest_{kind}"] = np.where(np.isnan(cosine), "", ids[rows[place]])
    people = listed.set_index("annotation_id")["individual"]
    listed["proposed"] = listed["nearest_other"].map(people).fillna("")
    listed["suspicion"] = listed["other"] - listed["own"]
    return listed.sort_values(["suspicion", "annotation_id"], ascending=[False, True])[COLUMNS]


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


def found(listed: pd.DataFrame, planted: Sequence[str], share: float) -> list[float]:
    """Precision and recall of the top `share` of a list (of `audit`).

    `planted`: annotation ids of the wrong labels.
    """
    hits = listed["annotation_id"].head(max(1, round(share * len(listed)))).isin(planted)
    return [float(hits.mean()), float(hits.sum() / len(planted))]


def planting_test(
    embeddings: np.ndarray,
    annotations: pd.DataFrame,
    share: float = 0.02,
    plantings: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """How many wrong labels the top of the list holds, when a `share` of the labels is made wrong.

    Per kind of wrong label (of KINDS) and share of the list looked at: wrong, shown, annotations
    (in the list), judged (mean), planted (wrong labels each time), plantings; precision and recall
    in [0, 1], and the range that 95 % of the plantings are in: precision_low, precision_high,
    recall_low, recall_high.
    """
    rows, alike = [], {"random": None, "look_alike": look_alikes(embeddings, annotations)}
    for number, kind in progress(
        [*itertools.product(range(plantings), KINDS)], "planting wrong labels"
    ):
        generator = np.random.default_rng([seed, number])
        wrong = plant(annotations, share, generator, alike[kind])
        listed = audit(embeddings, wrong)
        planted = wrong.loc[wrong["planted"], "annotation_id"]
        sizes = [len(listed), listed["suspicion"].count(), len(planted)]
        rows += [[kind, top, *sizes, *found(listed, planted, top)] for top in SHOWN]
    keys = ["wrong", "shown"]
    numbers = ["annotations", "judged", "planted", "precision", "recall"]
    groups = pd.DataFrame(rows, columns=[*keys, *numbers]).groupby(keys, sort=False)
    table = groups.mean().join(groups.size().rename("plantings"))
    for end, level in (("low", 0.025), ("high", 0.975)):
        table = table.join(groups[["precision", "recall"]].quantile(level).add_suffix(f"_{end}"))
    return table.reset_index()


def _at(table: pd.DataFrame, shown: float, name: str) -> list[str]:
    """Precision or recall in percent of a part of a `planting_test`'s list, for KINDS."""
    rows = table[table["shown"] == shown].set_index("wrong").loc[[*KINDS]]
    return with_interval(100 * rows[[name + end for end in ENDS]], name, decimals=0, unit=" %")


def in_words(table: pd.DataFrame) -> str:
    """How many wrong labels the first fifth of a `planting_test`'s list holds."""
    random, alike = _at(table, 0.2, "recall")
    return (
        f"A fifth of the photos, most suspicious first, holds {random} of random and {alike} of "
        "look-alike wrong labels; chance gives 20 %."
    )


def details(table: pd.DataFrame) -> str:
    """What a `planting_test` was made on, whether its list helps, and how good a short one is."""
    first, told = table.iloc[0], []
    for kind, (words, *_) in KINDS.items():
        row = table[(table["shown"] == 0.2) & (table["wrong"] == kind)].iloc[0]
        beaten = Estimate.of(row, "recall").above(0.2)
        verdict = beaten.shown("better", "worse", "not shown to be better")
        told.append(f"{verdict} for {words} errors")
    random, alike = _at(table, SHOWN[0], "precision")
    return (
        f"{first['planted']:.0f} of {first['annotations']:,.0f} labels were made wrong, "
        f"{first['plantings']} times (brackets: the middle 95 %). Compared with a random order, "
        f"the first fifth is {' and '.join(told)}. Of the first {100 * SHOWN[0]:.0f} % of the "
        f"list, {random} are wrong after random errors and {alike} after look-alike ones."
    )


def claim(table: pd.DataFrame) -> str:
    """`in_words` for a title."""
    random, alike = (text.partition(" (")[0] for text in _at(table, 0.2, "recall"))
    return f"The first fifth of the list holds {random} of random and {alike} of look-alike errors"


@styled()
def curves(table: pd.DataFrame, title: str) -> Figure:
    """How many of the wrong labels are found, by how much of the list is looked at, for KINDS.

    `table`: of `planting_test`; bars are the range of 95 % of the plantings.
    """
    drawn, first = Figure(title, 3.2, COLUMN), table.iloc[0]
    axes, shown = drawn.subplots(), 100 * np.array(SHOWN)
    for kind, (words, colour, line) in KINDS.items():
        rows = table[table["wrong"] == kind]
        value, low, high = (100 * rows[f"recall{end}"] for end in ENDS)
        axes.vlines(shown, low, high, colour, linewidth=1)
        axes.plot(shown, value, line, color=colour, label=f"{words} errors")
    axes.plot(shown, shown, ":", color=GREY, label="random order")
    axes.set(xscale="log", ylabel="wrong labels found (%)", ylim=(0, 103))
    axes.set_xlabel(f"first part of the list (% of {first['annotations']:,.0f} photos)")
    plain_numbers(axes.xaxis)
    words = (
        f"{first['planted']:.0f} wrong labels, {first['plantings']} times; bars: the middle 95 %"
    )
    drawn.legend(title=words, loc="outside lower left", alignment="left", ncols=3)
    return drawn


def panels(
    listed: pd.DataFrame, annotations: pd.DataFrame, chips_dir: Path, n: int = 12, size: int = 128
) -> list[list[Panel]]:
    """The first `n` of a list (of `audit`) to look at, two in a row of `figures.match_panels`.

    Each is three chips: the annotation, its nearest of the same individual, and its nearest of
    another. An empty chip parts the two. What could not be judged is left out.
    """
    rows = annotations.set_index("annotation_id")
    store = ChipStore(chips_dir, size)
    triples = []
    for row in listed[listed["suspicion"].notna()].head(n).itertuples():
        three = rows.loc[[row.annotation_id, row.nearest_own, row.nearest_other]]
        name, _, another = three["name"]
        captions = [
            f"{spelt(row.species)}\nfiled as {name}",
            f"also {name}\ncosine {row.own:.2f}",
            f"like {another}\ncosine {row.other:.2f}",
        ]
        chips = [store.read(key) for key in store.build(three)]
        triples.append(list(zip(chips, captions, [None] * 3, strict=True)))
    gap = np.full((size, size, 3), 255, np.uint8), "", None
    pairs = itertools.zip_longest(triples[::2], triples[1::2], fillvalue=[])
    return [[*first, gap, *second] for first, second in pairs]

"""What the paper's printed tables say when counted again; a range where they leave it open."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from miewid_core.paper.printed import printed_table

# Which image sets of Table 1 are one species is a guess (see `reported`); each guess the other way:
DOUBTS = [
    {name: name for name in ("chimpanzee_ctai", "chimpanzee_czoo")},
    {"long_finned_pilot_whale": "long_finned_pilot_whale"},
    {"pantropic_spotted_dolphin": "pantropic_spotted_dolphin"},
    {"horse_wild_tunisian+face": "horse_wild"},
]
CHOICES = list(itertools.product([False, True], repeat=len(DOUBTS)))
ACCURACIES = ["multi_species", "single_species", "leave_one_out"]  # columns of Table 2
HALF_DIGIT = 0.05 + 1e-9  # of a percentage as printed; 12.45 may be a little less in binary


class Recounted(NamedTuple):
    """A number and the range that the print leaves to it; nothing is known by default.

    `rounding`: how far the rounding of the cells that it comes from can move it.
    """

    value: float = np.nan
    low: float = -np.inf
    high: float = np.inf
    rounding: float = 0.0


def exactly(value: float, rounding: float = 0.0) -> Recounted:
    """A number that the print decides."""
    return Recounted(float(value), float(value), float(value), rounding)


def groupings() -> Iterator[pd.Series]:
    """Species of each row of Table 1: first as `reported` has them, then in each other way."""
    sets = printed_table(1)
    for chosen in CHOICES:
        changed = {k: v for doubt in itertools.compress(DOUBTS, chosen) for k, v in doubt.items()}
        pairs = zip(sets["dataset"], sets["species"], strict=True)
        yield pd.Series([changed.get(name, species) for name, species in pairs])


def column(name: str, unread: float) -> pd.Series:
    """Annotations or individuals by row of Table 1, `unread` in the cell that can't be read."""
    return printed_table(1)[name].astype(float).fillna(unread)


def over_groupings(count: Callable[[pd.Series, pd.Series], float]) -> Recounted:
    """`count(species of each row, annotations of each row)`, and its range over what is open.

    The number itself is for `reported`'s grouping, without the cell that can't be read.
    """
    cells = [column("annotations", unread) for unread in (np.nan, 0.0, np.inf)]
    found = [[float(count(by, cell)) for cell in cells] for by in groupings()]
    return Recounted(found[0][0], np.min(found), np.max(found))


def tail(compare: Callable, bound: int, of_sets: bool = False) -> Recounted:
    """Species (or image sets) with more or fewer annotations than `bound`, by `compare`."""
    if of_sets:
        return over_groupings(lambda by, cells: compare(cells, bound).sum())
    return over_groupings(lambda by, cells: compare(cells.groupby(by).sum(), bound).sum())


def fitting_groupings(n_species: float, below: dict[int, float]) -> Recounted:
    """Ways to group with so many species and, for each bound in `below`, so many beneath it."""
    found = []
    for by in groupings():
        own = column("annotations", np.inf).groupby(by).sum()
        found.append(len(own) == n_species and {n: (own < n).sum() for n in below} == below)
    return exactly(sum(found))


def annotations_total() -> Recounted:
    """At least the sum of the cells that can be read."""
    known = column("annotations", 0).sum()
    return Recounted(known, known, np.inf)


def individuals_total() -> Recounted:
    """All sets added up; at least each species' largest set, if its sets share individuals."""
    own = column("individuals", 0)
    return Recounted(own.sum(), min(own.groupby(by).max().sum() for by in groupings()), own.sum())


def per_individual() -> Recounted:
    """Annotations per individual: at least those of the cells that can be read."""
    known = annotations_total().low / individuals_total().high
    return Recounted(known, known, np.inf)


def untrainable() -> Recounted:
    """Species too small for an individual with 3 annotations when each has at least one."""
    own = column("individuals", 0)
    return over_groupings(
        lambda by, cells: (cells.groupby(by).sum() < own.groupby(by).sum() + 2).sum()
    )


def size_range(species: pd.Index, name: str) -> list[pd.Series]:
    """A column of Table 1 summed by species, with the least and the greatest unreadable cell."""
    by = printed_table(1)["species"]
    return [column(name, unread).groupby(by).sum().reindex(species) for unread in (0.0, np.inf)]


def accuracy() -> pd.DataFrame:
    """Tables 2 and 3 by species, with the gains over the single-species models and MegaDescriptor.

    `unseen_gain` has Table 2's leave-one-out in place of Table 3's; `seen_gain` is over Table 2's.
    What Table 3 lacks is NaN.
    """
    both, three = (printed_table(number).set_index("species") for number in (2, 3))
    both = both.join(three)
    both["gain"] = both["multi_species"] - both["single_species"]
    both["mega_gain"] = both["miewid_leave_one_out"] - both["megadescriptor_l_384"]
    both["unseen_gain"] = both["leave_one_out"] - both["megadescriptor_l_384"]
    both["seen_gain"] = both["multi_species"] - both["leave_one_out"]
    return both.round(1)


def gain(statistic: str, name: str = "gain") -> Recounted:
    """Mean, min or max of a gain over species; both cells of each may be off by 0.05."""
    return exactly(accuracy()[name].agg(statistic), 2 * HALF_DIGIT)


def gain_interval(name: str) -> Recounted:
    """Mean gain over species with its 95 % interval (normal)."""
    values = accuracy()[name].dropna()
    half = 1.96 * values.sem()
    return Recounted(values.mean(), values.mean() - half, values.mean() + half)


def gain_of_all(n_species: float) -> Recounted:
    """Mean gain of so many species, those that Table 2 lacks between its least and greatest."""
    own = accuracy()["gain"]
    missing = n_species - len(own)
    low, high = ((own.sum() + missing * bound) / n_species for bound in (own.min(), own.max()))
    return Recounted(np.nan, low, high, 2 * HALF_DIGIT)


def trend(column: str, name: str) -> Recounted:
    """Spearman's rank correlation of a column of `accuracy` with a size (a column of Table 1).

    Its range is Fisher's 95 % interval, and covers what the unreadable cell may be.
    """
    values = accuracy()[column]
    rho = [values.corr(own, method="spearman") for own in size_range(values.index, name)]
    middle, half = np.arctanh(rho), 1.96 * np.sqrt(1.06 / (len(values) - 3))
    return Recounted(*np.tanh([middle.mean(), middle.min() - half, middle.max() + half]))


def falling() -> Recounted:
    """Neighbouring rows of Table 2, the upper one with at least as many annotations."""
    sized = size_range(accuracy().index, "annotations")
    found = [(own >= own.shift(-1)).sum() for own in sized]
    return Recounted(*map(float, (found[0], min(found), max(found))))


def fewest_queries(percentages: np.ndarray, most: float) -> float:
    """Smallest number of queries, up to `most`, that all `percentages` can be shares of, or NaN.

    From 1,000 on, every percentage with one decimal can.
    """
    n = np.arange(1, min(most, 1000) + 1)[:, None]
    shares = 100 * np.round(percentages * n / 100) / n
    fits = (np.abs(shares - percentages) <= HALF_DIGIT).all(axis=1)
    return float(n[fits.argmax(), 0]) if fits.any() else np.nan


def queries() -> pd.DataFrame:
    """By species, the fewest queries that fit its row of Table 2: all of it, and two columns of it.

    Not more than its annotations in Table 1 (infinite where they can't be read).
    """
    found = accuracy()[ACCURACIES]
    found["annotations"] = size_range(found.index, "annotations")[1]
    for name, width in {"two": 2, "all": 3}.items():
        rows = zip(found[ACCURACIES[:width]].to_numpy(), found["annotations"], strict=True)
        found[f"queries_{name}"] = [fewest_queries(row, most) for row, most in rows]
    return found


def steps() -> pd.DataFrame:
    """Tables 4 and 5 side by side by species and individuals, with Table 2's leave_one_out.

    `_5`: of Table 5; `same_in_5`: whether all of it is the same; `lead`: fine-tuning's over the
    species alone; `size`: annotations in Table 1; `shown`: per individual; `_0`: with none.
    """
    keys, twice = ["species", "individuals"], ["annotations", "species_only"]
    both = printed_table(4).merge(printed_table(5), on=keys, suffixes=("", "_5"))
    five = both[[f"{name}_5" for name in twice]].set_axis(twice, axis=1)
    both["same_in_5"] = both[twice].fillna(-1).eq(five.fillna(-1)).all(axis=1)
    both["lead"] = both["fine_tuning"] - both["species_only"]
    both["size"] = size_range(both["species"], "annotations")[0].to_numpy()
    both["shown"] = both["annotations"] / both["individuals"]
    none = both[both["individuals"] == 0].set_index("species")["joint_training"]
    both["joint_training_0"] = both["species"].map(none)
    return both.merge(accuracy()["leave_one_out"], left_on="species", right_index=True)


def falling_lead() -> Recounted:
    """Steps to more individuals at which fine-tuning's mean lead over the species alone falls."""
    lead = steps().groupby("individuals")["lead"].mean().dropna()
    return exactly((lead.diff() < 0).sum())

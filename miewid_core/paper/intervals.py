"""How sure a mean of hits is: 95 % intervals over individuals and trainings (not in the paper)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from miewid_core.evaluation import hits

KEYS = ["species", "queries", "individuals"]
TINY = 1e-12


class Clustered(NamedTuple):
    """A mean of values, clustered by individual, and what an interval of it needs."""

    mean: float
    square: float  # mean of the squared values
    variance: float  # of the mean, between individuals; NaN with a single one
    size: float  # effective: so many independent queries would tell as much
    individuals: int

    def wilson(self, quantile: float) -> tuple[float, float]:
        """Wilson's interval of values in [0, 1], queries counted by their effective size."""
        mean, spread = self.mean, self.square - self.mean**2
        # hits averaged over trainings vary less than hits do
        size = self.size * (mean * (1 - mean) / spread if spread > TINY else 1)
        middle = (mean + quantile**2 / (2 * size)) / (1 + quantile**2 / size)
        root = np.sqrt(max(0, mean * (1 - mean)) / size + quantile**2 / (4 * size**2))
        half = quantile * root / (1 + quantile**2 / size)
        return middle - half, middle + half

    def agresti_min(self) -> tuple[float, float]:
        """Center and variance of differences in [-1, 1]: half a query more each way.

        Agresti and Min (2005) add half a pair to each cell of the table of two sets of hits.
        """
        center = self.mean * self.size / (self.size + 2)
        square = (self.square * self.size + 1) / (self.size + 2)
        return center, (square - center**2) / (self.size + 2)


def clustered(values: Sequence[float], individuals: Sequence[str]) -> Clustered:
    """Mean of `values` (N,) in [-1, 1], its variance from whole individuals, and effective size.

    The design effect (how much wider individuals make it than N independent queries) is at least 1,
    and drawn towards that of individuals whose queries are all alike: by half where one individual
    alone departs from the rest, and less the more do. Where all values are equal nothing is known
    of it, and each individual counts once. The weights are tests/paper/simulate_intervals.py's.
    """
    values = np.asarray(values, float)
    codes, names = pd.factorize(np.asarray(individuals, object))
    count, people, mean = len(values), len(names), values.mean()
    square, departures = (values**2).mean(), values - mean
    totals, queries = np.bincount(codes, departures), np.bincount(codes)
    variance = (totals**2).sum() / count**2
    variance = variance * people / (people - 1) if people > 1 else np.nan
    alike = (queries**2).sum() / count  # design effect if all queries of an individual are alike
    effect = max(1.0, np.nan_to_num(variance) * count / max(square - mean**2, TINY))
    sides = [len(np.unique(codes[side])) for side in (departures > TINY, departures < -TINY)]
    weight = 2 * min(sides)
    effect = (weight * effect + alike) / (weight + 1)
    return Clustered(mean, square, variance, count / effect, people)


def satterthwaite(variances: Iterable[float], freedoms: Iterable[float]) -> float:
    """Degrees of freedom of a sum of independent variances; of all together if all are 0."""
    variances, freedoms = np.array([*variances], float), np.array([*freedoms], float)
    squares = (variances**2 / freedoms).sum()
    return variances.sum() ** 2 / squares if squares > 0 else freedoms.sum()


def mean_interval(
    values: Sequence[float], individuals: Sequence[str], level: float = 0.95, signed: bool = False
) -> tuple[float, float]:
    """Interval of the mean of hits (N,) in [0, 1], all queries of an individual together.

    Wilson's, with a design effect for queries that are alike within an individual, and Student's t
    of as many individuals. It is that of other individuals in the same gallery: the gallery is
    taken as it is. With all hits or none it has a width too. `signed`: of paired differences of
    hits, in [-1, 1], Agresti and Min's. NaN without queries, and for a single individual, which
    tells nothing of how much individuals differ.
    """
    units = clustered(values, individuals) if len(values) else None
    return _one_species(units, [], signed, level)[:2] if units else (np.nan, np.nan)


def _one_species(
    units: Clustered, training: list[tuple[float, float]], signed: bool, level: float
) -> tuple[float, float, float]:
    """Low, high, and the two-sided p of no difference; `training`: variances and their freedoms."""
    if units.individuals < 2:
        return np.nan, np.nan, np.nan
    added = sum(variance for variance, _ in training)
    center, variance = units.agresti_min()
    parts = [(variance, units.individuals - 1), *training]
    freedom = satterthwaite(*zip(*parts, strict=True))
    quantile = stdtrit(freedom, (1 + level) / 2)  # Student's t
    if signed:
        return _student(center, variance + added, freedom, level, -1)
    ends = np.array(units.wilson(quantile)) - units.mean
    low, high = units.mean + np.sign(ends) * np.sqrt(ends**2 + quantile**2 * added)
    return max(0.0, low), min(1.0, high), np.nan


def _student(
    center: float, variance: float, freedom: float, level: float, least: float
) -> tuple[float, float, float]:
    """Low, not below `least`, high, and p, of a t distributed center."""
    error = np.sqrt(variance)
    half = stdtrit(freedom, (1 + level) / 2) * error
    p = 2 * stdtr(freedom, -abs(center) / error)
    return max(least, center - half), min(1.0, center + half), p


def _over_species(
    units: list[Clustered], training: list[tuple[float, float]], signed: bool, level: float
) -> tuple[float, float, float]:
    """As `_one_species`, of the mean over species, which are fixed.

    SE^2 is the sum of their variances over the squared number of species, and those of training. To
    it comes half the weight of one more individual, without which it would be 0 where all agree.
    A species with one individual is taken to vary as the others do.
    """
    if len(units) < 2:
        return _one_species(units[0], training, signed, level) if units else (np.nan,) * 3
    people = np.array([one.individuals for one in units])
    variances = np.array([one.variance for one in units])
    if np.isnan(variances).all():
        return (np.nan,) * 3
    between = np.nanmean(variances * people)
    variances = np.where(people > 1, variances, between) / len(units) ** 2
    parts = [*zip(variances, np.maximum(people - 1, 1), strict=True), *training]
    freedom = satterthwaite(*zip(*parts, strict=True))
    variance = sum(one for one, _ in parts) + 0.5 / people.sum() ** 2
    mean = np.mean([one.mean for one in units])
    return _student(mean, variance, freedom, level, -1 if signed else 0)


def _of_training(
    runs: Sequence[np.ndarray], next_training: bool, training_sd: float = 0
) -> list[tuple[float, float]]:
    """Variances that trainings add, and their degrees of freedom. `runs`: means (R,) by network."""
    several = [means for means in runs if len(means) > 1]
    parts = [(m.var(ddof=1) * (1 / len(m) + next_training), len(m) - 1) for m in several]
    return [*parts, (training_sd**2, np.inf)] if training_sd else parts


def by_species(
    values: pd.Series | pd.DataFrame,
    ranks: pd.DataFrame,
    against: pd.Series | pd.DataFrame | None = None,
    level: float = 0.95,
    next_training: bool = False,
    training_sd: float = 0,
) -> pd.DataFrame:
    """Mean of `values` in [0, 1] per species with its interval; last the "mean" over species.

    `values` has the index of counted `ranks`, and a column for each training (R) of its network;
    so has `against`, and what is shown is then `values` minus `against`, paired by query. Columns
    species, queries, individuals, value, low, high; of differences p, two-sided and not corrected.

    The interval is that of other individuals of the same species, in the same gallery. Where there
    are several trainings it is that of the mean over trainings, and has their spread s^2 / R; for
    `next_training`, one more training of each, s^2 (1 + 1 / R). Nothing is known of the spread of a
    network with one training, and its interval is that of this training. `training_sd` adds to the
    mean what is known from elsewhere: the standard deviation of the mean over species, sd / sqrt(N)
    for N networks that each know one species.
    """
    signed, counted = against is not None, ranks.index.isin(values.index)
    parts = [values, against] if signed else [values]
    networks = [pd.DataFrame(part).reindex(ranks.index).to_numpy(float) for part in parts]  # (N, R)
    value = networks[0].mean(axis=1) - (networks[1].mean(axis=1) if signed else 0)
    individuals = ranks["individual"].to_numpy()
    rows, units, runs = [], [], []
    for species, places in sorted(ranks.groupby("species").indices.items()):
        own = places[counted[places]]
        rows.append([species, len(own), len({*individuals[own]}), *[np.nan] * 4])
        if len(own):
            units.append(clustered(value[own], individuals[own]))
            runs.append([network[own].mean(axis=0) for network in networks])
            training = _of_training(runs[-1], next_training)
            rows[-1][3:] = units[-1].mean, *_one_species(units[-1], training, signed, level)
    means = [sum(own) / len(own) for own in zip(*runs, strict=True)]
    training = _of_training(means, next_training, training_sd)
    ends = _over_species(units, training, signed, level)
    mean = np.mean([one.mean for one in units]) if units else np.nan
    rows.append(["mean", sum(row[1] for row in rows), sum(row[2] for row in rows), mean, *ends])
    table = pd.DataFrame(rows, columns=[*KEYS, "value", "low", "high", "p"])
    return table if signed else table.drop(columns="p")


def per_species(ranks: pd.DataFrame, k: int) -> pd.DataFrame:
    """Top-k per species with its 95 % interval: species, queries, individuals, top_k, low, high."""
    table = by_species(hits(ranks, k).astype(float), ranks)
    return table.rename(columns={"value": "top_k"})[:-1]

"""How sure a number is: 95 % intervals over individuals and trainings, and how text has them."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit
from scipy.stats import spearmanr

from miewid_core.figures import spelt

LEVEL = 0.95
TINY = 1e-12
FEWEST = 5  # pairs of which a trend can be shown
ENDS = ["", "_low", "_high"]  # of the columns of a value and its interval


class Estimate(NamedTuple):
    """A difference in points (or a correlation) with its interval, NaN where there is none."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, row: pd.Series, name: str) -> "Estimate":
        """Columns `name`, `name`_low and `name`_high of a row of a table."""
        return cls(*(row[f"{name}{end}"] for end in ENDS))

    def above(self, value: float) -> "Estimate":
        """How far it lies above a fixed value."""
        return Estimate(*(end - value for end in self))

    def shown(self, above: str, below: str, neither: str) -> str:
        """What is shown: `above` if the interval lies above zero, `below` if below."""
        return above if self.low > 0 else below if self.high < 0 else neither

    def verdict(self, one: str, other: str) -> str:
        """Which of two is better, if this difference between them shows it."""
        return self.shown(
            f"{one} is better than {other}",
            f"{one} is worse than {other}",
            f"no difference is shown between {one} and {other}",
        )

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.high, -self.low)

    def __str__(self) -> str:
        interval = f"95 % interval {self.low:+z.1f} to {self.high:+z.1f}"
        if np.isnan(self.low):
            interval = "no interval, as no species has two individuals"
        return f"{self.value:+z.1f} points ({interval})"


class Spread(NamedTuple):
    """Standard deviations between trainings: of the value of one species, and of their mean.

    With their degrees of freedom, infinite where they are known and not estimated.
    """

    species: float = 0
    mean: float = 0
    species_freedom: float = np.inf
    mean_freedom: float = np.inf


NO_SPREAD = Spread()


def sentence(text: str) -> str:
    """With a capital, and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def with_heads(
    table: pd.DataFrame, heads: Mapping[str, str], plain: Collection[str] = ()
) -> pd.DataFrame:
    """Columns of a table for a reader, in the order of `heads`, which names each in words.

    A value whose interval stands in the two next columns, "low" and "high" or with its name before
    these, is one text with it, "58.7 (49.7 to 67.0)"; in those of `plain` it is left out.
    """
    shown, columns = {}, table.columns.tolist()
    for name, head in heads.items():
        ends = columns[columns.index(name) + 1 :][:2]
        joined = ends in (["low", "high"], [f"{name}_low", f"{name}_high"])
        if joined and name not in plain:
            shown[head] = with_interval(table, name, *ends)
        else:
            shown[head] = table[name].map(spelt) if name == "species" else table[name]
    return pd.DataFrame(shown)


def with_interval(
    table: pd.DataFrame, name: str, low: str = "", high: str = "", decimals: int = 1, unit: str = ""
) -> list[str]:
    """A column with its 95 % interval (`name`_low, `name`_high if not named) as text, or ""."""
    rows = table[[name, low or f"{name}_low", high or f"{name}_high"]].astype(float).round(decimals)
    written = rows.map(f"{{:z,.{decimals}f}}".format).itertuples(index=False)
    return [
        "" if value == "nan" else f"{value}{unit}" + f" ({least} to {most})" * (least != "nan")
        for value, least, most in written
    ]


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction of p values for their number; NaN stay so, and don't count."""
    known = p.dropna().sort_values()
    steps = known * np.arange(len(known), 0, -1)
    return steps.cummax().clip(upper=1).reindex(p.index)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """Spearman's rho with Fisher's interval by Bonett and Wright's variance (2000).

    With fewer than five pairs, whose orders can't show a trend at 5 %, it has none.
    """
    count, rho = len(one), np.nan
    if count > 2:
        rho = float(spearmanr(one, other).statistic)
    if count < FEWEST:
        return Estimate(rho, np.nan, np.nan)
    spread = stdtrit(np.inf, (1 + LEVEL) / 2) * np.sqrt((1 + rho**2 / 2) / (count - 3))
    middle = np.arctanh(np.clip(rho, -0.999, 0.999))
    return Estimate(rho, float(np.tanh(middle - spread)), float(np.tanh(middle + spread)))


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


def _freedom(parts: Sequence[tuple[float, float]]) -> float:
    """Satterthwaite's: of a sum of independent variances; of all together where all are 0."""
    variances, freedoms = np.array(parts, float).T
    squares = (variances**2 / freedoms).sum()
    return variances.sum() ** 2 / squares if squares > 0 else freedoms.sum()


def _student(
    center: float, parts: Sequence[tuple[float, float]], least: float, more: float = 0
) -> tuple[float, float, float]:
    """Low, not below `least`, high, and the two-sided p of 0, of a t distributed center.

    `parts`: its variances, each with its degrees of freedom; `more`: a variance without any.
    """
    freedom, error = _freedom(parts), np.sqrt(sum(one for one, _ in parts) + more)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * error
    p = 2 * stdtr(freedom, -abs(center) / error)
    return max(least, center - half), min(1.0, center + half), p


def mean_interval(
    values: Sequence[float], individuals: Sequence[str], signed: bool = False
) -> tuple[float, float]:
    """95 % interval of the mean of hits (N,) in [0, 1], all queries of an individual together.

    Wilson's, with a design effect for queries that are alike within an individual, and Student's t
    of as many individuals: that of other individuals in the same gallery. `signed`: of paired
    differences of hits, in [-1, 1], Agresti and Min's. NaN for no query or a single individual.
    """
    if not len(values):
        return np.nan, np.nan
    return _one_species(clustered(values, individuals), [], signed)[:2]


def _one_species(
    units: Clustered, training: list[tuple[float, float]], signed: bool
) -> tuple[float, float, float]:
    """Low, high, and p (of hits NaN); `training`: variances that it adds, and their freedoms."""
    if units.individuals < 2:
        return np.nan, np.nan, np.nan
    center, variance = units.agresti_min()
    parts = [(variance, units.individuals - 1), *training]
    if signed:
        return _student(center, parts, -1)
    quantile = stdtrit(_freedom(parts), (1 + LEVEL) / 2)
    ends = np.array(units.wilson(quantile)) - units.mean
    added = sum(one for one, _ in training)
    low, high = units.mean + np.array([-1, 1]) * np.sqrt(ends**2 + quantile**2 * added)
    return max(0.0, low), min(1.0, high), np.nan


def _over_species(
    units: list[Clustered], training: list[tuple[float, float]], signed: bool
) -> tuple[float, float, float]:
    """As `_one_species`, of the mean over species, which are fixed.

    SE^2 is the sum of their variances over the squared number of species, and those of training. To
    it comes half the weight of one more individual, without which it would be 0 where all agree.
    A species with one individual is taken to vary as the others do.
    """
    if len(units) < 2:
        return _one_species(units[0], training, signed) if units else (np.nan,) * 3
    people = np.array([one.individuals for one in units])
    variances = np.array([one.variance for one in units])
    if np.isnan(variances).all():
        return (np.nan,) * 3
    between = np.nanmean(variances * people)
    variances = np.where(people > 1, variances, between) / len(units) ** 2
    parts = [*zip(variances, np.maximum(people - 1, 1), strict=True), *training]
    mean = np.mean([one.mean for one in units])
    return _student(mean, parts, -1 if signed else 0, 0.5 / people.sum() ** 2)


def areas(found: pd.DataFrame) -> pd.DataFrame:
    """AUROC in [0, 1]: how often a known animal scores above a new one, ties counting half.

    `found`: searches with species, individual, known, score. Within a species with both, whose
    individuals count alike; last the "mean" over species. Columns species, value, and the 95 %
    interval low, high, that of other individuals.
    """
    units = {}
    for species, rows in found.groupby("species"):
        known, new = (rows[rows["known"] == side] for side in (True, False))
        if len(known) and len(new):
            units[species] = _area(*(own.set_index("individual")["score"] for own in (known, new)))
    each = [[name, unit.mean, *_one_species(unit, [], False)[:2]] for name, unit in units.items()]
    mean = np.mean([unit.mean for unit in units.values()]) if units else np.nan
    each.append(["mean", mean, *_over_species([*units.values()], [], False)[:2]])
    return pd.DataFrame(each, columns=["species", "value", "low", "high"])


def _area(known: pd.Series, new: pd.Series) -> Clustered:
    """AUROC of scores by individual, with DeLong's variance of whole individuals.

    One that is on both sides counts once in it (Obuchowski 1997); the smaller side is its sample.
    """
    above, below = _placed(known, new), 1 - _placed(new, known)
    value, least = above.mean(), min(len(above), len(below))
    departures = ((above - value) / len(above)).add((below - value) / len(below), fill_value=0)
    variance = (departures**2).sum() * least / (least - 1) if least > 1 else np.nan
    size = value * (1 - value) / variance if variance > TINY else least
    return Clustered(value, value, variance, size, least)


def _placed(scores: pd.Series, others: pd.Series) -> pd.Series:
    """By individual, the mean share of other individuals whose scores lie below, ties half."""
    weights = 1 / others.groupby(level=0).transform("size") / others.index.nunique()
    order = np.argsort(others.to_numpy())
    shares, ends = np.append(0, weights.to_numpy()[order].cumsum()), others.to_numpy()[order]
    below, at_most = (np.searchsorted(ends, scores, side) for side in ("left", "right"))
    placed = pd.Series((shares[below] + shares[at_most]) / 2 / shares[-1], scores.index)
    return placed.groupby(level=0).mean()


def _of_training(runs: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """Variances that trainings add, and their degrees of freedom. `runs`: means (R,) by network."""
    return [(m.var(ddof=1) / len(m), len(m) - 1) for m in runs if len(m) > 1]


def by_species(
    values: pd.Series | pd.DataFrame,
    ranks: pd.DataFrame,
    against: pd.Series | pd.DataFrame | None = None,
    spreads: Collection[Spread] = (),
    averaged: Collection[str] | None = None,
) -> pd.DataFrame:
    """Mean of `values` in [0, 1] per species with its interval; last the "mean" over species.

    `values` has the index of counted `ranks`, and a column for each training (R) of its network;
    so has `against`, and what is shown is then `values` minus `against`, paired by query. The mean
    is over the species in `averaged` (None: all). Columns species, queries, individuals, value,
    low, high; of differences p, two-sided and not corrected.

    The 95 % interval is that of other individuals of the same species, in the same gallery. Of
    several trainings it is that of their mean, and has their spread s^2 / R; of one, that of this
    training. `spreads` adds what is known of their spread from elsewhere.
    """
    of_species = [(one.species**2, one.species_freedom) for one in spreads if one.species]
    of_mean = [(one.mean**2, one.mean_freedom) for one in spreads if one.mean]
    signed, counted = against is not None, ranks.index.isin(values.index)
    parts = [values, against] if signed else [values]
    networks = [pd.DataFrame(part).reindex(ranks.index).to_numpy(float) for part in parts]  # (N, R)
    value = networks[0].mean(axis=1) - (networks[1].mean(axis=1) if signed else 0)
    individuals = ranks["individual"].to_numpy()
    rows, units, runs = [], {}, {}
    for species, places in sorted(ranks.groupby("species").indices.items()):
        own = places[counted[places]]
        rows.append([species, len(own), len({*individuals[own]}), *[np.nan] * 4])
        if len(own):
            units[species] = unit = clustered(value[own], individuals[own])
            runs[species] = means = [network[own].mean(axis=0) for network in networks]
            rows[-1][3:] = unit.mean, *_one_species(unit, _of_training(means) + of_species, signed)
    shared = [name for name in units if averaged is None or name in averaged]
    means = zip(*(runs[name] for name in shared), strict=True)
    training = _of_training([sum(own) / len(own) for own in means]) + of_mean
    sizes = [sum(row[place] for row in rows if row[0] in shared) for place in (1, 2)]
    mean = np.mean([units[name].mean for name in shared]) if shared else np.nan
    ends = _over_species([units[name] for name in shared], training, signed)
    rows.append(["mean", *sizes, mean, *ends])
    columns = ["species", "queries", "individuals", "value", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table if signed else table.drop(columns="p")

"""How often intervals hold the truth: `python tests/paper/simulate_intervals.py FOLDER`.

Writes interval_coverage.csv (top-k of one species, ours beside the bootstrap's), and
interval_differences.csv and interval_training.csv (paired differences of one species, and their
mean over twelve species with trainings that differ). Hits are beta-binomial: each individual has
its own rate, and `correlation` is that of two of its queries. Takes a quarter of an hour.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from miewid_core.paper.intervals import Spread, by_species, mean_interval

INDIVIDUALS, QUERIES = (5, 11, 25, 50), (2, 5, 10)
RATES, CORRELATIONS = (0.02, 0.1, 0.5, 0.9, 0.95, 0.98), (0.0, 0.3, 0.7)
BOOTSTRAPS = {"percentile bootstrap": "percentile", "BCa bootstrap": "BCa"}
SPECIES = (58, 54, 50, 38, 20, 22, 20, 18, 18, 15, 18, 11)  # individuals, as on the demo data
SHARED, EACH = 0.02, 0.03  # deviations of a training: in all species, and of one network in one
PAIRS = ((0.5, 0.5), (0.6, 0.4), (0.9, 0.5), (0.95, 0.9), (0.98, 0.98), (0.3, 0.02))
SINGLES = EACH / np.sqrt(len(SPECIES))  # deviation of the mean over single-species networks
COUNTED = {  # what an interval of trainings counts: the arguments of by_species that it needs
    "individuals": {},
    "individuals, spread of trainings known": {
        "spreads": [Spread(np.hypot(SHARED, EACH), np.hypot(SHARED, SINGLES))]
    },
    "individuals, trainings": {},
    "individuals, trainings, single-species networks": {"spreads": [Spread(EACH, SINGLES)]},
}
ONCE = ["individuals", "individuals, spread of trainings known"]
SEVERAL = [name for name in COUNTED if name != ONCE[1]]


def beta_binomial(rng, individuals, queries, rate, correlation, repeats):
    """Hits (repeats, individuals, queries), 0 or 1."""
    skill = np.full((repeats, individuals), rate)
    if correlation:
        total = 1 / correlation - 1
        skill = rng.beta(rate * total, (1 - rate) * total, skill.shape)
    return (rng.random((*skill.shape, queries)) < skill[..., None]).astype(float)


def bootstrapped(hits, method, rng, draws=500):
    """Ends (repeats, 2) by a bootstrap of individuals, whose draws all repeats share."""
    means = hits.mean(axis=2)
    repeats, people = means.shape
    weights = rng.multinomial(people, np.full(people, 1 / people), draws)
    drawn = np.sort(means @ weights.T / people, axis=1)
    shares = np.full((repeats, 2), (0.025, 0.975))
    if method == "BCa":
        shares = accelerated(means, drawn)
    places = shares * (draws - 1)
    below, above = np.floor(places).astype(int), np.ceil(places).astype(int)
    low, high = (np.take_along_axis(drawn, which, axis=1) for which in (below, above))
    return low + (high - low) * (places - below)


def accelerated(means, drawn):
    """Which quantiles (repeats, 2) of the draws BCa takes; half where all are alike (Efron)."""
    mean = means.mean(axis=1, keepdims=True)
    below = (drawn < mean - 1e-9).mean(axis=1) + (drawn <= mean + 1e-9).mean(axis=1)
    departures = means - mean
    spread = (departures**2).sum(axis=1) ** 1.5
    skew = (departures**3).sum(axis=1) / np.where(spread > 0, 6 * spread, 1)
    bias = ndtri(np.clip(below / 2, 1e-6, 1 - 1e-6))[:, None]
    normal = bias + ndtri([[0.025, 0.975]])
    return ndtr(bias + normal / (1 - skew[:, None] * normal))


def scored(ends, truth):
    """Coverage and mean width of intervals (repeats, 2)."""
    ends, truth = np.asarray(ends), np.broadcast_to(truth, len(ends))
    inside = (ends[:, 0] <= truth + 1e-12) & (truth <= ends[:, 1] + 1e-12)
    return {"coverage": inside.mean(), "width": (ends[:, 1] - ends[:, 0]).mean()}


def one_species(rng, repeats, methods=BOOTSTRAPS, individuals=INDIVIDUALS, queries=QUERIES):
    """Coverage and width of our interval of hits, and of bootstraps, in every case."""
    rows = []
    for case in itertools.product(individuals, queries, RATES, CORRELATIONS):
        names = ["individuals", "queries_per_individual", "rate", "correlation"]
        hits = beta_binomial(rng, *case, repeats)
        people = np.repeat(np.arange(case[0]), case[1])
        ends = {"Wilson, design effect": [mean_interval(one.ravel(), people) for one in hits]}
        ends |= {name: bootstrapped(hits, method, rng) for name, method in methods.items()}
        for name, own in ends.items():
            rows.append({"method": name, **dict(zip(names, case, strict=True))})
            rows[-1] |= scored(own, case[2])
    return pd.DataFrame(rows)


def correlated(rng, shape, correlation):
    """Two standard normals of this shape, correlated with each other."""
    one, other = rng.standard_normal((2, *shape))
    return one, correlation * one + np.sqrt(1 - correlation**2) * other


def paired(rng, individuals, queries, rates, correlation, repeats, between=0.8):
    """Hits of two models on the same queries (2, repeats, individuals, queries).

    A query is a hit where its ease, partly its individual's, is enough; `between` is how much the
    two models' eases have in common.
    """
    own = correlated(rng, (repeats, individuals, 1), between)
    each = correlated(rng, (repeats, individuals, queries), between)
    parts = zip(own, each, rates, strict=True)
    return [
        np.sqrt(correlation) * a + np.sqrt(1 - correlation) * b < ndtri(rate)
        for a, b, rate in parts
    ]


def two_models(rng, repeats, individuals=INDIVIDUALS, queries=QUERIES[::2], pairs=PAIRS):
    """As `one_species`, of the paired difference of two models in one species."""
    rows = []
    for case in itertools.product(individuals, queries, pairs, CORRELATIONS):
        one, other = paired(rng, *case, repeats)
        differences, people = one * 1.0 - other, np.repeat(np.arange(case[0]), case[1])
        ours = [mean_interval(own.ravel(), people, signed=True) for own in differences]
        ends = {"Agresti-Min, design effect": ours}
        ends["percentile bootstrap"] = bootstrapped(differences, "percentile", rng)
        for name, own in ends.items():
            names = ["individuals", "queries_per_individual", "rates", "correlation"]
            rows.append({"method": name, **dict(zip(names, case, strict=True))})
            rows[-1] |= scored(own, case[2][0] - case[2][1])
    return pd.DataFrame(rows)


def demo_like(queries=4):
    """Rows of species and individual, so many queries each."""
    rows = [(f"s{s}", f"s{s}/{i}") for s, people in enumerate(SPECIES) for i in range(people)]
    return pd.DataFrame(rows, columns=["species", "individual"]).loc[
        np.repeat(np.arange(len(rows)), queries)
    ]


def experiment(rng, ranks, runs, shared=SHARED, each=EACH, rates=(0.6, 0.42)):
    """One network of all species, trained `runs` times, and one network for each species.

    Returns the first's hits (queries, runs), and those of the others (queries,).
    """
    deviations = rng.normal(0, shared, runs + 1)[:runs]  # one more is drawn: the saved tables' luck
    species = pd.factorize(ranks["species"])[0]
    people = pd.factorize(ranks["individual"])[0]
    single = rates[1] + rng.normal(0, each, len(SPECIES))[species]
    true = np.column_stack([np.tile(rates[0] + deviations, (len(ranks), 1)), single])
    # the same individuals and queries for all, and luck of each network's own
    parts = np.sqrt([0.3, 0.4, 0.3])[:, None, None] * rng.standard_normal((3, *true.shape))
    ease = parts[0, people, :1] + parts[1, :, :1] + parts[2]
    hits = (ease < ndtri(true)).astype(float)
    return pd.DataFrame(hits[:, :-1]), pd.Series(hits[:, -1])


def trainings(rng, repeats, runs=(1, 3, 6), shared=SHARED, each=EACH, truth=0.18):
    """Coverage of the mean gain over species where trainings deviate, by what is counted.

    And, as `by_species`, that of each species' own gain, all together.
    """
    rows, ranks = [], demo_like().reset_index(drop=True)
    for count in runs:
        known = ONCE if count == 1 else SEVERAL
        ends = {name: [] for name in known}
        for _ in range(repeats):
            multi, single = experiment(rng, ranks, count, shared, each)
            for name in known:
                values = multi.mean(axis=1) if name == "individuals" else multi
                table = by_species(values, ranks, single, **COUNTED[name])
                ends[name].append(table[["low", "high"]].to_numpy())
        for name, own in ends.items():
            deviations = {"shared": shared, "per_network": each}
            own = np.stack(own)
            rows.append({"counted": name, "trainings": count, **deviations})
            rows[-1] |= scored(own[:, -1], truth)
            rows[-1]["by_species"] = scored(own[:, :-1].reshape(-1, 2), truth)["coverage"]
    return pd.DataFrame(rows)


def with_and_without(rng, repeats):
    """`trainings` as they deviate, and of trainings that all end alike: what the spread costs."""
    alike = trainings(rng, repeats, runs=(3, 6), shared=0, each=0)
    alike = alike[alike["counted"].isin(list(COUNTED)[:3])]
    return pd.concat([trainings(rng, repeats), alike], ignore_index=True)


SIMULATIONS = {
    "interval_training": with_and_without,
    "interval_coverage": one_species,
    "interval_differences": two_models,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", choices=SIMULATIONS, default=[*SIMULATIONS], nargs="+")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        rng = np.random.default_rng([*SIMULATIONS].index(name))
        table = SIMULATIONS[name](rng, given.repeats)
        path = given.folder / f"{name}.csv"
        table.to_csv(path, index=False, float_format="%.4f", lineterminator="\n")


if __name__ == "__main__":
    main()

"""A threshold for "this is a new individual", what it costs, and how sure a match is."""

import dataclasses
import math

import numpy as np
import pandas as pd
from numpy.random import default_rng
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from miewid_core.evaluation import BLOCK, mean_interval
from miewid_core.figures import BLUE, GREY, Figure, styled
from miewid_core.runs.embeddings import Embeddings

COLUMNS = ["annotation_id", "species", "individual", "own", "other"]
RATES = ["measure", "meaning", "rate", "low", "high", "searches", "individuals"]
RELIABILITY = ["stated", "observed", "low", "high", "searches", "individuals"]
BINS = 8  # of the reliability curve, each with as many queries
MEASURES = {  # what a search can do wrong: words
    "false_match": "a new animal is taken for a known one",
    "missed_match": "a known animal is called new",
    "wrong_match": "a known animal is taken for another one",
}


class TooFewIndividualsError(ValueError):
    """Why no threshold can be stated, and how many individuals it would need."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A search whose best score (cosine) is above `value` finds a known individual, else a new one.

    `rate`: of false matches, stated beforehand. `individuals`, `searches`: it was chosen on.
    `slope`, `intercept`: of the log-odds that the best match is right, by its score.
    """

    value: float
    rate: float
    individuals: int
    searches: int
    slope: float
    intercept: float

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probability that the best match is right, for an animal that is known."""
        return 1 / (1 + np.exp(-self.intercept - self.slope * np.asarray(scores)))


def needed(rate: float) -> int:
    """How many individuals it takes to state a rate: without any error among n, up to 3 / n of all
    could be wrong at 95 % confidence (the rule of three). ValueError for a rate outside (0, 1)."""
    if not 0 < rate < 1:
        raise ValueError(f"a rate of false matches lies between 0 and 1, not {rate}")
    return math.ceil(round(3 / rate, 6))


def carve(
    train: pd.DataFrame, test: pd.DataFrame, rate: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training photos without, and those of, the random individuals that a rate is chosen on.

    As many individuals as `needed`, none of which is in `test`. Where fewer than twice as many
    could be taken, too much would be lost for training, and none is. A rate of 0 takes none.
    """
    free = train.loc[~train["individual"].isin(test["individual"]), "individual"]
    free = np.sort(free.unique())
    count = needed(rate) if rate else 0
    if train["individual"].nunique() < 2 * count or len(free) < count:
        count = 0
    chosen = train["individual"].isin(default_rng(seed).permutation(free)[:count])
    return train[~chosen].reset_index(drop=True), train[chosen].reset_index(drop=True)


def searches(queries: Embeddings, database: Embeddings) -> pd.DataFrame:
    """The best score of each query in `database` among its own individual's photos, and others'.

    Returns COLUMNS; cosines in [-1, 1]. The query itself and its own individual's photos of the
    same encounter don't count; `own` is NaN without any other, `other` likewise. Were the query's
    individual unknown, `other` would be the best score: each query is a search for a known and one
    for a new animal. Candidates are of the query's species.
    """
    parts = []
    for species in queries.rows["species"].unique():
        pair = (of.of(of.rows["species"] == species) for of in (queries, database))
        parts.append(_searches(*pair))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _searches(queries: Embeddings, database: Embeddings) -> pd.DataFrame:
    unit, labels = normalize(database.vectors), _codes(queries.rows, database.rows)
    scores = np.full((len(queries.rows), 2), np.nan)
    for start in range(0, len(scores), BLOCK):
        block = slice(start, start + BLOCK)
        similar = normalize(queries.vectors[block]) @ unit.T
        itself, own, burst = (mine[block, None] == theirs for mine, theirs in labels)
        burst &= (queries.rows["encounter"][block] != "").to_numpy()[:, None]
        for column, mask in enumerate((own & ~itself & ~burst, ~own & ~itself)):
            best = np.where(mask, similar, -np.inf).max(axis=1, initial=-np.inf)
            scores[block, column] = np.where(np.isinf(best), np.nan, best)
    return queries.rows[COLUMNS[:3]].assign(own=scores[:, 0], other=scores[:, 1])


def _codes(queries: pd.DataFrame, database: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Annotation, individual and encounter of both tables' rows as numbers."""
    names = ["annotation_id", "individual", "encounter"]
    codes = [pd.factorize(pd.concat([queries[name], database[name]]))[0] for name in names]
    return [(code[: len(queries)], code[len(queries) :]) for code in codes]


def choose(validation: pd.DataFrame, rate: float) -> Threshold:
    """The lowest threshold at which at most `rate` of the searches for new animals find a match.

    `validation`: `searches` of individuals that the network didn't learn and that no test uses, in
    the database that new animals will search: the best of more candidates has a higher score.
    Raises TooFewIndividualsError where they are fewer than `needed`.
    """
    new = validation.dropna(subset="other")
    individuals, least = new["individual"].nunique(), needed(rate)
    if individuals < least:
        raise TooFewIndividualsError(
            f"{individuals} individuals to choose a threshold on are too few for a rate of false "
            f"matches of {100 * rate:g} %: it takes {least}. Even if none of {least} were matched "
            f"falsely, up to 3 / {least} of all new animals could be (rule of three); with fewer, "
            "this rate couldn't be told from a higher one. Add photos of known individuals, or "
            "allow a higher rate."
        )
    value = float(np.quantile(new["other"], 1 - rate, method="higher"))
    return Threshold(value, rate, individuals, len(new), *_calibrated(validation))


def _known(found: pd.DataFrame) -> pd.DataFrame:
    """Searches for known animals: score of the best match, whether it is right (a tie isn't)."""
    known = found.dropna(subset="own")
    other = known["other"].fillna(-np.inf)
    return known.assign(score=np.maximum(known["own"], other), right=known["own"] > other)


def _calibrated(validation: pd.DataFrame) -> tuple[float, float]:
    """Slope and intercept of a logistic regression of right on score (Platt's calibration).

    Isotonic regression would need about 1,000 searches. Where all (or none) are right no slope can
    be learned, and the rule of succession gives the one probability.
    """
    known = _known(validation)
    if known["right"].nunique() < 2:
        right = known["right"].sum() + 1
        return 0.0, math.log(right / (len(known) + 2 - right))
    mean, deviation = float(known["score"].mean()), float(known["score"].std()) or 1.0
    fitted = LogisticRegression().fit((known[["score"]] - mean) / deviation, known["right"])
    slope = float(fitted.coef_[0, 0]) / deviation
    return slope, float(fitted.intercept_[0]) - slope * mean


def rates(tested: pd.DataFrame, threshold: Threshold, seed: int) -> pd.DataFrame:
    """What a threshold costs on test `searches`, by MEASURES, in percent.

    Columns measure, meaning, rate, low, high (95 % interval, as `evaluation.mean_interval`),
    searches, individuals.
    """
    new, known = tested.dropna(subset="other"), _known(tested)
    accepted = known["score"] > threshold.value
    outcomes = {
        "false_match": (new, new["other"] > threshold.value),
        "missed_match": (known, ~accepted),
        "wrong_match": (known, accepted & ~known["right"]),
    }
    rows = [
        [name, MEASURES[name], *_rate(wrong, of["individual"])]
        for name, (of, wrong) in outcomes.items()
    ]
    return pd.DataFrame(rows, columns=RATES)


def _rate(wrong: pd.Series, individuals: pd.Series) -> list[float]:
    """Percentage, its interval, and of how many."""
    low, high = mean_interval(wrong, individuals)
    return [100 * wrong.mean(), 100 * low, 100 * high, len(wrong), individuals.nunique()]


def reliability(tested: pd.DataFrame, threshold: Threshold, seed: int) -> pd.DataFrame:
    """Stated and observed probability that the best match is right, in BINS by score.

    Columns stated, observed, low, high (95 % interval), searches, individuals; in percent.
    """
    known = _known(tested)
    known["stated"] = threshold.probability(known["score"])
    places = known["score"].rank(method="first")
    bins = min(BINS, max(1, len(known) // 10))
    rows = []
    for _, own in known.groupby((places - 1) * bins // max(1, len(known))):
        rows.append([100 * own["stated"].mean(), *_rate(own["right"], own["individual"])])
    return pd.DataFrame(rows, columns=RELIABILITY)


@dataclasses.dataclass(frozen=True)
class Report:
    """A threshold and its test, or, without a threshold, empty tables and the reason in `words`."""

    threshold: Threshold | None
    rates: pd.DataFrame
    reliability: pd.DataFrame
    words: str


def report(validation: pd.DataFrame, tested: pd.DataFrame, rate: float, seed: int) -> Report:
    """Choose a threshold at a `rate` of false matches on validation `searches`, and test it.

    A rate of 0 asks for none.
    """
    empty = pd.DataFrame(columns=RATES), pd.DataFrame(columns=RELIABILITY)
    if not rate:
        return Report(None, *empty, "No threshold was asked for.")
    try:
        chosen = choose(validation, rate)
    except TooFewIndividualsError as error:
        return Report(None, *empty, f"**No threshold can be stated.** {error}")
    table = rates(tested, chosen, seed)
    return Report(chosen, table, reliability(tested, chosen, seed), _in_words(chosen, table))


def _in_words(threshold: Threshold, table: pd.DataFrame) -> str:
    head = (
        f"A best score of at most **{threshold.value:.2f}** says: perhaps a new individual. It was "
        f"chosen on {threshold.individuals} individuals so that at most {100 * threshold.rate:g} % "
        "of new animals are taken for known ones. On the test, which it wasn't chosen on:"
    )
    lines = [
        f"- {row.meaning}: {row.rate:.0f} % (95 % interval {row.low:.0f} to {row.high:.0f}, "
        f"{row.searches:,} searches for {row.individuals:,} individuals)"
        for row in table.itertuples()
    ]
    false = table.iloc[0]
    above = false["low"] > 100 * threshold.rate
    kept = "was exceeded: trust it less here" if above else "was not shown to be exceeded"
    return "\n".join([head, "", *lines, "", f"The stated rate of false matches {kept}."])


def notes(found: pd.DataFrame, threshold: Threshold | None) -> dict[str, str]:
    """For each query of `identify.candidates`, what its best score says; none without threshold."""
    if threshold is None:
        return {}
    best = found[found["rank"] == 1]
    sure = threshold.probability(best["score"].to_numpy(float))
    return {
        query: f"perhaps a new animal: best score {score:.2f}, threshold {threshold.value:.2f}"
        if score <= threshold.value
        else f"if this animal is known, the first candidate is right with {100 * probability:.0f} %"
        for query, score, probability in zip(best["query"], best["score"], sure, strict=True)
    }


@styled()
def reliability_curve(table: pd.DataFrame, title: str) -> Figure:
    """How often the best match is right against how often it should be (`table`: `reliability`)."""
    drawn = Figure(title, 3.4)
    axes = drawn.subplots()
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", label="as stated")
    axes.vlines(table["stated"], table["low"], table["high"], color=BLUE, linewidth=1)
    each = f" ({table['searches'].iloc[0]:,} searches each)" if len(table) else ""
    look = {"color": BLUE, "label": f"observed, 95 % interval{each}"}
    axes.plot(table["stated"], table["observed"], "o-", markersize=4, **look)
    if table.empty:
        words = "too few individuals"
        axes.text(50, 60, words, ha="center", backgroundcolor="white")
    axes.set(xlim=(-2, 102), ylim=(-2, 102), xlabel="stated probability of the best match (%)")
    axes.set_ylabel("best match right (%)")
    drawn.legend(loc="outside lower left")
    return drawn

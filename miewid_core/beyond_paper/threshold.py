"""A threshold for each species that tells new animals from known ones, and what it costs."""

import dataclasses
import math

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import det_curve, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from miewid_core.beyond_paper.embeddings import Embeddings
from miewid_core.evaluation import BLOCK
from miewid_core.figures import BLUE, GREY, Figure, styled
from miewid_core.paper.intervals import mean_interval

COLUMNS = ["annotation_id", "species", "individual", "true_score", "other_score", "learned"]
MEASURES = ["FPIR", "FNIR", "called_new", "wrong_match"]
ENDS = ("", "_low", "_high")
RATES = [
    *["species", "new_individuals", "known_individuals", "threshold"],
    *["threshold_low", "threshold_high"],
    *(f"{name}{end}" for name in MEASURES for end in ENDS),
]
RELIABILITY = ["stated", "observed", "low", "high", "searches", "individuals"]
BINS = 8  # of the reliability curve, each with as many searches
FOLDS = 5  # of the calibration; both outcomes need twice as many individuals
DRAWS = 1000  # of a bootstrap


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Of one species: a search whose best score (cosine) is at most `value` finds a new animal.

    `low`, `high`: 95 % interval of `value`. `rate`: of false positives, asked for. `individuals`:
    how many it was chosen on. `slope`, `intercept`: of the log-odds, by score, that the best match
    is right.
    """

    value: float
    low: float
    high: float
    rate: float
    individuals: int
    slope: float
    intercept: float

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probability that the best match is right, if the animal is known."""
        return 1 / (1 + np.exp(-self.intercept - self.slope * np.asarray(scores)))


def needed(rate: float) -> int:
    """How many individuals a threshold takes: 22 for a rate of 10 %.

    Of so many new animals one reaches the true threshold with 90 % probability; the highest score
    of fewer says too little. Raises ValueError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"a rate of false positives lies between 0 and 1, not {rate}")
    return math.ceil(math.log(0.1) / math.log(1 - rate))


def searches(
    queries: Embeddings, database: Embeddings, learned: frozenset[str] = frozenset()
) -> pd.DataFrame:
    """The best score of each query in `database` among its own individual's photos, and others'.

    Returns COLUMNS; cosines in [-1, 1]. The query itself and its own individual's photos of the
    same encounter don't count; `true_score` is NaN without any other, `other_score` likewise. Were
    the individual's photos taken out of the database, `other_score` would be the best: so each
    query is a search for a known and one for a new animal. Candidates are of the query's species.
    `learned`: individuals that the network was trained on, which can't stand for new ones.
    """
    parts = []
    for species in queries.rows["species"].unique():
        pair = (of.of(of.rows["species"] == species) for of in (queries, database))
        parts.append(_searches(*pair))
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS[:-1])
    return found.assign(learned=found["individual"].isin(learned))


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
    return queries.rows[COLUMNS[:3]].assign(true_score=scores[:, 0], other_score=scores[:, 1])


def _codes(queries: pd.DataFrame, database: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Annotation, individual and encounter of both tables' rows as numbers."""
    names = ["annotation_id", "individual", "encounter"]
    codes = [pd.factorize(pd.concat([queries[name], database[name]]))[0] for name in names]
    return [(code[: len(queries)], code[len(queries) :]) for code in codes]


def _new(found: pd.DataFrame) -> pd.DataFrame:
    """Searches for new animals, by rising score; `weight` makes individuals count alike."""
    new = found[~found["learned"].astype(bool)].dropna(subset="other_score")
    weight = 1 / new.groupby("individual")["other_score"].transform("size")
    return new.assign(weight=weight).sort_values("other_score")


def _known(found: pd.DataFrame) -> pd.DataFrame:
    """Searches for known animals: score of the best match, whether it is right (a tie isn't)."""
    known = found.dropna(subset="true_score")
    other = known["other_score"].fillna(-np.inf)
    score, right = np.maximum(known["true_score"], other), known["true_score"] > other
    weight = 1 / known.groupby("individual")["true_score"].transform("size")
    return known.assign(score=score, right=right, weight=weight)


def choose(found: pd.DataFrame, rate: float, seed: int) -> Threshold | None:
    """The lowest threshold at which at most `rate` of the new animals find a match.

    `found`: `searches` of one species. Its individuals count alike, each with all its searches.
    None where fewer than `needed` can stand for new ones. The interval is bootstrapped over them.
    """
    new = _new(found)
    codes, names = pd.factorize(new["individual"])
    if len(names) < needed(rate):
        return None
    scores, weights = new["other_score"].to_numpy(float), new["weight"].to_numpy(float)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    drawn = [_lowest(scores, weights * draw[codes], rate) for draw in draws]
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = _lowest(scores, weights, rate)
    calibrated = _calibrated(_known(found))
    return Threshold(value, float(low), float(high), rate, len(names), *calibrated)


def _lowest(scores: np.ndarray, weights: np.ndarray, rate: float) -> float:
    """The lowest of the rising `scores` with at most `rate` of the weight above it."""
    above = weights.sum() - weights.cumsum()
    return float(scores[np.argmax(above <= rate * weights.sum() + 1e-9)])


def _of_the_others(found: pd.DataFrame, rate: float) -> dict[str, float]:
    """For each individual that stands for a new one, the threshold that the others choose."""
    new = _new(found)
    scores, weights = new["other_score"].to_numpy(float), new["weight"].to_numpy(float)
    codes, names = pd.factorize(new["individual"])
    return {
        name: _lowest(scores[codes != code], weights[codes != code], rate)
        for code, name in enumerate(names)
    }


def _calibrated(known: pd.DataFrame) -> tuple[float, float]:
    """Slope and intercept of a logistic regression of right on score (Platt's calibration).

    Where too few are right or wrong, the rule of succession gives the one probability.
    """
    if not _both_outcomes(known):
        right = known["right"].sum() + 1
        return 0.0, math.log(right / (len(known) + 2 - right))
    scaler, fitted = _logistic().fit(known[["score"]].to_numpy(), known["right"])
    slope = float(fitted.coef_[0, 0] / scaler.scale_[0])
    return slope, float(fitted.intercept_[0] - slope * scaler.mean_[0])


def _logistic() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression())


def _both_outcomes(known: pd.DataFrame) -> bool:
    people = known.groupby("right")["individual"].nunique()
    return len(people) == 2 and people.min() >= 2 * FOLDS


def _stated(known: pd.DataFrame) -> np.ndarray:
    """Probability that each best match is right, from the searches for other individuals."""
    if not _both_outcomes(known):
        return np.full(len(known), (known["right"].sum() + 1) / (len(known) + 2))
    folds, score = StratifiedGroupKFold(FOLDS), known[["score"]].to_numpy()
    given = {"groups": known["individual"], "cv": folds, "method": "predict_proba"}
    return cross_val_predict(_logistic(), score, known["right"], **given)[:, 1]


def rates(found: pd.DataFrame, threshold: Threshold) -> dict[str, float]:
    """What a threshold costs on `searches` of its species, MEASURES in percent with intervals.

    FPIR: new animals that are taken for known ones. FNIR(T, R = 1): known animals that aren't
    found, as they are called new or taken for another one. Each individual is judged by the
    threshold that the others choose. Individuals count alike.
    """
    left_out = _of_the_others(found, threshold.rate)
    new, known = _new(found), _known(found)
    limits = known["individual"].map(left_out).astype(float).fillna(threshold.value)
    called_new = known["score"] <= limits
    outcomes = {
        "FPIR": (new, new["other_score"] > new["individual"].map(left_out).astype(float)),
        "FNIR": (known, called_new | ~known["right"]),
        "called_new": (known, called_new),
        "wrong_match": (known, ~called_new & ~known["right"]),
    }
    values = {}
    for name, (rows, wrong) in outcomes.items():
        shares = wrong.groupby(rows["individual"]).mean()
        for end, value in zip(
            ENDS, [shares.mean(), *mean_interval(shares, shares.index)], strict=True
        ):
            values[f"{name}{end}"] = 100 * value
    return values | {"known_individuals": known["individual"].nunique()}


def reliability(found: pd.DataFrame) -> pd.DataFrame:
    """Stated and observed probability that the best match is right, in BINS by what is stated.

    Columns stated, observed, low, high (95 % interval), searches, individuals; in percent, pooled
    over species. What is stated of an individual comes from the searches for others of its species.
    """
    known = _known(found)
    for _, place in known.groupby("species").indices.items():
        known.loc[known.index[place], "stated"] = _stated(known.iloc[place])
    bins = min(BINS, max(1, len(known) // 10))
    rows = []
    places = known["stated"].rank(method="first") - 1 if len(known) else pd.Series(dtype=float)
    for _, part in known.groupby(places * bins // max(1, len(known))):
        low, high = mean_interval(part["right"], part["individual"])
        values = [100 * share for share in (part["stated"].mean(), part["right"].mean(), low, high)]
        rows.append([*values, len(part), part["individual"].nunique()])
    return pd.DataFrame(rows, columns=RELIABILITY)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error (ECE) in percent, of a table of `reliability`."""
    weights = table["searches"] / table["searches"].sum()
    return float((weights * (table["stated"] - table["observed"]).abs()).sum())


def detection(found: pd.DataFrame) -> pd.DataFrame:
    """The trade of FNIR against FPIR (DET), in percent: thresholds, threshold, FPIR, FNIR.

    `thresholds`: "one for all" species, or "one a species", the mean over species at equal FPIR
    (without a threshold). Species count alike, and individuals within them.
    """
    parts = _trials(found)
    if not parts:
        return pd.DataFrame(columns=["thresholds", "threshold", "FPIR", "FNIR"])
    pooled = pd.concat(parts)
    curves = [_curve(part) for part in parts]
    fpir = np.linspace(0, 100, 201)
    fnir = np.mean([_missed_at(fpir, curve) for curve in curves], axis=0)
    own = pd.DataFrame({"thresholds": "one a species", "FPIR": fpir, "FNIR": fnir})
    return pd.concat([_curve(pooled).assign(thresholds="one for all"), own], ignore_index=True)[
        ["thresholds", "threshold", "FPIR", "FNIR"]
    ]


def _trials(found: pd.DataFrame) -> list[pd.DataFrame]:
    """Of each species with both, all searches: known or new, score, score if right, weight."""
    parts = []
    for _, rows in found.groupby("species"):
        new, known = _new(rows), _known(rows)
        if len(new) and len(known):
            one = pd.DataFrame({"known": False, "score": new["other_score"]})
            one["right_score"], one["weight"] = new["other_score"], new["weight"]
            two = known[["score"]].assign(known=True, weight=known["weight"])
            two["right_score"] = known["score"].where(known["right"], -2.0)  # never accepted
            both = pd.concat([one, two], ignore_index=True)
            both["weight"] /= both.groupby("known")["weight"].transform("sum")
            parts.append(both)
    return parts


def _curve(trials: pd.DataFrame) -> pd.DataFrame:
    fpr, fnr, at = det_curve(trials["known"], trials["right_score"], sample_weight=trials["weight"])
    table = pd.DataFrame({"threshold": at, "FPIR": 100 * fpr, "FNIR": 100 * fnr})
    table = table[table["threshold"] > -2]
    return table.sort_values(["FPIR", "FNIR"], ascending=[True, False], ignore_index=True)


def _missed_at(fpir: np.ndarray, curve: pd.DataFrame) -> np.ndarray:
    """The least FNIR of a curve at no more than each of `fpir`."""
    fnir = np.append(100.0, curve["FNIR"])
    return fnir[np.searchsorted(curve["FPIR"], fpir + 1e-9, side="right")]


def detection_auc(found: pd.DataFrame) -> float:
    """AUROC in [0, 1]: does a known animal's best score lie above a new one's? NaN without both.

    Pooled over species, which count alike, and individuals within them.
    """
    parts = _trials(found)
    if not parts:
        return np.nan
    trials = pd.concat(parts)
    return float(roc_auc_score(trials["known"], trials["score"], sample_weight=trials["weight"]))


@dataclasses.dataclass(frozen=True)
class Report:
    """The thresholds by species, RATES (a row a species), RELIABILITY, `detection`, and words."""

    thresholds: dict[str, Threshold]
    rates: pd.DataFrame
    reliability: pd.DataFrame
    detection: pd.DataFrame
    words: str


def report(found: pd.DataFrame, rate: float, seed: int) -> Report:
    """Choose each species' threshold at a `rate` of false positives, and test it.

    `found`: `searches` of one photo an encounter. A rate of 0 asks for none. A species with too few
    new individuals has none: its row has only their number.
    """
    thresholds, rows = {}, []
    for species, own in found.groupby("species") if rate else ():
        row = {"species": species, "new_individuals": _new(own)["individual"].nunique()}
        chosen = choose(own, rate, seed)
        if chosen:
            thresholds[species] = chosen
            limits = {"threshold": chosen.value, "threshold_low": chosen.low}
            row |= limits | {"threshold_high": chosen.high} | rates(own, chosen)
        rows.append(row)
    table = pd.DataFrame(rows, columns=RATES)
    sure = reliability(found)
    words = [_in_words(table, rate), _quality_in_words(found, sure)]
    return Report(thresholds, table, sure, detection(found), "\n\n".join(words))


def _in_words(table: pd.DataFrame, rate: float) -> str:
    if not rate:
        return "No threshold was asked for."
    some, none = table[table["threshold"].notna()], table[table["threshold"].isna()]
    lines = [_species_in_words(row, rate) for row in some.to_dict("records")]
    if len(none):
        pairs = zip(none["species"], none["new_individuals"], strict=True)
        lines.append(
            f"- **No threshold** for {', '.join(f'{name} ({count})' for name, count in pairs)}: it "
            f"takes {needed(rate)} individuals that the network never learned, or a higher rate."
        )
    return "\n".join(lines)


def _species_in_words(row: dict[str, float], rate: float) -> str:
    spans = {
        name: f"{row[name]:.0f} % ({row[name + '_low']:.0f} to {row[name + '_high']:.0f})"
        for name in ("FPIR", "FNIR")
    }
    held = "more than" if row["FPIR_low"] > 100 * rate else "consistent with"
    words = (
        f"- **{row['species']}**: threshold {row['threshold']:.2f} (95 % interval "
        f"{row['threshold_low']:.2f} to {row['threshold_high']:.2f}, {row['new_individuals']} "
        f"individuals). FPIR {spans['FPIR']}, {held} the {100 * rate:g} % asked for; FNIR "
        f"{spans['FNIR']}: {row['called_new']:.0f} % of known animals are called new, "
        f"{row['wrong_match']:.0f} % taken for another one."
    )
    if row["FNIR"] >= 50:
        words += (
            " **This threshold helps nobody: it misses most of the animals that you know.** "
            "Go through the candidates yourself."
        )
    return words


def _quality_in_words(found: pd.DataFrame, sure: pd.DataFrame) -> str:
    auc = detection_auc(found)
    if np.isnan(auc):
        return "Without known and new animals nothing can be said of how well scores part them."
    return (
        f"Pooled over species: a known animal's best score is above a new one's in {100 * auc:.0f} "
        f"% of pairs (AUROC {auc:.2f}; 0.5 is chance). The stated probability of a match is off by "
        f"{calibration_error(sure):.0f} points on average (ECE)."
    )


def notes(found: pd.DataFrame, thresholds: dict[str, Threshold]) -> dict[str, str]:
    """For each query of `identify.candidates`, what its best score says by its species' threshold.

    The species is that of the best candidate; one without a threshold has no notes.
    """
    told = {}
    for row in found[found["rank"] == 1].itertuples():
        limit = thresholds.get(row.individual.partition("/")[0])
        if limit and row.score <= limit.value:
            words = f"best score {row.score:.2f}, threshold {limit.value:.2f}"
            told[row.query] = f"perhaps a new animal: {words}"
        elif limit:
            sure = 100 * limit.probability(row.score)
            told[row.query] = f"if this animal is known, the first is right with {sure:.0f} %"
    return told


@styled()
def detection_curve(table: pd.DataFrame, title: str) -> Figure:
    """FNIR against FPIR, of one threshold for all species and of one a species (`detection`)."""
    drawn = Figure(title, 3.2)
    axes = drawn.subplots()
    looks = {"one for all": (GREY, "--"), "one a species": (BLUE, "-")}
    for name, (colour, line) in looks.items():
        rows = table[table["thresholds"] == name]
        axes.plot(rows["FPIR"], rows["FNIR"], line, color=colour, label=f"threshold: {name}")
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="FPIR: new animals taken for known ones (%)")
    axes.set_ylabel("FNIR: known animals not found (%)")
    drawn.legend(loc="outside lower left")
    return drawn


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
    axes.set(xlim=(-2, 102), ylim=(-2, 102), xlabel="stated probability of the best match (%)")
    axes.set_ylabel("best match right (%)")
    drawn.legend(loc="outside lower left")
    return drawn

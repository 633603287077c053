"""A threshold for each species that tells new animals from known ones, and what it costs."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import det_curve
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from miewid_core.beyond_paper.identify.embeddings import Embeddings, by_species, nearest
from miewid_core.figures import BLUE, GREY, Figure, spelt, styled
from miewid_core.paper.intervals import ENDS, Estimate, areas, mean_interval, with_interval

LABELS = ["annotation_id", "species", "individual"]
MEASURES = ["FPIR", "FNIR", "called_new", "wrong_match"]
THRESHOLD = [f"threshold{end}" for end in ENDS]
RATES = [
    *["species", "new_individuals", "known_individuals", *THRESHOLD],
    *(f"{name}{end}" for name in MEASURES for end in ENDS),
]
RELIABILITY = ["stated", "observed", "low", "high", "searches", "individuals"]
BINS = 8  # of the reliability curve, each with as many searches
FOLDS = 5  # of the calibration; both outcomes need twice as many individuals
LOGISTIC = make_pipeline(StandardScaler(), LogisticRegression())
DRAWS = 1000  # of a bootstrap


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

    Returns LABELS, true_score, other_score (cosines in [-1, 1]; NaN without any), learned. What
    counts as whose is said in `embeddings.nearest`. Were the individual's photos taken out of the
    database, `other_score` would be the best: so each query is a search for a known and one for a
    new animal. `learned`: individuals that the network was trained on, which are no new ones.
    """
    parts = [queries.rows[LABELS].head(0).assign(true_score=0.0, other_score=0.0)]
    for own, others in by_species(queries, database):
        _, (true, other) = nearest(own.vectors, own.rows, others.vectors, others.rows)
        parts.append(own.rows[LABELS].assign(true_score=true, other_score=other))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(learned=found["individual"].isin(learned))


def _new(found: pd.DataFrame) -> pd.DataFrame:
    """Searches for new animals by rising score; `weight` makes individuals count alike."""
    new = found[~found["learned"].astype(bool)].dropna(subset="other_score")
    new = new.assign(known=False, right=False, score=new["other_score"])
    return _weighted(new).sort_values("score")


def _known(found: pd.DataFrame) -> pd.DataFrame:
    """Searches for known animals: score of the best match, whether it is right (a tie isn't)."""
    known = found.dropna(subset="true_score")
    other = known["other_score"].fillna(-np.inf)
    score, right = np.maximum(known["true_score"], other), known["true_score"] > other
    return _weighted(known.assign(known=True, right=right, score=score))


def _weighted(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(weight=1 / rows.groupby("individual")["score"].transform("size"))


def choose(found: pd.DataFrame, rate: float, seed: int) -> Estimate | None:
    """The lowest threshold at which at most `rate` of the new animals find a match, a cosine.

    `found`: `searches` of one species. Its individuals count alike, each with all its searches.
    None where fewer than `needed` can stand for new ones. The interval is bootstrapped over them.
    """
    new = _new(found)
    codes, names = pd.factorize(new["individual"])
    if len(names) < needed(rate):
        return None
    scores, weights = new["score"].to_numpy(float), new["weight"].to_numpy(float)
    equal = np.full(len(names), 1 / len(names))
    draws = np.random.default_rng(seed).multinomial(len(names), equal, DRAWS)
    drawn = [_lowest(scores, weights * draw[codes], rate) for draw in draws]
    return Estimate(_lowest(scores, weights, rate), *np.quantile(drawn, [0.025, 0.975]).tolist())


def _lowest(scores: np.ndarray, weights: np.ndarray, rate: float) -> float:
    """The lowest of the rising `scores` with at most `rate` of the weight above it."""
    above = weights.sum() - weights.cumsum()
    return float(scores[np.argmax(above <= rate * weights.sum() + 1e-9)])


def _of_the_others(found: pd.DataFrame, rate: float) -> dict[str, float]:
    """For each individual that stands for a new one, the threshold that the others choose."""
    new = _new(found)
    scores, weights = new["score"].to_numpy(float), new["weight"].to_numpy(float)
    codes, names = pd.factorize(new["individual"])
    return {
        name: _lowest(scores[codes != code], weights[codes != code], rate)
        for code, name in enumerate(names)
    }


def calibrated(found: pd.DataFrame) -> ClassifierMixin:
    """A logistic regression of right on score (Platt's calibration), of `searches` of a species.

    It states how probably the best match is right, if the animal is known. Where too few are right
    or wrong, the rule of succession gives the one probability.
    """
    known = _known(found)
    score, right = known[["score"]].to_numpy(), known["right"].tolist()
    if _both_outcomes(known):
        return clone(LOGISTIC).fit(score, right)
    succession = [*right, True, False]
    return DummyClassifier(strategy="prior").fit(np.zeros((len(succession), 1)), succession)


def _stated(known: pd.DataFrame) -> np.ndarray:
    """Probability that each best match is right, from the searches for other individuals."""
    score, right = known[["score"]].to_numpy(), known["right"]
    if not _both_outcomes(known):
        return calibrated(known).predict_proba(score)[:, 1]
    given = {"groups": known["individual"], "cv": StratifiedGroupKFold(FOLDS)}
    return cross_val_predict(LOGISTIC, score, right, method="predict_proba", **given)[:, 1]


def _both_outcomes(known: pd.DataFrame) -> bool:
    people = known.groupby("right")["individual"].nunique()
    return len(people) == 2 and people.min() >= 2 * FOLDS


def rates(found: pd.DataFrame, chosen: Estimate, rate: float) -> dict[str, float]:
    """What a threshold (of `choose`) costs on `searches` of its species: MEASURES in percent.

    FPIR: new animals that are taken for known ones. FNIR(T, R = 1): known animals that aren't
    found, as they are called new or taken for another one. Each individual is judged by the
    threshold that the others choose. Individuals count alike. With 95 % intervals.
    """
    left_out = _of_the_others(found, rate)
    new, known = _new(found), _known(found)
    limits = known["individual"].map(left_out).astype(float).fillna(chosen.value)
    called_new = known["score"] <= limits
    wrong_match = ~called_new & ~known["right"]
    outcomes = {
        "FPIR": (new, new["score"] > new["individual"].map(left_out).astype(float)),
        "FNIR": (known, called_new | wrong_match),
        "called_new": (known, called_new),
        "wrong_match": (known, wrong_match),
    }
    values = {"known_individuals": known["individual"].nunique()}
    for name, (rows, wrong) in outcomes.items():
        shares = wrong.groupby(rows["individual"]).mean()
        numbers = 100 * np.array([shares.mean(), *mean_interval(shares, shares.index)])
        values |= {name + end: number for end, number in zip(ENDS, numbers, strict=True)}
    return values


def reliability(found: pd.DataFrame) -> pd.DataFrame:
    """Stated and observed probability that the best match is right, in BINS by what is stated.

    Columns stated, observed, low, high (95 % interval), searches, individuals; in percent, pooled
    over species. What is stated of an individual comes from the searches for others of its species.
    """
    known = _known(found).reset_index(drop=True).assign(stated=np.nan)
    for place in known.groupby("species").indices.values():
        known.loc[place, "stated"] = _stated(known.iloc[place])
    known = known.sort_values("stated", kind="stable", ignore_index=True)
    rows, bins = [], min(BINS, max(1, len(known) // 10))
    for _, part in known.groupby(known.index * bins // max(1, len(known))):
        shares = part["stated"].mean(), part["right"].mean()
        shares = 100 * np.array([*shares, *mean_interval(part["right"], part["individual"])])
        rows.append([*shares, len(part), part["individual"].nunique()])
    return pd.DataFrame(rows, columns=RELIABILITY)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error (ECE) in percent, of a table of `reliability`."""
    weights = table["searches"] / table["searches"].sum()
    return float((weights * (table["stated"] - table["observed"]).abs()).sum())


def detection(found: pd.DataFrame) -> pd.DataFrame:
    """The trade of FNIR against FPIR (DET), in percent: thresholds, threshold, FPIR, FNIR.

    `thresholds`: "one for all" species, or "one per species", the mean over species at equal FPIR
    (without a threshold). Species count alike, and individuals within them.
    """
    columns, parts = ["thresholds", "threshold", "FPIR", "FNIR"], _trials(found)
    if not parts:
        return pd.DataFrame(columns=columns)
    fpir, curves = np.linspace(0, 100, 201), [_curve(part) for part in parts]
    # the least FNIR of each curve at no more than each FPIR; all are missed where there is none
    places = [np.searchsorted(curve["FPIR"], fpir + 1e-9, side="right") for curve in curves]
    fnir = [np.append(100.0, c["FNIR"])[at] for c, at in zip(curves, places, strict=True)]
    each = pd.DataFrame({"FPIR": fpir, "FNIR": np.mean(fnir, axis=0)})
    tables = [_curve(pd.concat(parts)), each]
    named = zip(tables, ("one for all", "one per species"), strict=True)
    rows = pd.concat([table.assign(thresholds=name) for table, name in named], ignore_index=True)
    return rows[columns]


def _trials(found: pd.DataFrame) -> list[pd.DataFrame]:
    """Of each species with both, all searches: known or new, score, right, weight."""
    parts = []
    for _, rows in found.groupby("species"):
        both = pd.concat([_new(rows), _known(rows)], ignore_index=True)
        if both["known"].nunique() == 2:
            both["weight"] /= both.groupby("known")["weight"].transform("sum")
            parts.append(both)
    return parts


def _curve(trials: pd.DataFrame) -> pd.DataFrame:
    score = trials["score"].round(4)  # ties hang on no processor's last bits
    score = score.where(trials["right"] | ~trials["known"], -2.0)  # never accepted
    fpr, fnr, at = det_curve(trials["known"], score, sample_weight=trials["weight"])
    table = pd.DataFrame({"threshold": at, "FPIR": 100 * fpr, "FNIR": 100 * fnr})
    table = table[table["threshold"] > -2]
    return table.sort_values(["FPIR", "FNIR"], ascending=[True, False], ignore_index=True)


@dataclasses.dataclass(frozen=True)
class Report:
    """Thresholds that help, RATES (a row a species), RELIABILITY, `detection`, and words."""

    thresholds: dict[str, Estimate]
    calibrations: dict[str, ClassifierMixin]
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
            row |= dict(zip(THRESHOLD, chosen, strict=True)) | rates(own, chosen, rate)
            if _finds_most(row):
                thresholds[species] = chosen
        rows.append(row)
    table = pd.DataFrame(rows, columns=RATES)
    area = areas(pd.concat([_new(found), _known(found)]))
    words = f"{_in_words(table, rate)}\n\n{_quality_in_words(area, _trials(found))}"
    sure = {species: calibrated(own) for species, own in found.groupby("species")}
    return Report(thresholds, sure, table, reliability(found), detection(found), words)


SENTENCE = (
    "- **{name}**: threshold {threshold:.2f} (95 % interval {threshold_low:.2f} to "
    "{threshold_high:.2f}, {new_individuals} individuals). FPIR {FPIR:.0f} % ({FPIR_low:.0f} to "
    "{FPIR_high:.0f}), {kept} the {asked:g} % asked for. FNIR {FNIR:.0f} % ({FNIR_low:.0f} to "
    "{FNIR_high:.0f}): {called_new:.0f} % of known animals are called new, {wrong_match:.0f} % "
    "taken for another one."
)
HALF = 50  # percent of known animals: a threshold must be shown to find more
USELESS = (
    "- **The threshold is not used** for {names}. It is not shown to find more than half of the "
    "animals that you know: it misses {FNIR} of them (FNIR, with 95 % interval). FPIR is {FPIR}, "
    "where {asked:g} % is asked for."
)


def _finds_most(row: Mapping[str, float]) -> bool:
    return Estimate.of(row, "FNIR").above(HALF).shown(False, True, False)


def _in_words(table: pd.DataFrame, rate: float) -> str:
    if not rate:
        return "No threshold was asked for."
    table = table.assign(name=table["species"].map(spelt), asked=100 * rate)
    chosen, none = table[table["threshold"].notna()], table[table["threshold"].isna()]
    rows = chosen.to_dict("records")
    asked = [Estimate.of(row, "FPIR").above(row["asked"]) for row in rows]
    kept = [one.shown("more than", "less than", "consistent with") for one in asked]
    chosen = chosen.assign(kept=kept, used=np.array([*map(_finds_most, rows)], bool))
    lost = chosen[~chosen["used"]]
    helped = chosen["used"].sum()
    lines = [f"On {helped} of {len(table)} species a threshold is shown to help.", ""]
    lines += [SENTENCE.format(**row) for row in chosen[chosen["used"]].to_dict("records")]
    if len(lost):
        texts = (with_interval(lost, name, decimals=0, unit=" %") for name in MEASURES[:2])
        told = dict(zip(MEASURES, map(", ".join, texts), strict=False))
        lines.append(USELESS.format(names=", ".join(lost["name"]), asked=100 * rate, **told))
    if len(none):
        names = ", ".join(none["name"] + " (" + none["new_individuals"].astype(str) + ")")
        lines.append(
            f"- **No threshold** for {names}: it takes {needed(rate)} individuals that the "
            "network never learned, or a higher rate."
        )
    return "\n".join(lines)


def _quality_in_words(area: pd.DataFrame, trials: list[pd.DataFrame]) -> str:
    mean = 100 * area.iloc[-1, 1:].astype(float)
    if len(area) == 1:
        return "Without known and new animals nothing can be said of how well scores part them."
    known, new = (
        sum(rows["individual"][rows["known"] == side].nunique() for rows in trials)
        for side in (True, False)
    )
    return (
        f"Within a species, a known animal's best score is above a new one's in {mean['value']:.0f}"
        f" % of pairs (the AUROC, mean over {len(area) - 1} species, 95 % interval "
        f"{mean['low']:.0f} to {mean['high']:.0f}; 50 % is chance). {known:,} individuals are "
        f"searched for as known, {new:,} as new."
    )


def notes(
    found: pd.DataFrame,
    thresholds: Mapping[str, Estimate],
    calibrations: Mapping[str, ClassifierMixin],
) -> dict[str, str]:
    """For each query of `candidates.rank`, what its best score says by its species' `report`.

    The species is that of the best candidate.
    """
    told = {}
    for row in found[found["rank"] == 1].itertuples():
        species = row.individual.partition("/")[0]
        limit = thresholds.get(species)
        if limit and row.score <= limit.value:
            words = f"best score {row.score:.2f}, threshold {limit.value:.2f}"
            told[row.query] = f"perhaps a new animal: {words}"
        elif species in calibrations:
            sure = calibrations[species].predict_proba([[row.score]])[0, 1]
            told[row.query] = f"if this animal is known, the first is right with {100 * sure:.0f} %"
    return told


def reliability_claim(table: pd.DataFrame) -> str:
    """How far stated probabilities (`reliability`) are off, for a title."""
    if table.empty:
        return "Is a match as sure as it says?"
    return f"What is stated is off by {calibration_error(table):.0f} points on average"


@styled()
def detection_curve(table: pd.DataFrame, title: str, rate: float = 0.0) -> Figure:
    """FNIR against FPIR, of one threshold for all species and of one per species (`detection`).

    `rate`: of false positives, asked for; 0 for none.
    """
    drawn = Figure(title, 3.4)
    axes = drawn.subplots()
    looks = {"one for all": (GREY, "--"), "one per species": (BLUE, "-")}
    for name, (colour, line) in looks.items():
        rows = table[table["thresholds"] == name]
        axes.plot(rows["FPIR"], rows["FNIR"], line, color=colour, label=f"threshold: {name}")
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="FPIR: new animals taken for known ones (%)")
    axes.set_ylabel("FNIR: known animals not found (%)")
    if rate:
        axes.axvline(100 * rate, color="black", linewidth=0.8, linestyle=":", label="asked for")
    drawn.legend(loc="outside lower left")
    return drawn


@styled()
def reliability_curve(table: pd.DataFrame, title: str) -> Figure:
    """How often the best match is right against how often it should be (`table`: `reliability`)."""
    drawn = Figure(title, 3.4)
    axes = drawn.subplots()
    axes.plot([0, 100], [0, 100], color=GREY, linestyle="--", label="as stated")
    axes.vlines(table["stated"], table["low"], table["high"], color=BLUE, linewidth=1)
    each = f" (about {table['searches'].mean():,.0f} searches each)" if len(table) else ""
    look = {"color": BLUE, "label": f"observed, 95 % interval{each}"}
    axes.plot(table["stated"], table["observed"], "o-", markersize=4, **look)
    axes.set(xlim=(-2, 102), ylim=(-2, 102), xlabel="stated probability of the best match (%)")
    axes.set_ylabel("best match right (%)")
    drawn.legend(loc="outside lower left")
    return drawn

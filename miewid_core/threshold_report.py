"""What a threshold for new individuals costs on a test, in words, in a figure, and for a query."""

import dataclasses

import pandas as pd

from miewid_core.page import BLUE, GREY, Figure, styled
from miewid_core.threshold import (
    RATES,
    RELIABILITY,
    Threshold,
    TooFewIndividualsError,
    choose,
    rates,
    reliability,
)


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

"""Closed-set, open-set and time-aware identification, as other work measures it.

Training photos are the database, test photos the queries. A split is closed-set if all individuals
of its queries are in the database, open-set if some are new, time-aware if training ends before the
test days begin: https://wildlifedatasets.github.io/wildlife-datasets/tutorial_splits. Here the
first is the known half of a test set, the second all of it, the third `Study.by_date`. Measures
are those of wildlife-datasets, wildlife-tools and https://www.imageclef.org/AnimalCLEF2025.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from miewid_core.evaluation import BLOCK, unit_vectors
from miewid_core.figures import BLUE, ORANGE, PAGE, Figure, styled
from miewid_core.paper.comparison import with_interval
from miewid_core.paper.intervals import by_species
from miewid_core.paper.study import Study
from miewid_core.ranking import TIE
from miewid_core.runs.run import Training

RANDOM, DATED, TIMED = "section 3.3", "section 3.3, dated species", "by date"
MEASURES = {  # in percent: three of known individuals (closed-set), four of all (open-set)
    "top_1": "top-1",
    "vote": "k-NN vote",
    "mAP": "mAP",
    "BAKS": "known individuals (BAKS)",
    "BAUS": "new individuals (BAUS)",
    "geometric": "geometric mean by species",
    "AUROC": "AUROC, new individuals",
}
OPEN = ["BAKS", "BAUS", "geometric"]  # of these, those that need a threshold
THRESHOLDS = np.linspace(-1, 1, 201)  # cosines


def networks(study: Study) -> dict[str, tuple[Study, Training]]:
    """The splits, by name, each with the multi-species network of its training photos.

    That of the split by date, which leaves out species without days, takes as many steps. Where no
    species has an earlier and a later day there is none.
    """
    later, found = study.by_date(), {RANDOM: (study, study.multi())}
    if set(later.train["species"]) & set(later.test["species"]):
        photos = len(study.train)
        found[TIMED] = later, later.training(later.train, "earlier days", epoch_photos=photos)
    return found


def searches(study: Study, training: Training, k: int) -> pd.DataFrame:
    """One row per test photo, searched among the training photos of its species by cosine.

    Columns annotation_id, species, individual; known: in the database; score, nearest: cosine and
    individual of the nearest photo; vote: individual of the k nearest; average_precision (NaN if
    not known); same_day: an own photo of its day is in the database; apart: the nearest individual
    on other days ("" where days are unknown, or no own photo is left); right: `nearest` is. A tie
    with a wrong photo counts as behind it. A species without a database has no rows.
    """
    if k < 1:
        raise ValueError(f"neighbours is {k}; give 1 or more")
    vectors = [study.embeddings(training, rows) for rows in (study.test, study.train)]
    parts, asked = [], study.test.groupby("species").indices
    for species, rows in study.train.groupby("species").indices.items():
        unit, queries = unit_vectors(vectors[1], rows, study.train), asked.get(species, ())
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            cosine = unit_vectors(vectors[0], block, study.test) @ unit.T
            parts.append(find(cosine, study.test.iloc[block], study.train.iloc[rows], k))
    return pd.concat(parts, ignore_index=True)


def find(cosine: np.ndarray, queries: pd.DataFrame, database: pd.DataFrame, k: int) -> pd.DataFrame:
    """The rows of `searches` for `queries` (Q) of one species, by cosines (Q, N) to `database`."""
    people = database["individual"].to_numpy()
    day, days = (rows["date"].dt.normalize().to_numpy() for rows in (queries, database))
    own = queries["individual"].to_numpy()[:, None] == people
    cosine = cosine - np.float32(TIE) * own
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    found = queries[["annotation_id", "species", "individual"]].reset_index(drop=True)
    found["known"] = own.any(axis=1)
    found["score"], found["nearest"] = cosine.max(axis=1), people[cosine.argmax(axis=1)]
    found["vote"] = vote(people[order], np.take_along_axis(cosine, order, axis=1))
    pairs = zip(own, cosine, strict=True)
    precision = [average_precision_score(*pair) if pair[0].any() else np.nan for pair in pairs]
    found["same_day"] = (own & (day[:, None] == days)).any(axis=1)  # none is equal to an unknown
    apart = (day[:, None] != days) & ~np.isnat(day)[:, None] & ~np.isnat(days)
    nearest = people[np.where(apart, cosine, -np.inf).argmax(axis=1)]
    found["apart"] = np.where((own & apart).any(axis=1), nearest, "")
    right = found["nearest"] == found["individual"]
    return found.assign(average_precision=precision, right=right)


def vote(individuals: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The individual (Q,) that most of the k nearest show; among equals, that of the best mean.

    `individuals`, `scores`: (Q, k). The rule of wildlife-tools' `KnnClassifier`.
    """
    query = np.repeat(np.arange(len(scores)), scores.shape[1])
    votes = pd.DataFrame({"query": query, "who": individuals.ravel(), "score": scores.ravel()})
    tally = votes.groupby(["query", "who"])["score"].agg(["size", "mean"]).reset_index()
    best = tally.sort_values(["query", "size", "mean"]).drop_duplicates("query", keep="last")
    return best["who"].to_numpy()


def sweep(found: pd.DataFrame) -> pd.DataFrame:
    """BAKS, BAUS and their geometric mean in percent: of each species, at each of THRESHOLDS.

    Below the threshold a query (of `searches`) is called new. BAKS is the share of right answers
    for known individuals, BAUS that of "new" for new ones, each individual counting alike (NaN
    without any), as AnimalCLEF defines them.
    """
    tables = []
    for species, rows in found.groupby("species"):
        new = rows["score"].to_numpy()[:, None] < THRESHOLDS
        known, right = (rows[name].to_numpy()[:, None] for name in ("known", "right"))
        answers = pd.DataFrame(np.where(known, right & ~new, new), rows.index)
        each = answers.groupby([rows["known"], rows["individual"]]).mean()
        shares = 100 * each.groupby(level=0).mean().reindex([True, False])
        table = pd.DataFrame(shares.to_numpy().T, columns=["BAKS", "BAUS"])
        tables.append(table.assign(species=species, threshold=THRESHOLDS))
    swept = pd.concat(tables, ignore_index=True)
    return swept.assign(geometric=np.sqrt(swept["BAKS"] * swept["BAUS"]))


def chosen_elsewhere(swept: pd.DataFrame) -> pd.DataFrame:
    """Of a `sweep`, each species' row at the threshold that is best for the others on average.

    Nothing is chosen on the species measured. One alone, or without known or new ones, has no row.
    """
    scores = swept.pivot(index="threshold", columns="species", values="geometric").dropna(axis=1)
    several = scores if len(scores.columns) > 1 else ()
    chosen = {name: scores.drop(columns=name).mean(axis=1).idxmax() for name in several}
    return swept[swept["species"].map(chosen) == swept["threshold"]].set_index("species")


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """MEASURES in percent by species, and last their "mean" over the species that have them.

    Columns species, queries (known ones), their individuals, top_1 with its 95 % interval `_low`,
    `_high`, the other MEASURES, and the threshold of BAKS and BAUS.
    """
    known = found[found["known"]]
    table = by_species(known["right"].astype(float), known).set_index("species")
    table[["top_1", "top_1_low", "top_1_high"]] = 100 * table[["value", "low", "high"]]
    agreed = known.assign(vote=known["vote"] == known["individual"], AUROC=np.nan)
    agreed = agreed.rename(columns={"average_precision": "mAP"})
    means = agreed.groupby("species")[["vote", "mAP", "AUROC"]].mean()
    both = found.groupby("species").filter(lambda rows: rows["known"].nunique() == 2)
    for species, rows in both.groupby("species"):
        means.loc[species, "AUROC"] = roc_auc_score(~rows["known"], -rows["score"])
    means = (100 * means).join(chosen_elsewhere(sweep(found)))
    means.loc["mean"] = means.mean()
    return table.drop(columns=["value", "low", "high"]).join(means).reset_index()


def summaries(found: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """A `summary` of each split, and where that by date lacks species of section 3.3's without."""
    tables = {name: summary(rows) for name, rows in found.items()}
    dated = found[RANDOM]["species"].isin(found[[*found][-1]]["species"])
    return tables if dated.all() else tables | {DATED: summary(found[RANDOM][dated])}


def without_the_day(found: pd.DataFrame) -> pd.DataFrame:
    """How many points of top-1 rest on the database's photos of the query's day.

    By species that have such, and their "mean": queries (with a true match of another day),
    individuals, value (what is lost) with its 95 % interval low, high, and same_day: the percentage
    with a true match of that day.
    """
    some = found.groupby("species")["same_day"].transform("any")
    dated = found[some & (found["apart"] != "")]
    apart = (dated["apart"] == dated["individual"]).astype(float)
    table = by_species(dated["right"].astype(float), dated, apart).drop(columns="p")
    table["same_day"] = by_species(dated["same_day"].astype(float), dated)["value"]
    table[["value", "low", "high", "same_day"]] *= 100
    return table


def in_words(tables: Mapping[str, pd.DataFrame]) -> str:
    """Top-1 of known individuals in each split (`tables`: of `summaries`)."""
    scores = {name: f"{with_interval(own, 'top_1')[-1]} %" for name, own in tables.items()}
    where = {DATED: "of those of species with days", TIMED: "by another network, of earlier days"}
    told = "".join(f", {scores[name]} {words}" for name, words in where.items() if name in scores)
    return (
        "With the training photos as the database, the multi-species network's nearest photo is "
        f"right for {scores[RANDOM]} of the photos of known individuals{told} (trained once each)."
    )


def days_in_words(days: pd.DataFrame) -> str:
    """How much of the score is memory of the day (`days`: of `without_the_day`)."""
    mean = days.iloc[-1]
    if not mean["queries"]:
        return "No photo of the query's individual and day is known to be in the database."
    return (
        f"{mean['same_day']:.0f} % of the queries have a photo of their individual and day in the "
        f"database. Without the day's photos {with_interval(days, 'value', 'low', 'high')[-1]} "
        f"points of top-1 are lost ({len(days) - 1} species)."
    )


@styled()
def curves(found: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """BAKS, BAUS and their geometric mean against the threshold, a panel each split.

    `found`: of `searches`, by split. Means over the species with known and new individuals; a split
    without any has no panel beside one that has some.
    """
    every = {name: sweep(rows).dropna(subset="geometric") for name, rows in found.items()}
    shown = {name: swept for name, swept in every.items() if len(swept)} or every
    drawn = Figure(title, 2.8, PAGE)
    panels = drawn.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (name, swept) in zip(panels, shown.items(), strict=True):
        means = swept.groupby("threshold")[OPEN].mean().rename(columns=MEASURES)
        means.plot(ax=axes, style=["--", ":", "-"], color=[BLUE, ORANGE, "black"], legend=False)
        axes.set_title(f"split {name}, {swept['species'].nunique()} species", loc="left")
        axes.set(xlim=(found[name]["score"].quantile(0.01), 1), ylim=(0, 102))
        axes.set_xlabel("threshold (cosine), below which an animal is new")
    panels[0].set_ylabel("right answers (%)")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return drawn

"""Closed-set, open-set and time-aware identification, as other work measures it.

Training photos are the database, test photos the queries; both of a query's species. A split is
- closed-set if each query's individual is in the database, open-set if some are new: wildlife-
  datasets, https://wildlifedatasets.github.io/wildlife-datasets/tutorial_splits. Here these are the
  known test photos of section 3.3's split, and all of them;
- time-aware if training ends before the test days begin (its "time-cutoff"): `Study.by_date`.
The measures are those of wildlife-datasets, wildlife-tools (its `KnnClassifier`) and AnimalCLEF
2025, https://www.imageclef.org/AnimalCLEF2025.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from miewid_core.evaluation import BLOCK, unit_vectors
from miewid_core.figures import BLUE, ORANGE, PAGE, Figure, spelt, styled
from miewid_core.paper.comparison import with_interval
from miewid_core.paper.intervals import by_species
from miewid_core.paper.study import Study
from miewid_core.ranking import TIE
from miewid_core.runs.run import Training

RANDOM, TIMED = "section 3.3", "by date"
MEASURES = {  # in percent: of known individuals, then of all
    "top_1": "closed-set: top-1",
    "vote": "closed-set: vote of the k nearest",
    "mAP": "closed-set: mAP",
    "balanced": "closed-set: top-1, individuals alike",
    "BAKS": "open-set: known individuals (BAKS)",
    "BAUS": "open-set: new individuals (BAUS)",
    "geometric": "open-set: geometric mean of both",
    "AUROC": "open-set: AUROC of new individuals",
}
OPEN = ["BAKS", "BAUS", "geometric"]  # they need a threshold
THRESHOLDS = np.linspace(-1, 1, 201)  # cosines


def networks(study: Study) -> dict[str, tuple[Study, Training]]:
    """The splits, by name, each with the multi-species network of its training photos.

    That of the split by date, which leaves out species without days, takes as many steps. Where no
    species has an earlier and a later day there is none.
    """
    later, found = study.by_date(), {RANDOM: (study, study.multi())}
    if set(later.train["species"]) & set(later.test["species"]):
        steps = {"epoch_photos": len(study.train)}
        found[TIMED] = later, later.training(later.train, "earlier days", **steps)
    return found


def searches(study: Study, training: Training, k: int) -> pd.DataFrame:
    """One row per test photo, searched among the training photos of its species by cosine.

    Columns annotation_id, species, individual; known: in the database; score, nearest: cosine and
    individual of the nearest photo; vote: individual of the k nearest; average_precision (NaN if
    not known); same_day: an own photo of its day is in the database; other_day: the nearest
    individual without photos of its day ("" where days are unknown, or no own photo is left).
    A tie with a wrong photo counts as behind it. A species without a database has no rows.
    """
    if k < 1:
        raise ValueError(f"neighbours is {k}; give 1 or more")
    vectors = [study.embeddings(training, rows) for rows in (study.test, study.train)]
    parts, database = [], study.train.groupby("species").indices
    for species, queries in study.test.groupby("species").indices.items():
        rows = study.train.iloc[database.get(species, [])]
        unit = unit_vectors(vectors[1], database.get(species, np.arange(0)), study.train)
        for start in range(0, len(queries), BLOCK) if len(rows) else ():
            block = queries[start : start + BLOCK]
            cosine = unit_vectors(vectors[0], block, study.test) @ unit.T
            parts.append(search(cosine, study.test.iloc[block], rows, k))
    return pd.concat(parts, ignore_index=True)


def search(
    cosine: np.ndarray, queries: pd.DataFrame, database: pd.DataFrame, k: int
) -> pd.DataFrame:
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
    found["average_precision"] = precision
    found["same_day"] = (own & (day[:, None] == days)).any(axis=1)  # none is equal to an unknown
    apart = (day[:, None] != days) & ~np.isnat(day)[:, None] & ~np.isnat(days)
    nearest = people[np.where(apart, cosine, -np.inf).argmax(axis=1)]
    return found.assign(other_day=np.where((own & apart).any(axis=1), nearest, ""))


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

    A query whose score is below the threshold is called new. BAKS is the share of right answers for
    known individuals, BAUS the share of "new" for new ones, each individual counting alike (NaN
    without any): AnimalCLEF's definitions. `found`: of `searches`.
    """
    tables = []
    for species, rows in found.groupby("species"):
        new = rows["score"].to_numpy()[:, None] < THRESHOLDS
        right = np.where(rows["known"], rows["nearest"] == rows["individual"], True)[:, None]
        answered = pd.DataFrame(np.where(rows["known"], right & ~new, new), rows.index)
        each = answered.groupby([rows["known"], rows["individual"]]).mean().groupby(level=0).mean()
        known, unknown = (100 * each.reindex([True, False])).to_numpy()
        table = pd.DataFrame({"threshold": THRESHOLDS, "BAKS": known, "BAUS": unknown})
        tables.append(table.assign(species=species, geometric=np.sqrt(known * unknown)))
    return pd.concat(tables, ignore_index=True)


def chosen_elsewhere(swept: pd.DataFrame) -> pd.DataFrame:
    """Of a `sweep`, each species' row at the threshold that is best for the others on average.

    So nothing is chosen on the species that is measured. Species that lack known or new
    individuals, and a single one, have no row.
    """
    scores = swept.pivot(index="threshold", columns="species", values="geometric")
    scores = scores.dropna(axis="columns")
    chosen = {name: scores.drop(columns=name).mean(axis=1).idxmax() for name in scores}
    rows = swept[swept["species"].map(chosen) == swept["threshold"]]
    return rows.set_index("species") if len(scores.columns) > 1 else rows[:0].set_index("species")


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """MEASURES in percent by species, and last their "mean" over the species that have them.

    Columns species, queries (known ones) and individuals, new_individuals, top_1 with its 95 %
    interval `_low`, `_high`; then the other MEASURES, and the threshold of BAKS and BAUS.
    """
    known = found[found["known"]]
    right = (known["nearest"] == known["individual"]).astype(float)
    table = by_species(right, known).set_index("species")
    table[["top_1", "top_1_low", "top_1_high"]] = 100 * table[["value", "low", "high"]]
    table = table.drop(columns=["value", "low", "high"])
    own = known.assign(right=right, agreed=known["vote"] == known["individual"])
    each = own.groupby(["species", "individual"])["right"].mean()
    closed = own.groupby("species").agg(vote=("agreed", "mean"), mAP=("average_precision", "mean"))
    closed["balanced"] = each.groupby("species").mean()
    both = found.groupby("species")["known"].nunique() == 2
    closed["AUROC"] = pd.Series(
        {
            species: roc_auc_score(~rows["known"], -rows["score"])
            for species, rows in found.groupby("species")
            if both[species]
        }
    )
    means = (100 * closed).join(chosen_elsewhere(sweep(found)))
    means.loc["mean"] = means.mean()
    new = found[~found["known"]].groupby("species")["individual"].nunique()
    table["new_individuals"] = new.reindex(table.index, fill_value=0)
    table.loc["mean", "new_individuals"] = new.sum()
    return table.join(means).reset_index()


def without_the_day(found: pd.DataFrame) -> pd.DataFrame:
    """What the database's photos of the query's day are worth: top-1 in percent with and without.

    Columns species, queries (whose individual has a photo of another day there), same_day (percent
    of them that have one of their day), top_1, without, and their difference lost (points) with its
    95 % interval `_low`, `_high`; the last row is the "mean" over species.
    """
    dated = found[found["other_day"] != ""]
    answers = (100 * dated[name].eq(dated["individual"]) for name in ("nearest", "other_day"))
    scores = pd.DataFrame(dict(zip(["top_1", "without"], answers, strict=True)))
    scores["same_day"] = 100 * dated["same_day"]
    means = scores.groupby(dated["species"]).mean()
    means.loc["mean"] = means.mean()
    lost = by_species(scores["top_1"] / 100, dated, scores["without"] / 100).set_index("species")
    ends = {"value": "lost", "low": "lost_low", "high": "lost_high"}
    lost = lost.rename(columns=ends)[["queries", *ends.values()]]
    lost[[*ends.values()]] *= 100
    return lost.join(means)[["queries", *means, *ends.values()]].reset_index()


def readable(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The means of tables of `summary` for a reader, by split, with the number of species."""
    shown = {"mean over species (%)": [*MEASURES.values()]}
    for name, table in tables.items():
        counts, means = table[:-1].count(), table.iloc[-1]
        told = [f"{means[key]:.1f} ({counts[key]})" if counts[key] else "" for key in MEASURES]
        shown[f"split {name} (species)"] = told
    return pd.DataFrame(shown)


def by_species_for_a_reader(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Of each split, the known queries of each species, top-1 (%), and the open-set score (%)."""
    shown = []
    for name, table in tables.items():
        top_1, both = with_interval(table, "top_1"), table["geometric"].map("{:.1f}".format)
        columns = {"queries": table["queries"].astype(str), "top-1": top_1}
        columns["open-set"] = both.replace("nan", "")
        rows = pd.DataFrame(columns).set_index(table["species"].map(spelt))
        shown.append(rows.add_suffix(f", {name}"))
    return pd.concat(shown, axis=1).fillna("").reset_index()


def in_words(tables: Mapping[str, pd.DataFrame]) -> str:
    """Top-1 of known individuals and the open-set score, in each split."""
    told = []
    for name, table in tables.items():
        mean, count = table.iloc[-1], table["geometric"][:-1].count()
        words = f"{mean['top_1']:.1f} % ({mean['top_1_low']:.1f} to {mean['top_1_high']:.1f})"
        words += f" in the split {name} ({len(table) - 1} species"
        words += f"; open-set score {mean['geometric']:.1f} % of {count})" if count else ")"
        told.append(words)
    return (
        "Searched among the training photos, the multi-species network's nearest photo shows the "
        f"right one of the known individuals for {', and for '.join(told)}."
    )


def days_in_words(table: pd.DataFrame) -> str:
    """What the photos of the query's day are worth (`table`: of `without_the_day`)."""
    mean = table.iloc[-1]
    if not mean["queries"]:
        return "What photos of the query's day are worth isn't known: the catalog has no dates."
    return (
        f"{mean['same_day']:.0f} % of the queries have a photo of their individual's same day in "
        f"the database. Without the photos of the day top-1 is {mean['without']:.1f} instead of "
        f"{mean['top_1']:.1f} %: {mean['lost']:.1f} points ({mean['lost_low']:.1f} to "
        f"{mean['lost_high']:.1f}) were memory of the day."
    )


@styled()
def curves(found: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """BAKS, BAUS and their geometric mean against the threshold, a panel each split.

    `found`: of `searches`, by split. Means over the species with known and new individuals, or over
    all where none has both.
    """
    drawn = Figure(title, 2.8, PAGE)
    looks = dict(zip(OPEN, [(BLUE, "--"), (ORANGE, ":"), ("black", "-")], strict=True))
    panels = drawn.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (name, rows) in zip(panels, found.items(), strict=True):
        swept = sweep(rows)
        both = swept.dropna(subset="geometric")
        shown = swept if both.empty else both
        means = shown.groupby("threshold")[OPEN].mean()
        for measure, (colour, line) in looks.items():
            axes.plot(means[measure], line, color=colour, label=MEASURES[measure])
        axes.set_title(f"split {name}, {shown['species'].nunique()} species", loc="left")
        axes.set(xlim=(rows["score"].quantile(0.01), 1), ylim=(0, 102))
        axes.set_xlabel("threshold (cosine): below it, an individual is called new")
    panels[0].set_ylabel("right answers (%)")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return drawn


def kept_out(study: Study) -> str:
    """Which species the split by date leaves out, in a sentence."""
    later = study.by_date()
    out = sorted(set(study.annotations["species"]) - set(later.test["species"]))
    names = ", ".join(map(spelt, out))
    return f"Without days before and after a cutoff: {names}." if out else "All species have days."

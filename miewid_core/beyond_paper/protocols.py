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
from sklearn.metrics import average_precision_score

from miewid_core.evaluation import BLOCK, hits, unit_vectors
from miewid_core.figures import BLUE, PAGE, VERMILION, Figure, spelt, styled
from miewid_core.paper.intervals import (
    ENDS,
    Estimate,
    areas,
    by_species,
    with_heads,
    with_interval,
)
from miewid_core.paper.study import Study
from miewid_core.ranking import TIE
from miewid_core.runs.run import Training

RANDOM, DATED, TIMED = "section 3.3", "section 3.3, dated species", "by date"
MEASURES = {  # in percent: three of known individuals (closed-set), four of all (open-set)
    "top_1": "top-1",
    "vote": "top-1 by a vote of the nearest",
    "mAP": "mAP",
    "BAKS": "known right (BAKS)",
    "BAUS": "new called new (BAUS)",
    "geometric": "geometric mean of both, mean over species",
    "AUROC": "AUROC: known above new, 50 is chance",
}
SIZES = ["known", "new", "known_individuals", "new_individuals"]  # photos, and whose
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


def parts(splits: Mapping[str, tuple[Study, Training]]) -> pd.DataFrame:
    """Photos by part and reason in each of the `networks`' splits, for a reader."""
    counts = {name: one.split.value_counts(["part", "reason"]) for name, (one, _) in splits.items()}
    table = pd.DataFrame(counts).fillna(0).astype(int)
    return table.map("{:,}".format).reset_index()


def searches(study: Study, training: Training, k: int) -> pd.DataFrame:
    """One row per test photo, searched among the training photos of its species by cosine.

    Columns annotation_id, species, individual; known: in the database; score, nearest: cosine and
    individual of the nearest photo; vote: individual of the k nearest; average_precision (NaN if
    not known); chance: top-1 of a random ranking; same_day: an own photo of its day is in the
    database; apart: the nearest individual on other days ("" where days are unknown, or no own
    photo is left); right: `nearest` is. A tie with a wrong photo counts as behind it. A species
    without a database has no rows.
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
    found["chance"] = own.mean(axis=1)
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

    Columns species; SIZES; each of MEASURES with its 95 % interval `_low`, `_high` (of `geometric`
    none); threshold, that of BAKS and BAUS, which their intervals take for fixed.
    """
    chosen = chosen_elsewhere(sweep(found))[["threshold", "geometric"]]
    limit, known = found["species"].map(chosen["threshold"]), found["known"]
    new, asked = found["score"] < limit, limit.notna()
    answers = {
        "top_1": (known, found["right"]),
        "vote": (known, found["vote"] == found["individual"]),
        "mAP": (known, found["average_precision"]),
        "BAKS": (known & asked, found["right"] & ~new),
        "BAUS": (~known & asked, new),
    }
    tables = {"AUROC": areas(found)}
    for name, (counted, values) in answers.items():
        rows = found.assign(value=values.astype(float))[counted]
        if name in OPEN:  # individuals count alike
            rows = rows.groupby(["species", "individual"], as_index=False)["value"].mean()
        tables[name] = by_species(rows["value"], rows)
    sides = pd.MultiIndex.from_product([["size", "nunique"], [True, False]])
    counts = found.groupby(["species", "known"])["individual"].agg(["size", "nunique"]).unstack()
    counts = counts.reindex(columns=sides).set_axis(SIZES, axis=1).fillna(0).astype(int)
    counts.loc["mean"], chosen.loc["mean"] = counts.sum(), chosen.mean()
    parts = [
        100 * table.set_index("species")[["value", "low", "high"]].add_prefix(f"{name}_")
        for name, table in tables.items()
    ]
    table = pd.concat([counts, *parts, chosen], axis=1).loc[counts.index]
    named = table.rename(columns=lambda name: name.removesuffix("_value"))
    return named.rename_axis("species").reset_index()


def summaries(found: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """A `summary` of each split, and where that by date lacks species of section 3.3's without."""
    return {name: summary(rows) for name, rows in _with_dated(found).items()}


def _with_dated(found: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    dated = found[RANDOM]["species"].isin(found[[*found][-1]]["species"])
    return {**found} if dated.all() else {**found, DATED: found[RANDOM][dated]}


def floors(untrained: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Top-1 of known individuals in percent that needs no training: a row for each split.

    Of a random ranking (random), and of the untrained network (untrained, _low, _high), whose
    `searches` are given, by split. Means over species.
    """
    rows = {}
    for name, found in _with_dated(untrained).items():
        known = found[found["known"]]
        tables = (by_species(known[of].astype(float), known) for of in ("chance", "right"))
        random, right = (100 * table[["value", "low", "high"]].iloc[-1] for table in tables)
        rows[name] = [random["value"], *right]
    columns = ["random", *(f"untrained{end}" for end in ENDS)]
    return pd.DataFrame.from_dict(rows, "index", columns=columns)


def readable(tables: Mapping[str, pd.DataFrame], lowest: pd.DataFrame) -> pd.DataFrame:
    """The means of `summaries` for a reader: a row for each measure, a column for each split.

    First over how many species: those with known individuals, and those with new ones, too.
    `lowest`: the `floors` of these splits.
    """
    means = pd.concat([table[-1:] for table in tables.values()])
    asked = pd.concat([table[:-1][["top_1", "AUROC"]].count() for table in tables.values()], axis=1)
    means["closed"], means["open"] = asked.to_numpy().tolist()
    means[lowest.columns] = lowest.loc[[*tables]].to_numpy()
    means["random"] = means["random"].map("{:.1f}".format)
    heads = {"closed": "species with known individuals", "open": "species with new ones, too"}
    heads |= {side: f"photos of {side} individuals" for side in SIZES[:2]}
    heads |= {name: name.replace("_", " ") for name in SIZES[2:]}
    heads |= {"random": "top-1 of a random ranking (%)"}
    heads |= {"untrained": "top-1 of the untrained network (%)"}
    for name in [name for name in MEASURES if name != "geometric"]:  # it only sets thresholds
        heads[name] = f"{MEASURES[name]} (%)".replace(") (", ", ")
    columns = with_heads(means, heads).T.set_axis([*tables], axis=1)
    return columns.rename_axis("split").reset_index()


def without_the_day(found: pd.DataFrame) -> pd.DataFrame:
    """How many points of top-1 rest on the database's photos of the query's day.

    By species that have such, and their "mean": queries (with a true match of another day),
    individuals, value (what is lost) with its 95 % interval low, high; same_day, the percentage of
    these with a true match of that day, too; alone, the queries left out, as they have no other.
    """
    some = found[found.groupby("species")["same_day"].transform("any")]
    dated = some[some["apart"] != ""]
    apart = (dated["apart"] == dated["individual"]).astype(float)
    table = by_species(dated["right"].astype(float), dated, apart).drop(columns="p")
    table["same_day"] = by_species(dated["same_day"].astype(float), dated)["value"]
    table[["value", "low", "high", "same_day"]] *= 100
    alone = some["species"][some["same_day"] & (some["apart"] == "")].value_counts()
    alone["mean"] = alone.sum()
    return table.assign(alone=table["species"].map(alone).fillna(0).astype(int))


def _share(table: pd.DataFrame, name: str) -> str:
    return with_interval(table, name, unit=" %")[-1]


def in_words(table: pd.DataFrame, network: str = "the multi-species network") -> str:
    """How often answers are right, those that may be "new" and those that may not (`summary`)."""
    named = (
        f"The nearest training photo is right for {_share(table, 'top_1')} of known individuals' "
        "photos, if none may be called new."
    )
    if not _share(table, "BAKS"):
        return named
    return (
        f"Where it must name an animal or call it new, {network} is right for "
        f"{_share(table, 'BAKS')} of known and {_share(table, 'BAUS')} of new animals. {named}"
    )


def details(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The range over species of section 3.3's split, and how often answers are right by date."""
    table, told = tables[RANDOM], []
    for name in ("top_1", "BAKS", "BAUS"):
        scores = table[:-1].set_index("species")[name].dropna().sort_values()
        ends = [f"{score:.0f} % ({spelt(who)})" for who, score in scores.items()]
        told += [f"{MEASURES[name]} {ends[0]} to {ends[-1]}"] if ends else []
    shown = [f"Means over {len(table) - 1} species. By species: {', '.join(told)}."]
    if TIMED in tables:
        words = in_words(tables[TIMED], "another network")
        shown.append(f"By date, {words[:1].lower()}{words[1:]}")
    return shown


def usual_in_words(ranks: pd.DataFrame, found: pd.DataFrame) -> str:
    """Top-1 where test photos search one another (section 3.4), beside that of `found`.

    `ranks`: by the network of `found` (of `searches`). Means over species of known individuals'
    photos; the difference is paired by query.
    """
    known = ranks[ranks["annotation_id"].isin(found["annotation_id"][found["known"]])]
    among = hits(known, 1).astype(float)
    rows = known.loc[among.index]
    if rows.empty:
        return "No known individual's photo has another in the test set."
    right = rows["annotation_id"].map(found.set_index("annotation_id")["right"]).astype(float)
    means = [by_species(among, rows), by_species(right, rows), by_species(right, rows, among)]
    table = (
        100
        * pd.concat(means).loc[lambda table: table["species"] == "mean", ["value", "low", "high"]]
    )
    usual, here, _ = with_interval(table, "value", "low", "high", unit=" %")
    gain = Estimate(*table.iloc[-1])
    return (
        f"By section 3.4, where test photos search one another, this network's top-1 is {usual} on "
        f"the {len(rows):,} queries of known individuals. In the training photos it is {here}: "
        f"{gain}, paired by query. The database changes in its size, in the photos of each "
        "individual, and in that the network was trained on them."
    )


def days_in_words(days: pd.DataFrame) -> str:
    """How much of the score is memory of the day (`days`: of `without_the_day`)."""
    mean = days.iloc[-1]
    if not mean["queries"]:
        return (
            "Memory of the day is not measured: no query is known to have photos of its "
            "individual in the database both of its day and of others."
        )
    change = -Estimate(*mean[["value", "low", "high"]])
    verdict = change.shown("top-1 rises", "top-1 falls", "no change of top-1 is shown")
    return (
        f"Memory of the day: without the database's photos of the query's day {verdict}: {change}; "
        f"queries: {mean['queries']:,} of {len(days) - 1} species. Of these "
        f"{mean['same_day']:.0f} % have such a photo of their individual."
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
    panels = drawn.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    least = min(found[name]["score"].quantile(0.01) for name in shown)
    for axes, (name, swept) in zip(panels, shown.items(), strict=True):
        means = swept.groupby("threshold")[OPEN].mean().rename(columns=MEASURES)
        means.plot(ax=axes, style=["--", ":", "-"], color=[BLUE, VERMILION, "black"], legend=False)
        axes.lines[1].set_linewidth(2.5)
        axes.set_title(f"split {name}, {swept['species'].nunique()} species", loc="left")
        axes.set(xlim=(least, 1), ylim=(0, 102))
        axes.set_xlabel("threshold (cosine), below which an animal is new")
    panels[0].set_ylabel("right answers (%)")
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return drawn

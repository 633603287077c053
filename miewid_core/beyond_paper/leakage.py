"""Leakage audit: how much of a score rests on photos of the same sighting, or of the same scene."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import pairwise_distances_argmin_min

from miewid_core import progress
from miewid_core.chips import ChipStore
from miewid_core.paper.comparison import compare
from miewid_core.paper.database_size import databases
from miewid_core.paper.intervals import ENDS, with_heads, with_interval
from miewid_core.paper.study import Study
from miewid_core.runs.run import Training

# Bits of 64 in which two near-duplicates may differ. Of pairs of different animals in the demo and
# in 6,000 photos of nyala and cattle at most one in a million is as near, of frames of one sighting
# a tenth to a half: what is found was there, and there may be more.
NEAR = 6
KINDS = ["same encounter", "same day", "near-duplicate", "any of these"]


def dhash(chip: np.ndarray) -> np.ndarray:
    """Difference hash (64,) bool of a chip (H, W, 3) uint8: is it brighter than to the left?

    The chip is shrunk to 8 x 9 grey values; light and contrast don't matter (N. Krawetz, "Kind of
    like that", 2013).
    """
    small = Image.fromarray(chip).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    grey = np.asarray(small).astype(int)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def hashes(annotations: pd.DataFrame, chips_dir: Path, size: int) -> np.ndarray:
    """Difference hashes (N, 64) bool of the chips of `annotations` at `size` pixels."""
    store = ChipStore(chips_dir, size)
    keys = progress(store.build(annotations), "hashing chips")
    return np.array([dhash(store.read(key)) for key in keys], bool).reshape(len(annotations), 64)


def nearest_true(embeddings: np.ndarray, annotations: pd.DataFrame) -> np.ndarray:
    """Place (N,) of the true match nearest by cosine of each of `annotations`; -1 without any."""
    nearest = np.full(len(annotations), -1)
    for database in databases(embeddings, annotations):
        for queries, true, _ in database.blocks():
            best = database.rows[true.argmax(axis=1)]
            found = ~np.isneginf(true.max(axis=1))
            nearest[database.rows[queries]] = np.where(found, best, -1)
    return nearest


def flags(annotations: pd.DataFrame, nearest: np.ndarray, prints: np.ndarray) -> pd.DataFrame:
    """Whether each photo and its `nearest` (N,) true match are of KINDS; <NA> where not known.

    `annotations`: encounter ("" for unknown), date (NaT); `prints`: their hashes (N, 64). "any of
    these" goes by those that are known. What has no true match is all <NA>.
    """
    seen = annotations["encounter"].replace("", pd.NA), annotations["date"].dt.normalize()
    table = pd.DataFrame(index=annotations.index)
    for kind, values in zip(KINDS, seen, strict=False):
        match = values.iloc[nearest].set_axis(values.index)
        table[kind] = values.eq(match).astype("boolean").mask(values.isna() | match.isna())
    table[KINDS[2]] = pd.array((prints != prints[nearest]).sum(axis=1) <= NEAR, "boolean")
    table[KINDS[3]] = table.fillna(False).any(axis=1).astype("boolean")
    table[nearest < 0] = pd.NA
    return table


def audit(study: Study, training: Training) -> pd.DataFrame:
    """Ranks of a study's test annotations by a network, with the KINDS of leak of each query."""
    test = study.test
    prints = hashes(test, study.chips_dir, study.config.image_size)
    nearest = nearest_true(study.embeddings(training), test)
    return study.ranks(training).join(flags(test, nearest, prints))


def summary(queries: pd.DataFrame) -> pd.DataFrame:
    """Share of the queries that leak, and top-1 with and without those, all in percent.

    `queries`: of `audit`. For each of KINDS one row per species, then their "mean". Columns kind,
    species, queries; known (share of them for which it is known); leaks (share of those; NaN where
    none is); top_1 of all queries and `without` of those that aren't known to leak, each with its
    95 % interval (`_low`, `_high`). The mean of both scores is over the species that have both.
    """
    counted = queries[queries["relevant"] > 0]
    return pd.concat([_kind(counted, kind) for kind in KINDS], ignore_index=True)


def _kind(counted: pd.DataFrame, kind: str) -> pd.DataFrame:
    leaks = counted[kind].astype("Float64").groupby(counted["species"])
    shares = pd.DataFrame({"known": leaks.count() / leaks.size(), "leaks": leaks.mean()})
    shares = 100 * shares.astype(float)
    shares.loc["mean"] = shares.mean()
    free = ~counted[kind].fillna(False).astype(bool)
    left = counted[free & counted["species"].map(shares["known"]).gt(0)]
    both = counted[counted["species"].isin(left["species"])]
    table = _scores("top_1", counted)
    table.loc["mean"] = _scores("top_1", both).loc["mean"]
    without = _scores("without", left).drop(columns="queries")
    table = table[["queries"]].join([shares, table.drop(columns="queries"), without])
    table.insert(0, "kind", kind)
    return table.reset_index()[["kind", "species", *table.columns[1:]]]


def _scores(name: str, ranks: pd.DataFrame) -> pd.DataFrame:
    """Queries, and top-1 with its interval, by species and their "mean"."""
    table = compare({name: ranks}).set_index("species")
    return table[["queries", *(name + end for end in ENDS)]]


def readable(summary: pd.DataFrame) -> pd.DataFrame:
    """The species with leaks, and the mean, as text; "not known": the catalog doesn't say."""
    leaky = summary.groupby("species")["leaks"].transform("max").gt(0)
    summary = _with_shares(summary[leaky | (summary["species"] == "mean")], "")
    shares = summary.pivot(index="species", columns="kind", values="share")
    table = summary[summary["kind"] == KINDS[-1]].join(shares, on="species")
    heads = {"species": "species", "queries": "queries"} | {k: f"{k} (%)" for k in KINDS}
    return with_heads(table, heads | {"top_1": "top-1 (%)", "without": "without these (%)"})


def _with_shares(summary: pd.DataFrame, unit: str) -> pd.DataFrame:
    """With a column `share`: the leaks, and of how many it is known, as text."""
    known = summary["known"].map(lambda share: f" of the {share:.1f} % known" * (share < 100))
    share = summary["leaks"].map(f"{{:.1f}}{unit}".format) + known
    return summary.assign(share=share.where(summary["known"] > 0, "not known"))


def in_words(summary: pd.DataFrame) -> str:
    """What the audit found: the mean share of each kind of leak, and top-1 with and without."""
    means = _with_shares(summary[summary["species"] == "mean"], " %")
    shares = [f"{kind} {share}" for kind, share in zip(KINDS[:-1], means["share"], strict=False)]
    scores = [with_interval(means[-1:], name, unit=" %")[0] for name in ("without", "top_1")]
    told = f"Queries whose nearest true match leaks: {', '.join(shares)}"
    if not summary["leaks"].any():
        return f"{told}."
    return f"{told}. Without these top-1 is {scores[0] or 'unknown'} instead of {scores[1]}."


def train_duplicates(study: Study) -> pd.DataFrame:
    """Test photos of each species, and of all, that have a near-duplicate in its training photos.

    Columns species, photos; near_duplicates and their share in percent; of_others: those of them
    whose nearest training photo shows another individual (a photo in the catalog twice, a wrong
    label, or photos that only look alike).
    """
    size, chips_dir = study.config.image_size, study.chips_dir
    test, train = (hashes(rows, chips_dir, size) for rows in (study.test, study.train))
    shown, learned = (rows["individual"].to_numpy() for rows in (study.test, study.train))
    rows = []
    for species, places in study.test.groupby("species").indices.items():
        own, near, others = np.flatnonzero(study.train["species"] == species), 0, 0
        if len(own):
            args = test[places], train[own]
            nearest, apart = pairwise_distances_argmin_min(*args, metric="hamming")  # in chunks
            close = np.rint(64 * apart) <= NEAR
            near = close.sum()
            others = (close & (shown[places] != learned[own[nearest]])).sum()
        rows.append([species, len(places), near, others])
    table = pd.DataFrame(rows, columns=["species", "photos", "near_duplicates", "of_others"])
    table.loc[len(table)] = ["all", *table[table.columns[1:]].sum()]
    table.insert(3, "share", 100 * table["near_duplicates"] / table["photos"])
    return table

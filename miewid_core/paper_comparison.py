"""Networks compared on the same queries, species by species: one table, and one verdict on it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from miewid_core import reported
from miewid_core.evaluation import KEYS, by_species, random_top_k

Ranking = pd.DataFrame | Sequence[pd.DataFrame]
QUERY = ["annotation_id", "species", "individual", "relevant"]
ENDS = ["", "_low", "_high"]
CLAIMS = (
    "{first} is better than {second}",
    "{first} is worse than {second}",
    "no difference shown between {first} and {second}",
)
CARRIED = (  # of a network that never saw a species, against an untrained one
    "what was learned of other species carries over",
    "training on other species makes it worse",
    "no carry-over is shown",
)


def compare(
    rankings: Mapping[str, Ranking],
    train: pd.DataFrame | None = None,
    k: int = 1,
    next_training: bool = False,
    training_sd: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Top-k in percent of each ranking of the same queries, and the first's gain over each other.

    `rankings`: by name, ranks as of `evaluation.one_vs_all`, or a list of them, one a training of
    the network with another seed; a ranking may lack species of the first. `train`: the training
    annotations. One row per species, by decreasing number of these, then the "mean" over the
    species that all rankings have. Columns species, queries, individuals, train_annotations; of
    each ranking its name, name_low, name_high and name_trainings, how many; of each but the first
    gain_over_name with _low, _high (points, paired by query), _p (two-sided; of species corrected
    by Holm) and, if the first has several trainings, _same_sign: in how many of them the gain has
    the sign of their mean; chance, a random ranking's top-k.

    Intervals (95 %) are those of `evaluation.by_species`: of other individuals of these species in
    this gallery, and of the mean over trainings where a ranking has several, else of this one
    training. `next_training` gives those of one more training of each instead; `training_sd` in
    points, by name, adds to the mean's what is known from elsewhere. Raises ValueError when the
    queries differ.
    """
    hits = {name: _hits(ranks, k) for name, ranks in rankings.items()}
    (first, one), *others = hits.items()
    ranks = _all_of(next(iter(rankings.values())))[0]
    queries = ranks.set_index(QUERY, drop=False).rename_axis([None] * len(QUERY))
    for _, other in others:
        _check_same(one, other)
    shared = sorted(set.intersection(*(_species(other) for other in hits.values())))
    spread = {name: (training_sd or {}).get(name, 0) / 100 for name in hits}
    table = _measured(one, queries, shared, None, next_training, spread[first])
    table = _named(table, first).assign(**{f"{first}_trainings": one.shape[1]})
    for name, other in others:
        own = _measured(other, queries, shared, None, next_training, spread[name])
        table = table.join(_named(own, name)[[name + end for end in ENDS]])
        table[f"{name}_trainings"] = other.shape[1]
    for name, other in others:
        sd = np.hypot(spread[first], spread[name])
        matched = one[_species_of(one).isin(_species(other))]
        gain = _measured(matched, queries, shared, other, next_training, sd)
        table = table.join(_gain(gain, matched, other, f"gain_over_{name}", shared))
    table["chance"] = _chance(ranks, k, shared)
    return _ordered(table, train, shared).reset_index()


def _all_of(ranking: Ranking) -> list[pd.DataFrame]:
    return [ranking] if isinstance(ranking, pd.DataFrame) else [*ranking]


def _hits(ranking: Ranking, k: int) -> pd.DataFrame:
    """Whether each counted query (index QUERY) has a match among its k nearest, by training."""
    columns = [ranks.set_index(QUERY)["first_match_rank"] for ranks in _all_of(ranking)]
    for column in columns[1:]:
        _check_same(columns[0].to_frame(), column.to_frame())
    table = pd.concat(columns, axis=1, keys=range(len(columns))).rename_axis([None] * len(QUERY))
    return table[table.index.get_level_values(3) > 0].le(k).astype(float)


def _species_of(hits: pd.DataFrame) -> pd.Index:
    return hits.index.get_level_values(1)


def _species(hits: pd.DataFrame) -> set[str]:
    return set(_species_of(hits))


def _check_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Both have the same queries of each species that `other` has."""
    kept = one.index[_species_of(one).isin(_species(other))]
    strange = kept.symmetric_difference(other.index).get_level_values(0).unique().tolist()
    if strange:
        raise ValueError(f"{len(strange)} queries are in one ranking only: {strange[:5]}")


def _measured(
    hits: pd.DataFrame,
    queries: pd.DataFrame,
    shared: list[str],
    against: pd.DataFrame | None,
    next_training: bool,
    sd: float,
) -> pd.DataFrame:
    """A table of `by_species` in percent, indexed by species; the mean over `shared` alone."""
    table = by_species(hits, queries, against, next_training=next_training, training_sd=sd)
    if len(table) - 1 > len(shared):
        own = queries[queries["species"].isin(shared)]
        mean = by_species(hits, own, against, next_training=next_training, training_sd=sd)
        table = pd.concat([table[:-1], mean[-1:]])
    table[["value", "low", "high"]] *= 100
    return table.set_index("species")


def _named(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.rename(columns={"value": name, "low": f"{name}_low", "high": f"{name}_high"})


def _gain(
    table: pd.DataFrame, one: pd.DataFrame, other: pd.DataFrame, name: str, shared: list[str]
) -> pd.DataFrame:
    """The columns of a gain: its interval, corrected p, and in how many trainings it is alike."""
    species = table.index != "mean"
    table.loc[species, "p"] = holm(table.loc[species, "p"])
    table = _named(table.drop(columns=KEYS[1:]), name).rename(columns={"p": f"{name}_p"})
    if one.shape[1] > 1:
        runs = one.sub(other.mean(axis=1), axis=0)
        runs = runs.groupby(level=1).mean()
        runs.loc["mean"] = runs.loc[shared].mean()
        table[f"{name}_same_sign"] = same_sign(runs, table[name])
    return table


def same_sign(runs: pd.DataFrame, gain: pd.Series) -> pd.Series:
    """In how many trainings (columns) the gain of each species (rows) has the sign of `gain`."""
    runs = runs.reindex(gain.index)
    alike = np.sign(runs.round(9)).eq(np.sign(gain.round(9)), axis=0).sum(axis=1).astype("Int64")
    return alike.mask(gain.isna())


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction of p values for their number; NaN stay so, and don't count."""
    known = p.dropna().sort_values()
    steps = known * np.arange(len(known), 0, -1)
    return steps.cummax().clip(upper=1).reindex(p.index)


def _chance(ranks: pd.DataFrame, k: int, shared: list[str]) -> pd.Series:
    chance = {species: 100 * random_top_k(own, k) for species, own in ranks.groupby("species")}
    mean = np.mean([chance[species] for species in shared]) if shared else np.nan
    return pd.Series(chance | {"mean": mean})


def _ordered(table: pd.DataFrame, train: pd.DataFrame | None, shared: list[str]) -> pd.DataFrame:
    """With the number of training annotations; species that have most first, and the mean last."""
    if train is None:
        return table
    counts = train["species"].value_counts().reindex(table.index, fill_value=0)
    counts["mean"] = counts[shared].sum()
    table.insert(2, "train_annotations", counts)
    order = counts.drop("mean").sort_values(ascending=False, kind="stable").index
    return table.loc[[*order, "mean"]]


def verdict(
    table: pd.DataFrame,
    words: Mapping[str, str],
    k: int = 1,
    claims: tuple[str, str, str] = CLAIMS,
) -> str:
    """Which of two networks of a table of `compare` is better, in words that its numbers decide.

    `words`: the two columns' names in text, the table's first ranking first. `claims`: what is said
    if it is better, worse, or neither. The sentence names the trainings that it is about. With one
    training it counts the species that are better or worse (Holm-corrected); with several, those
    on which all of them agree, which is no verdict.
    """
    (first, one), (second, other) = words.items()
    gain = f"gain_over_{second}"
    mean = table.iloc[-1]
    rows = table[:-1].dropna(subset=[name for name in table if name.startswith("gain_over_")])
    low, high = mean[f"{gain}_low"], mean[f"{gain}_high"]
    claim = claims[0] if low > 0 else claims[1] if high < 0 else claims[2]
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    if np.isnan(low):
        interval = "no interval, as no species has two individuals"
    species = _by_species(rows, gain, int(mean[f"{first}_trainings"]))
    return (
        f"Top-{k}, mean over {len(rows)} species, {_trainings(mean, first, second)}: "
        f"{claim.format(first=one, second=other)} ({mean[first]:.1f} against {mean[second]:.1f} %, "
        f"{mean[gain]:+.1f} points, {interval}). {species}"
    )


def _trainings(mean: pd.Series, first: str, second: str) -> str:
    one, other = int(mean[f"{first}_trainings"]), int(mean[f"{second}_trainings"])
    if one == other == 1:
        return "for this one training"
    if one == other:
        return f"mean over {one} trainings of each"
    return f"mean over {one} training{'s' * (one > 1)} of the first and {other} of the second"


def _by_species(rows: pd.DataFrame, gain: str, trainings: int) -> str:
    if trainings > 1:
        agreed = rows[rows[f"{gain}_same_sign"] == trainings]
        return (
            f"All of the first's trainings are ahead on {(agreed[gain] > 0).sum()} species and "
            f"behind on {(agreed[gain] < 0).sum()} of {len(rows)}."
        )
    shown = rows[rows[f"{gain}_p"] < 0.05]
    better, worse = (shown[gain] > 0).sum(), (shown[gain] < 0).sum()
    return (
        f"Species by species (Holm-corrected) it is better on {better}, worse on {worse}, with no "
        f"difference shown on {len(rows) - better - worse}."
    )


def beside_paper(table: pd.DataFrame, number: int, columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of `compare` with columns of the paper's Table `number`, which are top-1, in percent.

    `columns`: by the name that each gets, "paper_" before it; a species that the paper lacks has
    NaN, the mean that of the paper's own rows.
    """
    printed = reported.table(number).set_index("species")[[*columns.values()]]
    printed.columns = [f"paper_{name}" for name in columns]
    printed.loc["mean"] = printed.mean()
    found = printed.reindex(table["species"].map(reported.species_name))
    return table.join(found.reset_index(drop=True))


def paper_in_words(number: int, first: str, second: str) -> str:
    """The mean gain of column `first` over `second` of the paper's Table `number`, from its rows.

    Its Table 2 has multi_species, single_species, leave_one_out; its Table 3 miewid_leave_one_out
    and megadescriptor_l_384.
    """
    printed = reported.table(number)
    gain = (printed[first] - printed[second]).dropna()
    return (
        f"The paper's Table {number} gives a mean gain of {gain.mean():.1f} points over "
        f"{len(gain)} species (from {gain.min():+.1f} to {gain.max():+.1f})."
    )

"""Training and test annotations by section 3.3 of the paper, few-shot subsets, and saved splits."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng

from miewid_core.files import digest, replacing

LEAST_IN_TRAIN, LEAST_IN_TEST, MOST_IN_TEST = 3, 2, 10  # annotations per individual, section 3.3
FLOOR = 5  # new test individuals that stay although too few animals can be shared
COLUMNS = ["annotation_id", "species", "individual", "encounter", "part", "reason"]


def train_share(n_annotations: int) -> float:
    """Share of a species' animals that train: 0.5 up to 100 annotations, 0.8 from 10,000, linear in
    log10 between. (Section 3.3 says only that smaller data sets train a smaller share.)"""
    return float(np.interp(np.log10(max(n_annotations, 1)), [2, 4], [0.5, 0.8]))


def split(photos: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Put each annotation into "train", "test" or "unused", and say why (section 3.3).

    The paper's: half of the test individuals are also in training, with other photos, and half are
    new; training keeps individuals with at least 3 annotations; the test set keeps one random
    annotation per encounter, at most 10 and at least 2 per individual.
    Ours, where the paper leaves it open:
    - Animals are drawn, not individuals: both sides of one may train, or neither.
    - Of the animals with two encounters or more, a share 1 - `train_share` is drawn for each half.
      The larger half is cut to the smaller before anything is assigned, and the rest trains; but
      up to 5 new individuals stay, so that a species without shared ones has a test. A lone
      test individual has nothing to be confused with: that species trains only.
    - A shared animal gives the test set half of its encounters, 2 to 10, the largest last.
    - No encounter is on both sides. One with several animals is drawn as a whole, for the test set
      with probability 1 - `train_share`; if no annotation of it is tested, it may train.

    Returns annotation_id, species, individual, encounter, part, reason, sorted by annotation_id.
    Depends on the seed and the species' own rows, in any order. Encounter "" is one of its own.
    Raises ValueError for a seed that is no whole number from 0.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}; give a whole number, 0 or above")
    drawn = photos.sort_values("annotation_id", ignore_index=True).assign(part="", reason="")
    for species, own in drawn.groupby("species"):
        rng = default_rng([seed, int(digest(species), 16)])  # the same whatever other species
        drawn.loc[own.index, ["part", "reason"]] = _split_species(own, rng)
    return drawn[COLUMNS]


def _split_species(photos: pd.DataFrame, rng: Generator) -> np.ndarray:
    """(N, 2) part and reason of one species' annotations, given sorted by annotation_id."""
    share = train_share(len(photos))
    alone = "alone " + photos["annotation_id"]
    encounter = ("known " + photos["encounter"]).where(photos["encounter"] != "", alone)
    labels = {"animal": photos["name"], "individual": photos["individual"], "encounter": encounter}
    rows = pd.DataFrame({key: pd.factorize(of, sort=True)[0] for key, of in labels.items()})
    rows = _reserve(rows, share, rng)
    shared, new = _choose(_yields(rows), share, rng)
    return _assign(rows, rows["animal"].isin(shared), rows["animal"].isin(new), rng)


def _reserve(rows: pd.DataFrame, share: float, rng: Generator) -> pd.DataFrame:
    """Add `barred`, never tested as its herd's encounter is drawn for training, and `reserved`,
    in an encounter that is tested if its animal is to be shared."""
    visit = ["animal", "encounter"]
    herd = rows.groupby("encounter")["animal"].transform("nunique") > 1
    draw = pd.Series(rng.random(len(rows))[rows["encounter"]])
    rows = rows.assign(barred=herd & (draw >= 1 - share))
    turn = draw.mask(herd, -1).mask(rows["barred"], 2)  # in which an animal's encounters are taken
    visits = rows.assign(turn=turn, size=rows.groupby(visit)["animal"].transform("size"))
    visits = visits.drop_duplicates(visit).sort_values("turn")
    largest = visits[visits["turn"].between(0, 1)].groupby("animal")["size"].idxmax()
    visits.loc[largest, "turn"] = 1
    by_animal = visits.sort_values("turn").groupby("animal")
    half = (by_animal["turn"].transform("size") // 2).clip(LEAST_IN_TEST, MOST_IN_TEST)
    early = (by_animal.cumcount() < half) & ~visits["barred"]
    visits["reserved"] = early | (visits["turn"] < 0)
    return rows.join(visits.set_index(visit)["reserved"], on=visit)


def _yields(rows: pd.DataFrame) -> pd.DataFrame:
    """Per animal, the test individuals it gives if `new`; and if `shared`, those that are known,
    less those of its sides that are tested but left with too little to train."""
    first = ~rows.duplicated(["individual", "encounter"])
    new, tested = first & ~rows["barred"], first & rows["reserved"]
    counts = rows.assign(new=new, tested=tested, trained=~rows["reserved"])
    counts = counts.groupby(["animal", "individual"])[["new", "tested", "trained"]].sum()
    known = np.where(counts["trained"] >= LEAST_IN_TRAIN, 1, -1)
    counts["shared"] = (counts["tested"] >= LEAST_IN_TEST) * known
    counts["new"] = counts["new"] >= LEAST_IN_TEST
    return counts.groupby("animal")[["new", "shared"]].sum()


def _choose(yields: pd.DataFrame, share: float, rng: Generator) -> tuple[pd.Index, pd.Index]:
    """Shared and new animals, giving equally many test individuals as far as that can be."""
    yields = yields.iloc[rng.permutation(len(yields))]
    evaluable = yields[yields["new"] > 0]
    half = max(1, round((1 - share) * len(evaluable))) if len(evaluable) > 1 else 0
    shared = evaluable.loc[evaluable["shared"] > 0, "shared"].head(half)
    new = evaluable["new"].drop(shared.index).head(half)
    shared = shared[shared.cumsum() <= new.sum() + 1]
    wanted = max(shared.sum(), min(FLOOR, new.sum()))
    new = new.head(max(1, (new.cumsum() <= wanted).sum()))
    alone = shared.sum() + new.sum() < 2  # nothing to confuse it with: not worth a test
    return (shared.index[:0], new.index[:0]) if alone else (shared.index, new.index)


def _assign(rows: pd.DataFrame, shared: pd.Series, new: pd.Series, rng: Generator) -> np.ndarray:
    """(N, 2) part and reason: first the test set, then training from what that leaves."""
    test = _filter_test(rows, (shared & rows["reserved"]) | (new & ~rows["barred"]), rng)
    free = ~rows["encounter"].isin(rows.loc[test, "encounter"])
    own = rows["individual"]
    train = free & ~new & (free.groupby(own).transform("sum") >= LEAST_IN_TRAIN)
    tested, known = (part.groupby(own).transform("any") for part in (test, train))
    surplus = own.isin(_surplus(own[test], known[test], rng))
    masks = {
        ("test", "shared individual"): test & known & ~surplus,
        ("test", "new individual"): test & ~surplus,
        ("train", "shared individual"): train & tested & ~surplus,
        ("train", "training only"): train,
        ("unused", "surplus of the larger half"): tested & surplus,
        ("unused", "encounter kept for training"): new & rows["barred"],
        ("unused", "fewer than 2 in test"): new & ~tested,
        ("unused", "encounter already in test"): ~free,
        ("unused", "more than 10 in test"): new,
        ("unused", "fewer than 3 in train"): free,
    }
    return np.array(list(masks))[np.argmax(list(masks.values()), axis=0)]  # the first that holds


def _filter_test(rows: pd.DataFrame, wanted: pd.Series, rng: Generator) -> pd.Series:
    """One random annotation per encounter, at most 10 random ones per individual, at least 2."""
    kept = rows[wanted].sample(frac=1, random_state=rng)
    kept = kept.drop_duplicates(["individual", "encounter"]).sample(frac=1, random_state=rng)
    kept = kept[kept.groupby("individual").cumcount() < MOST_IN_TEST]
    kept = kept[kept.groupby("individual")["encounter"].transform("size") >= LEAST_IN_TEST]
    return pd.Series(rows.index.isin(kept.index), rows.index)


def _surplus(tested: pd.Series, known: pd.Series, rng: Generator) -> np.ndarray:
    """Random individuals of the larger half of the test set that have no counterpart."""
    shared, new = (rng.permutation(tested[half].unique()) for half in (known, ~known))
    return np.concatenate([shared[len(new) + 1 :], new[max(len(shared) + 1, FLOOR) :]])


def rows(photos: pd.DataFrame, split: pd.DataFrame, part: str) -> pd.DataFrame:
    """The photos of one part ("train", "test" or "unused"), sorted by annotation_id.

    Raises ValueError when the split is not of these photos, naming annotations that differ.
    """
    if part not in ("train", "test", "unused"):
        raise ValueError(f'part is {part!r}: take "train", "test" or "unused"')
    keys = COLUMNS[:4]
    both = photos[keys].merge(split[keys], "outer", indicator=True)
    strange = both.loc[both["_merge"] != "both", "annotation_id"].unique()
    if len(strange):
        raise ValueError(
            f"the split is not of these photos: {len(strange)} annotations are in one only, or "
            f"differ in individual or encounter ({', '.join(strange[:5])}); split these anew"
        )
    own = photos["annotation_id"].isin(split.loc[split["part"] == part, "annotation_id"])
    return photos[own].sort_values("annotation_id", ignore_index=True)


def few_shot(train_photos: pd.DataFrame, species: str, n: int, seed: int) -> pd.DataFrame:
    """Training rows in which one species keeps only `n` random individuals, or all (Table 4).

    A smaller `n` keeps some of those of a larger one. ValueError for `n` < 0 or no such species.
    """
    own = train_photos["species"] == species
    if n < 0 or not own.any():
        raise ValueError(f"cannot keep {n} individuals of {species!r}, which has {own.sum()} rows")
    kept = np.sort(train_photos.loc[own, "individual"].unique())
    kept = default_rng([seed, int(digest(species), 16)]).permutation(kept)[:n]
    return train_photos[~own | train_photos["individual"].isin(kept)].reset_index(drop=True)


def _csv(split: pd.DataFrame) -> bytes:
    return split.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL).encode()


def fingerprint(split: pd.DataFrame) -> str:
    """SHA-256 of a split's content, as 64 hex digits."""
    return digest(_csv(split))


def save(split: pd.DataFrame, path: Path | str) -> str:
    """Write a split as CSV, its fingerprint in a first comment line; return the fingerprint."""
    content = _csv(split)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(f"# sha256={digest(content)}\n".encode() + content)
    return digest(content)


def load(path: Path | str) -> pd.DataFrame:
    """Read a split that `save` wrote; ValueError when there is none or it has changed since."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: there is no such file; save a split there first")
    stated, _, content = Path(path).read_bytes().partition(b"\n")
    if stated != f"# sha256={digest(content)}".encode():
        raise ValueError(
            f"{path} was changed: its first line is not the hash of the rest. Restore it, or split "
            "the photos anew and save that."
        )
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def summary(photos: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Per species, the annotations and individuals of each part and of both test halves."""
    part = {name: rows(photos, split, name) for name in ("train", "test", "unused")}
    known = part["test"]["individual"].isin(part["train"]["individual"])
    part |= {"shared": part["test"][known], "new": part["test"][~known]}
    counts = {"": photos} | {f"{name}_": of for name, of in part.items()}
    table = pd.concat([_sizes(of).add_prefix(name) for name, of in counts.items()], axis=1)
    table = table.fillna(0).astype(int)
    return table.assign(train_share=table["annotations"].map(train_share)).reset_index()


def _sizes(photos: pd.DataFrame) -> pd.DataFrame:
    individuals = photos.groupby("species")["individual"]
    return individuals.agg(annotations="size", individuals="nunique")

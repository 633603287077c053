"""Section 3.3 of the paper: training and test annotations, few-shot subsets.

Five steps add boolean columns to the annotations of a species. Where the paper is silent:
- We draw animals, not individuals: both sides of an animal may train, or neither.
- Of the animals with at least two encounters, a share `1 - train_share` becomes shared (in both
  parts) and as many become new (in the test set only). All others train.
- A shared animal reserves half of its encounters for the test set, 2 to 10, its largest one last.
- No encounter is on both sides. A herd (an encounter with several animals) is drawn as one: for the
  test set with probability `1 - train_share`. It may train if none of it is tested.
- The larger half of the test set is cut to the smaller one. Up to 5 new individuals stay, so that a
  species without shared animals is tested; one individual alone is not, as nothing resembles it.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng

from miewid_core.files import digest

LEAST_IN_TRAIN, LEAST_IN_TEST, MOST_IN_TEST = 3, 2, 10  # annotations per individual, section 3.3
FLOOR = 5  # new test individuals that stay although too few animals can be shared
KEYS = ["annotation_id", "species", "individual", "encounter"]
COLUMNS = [*KEYS, "part", "reason"]
VISIT = ["animal", "encounter"]
Rule = Callable[[pd.DataFrame, Generator], np.ndarray]  # parts and reasons (N, 2) of a species


def train_share(n_annotations: int) -> float:
    """Share of a species' animals that train: 0.5 up to 100 annotations, 0.8 from 10,000, linear in
    log10 between. (Section 3.3 says only that smaller data sets train a smaller share.)"""
    return float(np.interp(np.log10(max(n_annotations, 1)), [2, 4], [0.5, 0.8]))


def split(annotations: pd.DataFrame, seed: int = 0, rule: Rule | None = None) -> pd.DataFrame:
    """Put each annotation into "train", "test" or "unused", and say why.

    `rule`: splits the annotations of one species (`by_individual`: section 3.3). Returns COLUMNS,
    sorted by annotation_id. The order of the rows does not matter, nor do other species. An
    annotation without an encounter ("") counts as an encounter of its own. Raises ValueError for a
    seed that is no whole number from 0.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed is {seed!r}; give a whole number, 0 or above")
    drawn = annotations.sort_values("annotation_id", ignore_index=True).assign(part="", reason="")
    for species, of_species in drawn.groupby("species"):
        rng = default_rng([seed, int(digest(species), 16)])
        drawn.loc[of_species.index, ["part", "reason"]] = (rule or by_individual)(of_species, rng)
    return drawn[COLUMNS]


def by_individual(annotations: pd.DataFrame, rng: Generator) -> np.ndarray:
    """(N, 2) part and reason of one species' annotations, which are sorted by annotation_id."""
    test_share = 1 - train_share(len(annotations))
    rows = numbered(annotations)
    rows = draw_shared_encounters(rows, test_share, rng)
    rows = choose_animals(rows, test_share, rng)
    rows = pick_test(rows, rng)
    rows = pick_train(rows)
    rows = trim_halves(rows, rng)
    return _parts_and_reasons(rows)


def numbered(annotations: pd.DataFrame) -> pd.DataFrame:
    """Animal, individual and encounter as numbers; each unknown encounter has its own."""
    known = annotations["encounter"] != ""
    alone = "alone " + annotations["annotation_id"]
    labels = {"animal": annotations["name"], "individual": annotations["individual"]}
    labels["encounter"] = ("known " + annotations["encounter"]).where(known, alone)
    return pd.DataFrame({key: pd.factorize(of, sort=True)[0] for key, of in labels.items()})


def draw_shared_encounters(rows: pd.DataFrame, test_share: float, rng: Generator) -> pd.DataFrame:
    """Add `reserved`: in an encounter that goes to the test set if its animal is shared.

    "If an individual is selected for the training set, a subset of their annotations is reserved
    for the test set." Add `herd_tests` and `herd_trains`: in a herd drawn for that part.
    """
    draw = rng.random(len(rows))[rows["encounter"]]  # one number per encounter
    herd = rows.groupby("encounter")["animal"].transform("nunique") > 1
    for_test = draw < test_share
    rows = rows.assign(herd_tests=herd & for_test, herd_trains=herd & ~for_test)
    visits = _visits_in_order(rows.assign(draw=draw))
    by_animal = visits.groupby("animal")
    half = (by_animal["draw"].transform("size") // 2).clip(LEAST_IN_TEST, MOST_IN_TEST)
    in_half = (by_animal.cumcount() < half) & ~visits["herd_trains"]
    visits["reserved"] = visits["herd_tests"] | in_half
    return rows.join(visits.set_index(VISIT)["reserved"], on=VISIT)


def _visits_in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per animal and encounter: first herds for the test set, then the animal's own
    encounters in random order, the largest last, then herds for training."""
    visits = rows.assign(size=rows.groupby(VISIT)["animal"].transform("size"))
    visits = visits.drop_duplicates(VISIT).sort_values("draw")
    alone = visits[~visits["herd_tests"] & ~visits["herd_trains"]]
    visits["largest"] = visits.index.isin(alone.groupby("animal")["size"].idxmax())
    order = ["herd_tests", "herd_trains", "largest", "draw"]
    return visits.sort_values(order, ascending=[False, True, True, True])


def choose_animals(rows: pd.DataFrame, test_share: float, rng: Generator) -> pd.DataFrame:
    """Add `shared` and `new`: the animals of the two halves of the test set. The others train.

    "For each individual with k annotations, we first determine whether the individual will be
    placed in the training or test set."
    """
    gain = _test_individuals(rows)
    gain = gain.iloc[rng.permutation(len(gain))]
    testable = gain[gain["if_new"] > 0]
    half = max(1, round(test_share * len(testable))) if len(testable) > 1 else 0
    shared = testable.loc[testable["if_shared"] > 0, "if_shared"].head(half)
    new = testable["if_new"].drop(shared.index).head(half)
    shared = shared[shared.cumsum() <= new.sum() + 1]
    wanted = max(shared.sum(), min(FLOOR, new.sum()))
    new = new.head(max(1, (new.cumsum() <= wanted).sum()))
    several = shared.sum() + new.sum() > 1  # test individuals, to be told apart
    in_shared, in_new = (rows["animal"].isin(half.index) for half in (shared, new))
    return rows.assign(shared=several & in_shared, new=several & in_new)


def _test_individuals(rows: pd.DataFrame) -> pd.DataFrame:
    """Per animal, the number of test individuals `if_new`; and `if_shared`, where those left with
    too few annotations to train are subtracted."""
    first = ~rows.duplicated(["individual", "encounter"])  # one is tested per encounter
    reserved = rows["reserved"]
    flags = {"new": first & ~rows["herd_trains"], "tested": first & reserved, "trained": ~reserved}
    counts = rows.assign(**flags).groupby(["animal", "individual"])[[*flags]].sum()
    sign = np.where(counts["trained"] >= LEAST_IN_TRAIN, 1, -1)
    counts["if_new"] = counts["new"] >= LEAST_IN_TEST
    counts["if_shared"] = (counts["tested"] >= LEAST_IN_TEST) * sign
    return counts.groupby("animal")[["if_new", "if_shared"]].sum()


def pick_test(rows: pd.DataFrame, rng: Generator) -> pd.DataFrame:
    """Add `test`: one random annotation per encounter, 2 to 10 per individual.

    "Individuals with fewer than 2 annotations in the test set are excluded. For individuals with
    more than 10 annotations, random 10 annotations are picked [...]. Finally, only one annotation
    per encounter is allowed in the test set".
    """
    wanted = (rows["shared"] & rows["reserved"]) | (rows["new"] & ~rows["herd_trains"])
    kept = one_per_encounter(rows[wanted], rng)
    kept = kept[kept.groupby("individual")["encounter"].transform("size") >= LEAST_IN_TEST]
    return rows.assign(test=rows.index.isin(kept.index))


def one_per_encounter(rows: pd.DataFrame, rng: Generator) -> pd.DataFrame:
    """A random row of each individual's encounters, MOST_IN_TEST at most."""
    kept = rows.sample(frac=1, random_state=rng)
    kept = kept.drop_duplicates(["individual", "encounter"]).sample(frac=1, random_state=rng)
    return kept[kept.groupby("individual").cumcount() < MOST_IN_TEST]


def pick_train(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `train`: "Individuals with fewer than 3 annotations are excluded."

    Add `encounter_tested`: in an encounter of the test set, and so not in training.
    """
    seen = rows["encounter"].isin(rows.loc[rows["test"], "encounter"])
    enough = (~seen).groupby(rows["individual"]).transform("sum") >= LEAST_IN_TRAIN
    return rows.assign(encounter_tested=seen, train=~seen & ~rows["new"] & enough)


def trim_halves(rows: pd.DataFrame, rng: Generator) -> pd.DataFrame:
    """Take `surplus` individuals of the larger half, drawn at random, out of `test`.

    "50% of the individuals in the test set are also present in the training set, but with different
    annotations". Add `known` and `tested`: the individual is in training, in the test set.
    """
    individual = rows["individual"]
    known = rows["train"].groupby(individual).transform("any")
    tested = rows["test"].groupby(individual).transform("any")
    shared = rng.permutation(individual[rows["test"] & known].unique())
    new = rng.permutation(individual[rows["test"] & ~known].unique())
    surplus = individual.isin([*shared[len(new) + 1 :], *new[max(len(shared) + 1, FLOOR) :]])
    test, tested = rows["test"] & ~surplus, tested & ~surplus
    return rows.assign(known=known, tested=tested, test=test, surplus=surplus)


def _parts_and_reasons(rows: pd.DataFrame) -> np.ndarray:
    """(N, 2) part and reason of each annotation: the first of these that holds."""
    new, tested, seen = rows["new"], rows["tested"], rows["encounter_tested"]
    unused = {
        ("unused", "surplus of the larger half"): rows["surplus"],
        ("unused", "encounter kept for training"): new & rows["herd_trains"],
        ("unused", "fewer than 2 in test"): new & ~tested,
        ("unused", "encounter already in test"): seen,
        ("unused", "more than 10 in test"): new,
        ("unused", "fewer than 3 in train"): ~seen,
    }
    return first_that_holds(rows, unused)


def first_that_holds(rows: pd.DataFrame, unused: dict[tuple[str, str], pd.Series]) -> np.ndarray:
    """(N, 2) part and reason: by `train`, `test`, `known` and `tested`, else of `unused`."""
    masks = {
        ("test", "shared individual"): rows["test"] & rows["known"],
        ("test", "new individual"): rows["test"],
        ("train", "shared individual"): rows["train"] & rows["tested"],
        ("train", "training only"): rows["train"],
    } | unused
    return np.array([*masks])[np.argmax([*masks.values()], axis=0)]


def rows(annotations: pd.DataFrame, split: pd.DataFrame, part: str) -> pd.DataFrame:
    """The annotations of one part ("train", "test" or "unused"), sorted by annotation_id.

    Raises ValueError when the split is of other annotations, naming those that differ.
    """
    if part not in ("train", "test", "unused"):
        raise ValueError(f'part is {part!r}: take "train", "test" or "unused"')
    both = annotations[KEYS].merge(split[KEYS], "outer", indicator=True)
    strange = both.loc[both["_merge"] != "both", "annotation_id"].unique()
    if len(strange):
        raise ValueError(
            f"the split is not of these annotations: {len(strange)} are in one only, or differ in "
            f"individual or encounter ({', '.join(strange[:5])}); split these anew"
        )
    of_part = annotations["annotation_id"].isin(split.loc[split["part"] == part, "annotation_id"])
    return annotations[of_part].sort_values("annotation_id", ignore_index=True)


def few_shot(train: pd.DataFrame, species: str, n: int, seed: int) -> pd.DataFrame:
    """Training annotations of which one species keeps only `n` random individuals (Table 4).

    All where there are fewer. A smaller `n` keeps some of the individuals of a larger one.
    Raises ValueError for `n` < 0 or no such species.
    """
    of_species = train["species"] == species
    if n < 0 or not of_species.any():
        count = of_species.sum()
        raise ValueError(f"cannot keep {n} individuals of {species!r}, which has {count} rows")
    kept = np.sort(train.loc[of_species, "individual"].unique())
    kept = default_rng([seed, int(digest(species), 16)]).permutation(kept)[:n]
    return train[~of_species | train["individual"].isin(kept)].reset_index(drop=True)

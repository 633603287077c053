"""The split against section 3.3, counted in plain loops by code that shares nothing with it."""

import csv
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miewid_core import splits
from miewid_core.files import digest

ODD_NAMES = ["", " 1", "NA", "a,b", 'a "quote"', "two\nlines", "é", "# x", "1.0", "ナ"]
WHERE = {  # the reasons that a part may have
    "train": {"shared individual", "training only"},
    "test": {"shared individual", "new individual"},
    "unused": {
        "surplus of the larger half",
        "encounter kept for training",
        "encounter already in test",
        "fewer than 2 in test",
        "more than 10 in test",
        "fewer than 3 in train",
    },
}


def one_species(species, counts, rng, known=1.0, frames=1, herd=1, views=0):
    """Annotations of one species: `counts` annotations per animal, in encounters of up to `frames`.

    A share `known` of the encounters has an id. A number of `herd` animals share their encounters.
    With `views`, each animal is that many individuals.
    """
    found = []
    for animal, count in enumerate(counts):
        name = ODD_NAMES[animal] if animal < len(ODD_NAMES) else f"animal {animal}"
        encounter = np.sort(rng.integers(0, max(1, 2 * count // (1 + frames)), count))
        kept = rng.random(count + 1) < known
        for i in range(count):
            label = f"{animal // herd}.{encounter[i]}" if kept[encounter[i]] else ""
            view = f"/{rng.integers(views)}" if views else ""
            individual = f"{species}/{name}{view}"
            found.append((species, name, individual, label))
    annotations = pd.DataFrame(found, columns=["species", "name", "individual", "encounter"])
    ids = [f"{species}{i:05}" for i in rng.permutation(len(annotations))]
    return annotations.assign(annotation_id=ids)


@st.composite
def catalogs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = []
    for species in draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)):
        most = draw(st.sampled_from([1, 3, 6, 15, 40]))
        counts = rng.integers(1, most + 1, draw(st.integers(1, 25)))
        options = {
            "known": draw(st.sampled_from([0.0, 0.6, 1.0])),
            "frames": draw(st.integers(1, 4)),
            "herd": draw(st.sampled_from([1, 1, 2, 3, 30])),
            "views": draw(st.sampled_from([0, 0, 2, 8])),
        }
        parts.append(one_species(species, counts, rng, **options))
    return pd.concat(parts, ignore_index=True)


def medium(seed=0):
    """Three species of different size and kind, about 4,000 annotations."""
    rng = np.random.default_rng(seed)
    counts = [rng.geometric(0.15, animals) for animals in (12, 150, 300)]
    herds = one_species("herds", counts[1], rng, known=0.6, frames=3, herd=3)
    sided = one_species("sided", counts[2], rng, views=2)
    return pd.concat([one_species("small", counts[0], rng), herds, sided], ignore_index=True)


def tally(annotations, split):
    """Species -> part -> individual -> list of encounters, one entry per annotation."""
    place = {row.annotation_id: row.part for row in split.itertuples()}
    counted = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in annotations.itertuples():
        encounter = row.encounter or ("unknown", row.annotation_id)
        counted[row.species][place[row.annotation_id]][row.individual].append(encounter)
    return counted


def halves(parts):
    """Numbers of test individuals that are in training and that are not."""
    shared = sum(individual in parts["train"] for individual in parts["test"])
    return shared, len(parts["test"]) - shared


def breaches(annotations, split):
    """The rules of section 3.3 and of the protocol that a split breaks, found row by row."""
    found = []
    if sorted(split["annotation_id"]) != sorted(annotations["annotation_id"]):
        found.append("not every annotation once")
    for species, parts in tally(annotations, split).items():
        for individual, encounters in parts["train"].items():
            if len(encounters) < 3:
                found.append(f"{individual} trains with {len(encounters)}")
        for individual, encounters in parts["test"].items():
            if not 2 <= len(encounters) <= 10:
                found.append(f"{individual} is tested with {len(encounters)}")
            if len(set(encounters)) < len(encounters):
                found.append(f"{individual} is tested twice in an encounter")
        seen = {part: {e for own in parts[part].values() for e in own} for part in parts}
        if seen.get("train", set()) & seen.get("test", set()):
            found.append(f"{species} has an encounter on both sides")
        shared, new = halves(parts)
        if abs(shared - new) > 1 and not shared < new <= 5:
            found.append(f"{species} has {shared} shared and {new} new individuals")
        if shared + new == 1:
            found.append(f"{species} tests a lone individual")
    return found


def reasons_that_lie(annotations, split):
    """Annotations whose reason is not what the rest of the split shows."""
    found = []
    counted = tally(annotations, split)
    for row in split.itertuples():
        parts = counted[row.species]
        trained, tested = (len(parts[part].get(row.individual, [])) for part in ("train", "test"))
        true = {
            "shared individual": trained and tested,
            "new individual": tested and not trained,
            "training only": trained and not tested,
            "fewer than 2 in test": not tested,
            "fewer than 3 in train": not trained,
            "more than 10 in test": tested == 10,
        }
        if row.reason not in WHERE[row.part] or not true.get(row.reason, True):
            found.append((row.annotation_id, row.part, row.reason))
    return found


@settings(max_examples=100, deadline=None)
@given(catalogs(), st.integers(0, 5))
def test_rules_hold_on_any_catalog(annotations, seed):
    split = splits.split(annotations, seed)
    assert breaches(annotations, split) == []
    assert reasons_that_lie(annotations, split) == []


@settings(max_examples=20, deadline=None)
@given(catalogs(), st.integers(0, 2**32))
def test_neither_row_order_nor_other_species_matter(annotations, seed):
    split = splits.split(annotations)
    shuffled = annotations.sample(frac=1, random_state=np.random.default_rng(seed))
    pd.testing.assert_frame_equal(split, splits.split(shuffled))
    for species, rows in annotations.groupby("species"):
        own = split[split["species"] == species].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, splits.split(rows))


@pytest.mark.parametrize("seed", range(3))
def test_rules_hold_on_a_medium_catalog_and_little_is_lost(seed):
    annotations = medium(seed)
    split = splits.split(annotations, seed)
    assert breaches(annotations, split) == []
    assert reasons_that_lie(annotations, split) == []
    for parts in tally(annotations, split).values():
        assert min(halves(parts)) >= 1
    unused = split["part"].eq("unused").groupby(split["species"]).mean()
    assert unused["sided"] < 0.25
    assert unused["herds"] < 0.4
    assert split["reason"].eq("surplus of the larger half").mean() < 0.005


def test_breaches_are_noticed():
    annotations = medium()
    split = splits.split(annotations)
    for part in ("train", "test"):
        assert breaches(annotations, split.assign(part=part))
    swapped = split["part"].replace({"unused": "test"})
    assert breaches(annotations, split.assign(part=swapped))
    assert reasons_that_lie(annotations, split.assign(reason="training only"))


def test_numbers_of_a_plain_species_are_as_written_down():
    annotations = one_species("plain", [10] * 20, np.random.default_rng(0), known=0.0)
    half = 9  # train_share(200) = 0.545, and 0.455 of 20 animals are 9.1
    split = splits.split(annotations)
    assert split.value_counts(["part", "reason"]).to_dict() == {
        ("train", "shared individual"): half * 5,
        ("test", "shared individual"): half * 5,
        ("test", "new individual"): half * 10,
        ("train", "training only"): (20 - 2 * half) * 10,
    }


def test_species_without_animals_to_share_tests_up_to_five_new_ones():
    annotations = one_species("scarce", [4] * 40, np.random.default_rng(0), known=0.0)
    split = splits.split(annotations)
    assert halves(tally(annotations, split)["scarce"]) == (0, 5)
    assert split["part"].eq("train").sum() == 35 * 4


@pytest.mark.parametrize("counts", [[1], [30], [2], [1, 1, 1], [4, 1], [4, 4]])
def test_lone_animal_is_not_tested(counts):
    annotations = one_species("lone", counts, np.random.default_rng(0), known=0.0)
    split = splits.split(annotations)
    assert not split["part"].eq("test").any()
    assert split["part"].eq("train").sum() == sum(count for count in counts if count >= 3)


def test_encounter_of_a_herd_trains_when_none_of_it_is_tested():
    rng = np.random.default_rng(0)
    annotations = one_species("herds", [12] * 30, rng, herd=3)
    split = splits.split(annotations)
    tested = set(split.loc[split["part"] == "test", "encounter"])
    new = set(split.loc[split["reason"] == "new individual", "individual"])
    assert tested
    assert new
    others = split[~split["encounter"].isin(tested) & ~split["individual"].isin(new)]
    assert set(others["part"]) == {"train"}


def test_ten_tested_annotations_are_drawn_evenly():
    annotations = one_species("plain", [30] * 12, np.random.default_rng(0), known=0.0)
    times = pd.Series(0, sorted(annotations["annotation_id"]))
    n_new = 0
    for seed in range(60):
        chosen = splits.split(annotations, seed)
        chosen = chosen[chosen["reason"] == "new individual"]
        n_new += chosen["individual"].nunique()
        times[chosen["annotation_id"]] += 1
    expected = n_new / 12 / 3  # a third of an animal's 30 annotations each time that it is new
    assert times.sum() == n_new * 10
    assert times.var() < 1.5 * expected  # a favoured third would give at least 2 * expected
    assert times.mean() == pytest.approx(expected)


def with_encounters(species, sizes, animals):
    """Annotations of `animals` animals, each with encounters of the given sizes."""
    found = [
        (
            species,
            str(animal),
            f"{species}/{animal}",
            f"{animal}.{i}",
            f"{animal:03}.{i:02}.{frame}",
        )
        for animal in range(animals)
        for i, size in enumerate(sizes)
        for frame in range(size)
    ]
    columns = ["species", "name", "individual", "encounter", "annotation_id"]
    return pd.DataFrame(found, columns=columns)


def test_one_annotation_of_an_encounter_is_random_and_bursts_are_not_favoured():
    annotations = with_encounters("bursts", [9] * 10 + [1] * 10, animals=60)
    split = splits.split(annotations)
    tested = split.loc[split["reason"] == "new individual", "annotation_id"]
    _, encounter, frame = zip(*tested.str.split("."), strict=True)
    from_bursts = [int(f) for e, f in zip(encounter, frame, strict=True) if int(e) < 10]
    assert 0.35 < len(from_bursts) / len(tested) < 0.65  # by annotations it would be 0.9
    assert 3 < np.mean(from_bursts) < 5


def test_animal_with_one_long_encounter_can_be_shared():
    annotations = with_encounters("long", [1, 8, 1], animals=40)
    split = splits.split(annotations)
    half = round((1 - splits.train_share(400)) * 40)
    assert halves(tally(annotations, split)["long"]) == (half, half)


def test_larger_half_is_cut_before_anything_is_lost():
    rich = with_encounters("uneven", [2] * 8, animals=3)
    rich["individual"] += "/" + rich["annotation_id"].str[-1]  # two sides each: six individuals
    poor = one_species("uneven", [4] * 3, np.random.default_rng(0), known=0.0)
    annotations = pd.concat([rich, poor], ignore_index=True)
    split = splits.split(annotations)
    assert halves(tally(annotations, split)["uneven"]) == (4, 3)
    assert split.value_counts(["part", "reason"])["train", "training only"] == 8 * 2
    assert set(split.loc[split["part"] == "unused", "reason"]) == set()


def test_encounters_of_herds_are_tested_as_seldom_as_animals():
    annotations = one_species("herds", [20] * 120, np.random.default_rng(0), herd=3)
    split = splits.split(annotations)
    animals = split.groupby("encounter")["individual"].nunique()
    herds = set(animals[animals > 1].index)
    tested = len(herds & set(split.loc[split["part"] == "test", "encounter"])) / len(herds)
    share = splits.train_share(len(annotations))
    assert 0.7 * (1 - share) < tested < 1.1 * (1 - share)


def test_train_share_follows_its_formula_and_larger_species_train_more():
    shares = [splits.train_share(n) for n in (0, 1, 100, 1_000, 10_000, 500_000)]
    assert shares == pytest.approx([0.5, 0.5, 0.5, 0.65, 0.8, 0.8])
    rng = np.random.default_rng(0)
    trained = []
    for animals in (10, 100, 1_000):
        annotations = one_species("plain", [10] * animals, rng, known=0.0)
        split = splits.split(annotations)
        trained.append(split.loc[split["part"] == "train", "individual"].nunique() / animals)
    assert trained == pytest.approx([0.5, 0.65, 0.8])


def fingerprint(split):
    return digest(split.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL))


def test_a_seed_gives_one_split_and_another_seed_another():
    annotations = medium()
    prints = [fingerprint(splits.split(annotations, seed)) for seed in (0, 0, 1, 2, 3)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_a_seed_gives_the_split_that_it_always_gave():
    """Another order of random draws would orphan the trainings that users keep."""
    rows = [with_encounters(species, [2, 1, 5, 1], animals=30) for species in ("a", "b")]
    herds = with_encounters("herds", [1] * 16, animals=30)
    herds["encounter"] = (herds.index // 16 // 3).astype(str) + herds["encounter"].str[-2:]
    annotations = pd.concat([*rows, herds], ignore_index=True)
    annotations["annotation_id"] = annotations["species"] + annotations["annotation_id"]
    assert fingerprint(splits.split(annotations, 7))[:16] == "feee0d6ffa8f0ede"


@settings(max_examples=20, deadline=None)
@given(catalogs(), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9))
def test_few_shot_subsets_are_nested_and_leave_others_alone(annotations, one, other, seed):
    species = annotations["species"].iloc[0]
    kept = {n: splits.few_shot(annotations, species, n, seed) for n in (one, other)}
    names = {n: set(rows.loc[rows["species"] == species, "individual"]) for n, rows in kept.items()}
    there = annotations.loc[annotations["species"] == species, "individual"].nunique()
    assert names[min(one, other)] <= names[max(one, other)]
    for n, rows in kept.items():
        assert len(names[n]) == min(n, there)
        wanted = (annotations["species"] != species) | annotations["individual"].isin(names[n])
        pd.testing.assert_frame_equal(rows, annotations[wanted].reset_index(drop=True))
    shuffled = annotations.sample(frac=1, random_state=np.random.default_rng(seed))
    again = splits.few_shot(shuffled, species, one, seed)
    assert set(again["annotation_id"]) == set(kept[one]["annotation_id"])


@pytest.mark.parametrize(("species", "n"), [("small", -1), ("unicorn", 3)])
def test_few_shot_refuses_what_it_cannot_give(species, n):
    with pytest.raises(ValueError, match=species):
        splits.few_shot(medium(), species, n, seed=0)


def test_rows_are_the_annotations_of_a_part():
    annotations = medium()
    split = splits.split(annotations)
    found = [splits.rows(annotations, split, part) for part in ("train", "test", "unused")]
    joined = pd.concat(found).sort_values("annotation_id", ignore_index=True)
    pd.testing.assert_frame_equal(
        joined, annotations.sort_values("annotation_id", ignore_index=True), check_like=True
    )
    for part, rows in zip(("train", "test", "unused"), found, strict=True):
        assert rows["annotation_id"].is_monotonic_increasing
        assert set(rows["annotation_id"]) == set(split.loc[split["part"] == part, "annotation_id"])


def test_rows_refuse_a_split_of_other_annotations():
    annotations = medium()
    split = splits.split(annotations)
    with pytest.raises(ValueError, match="small00003"):
        splits.rows(annotations[annotations["annotation_id"] != "small00003"], split, "test")
    with pytest.raises(ValueError, match="small00004"):
        splits.rows(annotations, split[split["annotation_id"] != "small00004"], "test")
    renamed = annotations["individual"].mask(
        annotations["annotation_id"] == "small00005", "small/other"
    )
    with pytest.raises(ValueError, match="small00005"):
        splits.rows(annotations.assign(individual=renamed), split, "test")
    with pytest.raises(ValueError, match="tset"):
        splits.rows(annotations, split, "tset")

"""The audit on catalogs with planted duplicates, days and encounters, and with none known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from miewid_core.beyond_paper import leakage
from miewid_core.evaluation import one_vs_all
from tests.paper.made import per_species


def scene(seed, size=96):
    """A chip (size, size, 3) uint8 of random soft shapes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def apart(a, b):
    return int((leakage.dhash(a) != leakage.dhash(b)).sum())


def test_hash_is_that_of_the_loop():
    chip = scene(1)
    small = np.asarray(Image.fromarray(chip).convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    expected = [small[y, x + 1] > small[y, x] for y in range(8) for x in range(8)]
    assert leakage.dhash(chip).tolist() == expected


def test_hash_ignores_light_contrast_size_and_noise_but_not_the_scene():
    for seed in range(20):
        image = Image.fromarray(scene(seed))
        noise = np.random.default_rng(seed).integers(-6, 7, (96, 96, 3))
        changed = {
            "darker": np.asarray(ImageEnhance.Brightness(image).enhance(0.7)),
            "flatter": np.asarray(ImageEnhance.Contrast(image).enhance(0.7)),
            "smaller": np.asarray(image.resize((80, 80))),
            "noisy": (scene(seed) + noise).clip(0, 255).astype(np.uint8),
        }
        for name, chip in changed.items():
            assert apart(scene(seed), chip) <= leakage.NEAR, name
    others = [apart(scene(i), scene(j)) for i in range(20) for j in range(i)]
    assert min(others) > leakage.NEAR
    assert np.mean(others) == pytest.approx(32, abs=3)  # half of 64: unrelated


def photos_of(rows):
    columns = ["individual", "encounter", "date"]
    photos = pd.DataFrame(rows, columns=columns).assign(species="a")
    photos["date"] = pd.to_datetime(photos["date"], format="ISO8601")
    return photos.assign(annotation_id=[f"id{i}" for i in range(len(photos))])


def test_nearest_true_is_the_most_similar_of_its_individual():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(60, 5)).astype(np.float32)
    people, species = rng.integers(0, 20, 60), rng.choice(list("ab"), 60)
    labels = [f"{s}{p}" for s, p in zip(species, people, strict=True)]
    photos = pd.DataFrame({"individual": labels, "species": species})
    found = leakage.nearest_true(embeddings, photos.assign(annotation_id="x"))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for query in range(60):
        own = [i for i in range(60) if labels[i] == labels[query] and i != query]
        assert found[query] == (max(own, key=lambda i: unit[i] @ unit[query]) if own else -1)


def test_flags_say_what_is_known_and_nothing_else():
    photos = photos_of(
        [
            ("p", "e1", "2020-01-01 08:00"),  # its match: same encounter, same day at another hour
            ("p", "e1", "2020-01-01 17:00"),
            ("q", "e2", "2020-01-01"),  # its match: another encounter and day, and a duplicate
            ("q", "e3", "2020-01-02"),
            ("r", "", "2020-01-05"),  # its match has a date and an encounter unknown, own encounter
            ("r", "e9", None),
            ("s", "e5", "2020-01-07"),  # no match
        ]
    )
    nearest = np.array([1, 0, 3, 2, 5, 4, -1])
    prints = np.zeros((7, 64), bool)
    prints[0, :30] = True
    prints[3, : leakage.NEAR] = True
    prints[4, : leakage.NEAR + 1] = True
    table = leakage.flags(photos, nearest, prints)
    none = pd.NA
    expected = {
        "same encounter": [True, True, False, False, none, none, none],
        "same day": [True, True, False, False, none, none, none],
        "near-duplicate": [False, False, True, True, False, False, none],
        "any of these": [True, True, True, True, False, False, none],
    }
    for kind, values in expected.items():
        assert table[kind].tolist() == values, kind


def audited(seed=0, known=True):
    """Queries of two species whose leaks are hits: 30 of 90 of a, and every one of b."""
    rng = np.random.default_rng(seed)
    photos = pd.DataFrame({"individual": [f"p{i // 3}" for i in range(120)]})
    photos["species"] = np.where(photos.index < 90, "a", "b")
    embeddings = rng.normal(size=(120, 8)).astype(np.float32)
    queries = one_vs_all(embeddings, photos["individual"], photos["species"])
    leak = pd.Series((photos.index % 3 == 0) | (photos["species"] == "b"), dtype="boolean")
    queries.loc[leak, "first_match_rank"] = 1
    for kind in leakage.KINDS:
        queries[kind] = leak if known else pd.Series([pd.NA] * 120, dtype="boolean")
    return queries


def test_summary_counts_shares_and_both_scores():
    queries = audited()
    table = leakage.summary(queries)
    assert table["kind"].unique().tolist() == leakage.KINDS
    rows = table[table["kind"] == "same day"].set_index("species")
    assert rows.index.tolist() == ["a", "b", "mean"]
    assert rows["leaks"].tolist() == pytest.approx([100 / 3, 100, 200 / 3])
    assert rows["known"].tolist() == [100, 100, 100]
    whole = per_species(queries, 1).set_index("species")
    left = per_species(queries[queries["same day"].eq(False)], 1).set_index("species")
    for name, expected in (("top_1", whole), ("without", left)):
        got = rows.loc["a", [name, f"{name}_low", f"{name}_high"]].astype(float)
        assert got.tolist() == pytest.approx(100 * expected.loc["a", ["top_k", "low", "high"]])
    assert rows.loc["b", "top_1"] == 100
    assert np.isnan(rows.loc["b", "without"])  # no query is left
    # both means are over a alone, which has both scores
    assert rows.loc["mean", "top_1"] == pytest.approx(rows.loc["a", "top_1"])
    assert rows.loc["mean", "without"] == pytest.approx(rows.loc["a", "without"])
    assert rows.loc["a", "without"] < rows.loc["a", "top_1"]


def test_what_is_partly_known_is_shared_among_the_known():
    queries = audited()
    queries.loc[queries.index % 3 == 1, "same day"] = pd.NA
    rows = leakage.summary(queries).set_index(["kind", "species"])
    assert rows.loc[("same day", "a"), "known"] == pytest.approx(200 / 3)
    assert rows.loc[("same day", "a"), "leaks"] == pytest.approx(50)
    shown = leakage.readable(leakage.summary(queries)).set_index("species")
    assert shown.loc["a", "same day (%)"] == "50.0 of the 66.7 % known"
    assert shown.loc["a", "near-duplicate (%)"] == "33.3"
    assert shown.loc["b", "without these (%)"] == ""  # no query is left


def test_the_unknown_is_said_to_be_so_and_is_not_zero():
    queries = audited()
    queries["same encounter"] = audited(known=False)["same encounter"]
    table = leakage.summary(queries)
    rows = table[table["kind"] == "same encounter"]
    assert (rows["known"] == 0).all()
    assert rows[["leaks", "without"]].isna().all(axis=None)
    assert (leakage.readable(table)["same encounter (%)"] == "not known").all()
    words = leakage.in_words(table)
    assert "leaks: same encounter not known, same day 66.7 %, near-duplicate 66.7 %. With" in words
    mean = table.iloc[-1]
    assert f" top-1 is {mean['without']:.1f} % (" in words
    assert f" instead of {mean['top_1']:.1f} % (" in words


def test_only_species_with_leaks_are_shown_beside_the_mean():
    queries = audited()
    queries.loc[queries["species"] == "b", leakage.KINDS] = False
    shown = leakage.readable(leakage.summary(queries))
    assert shown["species"].tolist() == ["a", "mean"]


def test_words_of_a_catalog_without_leaks():
    queries = audited()
    for kind in leakage.KINDS:
        queries[kind] = pd.Series([False] * 120, dtype="boolean")
    table = leakage.summary(queries)
    assert (table["leaks"] == 0).all()
    assert np.allclose(table["top_1"], table["without"])
    words = leakage.in_words(table)
    assert words.endswith("same encounter 0.0 %, same day 0.0 %, near-duplicate 0.0 %.")


class DrawnStudy:
    """What the audit asks of a study: rows, chips, embeddings, ranks."""

    def __init__(self, train, test, folder, seed=0):
        self.train, self.test, self.chips_dir = train, test, folder
        self.config = type("Config", (), {"image_size": 32})
        generator = np.random.default_rng(seed)
        self.vectors = generator.normal(size=(len(test), 8)).astype(np.float32)

    def embeddings(self, training):
        return self.vectors

    def ranks(self, training):
        test = self.test
        return one_vs_all(self.vectors, test["individual"], test["species"])


@pytest.fixture
def study(photos, tmp_path):
    """The small catalog's photos 0 and 1 of each individual in test, 2 in training, and an extra
    training row: photo 0 of the first under another individual's name."""
    number = photos.groupby("individual").cumcount()
    test, train = photos[number < 2].reset_index(drop=True), photos[number == 2]
    twice = test.iloc[[0]].assign(individual=test["individual"].iloc[-1])
    return DrawnStudy(pd.concat([train, twice], ignore_index=True), test, tmp_path)


def test_audit_joins_flags_to_the_ranks(study):
    queries = leakage.audit(study, study)
    assert len(queries) == len(study.test)
    assert queries["annotation_id"].tolist() == [str(i) for i in range(len(study.test))]
    assert queries["same encounter"].isna().all()  # the catalog has none
    assert queries["near-duplicate"].notna().all()
    table = leakage.summary(queries)
    assert leakage.in_words(table).count("not known") == 2


def test_a_photo_that_is_also_in_training_is_found(study):
    table = leakage.train_duplicates(study).set_index("species")
    assert table["photos"].tolist() == [6, 6, 12]
    first = study.test["species"].iloc[0]
    assert table.loc[first, "near_duplicates"] == 1
    assert table.loc[first, "of_others"] == 1  # under another name
    assert table.loc["all", "share"] == pytest.approx(100 / 12)


def test_a_species_without_training_photos_has_no_duplicates_there(study):
    study.train = study.train[study.train["species"] == "ant"]
    table = leakage.train_duplicates(study).set_index("species")
    assert table.loc["bee", ["near_duplicates", "of_others"]].tolist() == [0, 0]

"""The drawn animals: the same for a seed whoever draws them, boxes that fit, and a long tail."""

import hashlib
import itertools

import cv2
import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng

from miewid_core import splits
from miewid_core.demo import SIDES_DIFFER, draw, draw_animals, scenes
from miewid_core.demo.coats import PATTERNS, coat
from miewid_core.demo.draw import plan
from miewid_core.demo.species import BUILDS, SPECIES
from miewid_core.paper import split_report
from miewid_core.photos import crop, read_photo
from miewid_core.readers.load import load_catalog

SCALE = 0.01  # at least 10 annotations a species


def bytes_of(folder):
    """Content hash of each file that a reader sees, by its path in the folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The annotations.csv of a small drawing, drawn by one worker."""
    return draw_animals(tmp_path_factory.mktemp("drawn"), scale=SCALE, workers=1)


@pytest.fixture(scope="module")
def rows(drawn):
    return pd.read_csv(drawn)


@pytest.fixture(scope="module")
def photos(drawn):
    return load_catalog(drawn, sides_differ=SIDES_DIFFER)


def test_bytes_are_the_same_in_any_folder_with_any_number_of_workers(drawn, tmp_path):
    again = draw_animals(tmp_path, scale=SCALE, workers=5)
    assert again != drawn
    assert bytes_of(again.parent) == bytes_of(drawn.parent)


def test_another_seed_draws_other_animals(monkeypatch, tmp_path):
    monkeypatch.setattr(draw, "SPECIES", SPECIES[:1])
    one, other = (draw_animals(tmp_path, seed, 0.01).parent for seed in (0, 1))
    both = bytes_of(one).keys() & bytes_of(other).keys()
    assert len(both) > 5
    assert all(bytes_of(one)[file] != bytes_of(other)[file] for file in both)


def test_drawn_once(drawn):
    folder = drawn.parent.parent
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert draw_animals(folder, scale=SCALE) == drawn
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == times


def test_catalog_loads_without_problems(rows, photos):
    assert len(photos) == len(rows)
    assert set(photos["species"]) == {species.name for species in SPECIES}
    sided = photos["species"].isin(SIDES_DIFFER)
    assert photos["individual"].str.endswith(("/left", "/right")).eq(sided).all()
    assert photos["date"].notna().all()
    assert photos.groupby("encounter")["individual"].nunique().eq(1).all()


def test_boxes_fit_their_photos(rows):
    upright = rows["theta"] == 0
    assert 0.1 < 1 - upright.mean() < 0.3
    right, bottom = rows["x"] + rows["w"], rows["y"] + rows["h"]
    inside = (rows["x"] >= 0) & (rows["y"] >= 0)
    inside &= (right <= scenes.SIZE[0] + 1e-6) & (bottom <= scenes.SIZE[1] + 1e-6)
    assert inside[upright].all()
    assert (rows[["w", "h"]] > 30).all(axis=None)
    middle = (rows["x"] + right) / 2, (rows["y"] + bottom) / 2
    assert all(m.between(0.2 * s, 0.8 * s).all() for m, s in zip(middle, scenes.SIZE, strict=True))


def test_boxes_turned_ones_too_hold_the_upright_animal(photos):
    filled = []
    for row, marks in zip(photos.itertuples(), draw.anatomy(photos), strict=True):
        assert marks.shape == read_photo(row.path).shape
        # inverted, as what lies outside the photo is white
        chip = 255 - crop(255 - marks, (row.x, row.y, row.w, row.h), row.theta)
        animal = chip[..., 0] > 127
        assert animal.sum() > 0.93 * (marks[..., 0] > 127).sum()
        filled.append(animal.mean())
        body_x = chip[..., 2][animal].astype(float)
        side = -1 if row.viewpoint == "right" and row.species in SIDES_DIFFER else 1
        along = np.corrcoef(body_x, np.nonzero(animal)[1])[0, 1]
        assert side * along > 0.9  # its head is on the left, seen from the left
    assert (photos["theta"] != 0).sum() > 10
    assert 0.3 < np.mean(filled) < 0.5


def test_annotations_per_individual_have_a_long_tail():
    table = plan()
    assert 3000 <= len(table) <= 3700
    per_species = table.groupby("species").size()
    assert per_species.min() < 100
    assert per_species.max() > 400
    counts = table.groupby(["species", "name", "viewpoint"]).size()
    assert 3 <= counts.median() <= 6
    assert counts.quantile(0.97) > 3 * counts.median()
    assert (counts == 1).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_scale_multiplies_the_individuals(seed):
    one, three = plan(seed), plan(seed, 3)
    assert len(three) == pytest.approx(3 * len(one), rel=0.05)
    names = [table.groupby("species")["name"].nunique().sum() for table in (one, three)]
    assert names[1] == pytest.approx(3 * names[0], rel=0.25)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_species_can_be_split(seed):
    table = plan(seed)
    side = table["viewpoint"].where(table["species"].isin(SIDES_DIFFER), "")
    table["individual"] = table["species"] + "/" + table["name"] + side
    table["annotation_id"] = table["file_path"]
    summary = split_report.summary(table, splits.split(table))
    assert (summary["test_annotations"] >= 8).all()
    assert (summary[["shared_individuals", "new_individuals"]] >= 2).all(axis=None)
    assert (summary["test_individuals"] >= 4).all()
    assert 0.45 < summary["train_annotations"].sum() / len(table) < 0.65


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_coat_is_fixed_for_an_individual_and_differs_between_individuals(pattern):
    species = next(species for species in SPECIES if species.pattern == pattern)
    same, again, other = (coat(species, default_rng(seed)).astype(float) for seed in (1, 1, 2))
    assert np.array_equal(same, again)
    marks = [cv2.GaussianBlur(drawn[..., :3], (0, 0), 3) for drawn in (same, other)]
    apart = np.abs(marks[0] - marks[1]).mean() + np.abs(same[..., 3] - other[..., 3]).mean()
    assert apart > 2
    # what tells them apart is the pattern: their mean colours are nearly the same
    assert np.abs(same[..., :3].mean((0, 1)) - other[..., :3].mean((0, 1))).max() < 25


def test_sides_have_different_patterns():
    assert {species.name for species in SPECIES if species.sides_differ} == {*SIDES_DIFFER}
    for name in SIDES_DIFFER:
        number = [species.name for species in SPECIES].index(name)
        left, right = (draw.coat_of(0, number, 1, side).astype(float) for side in (0, 1))
        assert np.abs(left - right).mean() > 10
        table = plan()
        table = table[table["species"] == name]
        assert (table.groupby("name")["viewpoint"].nunique() == 2).mean() > 0.8


def thumbnail(folder, row):
    """The photo (24, 24, 3) float, with its mean of 0."""
    photo = read_photo(folder / row.file_path)
    small = cv2.resize(photo, (24, 24), interpolation=cv2.INTER_AREA).astype(float)
    return small - small.mean()


def test_frames_of_an_encounter_are_alike_and_encounters_are_not(drawn, rows):
    near, far = [], []
    for _, own in rows.groupby(["species", "name", "viewpoint"]):
        looks = [(row.encounter, thumbnail(drawn.parent, row)) for row in own.itertuples()]
        for (one, first), (two, second) in itertools.pairwise(looks):
            (near if one == two else far).append(np.abs(first - second).mean())
    assert min(len(near), len(far)) > 20
    assert np.max(near) < np.median(far)
    assert np.median(near) < 0.35 * np.median(far)
    assert np.min(near) > 0.3  # near-identical, not identical


def test_notches_are_cut_from_fins_only():
    for species in SPECIES:
        drawn = coat(species, default_rng(0))
        assert (drawn[..., 3].min() == 0) == (species.pattern == "fins")
        assert (BUILDS[species.build].cut != ()) == (species.pattern == "fins")

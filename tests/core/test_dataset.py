"""The augmentation of A.1, how often and how far; and what an item depends on."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import binom, chi2_contingency

from miewid_core.chips import ChipDataset, ChipStore, augmentation

CALLS = 2000
TEXTURES = ("Sharpen", "ToGray", "CLAHE")
PARTS = ("Affine", "ColorJitter")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store of 32 px, and the keys of 5 chips in it."""
    folder = tmp_path_factory.mktemp("chips")
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{number}.png") for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    box = {"x": 0.0, "y": 0.0, "w": 40.0, "h": 40.0, "theta": 0.0}
    store = ChipStore(folder / "store", 32)
    return store, store.build(pd.DataFrame({"path": paths} | box)).tolist()


@pytest.fixture(scope="module")
def applied(stored):
    """Of each of 2,000 items, name -> parameters of the parts that were applied to it."""
    store, keys = stored
    items = ChipDataset(store, keys[:1] * CALLS, augment=True)
    items.transform.save_applied_params = True
    told, whole = [], items.transform
    items.transform = lambda image: told.append(whole(image=image)) or told[-1]
    items.transform.set_random_state = whole.set_random_state
    for index in range(CALLS):
        items[index]
    return [dict(one["applied_transforms"]) for one in told]


def within(found, n, p):
    """Whether a count is likely (all but 1 in 10,000) for n trials of probability p."""
    return binom.ppf(5e-5, n, p) <= found <= binom.ppf(1 - 5e-5, n, p)


def test_each_part_is_applied_as_often_as_it_should(applied):
    counts = Counter(name for one in applied for name in one)
    assert counts.keys() == {*TEXTURES, "Affine", "ColorJitter"}
    assert within(counts["Affine"], CALLS, 0.5)
    assert within(counts["ColorJitter"], CALLS, 0.5)
    assert within(sum(counts[name] for name in TEXTURES), CALLS, 0.5)
    for name in TEXTURES:
        assert within(counts[name], CALLS, 0.5 / 3)
    assert max(sum(name in one for name in TEXTURES) for one in applied) == 1


def test_parts_are_applied_independently_of_each_other(applied):
    """albumentations seeds all parts alike: then all are applied to a chip, or none."""
    kinds = [(bool(one.keys() & set(TEXTURES)), *map(one.__contains__, PARTS)) for one in applied]
    counts = Counter(kinds)
    assert all(within(counts[kind], CALLS, 1 / 8) for kind in product((False, True), repeat=3))
    table = [[sum(t in one and p in one for one in applied) for p in PARTS] for t in TEXTURES]
    assert chi2_contingency(table).pvalue > 1e-4


def uniform(values, low, high):
    """Whether values fill a range evenly: each quarter of it has about a quarter of them."""
    assert low <= min(values) < max(values) <= high
    counts = np.histogram(values, 4, (low, high))[0]
    return all(within(count, len(values), 0.25) for count in counts)


def shift(part):
    """Of an Affine's parameters, the shift that it did: where the centre of the chip goes."""
    centre = np.array([15.5, 15.5, 1])
    return part["matrix"][:2] @ centre - centre[:2]


def test_shift_scale_and_rotation_fill_their_ranges(applied):
    parts = [one["Affine"] for one in applied if "Affine" in one]
    assert uniform([part["rotate"] for part in parts], -15, 15)
    assert uniform([part["scale"]["x"] for part in parts], 0.8, 1.2)
    assert all(part["scale"]["x"] == part["scale"]["y"] for part in parts)
    shifts = np.array([shift(part) for part in parts])
    np.testing.assert_allclose(shifts, shifts.round(), atol=1e-9)
    # whole pixels towards 0: -7 to 7 of 32, 0 twice as often as another
    assert set(shifts.round().ravel()) == set(range(-7, 8))
    for axis in (0, 1):
        assert within((shifts[:, axis] > 0.5).sum(), len(parts), 7 / 16)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 4 / math.sqrt(len(parts))


def test_affine_turns_and_scales_alike_about_the_centre(applied):
    for one in applied[:200]:
        if "Affine" in one:
            part = one["Affine"]
            scale, turned = part["scale"]["x"], part["matrix"][:2, :2]
            np.testing.assert_allclose(turned @ turned.T, scale**2 * np.eye(2), atol=1e-9)
            assert np.degrees(np.arccos(turned[0, 0] / scale)) == pytest.approx(abs(part["rotate"]))


def test_colours_are_jittered_within_the_classic_ranges(applied):
    parts = [one["ColorJitter"] for one in applied if "ColorJitter" in one]
    for name in ("brightness", "contrast", "saturation"):
        assert uniform([part[name] for part in parts], 0.8, 1.2)
    assert uniform([part["hue"] for part in parts], -0.2, 0.2)
    assert len({tuple(part["order"]) for part in parts}) == 24


def test_affine_fills_from_the_chip_itself():
    """No black corners: what comes in from outside is the chip mirrored."""
    whole = augmentation(32)
    affine = whole.transforms[1]
    affine.p = 1
    bright = np.full((32, 32, 3), 200, np.uint8)
    for seed in range(20):
        affine.set_random_seed(seed)
        assert (affine(image=bright)["image"] == 200).all()


def items(stored, epoch=0, **options):
    """All chips of a data set, one after the other."""
    store, keys = stored
    made = ChipDataset(store, keys, **options)
    made.set_epoch(epoch)
    return torch.stack([made[index][0] for index in range(len(made))])


def test_an_item_depends_on_seed_epoch_and_index_alone(stored):
    first = items(stored, 3, augment=True, seed=7)
    assert torch.equal(first, items(stored, 3, augment=True, seed=7))
    assert not torch.equal(first, items(stored, 4, augment=True, seed=7))
    assert not torch.equal(first, items(stored, 3, augment=True, seed=8))
    store, keys = stored
    same = ChipDataset(store, keys[:1] * 20, augment=True, seed=7)
    assert len({same[index][0].numpy().tobytes() for index in range(20)}) > 12
    other = ChipDataset(store, keys, augment=True, seed=7)
    other.set_epoch(3)
    backwards = [other[index][0] for index in (4, 2, 2, 0, 3, 1)]
    assert torch.equal(torch.stack(backwards), first[[4, 2, 2, 0, 3, 1]])


def test_without_augmentation_items_are_the_chips(stored):
    store, keys = stored
    made = ChipDataset(store, keys)
    assert len(made) == 5
    for index, key in enumerate(keys):
        chip, label = made[index]
        assert chip.dtype == torch.uint8
        np.testing.assert_array_equal(chip.numpy(), store.read(key))
        assert label == -1


def test_augmentation_leaves_global_generators_alone(stored):
    np_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    items(stored, augment=True)
    assert (np.random.get_state()[1] == np_before).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)

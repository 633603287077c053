"""The paper's augmentation of chips, beside torchvision and beside augmenting before resizing."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2

from miewid_core.bench import pictures
from miewid_core.chips import P_AFFINE, P_EACH_TEXTURE, P_JITTER, P_TEXTURE, ChipStore, augmentation
from miewid_core.photos import crop, read_photo, resize

WAYS = ("ours", "torchvision", "torchvision, black corners", "before resizing")
SIZES = {
    "quick": [{"photos": 4, "size": 256, "repeats": 5}],
    "full": [{"photos": 12, "size": 256, "repeats": 8}],
}
ALLOWED = 4  # of 255
CALLS = 1


def torchvision(size: int, mirrored: bool = True) -> v2.Transform:
    """The same list in torchvision v2, which has no CLAHE: `equalize` stands in for it.

    `mirrored`: as in ours the photo goes on beyond its edges; torchvision would leave them black.
    """
    bilinear = {"scale": (0.8, 1.2), "interpolation": v2.InterpolationMode.BILINEAR}
    affine = v2.RandomAffine(15, (0.25, 0.25), **bilinear)
    if mirrored:  # padded to twice the side, of which a shift is half as large a share
        mirror = v2.Pad(size // 2, padding_mode="reflect")
        moved = v2.RandomAffine(15, (0.125, 0.125), **bilinear)
        affine = v2.Compose([mirror, moved, v2.CenterCrop(size)])
    texture = [v2.RandomAdjustSharpness(2, p=1), v2.Grayscale(3), v2.RandomEqualize(p=1)]
    return v2.Compose(
        [
            v2.RandomApply([v2.RandomChoice(texture, [P_EACH_TEXTURE] * 3)], P_TEXTURE),
            v2.RandomApply([affine], P_AFFINE),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2, 0.2)], P_JITTER),
        ]
    )


def augmented(way: str, photos: int, size: int, repeats: int) -> Callable[[], list[np.ndarray]]:
    """A function that augments each of `photos` chips `repeats` times: (size, size, 3) uint8."""
    rows = pictures.rows(photos)
    if way == "before resizing":
        boxes = rows[["path", "x", "y", "w", "h"]].itertuples(index=False)
        images = [crop(read_photo(path), tuple(box)) for path, *box in boxes]
    else:
        store = ChipStore(pictures.FOLDER / "chips", size)
        images = [store.read(key) for key in store.build(rows)]
    if way.startswith("torchvision"):
        transform = torchvision(size, mirrored=way == "torchvision")
        tensors = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        return lambda: [transform(image) for _ in range(repeats) for image in tensors]
    transform = augmentation(size)
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    each = [image for _ in range(repeats) for image in images]
    if way == "before resizing":
        return lambda: [resize(transform(image=image)["image"], size) for image in each]
    return lambda: [transform(image=image)["image"] for image in each]


def prepare(way: str, photos: int, size: int, repeats: int) -> Callable[[], object]:
    """What is timed, in one thread, as each of a loader's processes has."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = augmented(way, photos, size, repeats)
    augmented(way, 1, size, 20)()  # every part of it once
    return run


def differences(ways: list[str]) -> dict[str, float]:
    """How far mean and standard deviation of the augmented pixels are from ours, of 255."""
    torch.manual_seed(0)
    found = {}
    for way in ways:
        if way != "torchvision, black corners":  # which says it
            chips = np.stack([np.asarray(one) for one in augmented(way, 2, 256, 100)()])
            found[way] = np.array([chips.mean(), chips.std()])
    return {way: float(np.abs(pair - found["ours"]).max()) for way, pair in found.items()}

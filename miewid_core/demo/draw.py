"""The demo data: drawn animals in scenes with boxes. They show the method and prove no claim.

Twelve invented species in seven families share structure (spots, stripes, nets, fins) and differ
in colour and shape. Individuals of a species share all but their pattern, fixed for life (for each
side, in SIDES_DIFFER), and are seen in encounters of one to four near-identical frames, the next
encounter in another place, light and pose. The number of annotations per individual has a long
tail; species have from tens to hundreds. How hard it is was tuned so that chance, an untrained and
a trained network of the preset "demo" lie far apart: accuracies on it mean nothing elsewhere.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng
from PIL import Image

from miewid_core import progress
from miewid_core.demo import scenes
from miewid_core.demo.coats import coat
from miewid_core.demo.poses import View, body, extent, place
from miewid_core.demo.species import BUILDS, SPECIES, Species
from miewid_core.files import replacing
from miewid_core.photos import rotation

FRAMES = (0.7, 0.18, 0.08, 0.04)  # shares of encounters with 1, 2, 3, 4 annotations
COLUMNS = [
    *["file_path", "species", "family", "name", "viewpoint", "encounter", "date"],
    *["x", "y", "w", "h", "theta"],
]
STRANGER = 10**6  # the first of the unnamed animals, seen in passing
Key = tuple[int, ...]  # of a random generator: what is drawn depends on nothing else


def draw(here: Path, seed: int, scale: float, workers: int | None) -> None:
    """Draw all scenes into the folder `here`, last their annotations.csv (see `draw_animals`)."""
    for stale in here.rglob(".part-*"):  # of a drawing that was killed
        stale.unlink()
    jobs = [rows for _, rows in plan(seed, scale).groupby("encounter", sort=False)]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        drawn = pool.map(lambda rows: _encounter(here, rows, seed), jobs)
        found = list(progress(drawn, "drawing animals", len(jobs), unit="encounter"))
    with replacing(here / "annotations.csv") as temporary:
        pd.concat(found)[COLUMNS].to_csv(temporary, index=False)


def plan(seed: int = 0, scale: float = 1.0) -> pd.DataFrame:
    """One row per annotation, without its box: who is seen when, from which side, in which file."""
    rows = []
    for number, species in enumerate(SPECIES):
        wanted = max(10, round(species.annotations * scale))
        seen = _sightings(species, default_rng([seed, number]), wanted)
        rows += [
            {
                "file_path": f"{species.name}/{place:05}.jpg",
                "species": species.name,
                "family": species.family,
                "name": f"{species.name[:2].upper()}{individual:03}",
                "viewpoint": side,
                "encounter": f"{species.name}-{encounter:04}",
                "date": date,
                "key": (number, individual, int(side == "right"), encounter, frame),
            }
            for place, (individual, side, encounter, frame, date) in enumerate(seen)
        ]
    return pd.DataFrame(rows)


def _sightings(species: Species, rng: Generator, wanted: int) -> Iterator[tuple]:
    """Individual, side, encounter, frame and date of `wanted` annotations or a few more."""
    done = individual = encounter = 0
    while done < wanted:
        sides = ("left", "right") if species.sides_differ else ("left",)
        for side in sides:
            # a long tail, but nobody is most of a small species, and some can always be tested
            visits = min(round(rng.lognormal(1.3, 0.8)), max(4, wanted // 12))
            for _ in range(max(visits, 4 if individual < 4 else 1)):
                date = np.datetime64("2016-01-01") + np.timedelta64(int(rng.integers(0, 3000)), "D")
                for frame in range(1 + int(rng.choice(4, p=FRAMES))):
                    yield individual, side, encounter, frame, str(date)
                    done += 1
                encounter += 1
        individual += 1


@lru_cache(maxsize=64)
def coat_of(seed: int, number: int, individual: int, side: int) -> np.ndarray:
    """The coat of an individual of species `number`, on its left (0) or right side."""
    return coat(SPECIES[number], default_rng([seed, 1, number, individual, side]))


def anatomy(photos: pd.DataFrame) -> Iterator[np.ndarray]:
    """Of each drawn photo, where the animal is.

    `photos`: catalog rows of one drawing, whose folder tells its seed and scale. Yields (H, W, 3)
    uint8: 255 on the animal; 0; how far along the body it is, 255 at the tail. What stands before
    the animal isn't part of it.
    """
    if photos.empty:
        return
    _, seed, scale = Path(photos["path"].iloc[0]).parts[-3].split("-")
    seed, scale = int(seed.removeprefix("seed")), float(scale.removeprefix("scale"))
    keys = plan(seed, scale).set_index("file_path")["key"]
    for path in photos["path"]:
        key = keys["/".join(Path(path).parts[-2:])]
        drawn, view, box, *_ = _posed(seed, key)
        ones, along = np.ones(drawn.shape[:2]), np.linspace(0, 1, drawn.shape[1])
        marks = [255 * ones, 0 * ones, 255 * along * ones, drawn[..., 3]]
        seen, hiding = np.zeros((2, *scenes.SIZE[::-1], 3), np.float32)
        place(seen, np.dstack(marks).astype(np.float32), view)
        scenes.foreground(hiding, SPECIES[key[0]].biome, box, _rng(seed, key, 3))
        seen[hiding.any(axis=2)] = 0
        yield seen.round().clip(0, 255).astype(np.uint8)


def _rng(seed: int, key: Key, *what: int) -> Generator:
    """Generator of one thing about an encounter, or about a frame of it."""
    return default_rng([seed, 2, key[0], key[3], *what])


def _encounter(folder: Path, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw the frames of an encounter; returns its rows with boxes."""
    boxes, first = [], rows["key"].iloc[0]
    ground = scenes.background(SPECIES[first[0]].biome, _rng(seed, first, 0))
    for path, key in zip(rows["file_path"], rows["key"], strict=True):
        photo, box = _frame(seed, key, ground.copy())
        with replacing(folder / path) as temporary:
            Image.fromarray(photo).save(temporary, quality=90)
        boxes.append(box)
    return rows.assign(**dict(zip(COLUMNS[-5:], np.array(boxes).T, strict=True)))


def _frame(seed: int, key: Key, photo: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """One photo (H, W, 3) uint8 of an encounter, and its box x, y, w, h, theta.

    `photo` is the place without animals, drawn over.
    """
    species = SPECIES[key[0]]
    drawn, view, box, tilted, (sun, blur, grain), rng, own = _posed(seed, key)
    if rng.random() < 0.15:
        stranger = coat_of(seed, key[0], STRANGER + key[3] % 3, 0)
        _neighbour(photo, species, stranger, rng, sun)
    if BUILDS[species.build].hips:
        scenes.shadow(photo, box)
    place(photo, drawn, view)
    scenes.foreground(photo, species.biome, box, _rng(seed, key, 3))
    photo = scenes.light(photo, _rng(seed, key, 4))
    return scenes.camera(photo, own, blur, grain), _box(box, view.roll if tilted else 0.0, own)


def _posed(seed: int, key: Key) -> tuple:
    """The animal on the canvas; its view, edges and tilt (see `_framed`); sun, blur and grain; the
    generators of its encounter and of this frame."""
    species, rng, own = SPECIES[key[0]], _rng(seed, key, 1), _rng(seed, key, 2, key[-1])
    view, tilted = _view(species, rng)
    camera = rng.uniform(-1, 1), max(0.0, rng.normal(0.2, 0.35)), rng.uniform(1, 5)
    view = view._replace(flipped=key[2] == 1).jittered(own, 0.35)
    drawn = body(species, coat_of(seed, *key[:3]), view, camera[0])
    return drawn, *_framed(drawn, view), tilted, camera, rng, own


def _view(species: Species, rng: Generator) -> tuple[View, bool]:
    """A random view, and whether its roll is so large that the box is turned with it."""
    swims = species.biome in scenes.DEPTH
    tilted = rng.random() < (0.35 if swims else 0.15)
    roll = rng.uniform(0.15, 0.9 if swims else 0.35) * rng.choice([-1, 1]) if tilted else 0.0
    view = View(
        middle=tuple(np.array(scenes.SIZE) * rng.normal((0.5, 0.54), (0.05, 0.03))),
        length=rng.uniform(150, 205),
        roll=roll or rng.normal(0, 0.04),
        bend=rng.normal(0, 0.025),
        nod=rng.normal(0, 0.07),
        swing=tuple(rng.normal(0, 0.08, 5)),
        aspect=rng.uniform(0.88, 1.06),
        depth=rng.uniform(-0.12, 0.12),
        flipped=False,
    )
    return view, tilted


def _neighbour(
    photo: np.ndarray, species: Species, worn: np.ndarray, rng: Generator, sun: float
) -> None:
    """Another animal of the species, farther away and to one side."""
    view, _ = _view(species, rng)
    x = scenes.SIZE[0] * (0.5 + rng.choice([-1, 1]) * rng.uniform(0.3, 0.55))
    view = view._replace(middle=(x, 0.42 * scenes.SIZE[1]), length=0.6 * view.length)
    place(photo, body(species, worn, view, sun), view, photo.mean((0, 1)))


def _framed(drawn: np.ndarray, view: View) -> tuple[View, np.ndarray]:
    """The view moved and shrunk so that the animal is in the photo, mostly, and the animal's left,
    top, right and bottom before it is rolled about their middle."""
    left, top, right, bottom = np.array(extent(drawn, view)) * 1.0
    fit = min(1.0, *(0.94 * np.array(scenes.SIZE) / (right - left, bottom - top)))
    half = fit / 2 * np.array([right - left, bottom - top])
    centre = np.clip(view.middle, 0.9 * half, scenes.SIZE - 0.9 * half)  # a little is cut off
    offset = fit / 2 * np.array([left + right, top + bottom])
    middle = tuple((centre - rotation(view.roll) @ offset).tolist())
    view = view._replace(middle=middle, length=float(fit * view.length))
    return view, np.concatenate([centre - half, centre + half])


def _box(box: np.ndarray, roll: float, rng: Generator) -> tuple[float, ...]:
    """x, y, w, h, theta of a detector's loose box around an animal; in the photo if upright."""
    size = np.tile(box[2:] - box[:2], 2)
    loose = box + size * rng.normal(0.025, 0.015, 4) * [-1, -1, 1, 1]
    if roll == 0:
        loose = loose.clip(0, np.tile(scenes.SIZE, 2))
        x, y, right, bottom = loose.round(1)
        return x, y, right - x, bottom - y, 0.0
    middle, grown = (loose[:2] + loose[2:] - box[:2] - box[2:]) / 2, loose[2:] - loose[:2]
    centre = (box[:2] + box[2:]) / 2 + rotation(roll) @ middle
    return (*(centre - grown / 2).round(1), *grown.round(1), round(roll, 4))

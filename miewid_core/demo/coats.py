"""Coats of the drawn animals: what stays the same in every photo of an individual (and side).

A coat is (H, W, 4) uint8 on the body's canvas: colour, and 0 where a fin has lost a piece.
"""

from functools import partial

import cv2
import numpy as np
from numpy.random import Generator
from scipy.spatial import cKDTree

from miewid_core.demo.species import BUILDS, CANVAS, HEIGHT, WIDTH, Species, curve, fill, limb

Marks = tuple[np.ndarray, np.ndarray | None]  # cover (H, W) in 0 to 1, its colour if not uniform
TURN = np.linspace(0, 2 * np.pi, 14, endpoint=False)
RING = np.column_stack([np.cos(TURN), np.sin(TURN)])
WAVES = np.vstack([f(k * TURN) for k in (1, 2, 3) for f in (np.sin, np.cos)])  # (6, 14)


def noise(rng: Generator, shape: tuple[int, int], cell: float | tuple[float, float]) -> np.ndarray:
    """Smooth noise (height, width) float32 of unit scale whose bumps are `cell` (x, y) pixels."""
    across, down = cell if isinstance(cell, tuple) else (cell, cell)
    size = int(shape[0] / down) + 3, int(shape[1] / across) + 3
    coarse = rng.standard_normal(size, np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def coat(species: Species, rng: Generator) -> np.ndarray:
    """Draw one coat: the species' colours and details, and a pattern from `rng` alone."""
    species = species._replace(grain=species.grain * rng.uniform(0.85, 1.2))
    base, marks, third = (np.float32(colour) for colour in species.colours)
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    belly = np.clip((down - 0.42) * 3.2, 0, 1) * BELLY[species.pattern]
    ground = base * (1 - belly) + third * belly
    cover, tint = PATTERNS[species.pattern](rng, species, alpha)
    cover = cover[..., None]
    colour = ground * (1 - cover) + (marks if tint is None else tint) * cover
    colour *= 1 + 0.03 * rng.standard_normal() + 0.04 * noise(rng, (HEIGHT, WIDTH), 5)[..., None]
    drawn = np.dstack([colour.clip(0, 255).astype(np.uint8), alpha])
    # eye, muzzle, ears, horns and shell are the same in all individuals
    build = BUILDS[species.build]
    for part in build.parts:
        if part.colour:
            limb(drawn, part.points, part.radii, (*part.colour, 255))
    x, y, radius = build.eye
    place = round(x * WIDTH * 16), round(y * HEIGHT * 16)
    if radius:
        for size, shade in ((1.35, (120, 104, 84)), (1, (34, 28, 26))):
            cv2.circle(drawn, place, round(size * radius * 16), (*shade, 255), -1, cv2.LINE_AA, 4)
        glint = place[0] - round(radius * 5), place[1] - round(radius * 6)
        cv2.circle(drawn, glint, round(radius * 4.5), (250, 250, 245, 255), -1, cv2.LINE_AA, 4)
    return drawn


def scatter(rng: Generator, spacing: float, tries: int = 500) -> np.ndarray:
    """(N, 2) random points on the canvas, none nearer to another than `spacing` pixels."""
    points = rng.uniform((-spacing, -spacing), (WIDTH, HEIGHT), (tries, 2))
    near = cKDTree(points).query_ball_point(points, spacing)
    free = np.ones(tries, bool)
    for number in range(tries):
        if free[number]:
            free[near[number]] = False
            free[number] = True
    return points[free]


def _blob(image: np.ndarray, rng: Generator, middle: np.ndarray, radius: float, value: int) -> None:
    """An irregular round patch."""
    waves = 0.16 * rng.standard_normal(6) @ WAVES
    stretch = rng.uniform((0.85, 0.75), (1.3, 1.05)) * radius
    fill(image, middle + RING * stretch * (1 + 0.7 * waves[:, None]), value)


def _sized(rng: Generator, spacing: float) -> list[tuple[np.ndarray, float]]:
    """Scattered points, and a radius for each: some parts of a coat have larger spots."""
    points = scatter(rng, spacing)
    field = noise(rng, (HEIGHT, WIDTH), 60)
    x, y = points.clip(0, (WIDTH - 1, HEIGHT - 1)).astype(int).T
    radii = spacing * (rng.uniform(0.28, 0.44) + 0.16 * field[y, x]).clip(0.14, 0.52)
    return list(zip(points, radii, strict=True))


def spots(rng: Generator, species: Species, alpha: np.ndarray) -> Marks:
    """Filled spots of varying size."""
    cover = np.zeros_like(alpha)
    for point, radius in _sized(rng, species.grain):
        _blob(cover, rng, point, radius * rng.uniform(0.7, 1.1), 255)
    return cover.astype(np.float32) / 255, None


def rosettes(rng: Generator, species: Species, alpha: np.ndarray) -> Marks:
    """Broken rings around a darker middle."""
    cover = np.zeros_like(alpha)
    for point, radius in _sized(rng, species.grain):
        _blob(cover, rng, point, radius, 255)
        if radius > 0.36 * species.grain:
            _blob(cover, rng, point + rng.uniform(-2, 2, 2), radius * rng.uniform(0.4, 0.62), 70)
            gap = point + radius * rng.uniform(-1, 1, 2)
            _blob(cover, rng, gap, radius * 0.35, 0)
    return cover.astype(np.float32) / 255, None


def _bands(rng: Generator, wavelength: float, spread: float) -> np.ndarray:
    """Noise of one wavelength across, that forks and bends as stripes do, of unit scale."""
    along, down = np.fft.rfftfreq(WIDTH), np.fft.fftfreq(HEIGHT)[:, None]
    off = ((along - 1 / wavelength) ** 2 + down**2) * wavelength**2 / spread**2
    spectrum = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH))) * np.exp(-off)
    field = np.fft.irfft2(spectrum, (HEIGHT, WIDTH)).astype(np.float32)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    lean = np.clip(x / WIDTH - 0.6, 0, None) * 1.9 - np.clip(0.3 - x / WIDTH, 0, None) * 1.2
    turned = cv2.remap(field, x + lean * (y - 90), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return turned / turned.std()


def stripes(rng: Generator, species: Species, alpha: np.ndarray) -> Marks:
    """Broad stripes that fork, as a zebra's."""
    wider = 0.5 * noise(rng, (HEIGHT, WIDTH), 70) + rng.normal(0, 0.3)  # the dark ones, there
    return np.clip(0.5 + 3 * (_bands(rng, species.grain, 0.42) + wider), 0, 1), None


def streaks(rng: Generator, species: Species, alpha: np.ndarray) -> Marks:
    """Thin stripes that break off, as a tiger's or a kudu's."""
    field = _bands(rng, species.grain, 0.38) + 0.55 * noise(rng, (HEIGHT, WIDTH), 60)
    return np.clip(3 * (field - rng.uniform(0.2, 0.7)), 0, 1), None


def _cells(rng: Generator, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest border between the cells of scattered points, and the cell of each
    pixel as a random number in 0 to 1; at half size, then enlarged."""
    points = scatter(rng, spacing)
    y, x = np.mgrid[:HEIGHT:2, :WIDTH:2].astype(np.float32)
    bent = [axis + 2.5 * noise(rng, x.shape, 12) for axis in (x, y)]
    distance, nearest = cKDTree(points).query(np.dstack(bent).reshape(-1, 2), k=2)
    border = (distance[:, 1] - distance[:, 0]).astype(np.float32).reshape(x.shape)
    tone = rng.random(len(points), np.float32)[nearest[:, 0]].reshape(x.shape)
    return cv2.resize(border, CANVAS), cv2.resize(tone, CANVAS)


def scutes(
    rng: Generator, species: Species, alpha: np.ndarray, seam: float, dark: float, range_: float
) -> Marks:
    """Polygons of unequal tone in a pale net `seam` pixels wide: a giraffe's, or a turtle's."""
    border, tone = _cells(rng, species.grain)
    tint = np.float32(species.colours[1]) * (dark + range_ * tone[..., None])
    return np.clip((border - seam) / 3, 0, 1), tint


def patches(rng: Generator, species: Species, alpha: np.ndarray) -> Marks:
    """Large patches of three colours, as a painted dog's."""
    one, two = (noise(rng, (HEIGHT, WIDTH), species.grain) for _ in range(2))
    fine = 0.25 * noise(rng, (HEIGHT, WIDTH), 9)
    white = np.clip(6 * (one + fine - rng.uniform(0.1, 0.7)), 0, 1)[..., None]
    tint = np.float32(species.colours[1]) * (1 - white) + np.float32(species.colours[2]) * white
    return np.maximum(white[..., 0], np.clip(6 * (two - fine - rng.uniform(-0.2, 0.4)), 0, 1)), tint


def fins(rng: Generator, species: Species, alpha: np.ndarray) -> Marks:
    """Notches cut from a fin's trailing edge, pale blotches and scars, and a saddle behind it."""
    edge = curve(BUILDS[species.build].cut)
    for _ in range(rng.integers(2, 6)):
        at = edge[rng.integers(2, len(edge) - 2)]
        _blob(alpha, rng, at + rng.uniform(-3, 4, 2), rng.uniform(8, 20), 0)
    if rng.random() < 0.4:
        _blob(alpha, rng, edge[0] + rng.uniform(-12, 6, 2), rng.uniform(12, 30), 0)
    cover = np.zeros_like(alpha)
    if species.grain:
        _blob(cover, rng, np.float32([0.72, 0.77]) * CANVAS, species.grain, 220)
        _blob(cover, rng, np.float32([0.62, 0.80]) * CANVAS, species.grain * 0.6, 220)
    for _ in range(rng.integers(1, 5)):
        middle = rng.uniform((0.35, 0.3), (0.62, 0.8)) * CANVAS
        _blob(cover, rng, middle, rng.uniform(9, 26), int(rng.integers(110, 230)))
    for _ in range(rng.integers(2, 6)):
        start, turn = rng.uniform((0.35, 0.25), (0.65, 0.8)) * CANVAS, rng.uniform(0, np.pi)
        length = rng.uniform(25, 70) * np.array([np.cos(turn), np.sin(turn)])
        bow = start + length / 2 + rng.uniform(-8, 8, 2)
        limb(cover, np.array([start, bow, start + length]) / CANVAS, (5, 2), 240)
    return cover.astype(np.float32) / 255, None


PATTERNS = {
    "spots": spots,
    "rosettes": rosettes,
    "stripes": stripes,
    "streaks": streaks,
    "network": partial(scutes, seam=4.5, dark=0.5, range_=0.9),
    "scutes": partial(scutes, seam=2.5, dark=0.55, range_=1.0),
    "patches": patches,
    "fins": fins,
}
# share of the third colour below the flanks
BELLY = dict.fromkeys(PATTERNS, 0.75) | {"patches": 0.0, "fins": 0.0, "scutes": 0.6, "network": 0.4}

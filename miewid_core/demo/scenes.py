"""Places in which the drawn animals are seen: backgrounds, what hides an animal, light."""

import cv2
import numpy as np
from numpy.random import Generator

from miewid_core.demo.coats import noise
from miewid_core.demo.species import BIOMES

SIZE = 252, 190  # of a photo, width and height in pixels
STEM = np.column_stack([np.linspace(0, 1, 6) ** 2, np.linspace(0, 1, 6)])
# colours of the sky and of the ground; how far below the horizon (H, W, 1); the horizon's y (W,)
Ground = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
SURFACE, DEPTH = ("harbour", "fjord"), ("reef", "lagoon")


def background(biome: str, rng: Generator) -> np.ndarray:
    """A place without animals, (H, W, 3) float32, of colours around its biome's."""
    colours = np.float32(BIOMES[biome]) * rng.normal(1, 0.07, (5, 1)) + rng.normal(0, 8, (5, 3))
    colours = colours.astype(np.float32)
    lowest, highest = (-0.1, 0.25) if biome in DEPTH else (0.12, 0.5)
    horizon = SIZE[1] * rng.uniform(lowest, highest)
    slope = 0 if biome in SURFACE else rng.normal(0, 0.06)
    x, y = np.arange(SIZE[0], dtype=np.float32), np.arange(SIZE[1], dtype=np.float32)[:, None]
    edge = (horizon + slope * (x - SIZE[0] / 2)).astype(np.float32)
    high = np.clip(y / max(horizon, 30), 0, 1)[..., None]
    deep = np.clip((y - edge) / (SIZE[1] - edge), 0, 1)[..., None]
    sky = colours[0] * (1 - high) + colours[1] * high
    ground = colours[2] * (1 - deep) + colours[3] * deep
    draw = _sea if biome in SURFACE else _depth if biome in DEPTH else _land
    return draw((sky, ground, deep, edge), colours[4], rng)


def _grain(rng: Generator, *cells: tuple[float, float]) -> np.ndarray:
    """(H, W, 1) sum of smooth noises."""
    return sum(noise(rng, SIZE[::-1], cell) for cell in cells)[..., None]


def _land(place: Ground, leaf: np.ndarray, rng: Generator) -> np.ndarray:
    """Sky, hills and bushes on the horizon, and ground with grass."""
    sky, ground, deep, edge = place
    sky = sky + 7 * _grain(rng, (80, 22), (30, 12))
    hills = edge - 12 - 9 * noise(rng, (1, SIZE[0]), (60, 1))[0]
    y = np.arange(SIZE[1], dtype=np.float32)[:, None]
    far = np.clip(y - hills, 0, 1)[..., None]
    photo = sky + far * (0.55 * (sky.mean((0, 1)) + 0.8 * leaf) - sky)
    for _ in range(rng.integers(0, 7)):
        at = rng.integers(0, SIZE[0])
        _bush(photo, rng, (at, float(edge[at])), rng.uniform(8, 34), leaf * rng.uniform(0.5, 0.85))
    speckle = 9 * _grain(rng, (46, 14), (14, 6)) + 6 * _grain(rng, (3, 2))
    photo += np.clip(4 * deep * SIZE[1] / 4, 0, 1) * (ground + speckle - photo)
    for _ in range(70):
        x, low = rng.uniform(0, SIZE[0]), rng.uniform(0, 1) ** 0.7
        root = float(edge[int(x)]) * (1 - low) + (SIZE[1] + 6) * low
        _blade(photo, rng, (x, root), 4 + 15 * low, leaf * rng.uniform(0.6, 1.25), 1)
    return photo


def _sea(place: Ground, foam: np.ndarray, rng: Generator) -> np.ndarray:
    """Sky, a far shore at times, and waves that grow towards the camera."""
    sky, ground, deep, edge = place
    photo = sky + 6 * _grain(rng, (80, 16))
    if rng.random() < 0.5:
        shore = edge - 8 - 8 * noise(rng, (1, SIZE[0]), (36, 1))[0]
        y = np.arange(SIZE[1], dtype=np.float32)[:, None]
        photo += np.clip(y - shore, 0, 1)[..., None] * (0.5 * photo + 0.3 * ground - photo)
    wave = 9 * _grain(rng, (14, 2.5)) * (1 - deep) + 15 * _grain(rng, (44, 7), (15, 3)) * deep
    crest = np.clip(wave - 24, 0, 30) / 30
    water = ground + wave + crest * (foam - ground)
    return photo + np.clip(deep * SIZE[1], 0, 1) * (water - photo)


def _depth(place: Ground, weed: np.ndarray, rng: Generator) -> np.ndarray:
    """Water with slanting rays of light, corals or rocks at the bottom, weed and specks."""
    sky, ground, deep, _ = place
    photo = sky * (1 - deep) + ground * deep + 5 * _grain(rng, (60, 40))
    rays = noise(rng, (1, 2 * SIZE[0]), (16, 1))[0]
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    slant = rng.uniform(0.1, 0.9)
    photo += (16 * (1 - y / SIZE[1]) * rays[(x + slant * y).astype(int)])[..., None]
    floor = SIZE[1] * rng.uniform(0.75, 1.1)
    for _ in range(14):
        at = rng.uniform(0, SIZE[0]), floor + rng.uniform(0, 30)
        colour = ground.mean((0, 1)) * 0.7 + rng.uniform(0, 45, 3)
        _bush(photo, rng, at, rng.uniform(8, 26), colour)
    for _ in range(rng.integers(0, 22)):
        root = rng.uniform(0, SIZE[0]), SIZE[1] + 4
        _blade(photo, rng, root, rng.uniform(15, 50), weed * rng.uniform(0.7, 1.2), 3)
    for x, y in rng.uniform(0, SIZE, (40, 2)):
        cv2.circle(photo, (int(x), int(y)), 1, (photo[int(y), int(x)] + 26).tolist(), -1)
    return photo


def _bush(photo: np.ndarray, rng: Generator, at: tuple, size: float, colour: np.ndarray) -> None:
    """A clump of round leaves, lighter above, standing at `at`."""
    for low in np.linspace(1, 0, 12):
        x = at[0] + size * rng.normal(0, 0.55)
        y = at[1] - size * (1 - low) * rng.uniform(0.6, 1.0)
        tone = colour * (0.78 + 0.4 * (1 - low)) + rng.normal(0, 5)
        radius = max(1, round(size * rng.uniform(0.2, 0.42)))
        cv2.circle(photo, (round(x), round(y)), radius, tone.tolist(), -1, cv2.LINE_AA)


def _blade(
    photo: np.ndarray, rng: Generator, root: tuple, height: float, colour: np.ndarray, width: int
) -> None:
    """A bent blade of grass or weed, growing from `root`."""
    path = STEM * (height * rng.normal(0, 0.35), -height) + root
    fixed = (path * 16).astype(np.int32)
    cv2.polylines(photo, [fixed], False, colour.tolist(), width, cv2.LINE_AA, 4)


def foreground(photo: np.ndarray, biome: str, box: np.ndarray, rng: Generator) -> None:
    """Draw over `photo` what stands before the animal of `box` (left, top, right, bottom)."""
    left, top, right, bottom = box
    leaf = np.float32(BIOMES[biome][4]) * rng.normal(0.95, 0.1)
    if biome in SURFACE:
        _spray(photo, rng, box, leaf)
        return
    weed = biome in DEPTH
    for _ in range(rng.integers(0, 6) if weed else rng.integers(14, 60)):
        root = rng.uniform(left - 15, right + 15), bottom + rng.uniform(2, 10)
        height = (bottom - top) * rng.uniform(0.1, 0.3 + 0.3 * weed)
        _blade(photo, rng, root, height, leaf * rng.uniform(0.7, 1.2), 1 + 2 * weed)
    if rng.random() < 0.15:
        _branch(photo, rng, box, leaf * 0.8)
    for _ in range(rng.integers(0, 12)) if weed else ():  # bubbles
        spot = tuple(int(v) for v in rng.uniform(0, SIZE))
        cv2.circle(photo, spot, int(rng.integers(1, 4)), (206, 232, 236), 1, cv2.LINE_AA)


def _branch(photo: np.ndarray, rng: Generator, box: np.ndarray, leaf: np.ndarray) -> None:
    """A twig with leaves that reaches across the animal from above."""
    left, top, right, bottom = box
    tip = np.array([rng.uniform(left, right), rng.uniform(top, bottom)])
    start = np.array([tip[0] + rng.normal(0, 60), -10.0])
    for share in np.linspace(0, 1, 9):
        middle = start + share * (tip - start)
        fixed = tuple(int(v) for v in np.round(middle + rng.normal(0, 4, 2)))
        axes = int(rng.integers(5, 10)), int(rng.integers(2, 5))
        tone = (leaf * rng.uniform(0.6, 1.25)).tolist()
        cv2.ellipse(photo, fixed, axes, float(rng.uniform(0, 180)), 0, 360, tone, -1, cv2.LINE_AA)
    line = np.round(np.stack([start, tip])).astype(np.int32)
    cv2.polylines(photo, [line], False, (leaf * 0.55).tolist(), 2, cv2.LINE_AA)


def _spray(photo: np.ndarray, rng: Generator, box: np.ndarray, foam: np.ndarray) -> None:
    """A line of foam where a fin leaves the water, and drops."""
    left, top, right, bottom = box
    for _ in range(26):
        x, y = rng.uniform(left - 8, right + 8), bottom + rng.normal(2, 2.5)
        axes = int(rng.integers(3, 12)), int(rng.integers(1, 3))
        patch = photo[max(0, int(y) - 4) : int(y) + 5, max(0, int(x) - 13) : int(x) + 14]
        if patch.size:
            tone = (0.45 * patch.mean((0, 1)) + 0.55 * foam).tolist()
            cv2.ellipse(photo, (int(x), int(y)), axes, 0, 0, 360, tone, -1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 14)):
        spot = int(rng.uniform(left, right)), int(rng.uniform((top + bottom) / 2, bottom))
        cv2.circle(photo, spot, 1, foam.tolist(), -1, cv2.LINE_AA)


def shadow(photo: np.ndarray, box: np.ndarray) -> None:
    """Darken the ground under an animal of `box` (left, top, right, bottom)."""
    left, _, right, bottom = box
    mask = np.zeros(photo.shape[:2], np.float32)
    middle, axes = ((left + right) / 2, bottom - 2), (0.42 * (right - left), 0.05 * (right - left))
    whole = [tuple(int(v) for v in pair) for pair in (middle, axes)]
    cv2.ellipse(mask, *whole, 0, 0, 360, 0.45, -1)
    photo *= 1 - cv2.GaussianBlur(mask, (0, 0), 4)[..., None]


def light(photo: np.ndarray, rng: Generator) -> np.ndarray:
    """The photo in other light: gain, tint, contrast, a bright side, dappled shade."""
    tint = rng.uniform(0.42, 1.45) * rng.normal(1, 0.14, 3)
    x = np.linspace(-0.5, 0.5, SIZE[0], dtype=np.float32)
    side = 1 + rng.normal(0, 0.5) * x
    shade = side[:, None] * tint.astype(np.float32)
    if rng.random() < 0.3:
        low = np.linspace(-0.5, 1.5, SIZE[1], dtype=np.float32).clip(0, 1)[:, None]
        dapple = low * np.clip(0.4 - 1.1 * noise(rng, SIZE[::-1], 24), 0, 1)
        shade = shade * (1 - 0.32 * dapple[..., None])
    level = rng.uniform(-28, 42)  # haze lifts the darks
    return (photo - 118) * rng.uniform(0.5, 1.2) * shade + 118 * shade + level


def camera(photo: np.ndarray, rng: Generator, blur: float, grain: float) -> np.ndarray:
    """(H, W, 3) uint8 as a camera records it: out of focus and with noise."""
    if blur > 0.25:
        photo = cv2.GaussianBlur(photo, (0, 0), blur)
    speckle = rng.standard_normal(photo.shape[:2], np.float32)[..., None]
    return (photo + grain * speckle).round().clip(0, 255).astype(np.uint8)

"""The drawn animals: species as data, one coat for each individual and side, bodies in a pose.

All is drawn in the body frame, a canvas of CANVAS pixels in which the animal looks to the left.
Points are (x, y) in shares of the canvas, y downwards; radii are in its pixels; colours are RGB.
"""

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

CANVAS = 320, 208  # width, height
Points = tuple[tuple[float, float], ...]
Colour = tuple[int, int, int]
STEPS = np.arange(6)[:, None] / 6
SPLINE = STEPS ** [0, 1, 2, 3] @ np.float32(
    [[0, 1, 0, 0], [-0.5, 0, 0.5, 0], [1, -2.5, 2, -0.5], [-0.5, 1.5, -1.5, 0.5]]
)  # (6, 4): weights of four points at six steps from the second to the third
DARK, PALE = (34, 28, 26), (238, 232, 220)


class Part(NamedTuple):
    """A tapered limb through `points`; `colour` None is coat."""

    points: Points
    first_radius: float
    last_radius: float
    colour: Colour | None = None


class Build(NamedTuple):
    """A body: its outline, parts that keep still, hips of hind and fore legs, a tail that swings.

    `cut` are the outline's points along which a fin gets notches; `waterline` hides what is below.
    """

    outline: Points
    parts: tuple[Part, ...] = ()
    eye: tuple[float, float, float] = (0, 0, 0)  # x, y, radius
    hips: Points = ()
    leg: tuple[float, float] = (13, 5)  # radii at hip and foot
    tail: Part | None = None
    cut: Points = ()
    waterline: float = 2.0
    ground: float = 0.86  # where the feet stand


class Species(NamedTuple):
    """`annotations`: how many at scale 1. `grain`: size of the pattern's elements, in pixels."""

    name: str
    family: str
    annotations: int
    biome: str
    build: str
    pattern: str
    grain: float
    colours: tuple[Colour, Colour, Colour]  # coat, marks, third colour
    sides_differ: bool = False


CAT = Build(
    outline=(
        *[(0.045, 0.33), (0.075, 0.22), (0.14, 0.165), (0.205, 0.20), (0.27, 0.27), (0.37, 0.25)],
        *[(0.55, 0.285), (0.73, 0.245), (0.825, 0.32), (0.835, 0.47), (0.76, 0.56), (0.62, 0.55)],
        *[(0.46, 0.59), (0.33, 0.61), (0.25, 0.53), (0.19, 0.435), (0.12, 0.415), (0.06, 0.39)],
    ),
    parts=(
        Part(((0.115, 0.20), (0.12, 0.11)), 9, 4),
        Part(((0.185, 0.20), (0.20, 0.11)), 10, 4),
        Part(((0.055, 0.365), (0.085, 0.375)), 7, 8, PALE),
        Part(((0.043, 0.34), (0.05, 0.345)), 3.5, 3, DARK),
    ),
    eye=(0.098, 0.275, 3.4),
    hips=((0.755, 0.44), (0.34, 0.48)),
    tail=Part(((0.81, 0.33), (0.88, 0.40), (0.92, 0.56), (0.97, 0.52)), 8, 5),
)
HORSE = Build(
    outline=(
        *[(0.035, 0.33), (0.06, 0.25), (0.13, 0.12), (0.20, 0.105), (0.27, 0.19), (0.36, 0.285)],
        *[(0.55, 0.315), (0.72, 0.26), (0.83, 0.31), (0.865, 0.44), (0.80, 0.57), (0.64, 0.61)],
        *[(0.46, 0.62), (0.33, 0.58), (0.265, 0.44), (0.215, 0.31), (0.15, 0.31), (0.075, 0.385)],
    ),
    parts=(
        Part(((0.17, 0.12), (0.18, 0.03)), 7, 3),
        Part(((0.19, 0.075), (0.255, 0.155), (0.34, 0.265)), 6, 5, DARK),
        Part(((0.045, 0.335), (0.065, 0.345)), 7, 8, (60, 52, 50)),
    ),
    eye=(0.128, 0.195, 3.2),
    hips=((0.79, 0.45), (0.36, 0.48)),
    leg=(14, 4.5),
    tail=Part(((0.855, 0.35), (0.905, 0.45), (0.90, 0.66)), 4, 6, (70, 60, 54)),
)
GIRAFFE = Build(
    outline=(
        *[(0.045, 0.125), (0.09, 0.065), (0.155, 0.04), (0.205, 0.075), (0.28, 0.20), (0.39, 0.33)],
        *[(0.50, 0.365), (0.66, 0.40), (0.79, 0.425), (0.83, 0.52), (0.77, 0.62), (0.62, 0.665)],
        *[(0.45, 0.67), (0.34, 0.60), (0.29, 0.46), (0.22, 0.28), (0.165, 0.165), (0.09, 0.17)],
    ),
    parts=(
        Part(((0.165, 0.06), (0.175, 0.0)), 3, 3.5, (92, 64, 46)),
        Part(((0.21, 0.07), (0.295, 0.19), (0.39, 0.315)), 3.5, 3.5, (132, 84, 50)),
        Part(((0.195, 0.085), (0.235, 0.05)), 5, 2.5),
    ),
    eye=(0.138, 0.088, 3.0),
    hips=((0.76, 0.53), (0.38, 0.54)),
    leg=(12, 4.5),
    ground=0.95,
    tail=Part(((0.825, 0.47), (0.865, 0.56), (0.86, 0.72)), 3, 4, (62, 46, 36)),
)
ANTELOPE = HORSE._replace(
    parts=(
        Part(((0.165, 0.12), (0.20, 0.06), (0.165, 0.025), (0.215, 0.0)), 4, 2, (74, 62, 54)),
        Part(((0.195, 0.13), (0.255, 0.085)), 6, 3),
        Part(((0.045, 0.335), (0.065, 0.345)), 7, 8, (70, 54, 46)),
        Part(((0.19, 0.33), (0.24, 0.43), (0.28, 0.54)), 4, 5, (230, 214, 192)),
    ),
    leg=(12, 4),
    tail=Part(((0.855, 0.35), (0.885, 0.42), (0.88, 0.52)), 4, 5),
)
DOG = CAT._replace(
    parts=(
        Part(((0.12, 0.20), (0.125, 0.07)), 8, 9, (52, 42, 38)),
        Part(((0.185, 0.21), (0.205, 0.08)), 9, 10, (62, 50, 44)),
        Part(((0.022, 0.365), (0.09, 0.345)), 8, 13, (58, 46, 40)),
        Part(((0.012, 0.35), (0.018, 0.35)), 4, 3, (18, 16, 16)),
    ),
    leg=(12, 5),
    tail=Part(((0.82, 0.33), (0.90, 0.30), (0.96, 0.20)), 5, 8, (236, 230, 220)),
)
SHARK = Build(
    outline=(
        *[(0.025, 0.50), (0.06, 0.41), (0.17, 0.345), (0.32, 0.32), (0.46, 0.335), (0.62, 0.38)],
        *[(0.78, 0.43), (0.875, 0.46), (0.885, 0.52), (0.78, 0.555), (0.60, 0.62), (0.40, 0.665)],
        *[(0.22, 0.66), (0.09, 0.61), (0.04, 0.57)],
    ),
    parts=(
        Part(((0.46, 0.36), (0.53, 0.25), (0.57, 0.20)), 15, 3),
        Part(((0.87, 0.49), (0.92, 0.33), (0.955, 0.20)), 9, 3),
        Part(((0.87, 0.49), (0.915, 0.60), (0.935, 0.68)), 8, 3),
        Part(((0.33, 0.62), (0.40, 0.76), (0.46, 0.83)), 14, 3),
        Part(((0.70, 0.41), (0.735, 0.36)), 7, 2),
    ),
    eye=(0.075, 0.50, 2.6),
)
TURTLE = Build(
    outline=(
        *[(0.23, 0.47), (0.28, 0.33), (0.40, 0.23), (0.56, 0.205), (0.72, 0.27), (0.85, 0.41)],
        *[(0.93, 0.54), (0.80, 0.60), (0.60, 0.645), (0.40, 0.635), (0.28, 0.57)],
    ),
    parts=(
        Part(((0.29, 0.48), (0.19, 0.425), (0.105, 0.41)), 14, 19),
        Part(((0.82, 0.53), (0.90, 0.64), (0.94, 0.74)), 12, 5),
        Part(((0.27, 0.545), (0.42, 0.615), (0.64, 0.625), (0.90, 0.55)), 3.5, 3, (226, 210, 160)),
        Part(((0.052, 0.46), (0.09, 0.475), (0.13, 0.455)), 1.4, 1, (52, 48, 42)),
    ),
    eye=(0.098, 0.38, 4.6),
    tail=Part(((0.37, 0.56), (0.36, 0.74), (0.26, 0.90)), 19, 6),
)
TRAILING = ((0.60, 0.10), (0.585, 0.22), (0.575, 0.36), (0.60, 0.50), (0.655, 0.62), (0.72, 0.69))
DOLPHIN = Build(
    outline=(
        *[(0.03, 0.90), (0.12, 0.78), (0.24, 0.68), (0.32, 0.52), (0.41, 0.30), (0.51, 0.14)],
        *[(0.60, 0.085), *TRAILING[1:], (0.86, 0.76), (0.97, 0.90), (0.80, 0.99), (0.20, 0.99)],
    ),
    cut=TRAILING,
    waterline=0.86,
)
TALL = ((0.56, 0.05), (0.575, 0.20), (0.59, 0.36), (0.615, 0.50), (0.65, 0.62), (0.70, 0.72))
ORCA = DOLPHIN._replace(
    outline=(
        *[(0.03, 0.92), (0.14, 0.82), (0.29, 0.73), (0.36, 0.55), (0.43, 0.30), (0.50, 0.10)],
        *[(0.545, 0.02), *TALL[1:], (0.84, 0.79), (0.97, 0.92), (0.80, 0.99), (0.20, 0.99)],
    ),
    cut=TALL,
    waterline=0.89,
)
BUILDS = {
    **{"cat": CAT, "dog": DOG, "horse": HORSE, "antelope": ANTELOPE, "giraffe": GIRAFFE},
    **{"shark": SHARK, "turtle": TURTLE, "dolphin": DOLPHIN, "orca": ORCA},
}
_TABLE = """
plains_zebra    horses   675 savanna  horse    stripes  36 e8e0d0 262020 e8e0d0
dune_leopard    cats     510 desert   cat      rosettes 38 d6a564 3a2a1e f0dfc0
harbour_dolphin whales   480 harbour  dolphin  fins      0 545f6a dde2e6 545f6a
mosaic_giraffe  ruminants 390 savanna giraffe  network  46 ecd9ae 9c5a2c f0e4c8
speckled_shark  sharks   330 reef     shark    spots    29 50687c e0e8ec c8d4d8 sides
coral_turtle    turtles  270 reef     turtle   scutes   42 e6dcb0 7a5a38 efe6c4 sides
marsh_serval    cats     210 marsh    cat      spots    34 d8b070 34281e f2e6cc
slate_orca      whales   165 fjord    orca     fins     26 2e343c 9aa4ac 2e343c
ember_tiger     cats     135 forest   cat      streaks  42 d8813a 2a201c f4e4cc
banded_kudu     ruminants 105 bush     antelope streaks  46 8e6c50 ece4d8 a89078
lagoon_turtle   turtles   75 lagoon   turtle   scutes   38 d0d8b4 4e6248 dce4c4
painted_dog     dogs      90 bush     dog      patches  44 3a2e28 bc8a4c f0e8dc
"""


def _species(line: str) -> Species:
    name, family, annotations, biome, build, pattern, grain, *rest = line.split()
    colours = tuple(tuple(bytes.fromhex(colour)) for colour in rest[:3])
    numbers = int(annotations), float(grain)
    return Species(
        name, family, numbers[0], biome, build, pattern, numbers[1], colours, "sides" in rest
    )


SPECIES = tuple(map(_species, _TABLE.strip().splitlines()))


@cache
def outline(build: str) -> np.ndarray:
    """(N, 2) float32 points of a build's outline on the canvas, in pixels, smooth and closed."""
    return curve(BUILDS[build].outline, closed=True)


def curve(points: Points, closed: bool = False) -> np.ndarray:
    """(N, 2) float32 pixels of the Catmull-Rom spline through points given in canvas shares."""
    through = np.array(points, np.float32) * np.float32(CANVAS)
    ends = (through[-1:], through[:2]) if closed else (through[:1], through[-1:])
    padded = np.concatenate([ends[0], through, ends[1]])
    quads = np.stack([padded[i : len(padded) - 3 + i] for i in range(4)], 1)
    spline = (SPLINE @ quads).reshape(-1, 2)  # (N - 1, 6, 4) @ (N - 1, 4, 2)
    return spline if closed else np.concatenate([spline, through[-1:]])


def fill(image: np.ndarray, points: np.ndarray, value: float | Colour) -> None:
    """Fill a polygon of (N, 2) pixels, its edge smooth."""
    fixed = np.round(points * 16).astype(np.int32)
    cv2.fillPoly(image, [fixed], value, cv2.LINE_AA, shift=4)


def limb(image: np.ndarray, points: Points, radii: tuple[float, float], value: object) -> None:
    """Fill a limb along the spline through `points`, tapering from the first radius to the last."""
    path = curve(points)
    radius = radii[0] + (radii[1] - radii[0]) * np.arange(len(path))[:, None] / (len(path) - 1)
    along = np.concatenate([path[1:2] - path[:1], path[2:] - path[:-2], path[-1:] - path[-2:-1]])
    across = along[:, ::-1] * np.float32([-1, 1])
    across *= radius / np.maximum(np.hypot(*across.T)[:, None], 1e-3)
    fill(image, np.concatenate([path + across, (path - across)[::-1]]), value)
    for middle, r in ((path[0], radii[0]), (path[-1], radii[1])):
        x, y = np.round(middle * 16).astype(int)
        cv2.circle(image, (int(x), int(y)), round(r * 16), value, -1, cv2.LINE_AA, shift=4)

"""The drawn animals as data (`animals.toml`), and the shapes that bodies are drawn of.

All is drawn in the body frame, a canvas of CANVAS pixels in which the animal looks to the left.
Points are (x, y) in shares of the canvas, y downwards; radii are in its pixels; colours are RGB.
"""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

CANVAS = WIDTH, HEIGHT = 320, 208
Points = Sequence[Sequence[float]]
Colour = Sequence[int]
STEPS = np.arange(6)[:, None] / 6
SPLINE = STEPS ** [0, 1, 2, 3] @ np.float32(
    [[0, 1, 0, 0], [-0.5, 0, 0.5, 0], [1, -2.5, 2, -0.5], [-0.5, 1.5, -1.5, 0.5]]
)  # (6, 4): weights of four points at six steps from the second to the third
DATA = tomllib.loads(Path(__file__).with_name("animals.toml").read_text(encoding="utf-8"))


class Part(NamedTuple):
    """A limb through `points` that tapers along `radii`; without a colour it is coat."""

    points: Points
    radii: tuple[float, float]
    colour: Colour = ()


class Build(NamedTuple):
    """A body: its outline, parts that keep still, hips of hind and fore legs, a tail that swings.

    `cut` are the outline's points along which a fin gets notches; `waterline` hides what is below.
    """

    outline: Points
    parts: Sequence[Part] = ()
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


def _build(fields: dict) -> Build:
    """A build, of the fields of another where it is `like` that one."""
    fields = DATA["builds"].get(fields.get("like"), {}) | fields
    fields.pop("like", None)
    if "tail" in fields:
        fields["tail"] = Part(**fields["tail"])
    return Build(**fields | {"parts": [Part(**part) for part in fields.get("parts", [])]})


SPECIES = tuple(Species(name, **fields) for name, fields in DATA["species"].items())
BUILDS = {name: _build(fields) for name, fields in DATA["builds"].items()}
BIOMES = DATA["biomes"]  # sky or surface, horizon, ground or depth far and near, blades: RGB


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

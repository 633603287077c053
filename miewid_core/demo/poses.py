"""Poses of the drawn animals: limbs swing, the spine bends, and the body is seen in a photo."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from miewid_core.demo.species import BUILDS, CANVAS, Build, Species, fill, limb, outline
from miewid_core.photos import rotation

WIDTH, HEIGHT = CANVAS


class View(NamedTuple):
    """How an animal stands in a photo: `middle` and `length` in pixels, `roll` in radians clockwise
    around the middle, and the pose: bend of the spine, nod of the head, swing of limbs, depth."""

    middle: tuple[float, float]
    length: float
    roll: float
    bend: float
    nod: float
    swing: tuple[float, ...]  # of four legs and the tail
    aspect: float
    depth: float
    flipped: bool

    def jittered(self, rng: Generator, amount: float) -> "View":
        """The view a moment later."""
        a, b, c, d, e = (amount * rng.standard_normal(5)).tolist()
        swing = tuple(s + 0.5 * amount * rng.standard_normal() for s in self.swing)
        x, y = self.middle
        return self._replace(
            middle=(x + 6 * a, y + 4 * b), length=self.length * (1 + 0.05 * c),
            bend=self.bend + 0.05 * d, nod=self.nod + 0.1 * e, swing=swing,
        )  # fmt: skip


def body(species: Species, coat: np.ndarray, view: View, light: float) -> np.ndarray:
    """The animal on the canvas, (H, W, 4) float32 with alpha in 0 to 1, its legs and tail swung."""
    build = BUILDS[species.build]
    near, far = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for number, swing in enumerate(view.swing[:4]):
        if build.hips:
            _leg(far if number < 2 else near, build, number, swing)
    if build.tail:
        limb(near, _swung(build.tail.points, view.swing[4]), build.tail.radii, 255)
    fill(near, outline(species.build), 255)
    for part in build.parts:
        limb(near, part.points, part.radii, 255)
    alpha = np.minimum(cv2.max(near, far), coat[..., 3]).astype(np.float32) / 255
    if build.waterline < 1:
        x = np.arange(WIDTH) / WIDTH
        wave = 0.02 * np.sin(17 * x + 60 * view.bend) + 0.012 * np.sin(41 * x + 90 * view.nod)
        alpha *= np.arange(HEIGHT)[:, None] < (build.waterline + wave) * HEIGHT
    shade = _shading(near, light)
    shade *= np.where(near > 0, 1, 0.62)
    drawn = np.empty((HEIGHT, WIDTH, 4), np.float32)
    np.multiply(coat[..., :3], shade[..., None], out=drawn[..., :3])
    drawn[..., 3] = alpha
    return drawn


def _swung(points: tuple, angle: float) -> np.ndarray:
    """Points turned about the first, in true proportions."""
    shape = np.array(CANVAS) / WIDTH
    path = np.array(points) * shape
    return (path[0] + (path - path[0]) @ rotation(angle).T) / shape


def _leg(mask: np.ndarray, build: Build, number: int, swing: float) -> None:
    x, y = build.hips[number % 2]
    x += 0.035 if number < 2 else 0
    hind = number % 2 == 0
    knee, foot = 0.5 * (build.ground - y), build.ground - y
    back = 0.03 if hind else -0.008  # the hock points backwards
    path = ((x, y), (x + back, y + knee), (x + back / 3, y + 0.9 * foot), (x - 0.012, y + foot))
    limb(mask, _swung(path, swing), build.leg, 255)


def _shading(mask: np.ndarray, light: float) -> np.ndarray:
    """(H, W) factor that rounds the body: lit from above, and from the left if `light` < 0."""
    small = cv2.resize(mask, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32) / 255
    soft, wide = (cv2.GaussianBlur(small, (0, 0), sigma) for sigma in (1.75, 4))
    down, right = np.gradient(wide)
    lit = 0.72 + 0.3 * soft + 2.25 * down - 1.75 * light * right
    return cv2.resize(lit.clip(0.45, 1.3), CANVAS)


def _source(view: View, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Canvas pixels seen at offsets (x, y) in photo pixels from the middle of an upright view."""
    scale = float(WIDTH / view.length)
    across = x * scale * (-1 if view.flipped else 1) / view.aspect
    across = across * (1 + view.depth * np.clip(across / WIDTH, -1, 1))  # monotone: no ghosts
    share = across / WIDTH
    down = y * scale * (1 + 0.5 * view.depth * share)
    down = down + HEIGHT * (view.bend * (share**2 - 0.08) * 2)
    head = np.clip(-share - 0.12, 0, None)
    down = down - HEIGHT * view.nod * head * 1.6
    return (across + WIDTH / 2).astype(np.float32), (down + HEIGHT / 2).astype(np.float32)


def place(photo: np.ndarray, drawn: np.ndarray, view: View, haze: np.ndarray | None = None) -> None:
    """Paint an animal over `photo` (H, W, 3) float32, seen as `view` says."""
    x = np.arange(photo.shape[1], dtype=np.float32) - np.float32(view.middle[0])
    y = np.arange(photo.shape[0], dtype=np.float32)[:, None] - np.float32(view.middle[1])
    sine, cosine = np.float32([np.sin(view.roll), np.cos(view.roll)])
    at = _source(view, cosine * x + sine * y, cosine * y - sine * x)
    seen = cv2.remap(cv2.blur(drawn, (2, 2)), *at, cv2.INTER_LINEAR)  # else fine lines jag
    alpha = seen[..., 3:]
    colour = seen[..., :3] if haze is None else 0.6 * seen[..., :3] + 0.4 * haze
    photo += alpha * (colour - photo)


def extent(drawn: np.ndarray, view: View) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an upright animal as offsets from the view's middle."""
    reach = np.arange(-view.length, view.length, 3, dtype=np.float32)
    y, x = np.meshgrid(reach, reach, indexing="ij")
    alpha = cv2.remap(drawn[..., 3], *_source(view, x, y), cv2.INTER_NEAREST) > 0.5
    across, down = (reach[np.flatnonzero(alpha.any(axis=axis))] for axis in (0, 1))
    return across[0], down[0], across[-1], down[-1]

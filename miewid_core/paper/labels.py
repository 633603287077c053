"""Names beside the points of a plot, placed so that none covers another."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from miewid_core.figures import GREY

ANGLES = np.linspace(0, 2 * np.pi, 16, endpoint=False)
OFFSETS = [  # of a name from its point, in points
    radius * np.array([np.cos(angle), np.sin(angle)])
    for radius in (4, 8, 13, 19, 26, 34, 44, 56, 70, 86, 104)
    for angle in ANGLES
]


def label_points(axes: Axes, points: np.ndarray, bars: np.ndarray, names: list[str]) -> None:
    """Name `points` (N, 2) so that no name covers another one or a point; bars and lines seldom.

    `bars`: (N, 2) ends in y of each point's interval. A thin line joins a name to its point. The
    most crowded points choose first; a point that finds no room stays unnamed.
    """
    axes.figure.draw_without_rendering()  # settles the layout, in which names have no part
    room = _Room(axes, points, bars)
    for index in _most_crowded_first(room.places):
        text = _text(axes, points[index], names[index])
        box = room.take(index, text.get_window_extent())
        if box is None:
            text.remove()
        else:
            text.set_position((box.p0 - room.places[index]) / room.unit)


class _Room:
    """What of the plot is taken, in pixels: by points, by names, and by the lines to these."""

    def __init__(self, axes: Axes, points: np.ndarray, bars: np.ndarray) -> None:
        self.unit, self.frame = axes.figure.dpi / 72, axes.get_window_extent()
        to_pixels = axes.transData.transform
        self.places = to_pixels(points)
        ends = [to_pixels(np.column_stack([points[:, 0], end])) for end in bars.T]
        self.bars = [Bbox([low - 1, high + 1]) for low, high in zip(*ends, strict=True)]
        rules = [line for line in axes.lines if line.get_marker() == "None"]
        self.bars += [line.get_window_extent() for line in rules]
        half = 3 * self.unit
        self.taken = [Bbox([place - half, place + half]) for place in self.places]
        self.lines: list[Path] = []

    def take(self, index: int, extent: Bbox) -> Bbox | None:
        """The best box for a name as large as `extent`, which is taken from now on; None: none."""
        place = self.places[index]
        boxes = [_box(place, self.unit * offset, extent) for offset in OFFSETS]
        boxes = [box for box in boxes if _within(box, self.frame)]
        boxes = [box for box in boxes if not box.count_overlaps(self.taken)]
        if not boxes:
            return None
        best = min(boxes, key=lambda box: self._cost(box, index))
        self.taken.append(best)
        self.lines.append(_line(best, place))
        return best

    def _cost(self, box: Bbox, index: int) -> float:
        """Length of the line in points, more for bars covered, most for names and lines crossed."""
        line = _line(box, self.places[index])
        others = [*self.taken[:index], *self.taken[index + 1 :]]
        crossed = sum(line.intersects_bbox(other, filled=False) for other in others)
        crossed += sum(other.intersects_bbox(box, filled=False) for other in self.lines)
        crossed += sum(other.intersects_path(line, filled=False) for other in self.lines)
        length = np.linalg.norm(np.diff(line.vertices, axis=0)) / self.unit
        return length + 10 * box.count_overlaps(self.bars) + 60 * crossed


def _most_crowded_first(places: np.ndarray) -> np.ndarray:
    """Order of points (N, 2) by how near their nearest fifth is."""
    distance = np.linalg.norm(places[:, None] - places, axis=2)  # (N, N)
    nearest = np.sort(distance, axis=1)[:, : max(2, len(places) // 5)]
    return np.argsort(nearest.sum(axis=1), kind="stable")


def _text(axes: Axes, point: np.ndarray, name: str) -> Annotation:
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
    text = axes.annotate(name, point, (0, 0), textcoords="offset points", arrowprops=line)
    text.set_in_layout(False)
    text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    return text


def _box(place: np.ndarray, offset: np.ndarray, extent: Bbox) -> Bbox:
    """A box of the size of `extent` whose edge is `offset` from `place`, all in pixels."""
    size = np.array([extent.width, extent.height])
    middle = place + offset + np.sign(offset.round(6)) * size / 2
    return Bbox([middle - size / 2, middle + size / 2])


def _within(box: Bbox, frame: Bbox) -> bool:
    return bool((box.p0 >= frame.p0).all() and (box.p1 <= frame.p1).all())


def _line(box: Bbox, place: np.ndarray) -> Path:
    """From a point to the nearest of its name's box."""
    return Path([place, np.clip(place, box.p0, box.p1)])

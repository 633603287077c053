"""One query step by step: what notebook 00 shows of it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from miewid_core.figures import BLUE, GREY, PAGE, VERMILION, Figure, styled
from miewid_core.photos import read_photo

OTHERS, TRUE = 10, 2  # annotations beside the query, and at most so many of its individual


def query_and_others(photos: pd.DataFrame, species: str = "", seed: int = 0) -> pd.DataFrame:
    """A random query of a species (the first by name) and ten others of it, index kept.

    The query comes first; one or two of the others show its individual. Raises ValueError where no
    individual of the species has two annotations.
    """
    rows = photos[photos["species"] == (species or photos["species"].min())]
    paired = rows[rows["individual"].duplicated(keep=False)]
    if paired.empty:
        there = ", ".join(sorted(photos["species"].unique()))
        raise ValueError(f"example_species: no {species} is seen twice; there are {there}")
    draw = np.random.default_rng(seed)
    query = paired.sample(1, random_state=draw)
    others = rows.drop(query.index).sample(frac=1, random_state=draw)
    true = others["individual"] == query["individual"].iloc[0]
    chosen = pd.concat([others[true][:TRUE], others[~true]])[:OTHERS]
    return pd.concat([query, chosen.sample(frac=1, random_state=draw)])


@styled()
def photo_to_chip(row: pd.Series, chip: np.ndarray) -> Figure:
    """A photo with the box of one annotation, and the chip (S, S, 3) cut from it."""
    drawn = Figure("", 2.4, PAGE, photos=True)
    left, right = drawn.subplots(1, 2, width_ratios=[3, 2])
    photo = read_photo(row["path"])
    left.imshow(photo)
    place = {"angle": np.degrees(row["theta"]), "rotation_point": "center"}
    look = {"fill": False, "edgecolor": VERMILION, "linewidth": 2}
    left.add_patch(Rectangle((row["x"], row["y"]), row["w"], row["h"], **place, **look))
    left.set_title(f"a photo of {photo.shape[1]} x {photo.shape[0]} pixels and a box", loc="left")
    right.imshow(chip)
    right.set_title(f"its chip: {len(chip)} x {len(chip)} pixels", loc="left")
    for axes in (left, right):
        axes.set_axis_off()
    return drawn


@styled()
def number_by_number(
    chips: Sequence[np.ndarray], unit: np.ndarray, captions: Sequence[str]
) -> Figure:
    """The numbers of other photos against the same numbers of a query, each beside its chip.

    `chips` (S, S, 3) and `captions` are of the others, `unit` (1 + N, D) the embeddings of length
    1, of the query first.
    """
    drawn = Figure("", 2.5, PAGE, photos=True)
    grid = drawn.subplots(1, 2 * len(chips), width_ratios=[2, 5] * len(chips))
    query, *others = unit
    limit = 1.05 * np.abs(unit).max()
    for place, other in enumerate(others):
        left, right = grid[2 * place : 2 * place + 2]
        left.imshow(chips[place])
        left.set_axis_off()
        right.axline((0, 0), slope=1, color=GREY, linestyle=":")
        right.plot(query, other, ".", color=BLUE, markersize=3)
        right.set_title(f"{captions[place]}: similarity {query @ other:.2f}", loc="left")
        right.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        right.set(xlabel="a number of the query", ylabel="the same number of the other")
    return drawn

"""Chips to look at: photos of each species, matches of a trained network, a map of embeddings."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from miewid_core import figures
from miewid_core.chips import ChipStore, augmentation
from miewid_core.config import PRESETS, TrainConfig, learning_rate
from miewid_core.figures import BLUE, COLOURS, GREY, LINES, MARKERS, PAGE, Figure, Panel, styled
from miewid_core.loss import dynamic_margins
from miewid_core.model import MiewIDNet
from miewid_core.paper import comparison

CHIP = 128  # pixels of the chips that are shown
HISTORY = {"loss": "training loss", "rate": "learning rate at\nthe epoch's start"}


PARTS = {  # of A.1's augmentation, in words
    "Sharpen": "sharper",
    "ToGray": "grey",
    "CLAHE": "stronger local\ncontrast",
    "Affine": "shifted, scaled,\nturned",
    "ColorJitter": "other colours",
}


def schedules(config: TrainConfig = PRESETS["paper"]) -> pd.DataFrame:
    """Rates of the paper's and of the released schedule: schedule, epoch (from 1), rate."""
    rows = [
        (name, epoch + 1, learning_rate(dataclasses.replace(config, schedule=name), epoch))
        for name in ("paper", "released")
        for epoch in range(config.epochs)
    ]
    return pd.DataFrame(rows, columns=["schedule", "epoch", "rate"])


@styled()
def epochs_figure(table: pd.DataFrame, title: str, of: str = "run") -> Figure:
    """Learning rate by epoch, and above it the loss where the table has one.

    `table`: epoch, rate, loss, and a column `of`, whose values have a line each.
    """
    panels = {name: words for name, words in HISTORY.items() if name in table}
    drawn = Figure(title, 1.8 + 0.6 * len(panels))
    shape = {"sharex": True, "squeeze": False, "height_ratios": [3, 2][-len(panels) :]}
    for axes, column in zip(drawn.subplots(len(panels), **shape).flat, panels, strict=True):
        for number, (name, own) in enumerate(table.groupby(of, sort=False)):
            look = {"color": COLOURS[number % 8], "ls": LINES[number % 7], "label": name}
            axes.plot(own["epoch"], own[column], **look)
        axes.set_ylabel(panels[column])
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    figures.plain_numbers(axes.yaxis, log=False)
    drawn.align_ylabels()
    if len(axes.lines) > 1:
        handles = axes.get_legend_handles_labels()
        drawn.legend(*handles, loc="outside lower left", ncols=3, title=of)
    return drawn


def margins(train: pd.DataFrame, config: TrainConfig) -> pd.DataFrame:
    """Per training individual: species, individual, annotations, margin in radians (A.1)."""
    counts = train.groupby(["species", "individual"]).size().rename("annotations")
    low, high = config.margin_low, config.margin_high
    return counts.reset_index().assign(margin=dynamic_margins(counts.to_numpy(), low, high))


@styled()
def network_figure(network: MiewIDNet, size: int) -> Figure:
    """The network as boxes in a row, and between them the shapes that one chip takes."""
    with torch.inference_mode():
        features = network.backbone.forward_features(torch.zeros(1, 3, size, size))
    width = network.n_features
    steps = ["chip", "backbone", "GeM pooling", "BatchNorm", "embedding"]
    shapes = [(3, size, size), tuple(features.shape[1:]), (width,), (width,)]
    drawn = Figure(f"Shapes on the way through {network.name}", 1.1, PAGE)
    axes = drawn.subplots()
    for place, step in enumerate(steps):
        look = {"boxstyle": "round", "facecolor": "white" if place in (0, 4) else "#CFE4F2"}
        axes.text(place, 0, step, ha="center", va="center", bbox=look, fontsize=8)
    for place, shape in enumerate(shapes):
        arrow = {"arrowstyle": "->"}
        axes.annotate("", (place + 0.66, 0), (place + 0.34, 0), arrowprops=arrow)
        axes.text(place + 0.5, 0.35, " x ".join(map(str, shape)), ha="center")
    axes.set(xlim=(-0.4, 4.4), ylim=(-0.5, 0.8))
    axes.set_axis_off()
    return drawn


@styled()
def arcface_figure(embedding: np.ndarray, centers: np.ndarray, margin: float) -> Figure:
    """An embedding (2,) of individual 0 among the sub-centers (2, K, 2) of two, on a circle.

    The angles to the nearest sub-center of each are marked, and the margin (radians) added to one.
    """
    drawn = Figure("What the margin does to an embedding of A", 3.6, 4.8)
    axes = drawn.subplots()
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor=GREY, linewidth=0.6))
    unit = centers / np.linalg.norm(centers, axis=2, keepdims=True)
    point = np.arctan2(*embedding[::-1])
    nearest = []
    for number, own in enumerate(unit):
        look = {"marker": MARKERS[number], "color": COLOURS[number], "ls": "", "markersize": 7}
        axes.plot(*own.T, label=f"sub-centers of {'AB'[number]}", **look)
        best = own[np.argmax(own @ _on_circle(point))]
        axes.plot(*np.stack([np.zeros(2), best]).T, color=COLOURS[number], linewidth=0.8)
        nearest.append(np.arctan2(*best[::-1]))
    moved = point + np.sign(point - nearest[0]) * margin
    axes.annotate("", _on_circle(point), (0, 0), arrowprops={"arrowstyle": "->", "linewidth": 1.6})
    axes.plot(*_on_circle(point), "k*", markersize=9, label="a photo of A")
    for radius, start, end, words, line in (
        (0.5, nearest[0], point, "θ", "-"),
        (0.5, point, moved, "m", "--"),
        (0.75, point, nearest[1], "θⱼ", ":"),
    ):
        arc = radius * _on_circle(np.linspace(start, end))
        angle = np.degrees(abs(end - start))
        axes.plot(*arc, line, color="black", label=f"{words} = {angle:.0f}°")
        axes.text(*(1 + 0.06 / radius) * arc[:, 25], words, ha="center", va="center", fontsize=8)
    axes.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15))
    axes.set_axis_off()
    drawn.legend(loc="outside right center")
    return drawn


def _on_circle(angle: float | np.ndarray) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


@styled()
def margins_figure(margins: pd.DataFrame, title: str) -> Figure:
    """Margin of an individual against its training annotations, and how many have that many."""
    drawn = Figure(title, 3)
    above, below = drawn.subplots(2, sharex=True, height_ratios=[2, 1])
    points = margins.groupby("annotations")["margin"].agg(["first", "size"])
    above.plot(points.index, points["first"], "o-", color=BLUE, markersize=3)
    above.set_ylabel("margin (radians)")
    below.vlines(points.index, 0, points["size"], color=BLUE, linewidth=1.5)
    below.set(xscale="log", ylim=(0, None), ylabel="individuals")
    below.set_xlabel(f"training annotations of an individual ({len(margins):,} individuals)")
    figures.plain_numbers(below.xaxis)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    drawn.align_ylabels()
    return drawn


@styled()
def embedding_map(data: pd.DataFrame, title: str) -> Figure:
    """Annotations on two axes of a projection, by individual (`data`: x, y, individual)."""
    drawn = Figure(title, 3.9, figures.COLUMN)
    axes = drawn.subplots()
    size = {"markersize": 3.7, "markeredgewidth": 0.2, "markeredgecolor": "black", "ls": ""}
    looks = zip(COLOURS, MARKERS, strict=False)
    for (individual, own), (colour, marker) in zip(data.groupby("individual"), looks, strict=False):
        name = figures.spelt(individual.partition("/")[2] or individual)
        axes.plot(own["x"], own["y"], marker, color=colour, label=name, **size)
    drawn.legend(loc="outside lower left", ncols=3)
    axes.set(xlabel=f"t-SNE axis 1 (no unit; n = {len(data):,})", ylabel="t-SNE axis 2 (no unit)")
    axes.set(xticks=[], yticks=[], aspect="equal")
    return drawn


def species_panels(annotations: pd.DataFrame, chips_dir: Path) -> list[list[Panel]]:
    """Two chips of each of two animals of each species, two species in a row.

    The animals are those with most encounters, one photo an encounter.
    """
    chosen = pd.concat(_two_animals(rows) for _, rows in annotations.groupby("species"))
    store = ChipStore(chips_dir, CHIP)
    place = pd.factorize(chosen["species"])[0] // 2
    panels: list[list[Panel]] = [[] for _ in range(place.max() + 1)]
    labels = zip(place, store.build(chosen), chosen["species"], chosen["name"], strict=True)
    for row, key, species, name in labels:
        words = figures.spelt(species).replace(" ", "\n", 1)
        panels[row].append((store.read(key), f"{words}\n{name}", None))
    return panels


def _two_animals(rows: pd.DataFrame) -> pd.DataFrame:
    single = rows["encounter"].where(rows["encounter"] != "", rows["annotation_id"])
    apart = rows.assign(single=single).drop_duplicates(["individual", "single"])
    animals = apart["individual"].value_counts(sort=False).nlargest(2).index
    return pd.concat(apart[apart["individual"] == animal].head(2) for animal in animals)


def augmented(chip: np.ndarray, seed: int) -> list[Panel]:
    """A chip (S, S, 3) uint8, what each part of A.1's augmentation makes of it, and thrice all.

    A part is applied for certain here, in training only sometimes.
    """
    import albumentations  # half a second

    one_of, *others = augmentation(len(chip)).transforms
    pictures: list[Panel] = [(chip, "as it is", None)]
    for part in [*one_of.transforms, *others]:
        part.p = 1
        alone = albumentations.Compose([part], seed=seed)
        pictures.append((alone(image=chip)["image"], PARTS[type(part).__name__], None))
    whole = augmentation(len(chip))
    for draw in range(3):
        whole.set_random_seed(seed + draw)
        pictures.append((whole(image=chip)["image"], f"in training ({draw + 1})", None))
    return pictures


def few_individuals(annotations: pd.DataFrame, count: int = 6) -> pd.DataFrame:
    """Rows of the `count` individuals with most annotations, of the species with most of them."""
    own = annotations[annotations["species"] == annotations["species"].value_counts().idxmax()]
    most = own["individual"].value_counts(sort=False).nlargest(count).index
    return own[own["individual"].isin(most)]


def projection(embeddings: np.ndarray, annotations: pd.DataFrame, seed: int) -> pd.DataFrame:
    """t-SNE by cosine of embeddings (N, D): x, y (no unit), species, individual of each row.

    By one thread: more of them round otherwise, and points end elsewhere.
    """
    perplexity = min(30, max(1, (len(annotations) - 1) / 3))
    place = TSNE(perplexity=perplexity, init="pca", random_state=seed, metric="cosine")
    with threadpool_limits(1):
        placed = place.fit_transform(normalize(embeddings))
    axes = pd.DataFrame(placed, columns=["x", "y"])
    return axes.join(annotations[["species", "individual"]].reset_index(drop=True))


def matches(
    embeddings: np.ndarray, annotations: pd.DataFrame, chips_dir: Path, seed: int, size: int = CHIP
) -> list[list[Panel]]:
    """For one random query of each species: the query, then its five nearest other annotations.

    `embeddings`: (N, D) of `annotations`. A query has at least one true match among the candidates.
    Captions give the individual's name and the cosine similarity. `size`: of the chips, in pixels.
    """
    embeddings, panels = normalize(embeddings), []
    store, generator = ChipStore(chips_dir, size), np.random.default_rng(seed)
    for species, rows in annotations.groupby("species"):
        matched = rows[rows["individual"].duplicated(keep=False)]
        if matched.empty:
            continue
        query = generator.choice(matched.index)
        scores = pd.Series(embeddings[rows.index] @ embeddings[query], rows.index).drop(query)
        nearest = scores.nlargest(5)
        shown = rows.loc[[query, *nearest.index]]
        names, right = shown["name"].tolist(), shown["individual"].eq(rows["individual"][query])
        captions = [f"{species}\nquery {names[0]}"]
        captions += [f"{name}\n{score:.2f}" for name, score in zip(names[1:], nearest, strict=True)]
        chips = (store.read(key) for key in store.build(shown))
        panels.append(list(zip(chips, captions, [None, *right[1:].tolist()], strict=True)))
    return panels


def scores_text(scores: pd.DataFrame) -> str:
    """Top-1 of the trained and the untrained network, and on which species training failed.

    `scores`: of `compare`, for "multi" and "untrained".
    """
    words = {name: comparison.NETWORKS[name] for name in ("multi", "untrained")}
    table = figures.table_text(comparison.readable(scores, words, "untrained"))
    return f"{table}\n{comparison.no_better_in_words(scores, ['multi'])}"


def in_words(scores: pd.DataFrame, history: pd.DataFrame) -> str:
    """What a training did to top-1, and to the loss.

    `scores`: of `compare`, for "multi" and "untrained"; `history`: loss by epoch.
    """
    words = {"multi": "the multi-species network, trained once,", "untrained": "the untrained one"}
    first, last = history["loss"].iloc[[0, -1]]
    return (
        f"{comparison.briefly(scores, words)} {len(history)} epochs of sub-center ArcFace with "
        f"dynamic margins take the loss from {first:.1f} to {last:.1f}."
    )

"""Chips to look at: photos of each species, matches of a trained network, a map of embeddings."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from miewid_core.chips import ChipStore
from miewid_core.runs import Run

Panel = tuple[np.ndarray, str, bool | None]  # chip (S, S, 3) uint8, caption, right or wrong


def species_sheet(
    photos: pd.DataFrame, chips_dir: Path, seed: int, size: int = 128
) -> tuple[list[np.ndarray], list[str]]:
    """Chips (size, size, 3) uint8 and captions: six of each species, three of each of two animals.

    The animals are drawn at random among the quarter with most encounters, one photo an encounter.
    """
    generator = np.random.default_rng(seed)
    chosen = pd.concat(_two_animals(rows, generator) for _, rows in photos.groupby("species"))
    store = ChipStore(chips_dir, size)
    keys = store.build(chosen)
    captions = chosen["species"] + "\n" + chosen["name"]
    return [store.read(key) for key in keys], captions.tolist()


def _two_animals(rows: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    single = rows["encounter"].where(rows["encounter"] != "", rows["annotation_id"])
    apart = rows.assign(single=single).drop_duplicates(["individual", "single"])
    seen = apart["individual"].value_counts()
    most = sorted(seen[seen >= seen.quantile(0.75)].index)
    animals = generator.choice(most, size=min(2, len(most)), replace=False)
    return pd.concat(
        apart[apart["individual"] == animal].sort_values("annotation_id").head(3)
        for animal in animals
    )


def projection(embeddings: np.ndarray, photos: pd.DataFrame, seed: int) -> pd.DataFrame:
    """t-SNE by cosine of embeddings (N, D): x, y (no unit), species, individual of each row.

    By one thread: more of them round otherwise, and points end elsewhere.
    """
    perplexity = min(30, max(1, (len(photos) - 1) / 3))
    place = TSNE(perplexity=perplexity, init="pca", random_state=seed, metric="cosine")
    with threadpool_limits(1):
        placed = place.fit_transform(normalize(embeddings))
    axes = pd.DataFrame(placed, columns=["x", "y"])
    return axes.join(photos[["species", "individual"]].reset_index(drop=True))


def matches(
    run: Run, photos: pd.DataFrame, chips_dir: Path, seed: int, k: int = 5, size: int = 128
) -> list[list[Panel]]:
    """For one random query of each species: the query, then its k nearest other annotations.

    A query has at least one true match among the candidates. Captions give the individual's name
    and the cosine similarity.
    """
    embeddings = normalize(run.embed(photos, chips_dir))
    store = ChipStore(chips_dir, size)
    generator = np.random.default_rng(seed)
    panels = []
    for _, rows in photos.groupby("species"):
        matched = rows[rows["individual"].duplicated(keep=False)]
        if matched.empty:
            continue
        query = generator.choice(matched.index)
        scores = pd.Series(embeddings[rows.index] @ embeddings[query], rows.index).drop(query)
        nearest = scores.nlargest(k)
        panels.append(_panel_row(photos, query, nearest, store))
    return panels


def _panel_row(
    photos: pd.DataFrame, query: int, nearest: pd.Series, store: ChipStore
) -> list[Panel]:
    shown = photos.loc[[query, *nearest.index]]
    chips = [store.read(key) for key in store.build(shown)]
    first = f"{shown['species'].iloc[0]}\nquery {shown['name'].iloc[0]}"
    captions = [f"{photos['name'][row]}\n{score:.2f}" for row, score in nearest.items()]
    right = shown["individual"].eq(photos["individual"][query]).tolist()
    return list(zip(chips, [first, *captions], [None, *right[1:]], strict=True))

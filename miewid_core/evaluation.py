"""One-vs-all identification (section 4): one row per query, and every measure a mean over rows."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

from miewid_core import progress, ranking
from miewid_core.model import MiewIDNet, Preprocess

COLUMNS = ["annotation_id", "species", "individual", "encounter", *ranking.RANKS.names]
BLOCK = 512  # annotations at once
MANY = 4096  # photos from which on it is tried whether a CPU embeds faster in bfloat16
PAYS = 0.75  # bfloat16 is taken where it needs less than this share of float32's time


@torch.inference_mode()
def embed(
    model: MiewIDNet,
    preprocess: Preprocess,
    dataset: Dataset,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> np.ndarray:
    """Embeddings (N, D) float32, not normalised, of items (chip (S, S, 3) uint8, label).

    Computed in bfloat16 on a GPU, and of MANY photos on a CPU where `bfloat16_pays`.
    """
    device, training = torch.device(device), model.training
    model.eval()
    batches, half = DataLoader(dataset, batch_size, num_workers=workers), device.type == "cuda"
    if device.type == "cpu" and len(dataset) >= MANY:
        half = bfloat16_pays(model, preprocess, next(iter(batches))[0])
    parts = []
    for chips, _ in progress(batches, "embedding"):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            parts.append(model(preprocess.batch(chips.to(device))).float().cpu())
    model.train(training)
    return torch.cat(parts).numpy() if parts else np.empty((0, model.n_features), np.float32)


@torch.inference_mode()
def bfloat16_pays(model: MiewIDNet, preprocess: Preprocess, chips: torch.Tensor) -> bool:
    """Whether a CPU embeds chips (B, S, S, 3) uint8 faster in bfloat16: by the best of three turns.

    On a processor with matrix units for it EfficientNet-Lite0 takes 0.6 of the time, on others more
    than all of it. Top-1 of eleven species moves by less than 0.1 points
    (figures/realdata/speed.csv).
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        for half, passed in seconds.items():
            start = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                model(preprocess.batch(chips))
            passed.append(time.process_time() - start)
    return min(seconds[True]) < PAYS * min(seconds[False])


def one_vs_all(
    embeddings: np.ndarray,
    individuals: Sequence[str],
    species: Sequence[str],
    encounters: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rank all other annotations of its species for each annotation by cosine similarity.

    `embeddings`: (N, D), finite, memory-mapped if you like; the sequences have length N. Returns
    one row per query, in order, with COLUMNS: relevant is the number of true matches among the
    candidates; first_match_rank is <NA> and average_precision NaN without any; best_score is the
    cosine to the nearest candidate. A tie with a wrong candidate (up to `ranking.TIE`) counts as
    behind it. No N-by-N matrix is held: rank is 1 + the number of wrong candidates at least as
    similar as the best true match. Raises ValueError for embeddings that don't fit, and without a
    label.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must be (N, D), not {embeddings.shape}")
    count = len(embeddings)
    labels = {
        "annotation_id": np.arange(count).astype(str) if ids is None else ids,
        "species": species,
        "individual": individuals,
        "encounter": [""] * count if encounters is None else encounters,
    }
    queries = pd.DataFrame({name: np.asarray(of, object) for name, of in labels.items()})
    unlabelled = queries["annotation_id"][queries[["species", "individual"]].isna().any(axis=1)]
    if len(unlabelled):
        raise ValueError(f"no species or individual for {', '.join(map(str, unlabelled[:5]))}")
    ranks = np.empty(count, ranking.RANKS)
    for rows in queries.groupby("species").indices.values():
        codes = pd.factorize(queries["individual"].to_numpy()[rows])[0]
        order = ranking.order(codes)
        unit = unit_vectors(embeddings, rows[order], queries)
        ranks[rows[order]] = ranking.rank(unit, codes[order])
    return queries.join(pd.DataFrame(ranks).astype({"first_match_rank": "Int64"}))


def unit_vectors(embeddings: np.ndarray, rows: np.ndarray, annotations: pd.DataFrame) -> np.ndarray:
    """Rows (n, D) float32 of length 1, the only copy that is made; zero vectors stay zero.

    Raises ValueError, with their annotation_id, where they are not finite.
    """
    unit = np.empty((len(rows), embeddings.shape[1]), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = unit[start : start + BLOCK]
        wide = embeddings[rows[start : start + BLOCK]].astype(np.float64)  # squares of any size
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        finite = np.isfinite(length[:, 0])
        if not finite.all():
            bad = annotations["annotation_id"][rows[start : start + BLOCK][~finite]]
            raise ValueError(f"embeddings are not finite for {', '.join(map(str, bad[:5]))}")
        part[:] = wide / np.where(length > 0, length, 1)
    return unit


def hits(ranks: pd.DataFrame, k: int) -> pd.Series:
    """Whether each query that counts has a true match among its k nearest (index of `ranks`)."""
    counted = ranks["first_match_rank"].dropna()
    return counted <= k


def top_k(ranks: pd.DataFrame, k: int) -> float:
    """Share in [0, 1] of counted queries with a true match among the k nearest; NaN without any.

    For k = 1, 2, ... it is the cumulative match characteristic (CMC).
    """
    return float(hits(ranks, k).astype(float).mean())


def mean_average_precision(ranks: pd.DataFrame) -> float:
    """Mean average precision over counted queries, in [0, 1]; NaN without any."""
    return float(ranks["average_precision"].mean())


def random_top_k(ranks: pd.DataFrame, k: int) -> float:
    """Chance level: expected top-k in [0, 1] of a random order of each query's candidates.

    In closed form: 1 - C(n - r, k) / C(n, k) for n candidates, r of them right (hypergeometric).
    """
    from scipy.stats import hypergeom  # half a second, which no training needs

    counted = ranks[ranks["relevant"] > 0]
    n, r = (counted[name].to_numpy(dtype=float) for name in ("candidates", "relevant"))
    return float((1 - hypergeom.pmf(0, n, r, np.minimum(k, n))).mean()) if len(n) else np.nan

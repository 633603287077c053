"""One-vs-all identification (section 3.4): one row per query, and every measure a mean over rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import hypergeom
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from miewid_core.model import MiewIDNet, Preprocess

COLUMNS = [
    *["annotation_id", "species", "individual", "encounter", "candidates", "relevant"],
    *["first_match_rank", "average_precision", "best_score"],
]
BLOCK = 512  # queries at once: 512 x 20,000 similarities are 41 MB


@torch.inference_mode()
def embed(
    model: MiewIDNet,
    preprocess: Preprocess,
    dataset: Dataset,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> np.ndarray:
    """Embeddings (N, D) float32, not normalised, of items (chip (S, S, 3) uint8, label)."""
    device, training = torch.device(device), model.training
    model.eval()
    parts = []
    for chips, _ in tqdm(DataLoader(dataset, batch_size, num_workers=workers), "embedding"):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            parts.append(model(preprocess.batch(chips.to(device))).float().cpu())
    model.train(training)
    return torch.cat(parts).numpy() if parts else np.empty((0, model.n_features), np.float32)


def one_vs_all(
    embeddings: np.ndarray,
    individuals: Sequence[str],
    species: Sequence[str],
    encounters: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rank all other annotations of its species for each annotation by cosine similarity.

    `embeddings`: (N, D), finite, memory-mapped if you like; the sequences have length N. Returns
    one row per query, in the given order: annotation_id, species, individual, encounter, candidates,
    relevant (true matches among them), first_match_rank (<NA> without any), average_precision (NaN
    without any), best_score (cosine to the nearest candidate). A tie with a wrong candidate counts
    as behind it. No N-by-N matrix is held: rank is 1 + the number of wrong candidates at least as
    similar as the best true match. Raises ValueError for embeddings that don't fit.
    """
    count = len(embeddings)
    frame = pd.DataFrame(
        {
            "annotation_id": np.arange(count).astype(str) if ids is None else np.asarray(ids),
            "species": np.asarray(species, dtype=object),
            "individual": np.asarray(individuals, dtype=object),
            "encounter": "" if encounters is None else np.asarray(encounters, dtype=object),
        }
    )
    ranks = np.empty((count, 5))
    for _, rows in frame.groupby("species").indices.items():
        own = pd.factorize(frame["individual"].to_numpy()[rows])[0]
        order = np.argsort(own, kind="stable")  # true matches lie side by side
        ranks[rows[order]] = _rank_species(_unit(embeddings, rows[order], frame), own[order])
    frame[COLUMNS[4:]] = ranks
    frame = frame.astype({"candidates": int, "relevant": int})
    frame["first_match_rank"] = frame["first_match_rank"].astype("Int64")
    return frame[COLUMNS]


def _unit(embeddings: np.ndarray, rows: np.ndarray, frame: pd.DataFrame) -> torch.Tensor:
    """Rows (n, D) float32 of length 1, the only copy that is made; zero vectors stay zero."""
    unit = np.empty((len(rows), embeddings.shape[1]), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = unit[start : start + BLOCK]
        part[:] = embeddings[rows[start : start + BLOCK]]
        length = np.linalg.norm(part, axis=1, keepdims=True)
        if not np.isfinite(length).all():
            bad = frame["annotation_id"][rows[start : start + BLOCK][~np.isfinite(length[:, 0])]]
            raise ValueError(f"embeddings are not finite for {', '.join(map(str, bad[:5]))}")
        part /= np.maximum(length, np.finfo(np.float32).tiny)
    return torch.from_numpy(unit)


def _rank_species(unit: torch.Tensor, individuals: np.ndarray) -> np.ndarray:
    """(n, 5) of the last five columns for rows sorted by individual."""
    count = len(unit)
    first = np.searchsorted(individuals, individuals, side="left")
    last = np.searchsorted(individuals, individuals, side="right")
    ranks = np.empty((count, 5))
    block = torch.empty((min(BLOCK, count), count))
    for start in range(0, count, BLOCK):
        part = torch.mm(unit[start : start + BLOCK], unit.T, out=block[: count - start]).numpy()
        for offset, row in enumerate(part):
            query = start + offset
            ranks[query] = _rank_row(row, query, first[query], last[query])
    return ranks


def _rank_row(row: np.ndarray, query: int, first: int, last: int) -> tuple[float, ...]:
    """One query's columns from its similarities (n,) to all; its own individual is first:last."""
    row[query] = -np.inf  # itself
    true = np.sort(np.delete(row[first:last], query - first))[::-1].copy()
    best = row.max() if len(row) > 1 else np.nan
    if not len(true):
        return len(row) - 1, 0, np.nan, np.nan, best
    row[first:last] = -np.inf
    wrong = np.array([np.count_nonzero(row >= score) for score in true])
    place = np.arange(1, len(true) + 1)
    precision = (place / (place + wrong)).mean()
    return len(row) - 1, len(true), 1 + wrong[0], precision, best


def hits(ranks: pd.DataFrame, k: int) -> pd.Series:
    """Whether each query that counts has a true match among its k nearest (index of `ranks`)."""
    counted = ranks["first_match_rank"].dropna()
    return counted <= k


def top_k(ranks: pd.DataFrame, k: int) -> float:
    """Share in [0, 1] of counted queries with a true match among the k nearest; NaN without any."""
    return float(hits(ranks, k).astype(float).mean())


def cmc(ranks: pd.DataFrame, max_k: int) -> np.ndarray:
    """Cumulative match characteristic (max_k,): top-k for k = 1 to max_k."""
    return np.array([top_k(ranks, k) for k in range(1, max_k + 1)])


def mean_average_precision(ranks: pd.DataFrame) -> float:
    """Mean average precision over counted queries, in [0, 1]; NaN without any."""
    return float(ranks["average_precision"].mean())


def _resampled(
    values: np.ndarray, individuals: Sequence[str], rng: np.random.Generator, draws: int
) -> np.ndarray:
    """Means (draws,) or (draws, M) of values (N,) or (N, M), individuals drawn with replacement."""
    codes, names = pd.factorize(np.asarray(individuals, dtype=object))
    sums = np.stack([np.bincount(codes, column) for column in np.atleast_2d(values.T)], axis=1)
    counts = np.bincount(codes)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), draws)
    return np.squeeze((weights @ sums) / (weights @ counts)[:, None], axis=1)


def bootstrap_interval(
    values: Sequence[float],
    individuals: Sequence[str],
    seed: int,
    level: float = 0.95,
    draws: int = 1000,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (N,), all queries of an individual together."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        return np.nan, np.nan
    means = _resampled(values, individuals, np.random.default_rng(seed), draws)
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def random_top_k(ranks: pd.DataFrame, k: int) -> float:
    """Chance level: expected top-k in [0, 1] of a random order of each query's candidates.

    In closed form: 1 - C(n - r, k) / C(n, k) for n candidates, r of them right (hypergeometric).
    """
    counted = ranks[ranks["relevant"] > 0]
    n, r = (counted[name].to_numpy(dtype=float) for name in ("candidates", "relevant"))
    k = np.minimum(k, n)
    return float((1 - hypergeom.pmf(0, n, r, k)).mean()) if len(counted) else np.nan


def per_species(ranks: pd.DataFrame, k: int, seed: int = 0) -> pd.DataFrame:
    """Top-k per species with its 95 % interval: species, queries, individuals, top_k, low, high."""
    rows = []
    for species, own in ranks.groupby("species"):
        hit = hits(own, k).astype(float)
        low, high = bootstrap_interval(hit, own.loc[hit.index, "individual"], seed)
        people = own.loc[hit.index, "individual"].nunique()
        rows.append((species, len(hit), people, hit.mean(), low, high))
    return pd.DataFrame(rows, columns=["species", "queries", "individuals", "top_k", "low", "high"])


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, k: int, seed: int = 0) -> pd.DataFrame:
    """Top-k of two rankings of the same queries, and their difference with a 95 % interval.

    Columns species, queries, individuals, a, b, difference, low, high; shares in [0, 1]. Last comes
    species "mean": the mean over species of each, with individuals resampled within each species.
    Raises ValueError when the queries differ.
    """
    keys = ["annotation_id", "species"]
    both = a.merge(b, on=keys, how="outer", suffixes=("", "_b"), indicator=True)
    strange = both.loc[both["_merge"] != "both", "annotation_id"]
    if len(strange):
        raise ValueError(f"{len(strange)} queries are in one ranking only: {list(strange[:5])}")
    both = both[both["relevant"] > 0]
    both["hit_a"] = (both["first_match_rank"] <= k).astype(float)
    both["hit_b"] = (both["first_match_rank_b"] <= k).astype(float)
    rng = np.random.default_rng(seed)
    rows, draws = [], []
    for species, own in both.groupby("species"):
        values = own[["hit_a", "hit_b"]].to_numpy()
        mean = values.mean(axis=0)
        draws.append(_resampled(values[:, 0] - values[:, 1], own["individual"], rng, 1000))
        counts = len(own), own["individual"].nunique()
        interval = np.quantile(draws[-1], [0.025, 0.975])
        rows.append((species, *counts, *mean, mean[0] - mean[1], *interval))
    columns = ["species", "queries", "individuals", "a", "b", "difference", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    means = table[["a", "b", "difference"]].mean()
    interval = np.quantile(np.mean(draws, axis=0), [0.025, 0.975])
    table.loc[len(table)] = ["mean", *table[["queries", "individuals"]].sum(), *means, *interval]
    return table

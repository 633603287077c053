"""One-vs-all identification (section 4): one row per query, and every measure a mean over rows."""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import hypergeom
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from miewid_core import ranking
from miewid_core.model import MiewIDNet, Preprocess


@dataclasses.dataclass(frozen=True)
class Database:
    """The n annotations of one species, each of which is matched against the others (section 4).

    `rows` (n,): their places among all annotations, sorted by individual; `first`, `last` (n,):
    where the individual of each begins and ends among these; `unit` (n, D): embeddings of length 1.
    """

    species: str
    rows: np.ndarray
    first: np.ndarray
    last: np.ndarray
    unit: np.ndarray

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Some queries (B,) at a time, and cosines (B, n) to their true matches and to all others.

        A query is neither among its true matches nor among the others; what a matrix leaves out
        is -inf in it. Only such blocks are held, never all n by n cosines.
        """
        column = np.arange(len(self.rows))
        for start in range(0, len(self.rows), BLOCK):
            queries = column[start : start + BLOCK]
            cosine = self.unit[queries] @ self.unit.T
            own = (column >= self.first[queries, None]) & (column < self.last[queries, None])
            others = np.where(own, -np.inf, cosine)
            own &= column != queries[:, None]
            yield queries, np.where(own, cosine, -np.inf), others


def databases(embeddings: np.ndarray, photos: pd.DataFrame) -> Iterator[Database]:
    """The database of each species of `photos` (annotation_id, species, individual), one at a time.

    `embeddings`: (N, D), a row for each of `photos`. Raises ValueError where they don't fit.
    """
    if len(embeddings) != len(photos):
        raise ValueError(f"{len(embeddings)} embeddings for {len(photos)} annotations")
    for species, rows in photos.groupby("species").indices.items():
        individuals = pd.factorize(photos["individual"].to_numpy()[rows])[0]
        order = np.argsort(individuals, kind="stable")
        rows, individuals = rows[order], individuals[order]
        ends = (np.searchsorted(individuals, individuals, side) for side in ("left", "right"))
        yield Database(species, rows, *ends, unit_vectors(embeddings, rows, photos))


COLUMNS = [
    *["annotation_id", "species", "individual", "encounter", "candidates", "relevant"],
    *["first_match_rank", "average_precision", "best_score"],
]
KEYS = ["species", "queries", "individuals"]
BLOCK = 512  # annotations at once
DRAWS = 1000  # of a bootstrap


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
    ids = np.arange(count).astype(str) if ids is None else ids
    labels = ids, species, individuals, [""] * count if encounters is None else encounters
    frame = pd.DataFrame({n: np.asarray(v, object) for n, v in zip(COLUMNS, labels, strict=False)})
    lost = frame["annotation_id"][frame[["species", "individual"]].isna().any(axis=1)]
    if len(lost):
        raise ValueError(f"no species or individual for {', '.join(map(str, lost[:5]))}")
    ranks = np.empty((count, 5))
    for rows in frame.groupby("species").indices.values():
        own = pd.factorize(frame["individual"].to_numpy()[rows])[0]
        order = ranking.order(own)
        unit = unit_vectors(embeddings, rows[order], frame)
        ranks[rows[order]] = ranking.rank(unit, own[order])
    frame[COLUMNS[4:]] = ranks
    frame = frame.astype({"candidates": int, "relevant": int})
    frame["first_match_rank"] = frame["first_match_rank"].astype("Int64")
    return frame[COLUMNS]


def unit_vectors(embeddings: np.ndarray, rows: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
    """Rows (n, D) float32 of length 1, the only copy that is made; zero vectors stay zero."""
    unit = np.empty((len(rows), embeddings.shape[1]), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = unit[start : start + BLOCK]
        wide = embeddings[rows[start : start + BLOCK]].astype(np.float64)  # squares of any size
        length = np.linalg.norm(wide, axis=1, keepdims=True)
        if not np.isfinite(length).all():
            bad = frame["annotation_id"][rows[start : start + BLOCK][~np.isfinite(length[:, 0])]]
            raise ValueError(f"embeddings are not finite for {', '.join(map(str, bad[:5]))}")
        part[:] = wide / np.where(length > 0, length, 1)
    return unit


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


def _resampled(values: np.ndarray, people: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Means (DRAWS,) of values (N,), individuals drawn with replacement."""
    codes, names = pd.factorize(np.asarray(people, dtype=object))
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    return (weights @ np.bincount(codes, values)) / (weights @ np.bincount(codes))


def bootstrap_interval(
    values: Sequence[float], individuals: Sequence[str], seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` (N,), all queries of an individual together."""
    if not len(values):
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    return _interval(_resampled(np.asarray(values, dtype=float), individuals, rng), level)


def _interval(means: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def random_top_k(ranks: pd.DataFrame, k: int) -> float:
    """Chance level: expected top-k in [0, 1] of a random order of each query's candidates.

    In closed form: 1 - C(n - r, k) / C(n, k) for n candidates, r of them right (hypergeometric).
    """
    counted = ranks[ranks["relevant"] > 0]
    n, r = (counted[name].to_numpy(dtype=float) for name in ("candidates", "relevant"))
    return float((1 - hypergeom.pmf(0, n, r, np.minimum(k, n))).mean()) if len(n) else np.nan


def by_species(values: pd.Series, ranks: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean of `values` (index of counted `ranks`) per species with its interval; "mean" comes last.

    Columns species, queries, individuals, value, low, high. The mean is that over species; for its
    interval individuals are resampled within each species, and the species stay as they are.
    """
    rows, draws = [], []
    for species, people in ranks["individual"].groupby(ranks["species"]):
        people = people[people.index.isin(values.index)]
        rows.append([species, len(people), people.nunique(), np.nan, np.nan, np.nan])
        if len(people):
            rng = np.random.default_rng([seed, zlib.crc32(str(species).encode())])
            own = values[people.index]
            draws.append(_resampled(own.to_numpy(), people, rng))
            rows[-1][3:] = own.mean(), *_interval(draws[-1])
    table = pd.DataFrame(rows, columns=[*KEYS, "value", "low", "high"])
    interval = _interval(np.mean(draws, axis=0)) if draws else [np.nan] * 2
    table.loc[len(table)] = ["mean", *table[KEYS[1:]].sum(), table["value"].mean(), *interval]
    return table


def per_species(ranks: pd.DataFrame, k: int, seed: int = 0) -> pd.DataFrame:
    """Top-k per species with its 95 % interval: species, queries, individuals, top_k, low, high."""
    table = by_species(hits(ranks, k).astype(float), ranks, seed)
    return table.rename(columns={"value": "top_k"})[:-1]


def overview(rankings: Mapping[str, pd.DataFrame], seed: int = 0, k: int = 1) -> pd.DataFrame:
    """Top-k in percent of rankings of the same queries, one row per species, then their "mean".

    Columns species, queries, individuals; for each ranking its name, name_low and name_high (95 %
    interval; of the mean as in `by_species`); chance. Raises ValueError when the queries differ.
    """
    first, parts = next(iter(rankings.values())), []
    for name, ranks in rankings.items():
        _joined(first, ranks)
        own = by_species(hits(ranks, k).astype(float), ranks, seed).set_index("species")
        own.columns = [*KEYS[1:], name, f"{name}_low", f"{name}_high"]
        parts.append(100 * own.iloc[:, 2:])
    chance = {species: 100 * random_top_k(rows, k) for species, rows in first.groupby("species")}
    chance = pd.Series(chance | {"mean": pd.Series(chance).mean()}, name="chance")
    return own[KEYS[1:]].join([*parts, chance]).reset_index()


def _joined(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Rankings of the same queries side by side, the columns of `b` with _b."""
    keys = ["annotation_id", "species", "individual", "relevant"]
    both = a.merge(b, on=keys, how="outer", suffixes=("", "_b"), indicator=True)
    strange = both.loc[both["_merge"] != "both", "annotation_id"].unique().tolist()
    if strange:
        raise ValueError(f"{len(strange)} queries are in one ranking only: {strange[:5]}")
    return both


def paired_difference(a: pd.DataFrame, b: pd.DataFrame, k: int, seed: int = 0) -> pd.DataFrame:
    """Top-k of two rankings of the same queries, and their difference with a 95 % interval.

    Columns species, queries, individuals, a, b, difference, low, high; shares in [0, 1]. Last comes
    species "mean": the mean over species of each, its interval as in `by_species`. Raises
    ValueError when the queries, or their numbers of true matches, differ.
    """
    both = _joined(a, b)
    both = both[both["relevant"] > 0]
    hit_a, hit_b = (both[f"first_match_rank{end}"].le(k).astype(float) for end in ("", "_b"))
    table = by_species(hit_a - hit_b, both, seed).rename(columns={"value": "difference"})
    for place, hit in enumerate((hit_a, hit_b)):
        means = hit.groupby(both["species"]).mean()
        table.insert(3 + place, "ab"[place], [*means, means.mean()])
    return table

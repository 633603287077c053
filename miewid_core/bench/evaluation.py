"""One-vs-all evaluation beside the bare matrix product, the textbook way, and search libraries."""

import functools

import numpy as np
import torch

from miewid_core.bench.measuring import Run, Task
from miewid_core.evaluation import BLOCK, mean_average_precision, one_vs_all, top_k

DIM = 2152  # of the paper's embeddings


def data(n: int, dim: int, case: str = "six each") -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, dim) float32 of length 1 around their individual's, and individuals (n,)."""
    rng = np.random.default_rng(0)
    individuals = np.arange(n) // 6
    if case == "heavy tail":  # three individuals share a fifth
        individuals[: n // 5] = n + np.arange(n // 5) % 3
    individuals = rng.permutation(individuals)
    own = np.random.default_rng(1).standard_normal((2 * n, dim), dtype=np.float32)
    embeddings = rng.standard_normal((n, dim), dtype=np.float32)
    for start in range(0, n, BLOCK):
        part = embeddings[start : start + BLOCK]
        part += 0.2 * own[individuals[start : start + BLOCK]]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return embeddings, individuals


def ours(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """What the notebooks call."""
    ranks = one_vs_all(embeddings, individuals, ["a"] * len(embeddings))
    shares = {f"top-{k}": top_k(ranks, k) for k in (1, 20)}
    return shares | {"mAP": mean_average_precision(ranks)}


def product(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """All similarities, a block at a time; an exact search needs half of them."""
    block = np.empty((BLOCK, len(embeddings)), np.float32)
    for start in range(0, len(embeddings), BLOCK):
        part = embeddings[start : start + BLOCK]
        np.matmul(part, embeddings.T, out=block[: len(part)])
    return {}


def textbook(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """As in the usual repositories: all distances, all rows sorted, then query by query."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1)
    right = (individuals[order] == individuals[:, None]).astype(np.int32)
    first, precisions = [], []
    for row in right[:, :-1]:  # the query itself comes last
        if row.any():
            first.append(1 + row.argmax())
            precision = row.cumsum() / np.arange(1, len(row) + 1)
            precisions.append((precision * row).sum() / row.sum())
    shares = {f"top-{k}": np.mean(np.array(first) <= k) for k in (1, 20)}
    return shares | {"mAP": np.mean(precisions)}


def scikit_learn(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """scikit-learn's brute-force neighbours, the 20 nearest."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=20, algorithm="brute", metric="cosine").fit(embeddings)
    return _of_the_nearest(search.kneighbors(return_distance=False), individuals)


def faiss(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """FAISS's exact search, the 20 nearest."""
    from faiss import IndexFlatIP

    index = IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    found = index.search(embeddings, 21)[1]
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(axis=1), -1] = True
    return _of_the_nearest(found[~itself].reshape(-1, 20), individuals)


def _of_the_nearest(nearest: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """Top-1 and top-20 by the nearest (n, 20) of each query that has a true match."""
    right = individuals[nearest] == individuals[:, None]
    counted = np.bincount(individuals)[individuals] > 1
    return {f"top-{k}": right[counted, :k].any(axis=1).mean() for k in (1, 20)}


def wildlife_tools(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """wildlife-tools' similarity of all pairs and its classifier by the nearest one."""
    from wildlife_tools.inference import KnnClassifier
    from wildlife_tools.similarity import CosineSimilarity

    cosines = CosineSimilarity()(embeddings, embeddings)["cosine"]
    np.fill_diagonal(cosines, -np.inf)
    right = KnnClassifier(1, individuals)(cosines) == individuals
    return {"top-1": right[np.bincount(individuals)[individuals] > 1].mean()}


def metric_learning(embeddings: np.ndarray, individuals: np.ndarray) -> dict[str, float]:
    """pytorch-metric-learning's AccuracyCalculator over all ranks, as mAP needs."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    wanted = {"precision_at_1": "top-1", "mean_average_precision": "mAP"}
    calculator = AccuracyCalculator(tuple(wanted), device=torch.device("cpu"))
    found = calculator.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(individuals))
    return {name: found[key] for key, name in wanted.items()}


WAYS = {
    "ours": ours,
    "product": product,
    "textbook": textbook,
    "scikit-learn": scikit_learn,
    "faiss": faiss,
    "wildlife-tools": wildlife_tools,
    "pytorch-metric-learning": metric_learning,
}
FITTING = tuple(WAYS)[:-1]  # pytorch-metric-learning holds 6 GB at 10,000


def prepare_evaluation(way: str, n: int, dim: int, case: str) -> Run:
    """What is timed; it returns the measures that the way computes, as shares."""
    WAYS[way](*data(60, 8, "six each"))  # loads libraries, starts threads
    return functools.partial(WAYS[way], *data(n, dim, case))


def shares(way: str) -> list[list[float]] | None:
    """A way's top-1, top-20 and mAP of 1,200 embeddings."""
    found = prepare_evaluation(way, 1200, 32, "heavy tail")()
    return [[found.get(name, np.nan) for name in ("top-1", "top-20", "mAP")]] if found else None


EVALUATION = Task(
    "evaluation",
    tuple(WAYS),
    {
        "quick": [{"n": 3000, "dim": 256, "case": "six each"}],
        "full": [
            {"n": 5000, "dim": DIM, "case": "six each"},
            {"n": 10_000, "dim": DIM, "case": "six each", "ways": FITTING},
            {"n": 10_000, "dim": DIM, "case": "heavy tail", "ways": FITTING},
        ],
    },
    prepare_evaluation,
    shares,
    allowed=1e-6,  # the sums are taken in another order
)

"""Ranks of true matches by similarity, for which each pair of annotations is multiplied once."""

import numpy as np
import torch

TIE = 2e-6  # similarities that close are ties: a product's last columns are rounded otherwise
SIDE = 2048  # rows and columns of similarities at once: 17 MB, and as much turned
BLOCK = 512  # whole rows at once: 512 x 20,000 similarities are 41 MB
FEW = 80  # true matches of a query up to which a pass over the candidates for each is fastest


def order(individuals: np.ndarray) -> np.ndarray:
    """An order (n,) of rows for `rank`: individuals side by side, those of many rows last."""
    _, codes, counts = np.unique(individuals, return_inverse=True, return_counts=True)
    return np.lexsort((codes, counts[codes] > FEW))


def rank(unit: torch.Tensor, individuals: np.ndarray) -> np.ndarray:
    """Rank all other rows for each of `unit` (n, D), vectors of length 1 in the order of `order`.

    Returns (n, 5) float64: candidates, true matches, rank of the nearest true match, average
    precision (both NaN without any), cosine to the nearest candidate (NaN without any). A tie (up
    to TIE) with a wrong candidate counts as behind it. The two similarities of a pair are one
    number: half of all products are enough, but for individuals of more than FEW rows.
    """
    starts = np.flatnonzero(np.r_[True, individuals[1:] != individuals[:-1]])
    groups = np.c_[starts, np.r_[starts[1:], len(individuals)]]
    large = np.diff(groups)[:, 0] > FEW
    ranks = [_rank_small(unit, groups[~large])]
    ranks += [_rank_large(unit, *group) for group in groups[large]]
    return np.concatenate(ranks)


def _rank_small(unit: torch.Tensor, groups: np.ndarray) -> np.ndarray:
    """Rank the rows of the first individuals, which begin and end as in `groups` (m, 2)."""
    tally = _Tally([true for group in groups for true in _true_matches(unit, *group)])
    count = len(tally.true)
    for top in range(0, count, SIDE):
        bottom = min(top + SIDE, count)
        for left in range(top, len(unit), SIDE):
            part = (unit[top:bottom] @ unit[left : left + SIDE].T).numpy()
            for start, end in groups[(groups[:, 0] < bottom) & (groups[:, 1] > left)]:
                part[max(0, start - top) : end - top, max(0, start - left) : end - left] = -np.inf
            tally.count(part, top)
            if left > top:
                tally.count(np.ascontiguousarray(part[:, : max(0, count - left)].T), left)
    return tally.ranks(len(unit) - 1)


def _true_matches(unit: torch.Tensor, start: int, end: int) -> list[np.ndarray]:
    """Similarities of each row of an individual to its other ones, falling."""
    similar = (unit[start:end] @ unit[start:end].T).numpy()
    return [np.sort(np.delete(row, place))[::-1] for place, row in enumerate(similar)]


class _Tally:
    """For each query, how many wrong candidates are ahead of each true match, block by block."""

    def __init__(self, true: list[np.ndarray]) -> None:
        self.true = true
        self.least = [similar - np.float32(TIE) for similar in true]
        self.wrong = [np.zeros(len(similar), int) for similar in true]
        self.best = np.full(len(true), -np.inf)

    def count(self, part: np.ndarray, top: int) -> None:
        """Count similarities (queries, candidates) of the queries from `top` on; -inf: none."""
        queries = slice(top, top + len(part))
        self.best[queries] = np.maximum(self.best[queries], part.max(axis=1, initial=-np.inf))
        for row, least, wrong in zip(part, self.least[queries], self.wrong[queries], strict=True):
            for place, score in enumerate(least):
                wrong[place] += np.count_nonzero(row >= score)

    def ranks(self, candidates: int) -> np.ndarray:
        """The five columns of each query."""
        counted = zip(self.true, self.wrong, self.best, strict=True)
        return np.array([_row(candidates, *query) for query in counted]).reshape(-1, 5)


def _rank_large(unit: torch.Tensor, start: int, end: int) -> np.ndarray:
    """Rank the rows of one individual, by sorting the similarities of each."""
    ranks = []
    for top in range(start, end, BLOCK):
        part = (unit[top : min(top + BLOCK, end)] @ unit.T).numpy()
        for query, row in enumerate(part, top - start):
            true = np.sort(np.delete(row[start:end], query))[::-1]
            row[start:end] = -np.inf
            row.sort()
            wrong = len(row) - np.searchsorted(row, true - np.float32(TIE))
            ranks.append(_row(len(row) - 1, true, wrong, row[-1]))
    return np.array(ranks)


def _row(candidates: int, true: np.ndarray, wrong: np.ndarray, best: float) -> tuple[float, ...]:
    """Columns of a query with `wrong` candidates ahead of each true match, `best` the nearest."""
    if not len(true):
        return candidates, 0, np.nan, np.nan, best if candidates else np.nan
    place = np.arange(1, len(true) + 1)
    precision = (place / (place + wrong)).mean()
    return candidates, len(true), 1 + wrong[0], precision, max(best, true[0])

"""Ranks of true matches by similarity. `rank` returns what these plain lines do, but faster:

>>> def plain_rank(unit, individuals):
...     ranks = []
...     for query, similarity in enumerate(unit @ unit.T):
...         right = individuals == individuals[query]
...         wrong = similarity[~right]
...         right[query] = False  # a query is no candidate of its own
...         true = np.sort(similarity[right])[::-1]  # nearest first
...         ahead = np.array([np.sum(wrong >= match - np.float32(TIE)) for match in true])
...         place = np.arange(1, len(true) + 1)
...         precision = np.mean(place / (place + ahead)) if len(true) else np.nan
...         first = 1 + ahead[0] if len(true) else np.nan
...         best = np.delete(similarity, query).max() if len(unit) > 1 else np.nan
...         ranks.append((len(unit) - 1, len(true), first, precision, best))
...     return np.array(ranks, RANKS)

The similarities a to b and b to a are one number: half of the products are enough. They are counted
tile by tile as they come, and only those of individuals with more than FEW rows are sorted.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

RANKS = np.dtype(
    [
        ("candidates", int),
        ("relevant", int),  # true matches among the candidates
        ("first_match_rank", float),  # of the nearest true match; NaN without any
        ("average_precision", float),  # NaN without any true match
        ("best_score", float),  # similarity to the nearest candidate; NaN without any
    ]
)
TIE = 2e-6  # similarities that close are ties: a product's last columns are rounded otherwise
ROWS, COLUMNS = 1024, 8192  # of similarities at once: 34 MB
BLOCK = 400  # whole rows at once: 400 x 20,000 similarities are 32 MB
FEW = 80  # rows of an individual up to which a pass over the candidates for each match is fastest


def order(individuals: np.ndarray) -> np.ndarray:
    """An order (n,) of rows for `rank`: individuals side by side, those of most rows last."""
    _, codes, counts = np.unique(individuals, return_inverse=True, return_counts=True)
    return np.lexsort((codes, counts[codes]))


def rank(unit: np.ndarray, individuals: np.ndarray) -> np.ndarray:
    """Rank all other rows for each of `unit` (n, D), vectors of length 1 in the order of `order`.

    Returns (n,) RANKS. A wrong candidate up to TIE less similar than a true match is ahead of it.
    """
    starts = np.flatnonzero(np.r_[True, individuals[1:] != individuals[:-1]])
    ends = np.r_[starts[1:], len(individuals)]
    few = ends - starts <= FEW
    small, large = (list(zip(starts[of], ends[of], strict=True)) for of in (few, ~few))
    true: list[np.ndarray] = []  # of each row: similarities to its individual's others, falling
    for start, end in small:
        similar = unit[start:end] @ unit[start:end].T
        true += [np.sort(np.delete(row, place))[::-1] for place, row in enumerate(similar)]
    tally = _Tally(true)
    # numpy counts and sorts without the interpreter's lock
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        _rank_small(unit, starts[few], ends[few], tally, pool)
        ranks = [_rank_large(unit, *group, tally, pool) for group in large]
    return np.concatenate([tally.ranks(len(unit) - 1), *ranks])


def _rank_small(
    unit: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    tally: "_Tally",
    pool: ThreadPoolExecutor,
) -> None:
    """Count the candidates among the rows of individuals with few, from `starts` to `ends`."""
    count = len(tally.true)
    buffer = np.empty(min(ROWS, count) * min(COLUMNS, count), np.float32)
    for top in range(0, count, ROWS):
        bottom = min(top + ROWS, count)
        for left in range(top, count, COLUMNS):
            right = min(left + COLUMNS, count)
            tile = _product(unit[top:bottom], unit[left:right], buffer)
            inside = (starts < bottom) & (ends > left)
            for start, end in zip(starts[inside], ends[inside], strict=True):
                tile[max(0, start - top) : end - top, max(0, start - left) : end - left] = -np.inf
            rows_counted = pool.submit(tally.count_rows, tile, top)
            # the columns left of `bottom` are rows of this tile, too
            tally.count_columns(tile[:, max(0, bottom - left) :], max(left, bottom))
            rows_counted.result()


def _product(rows: np.ndarray, columns: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """Similarities (rows, columns), in memory that is used again: to get it anew takes time."""
    product = buffer[: len(rows) * len(columns)].reshape(len(rows), len(columns))
    return np.matmul(rows, columns.T, out=product)


class _Tally:
    """For each query, how many wrong candidates are ahead of each true match, tile by tile."""

    def __init__(self, true: list[np.ndarray]) -> None:
        """`true`: similarities of each query's true matches, nearest first; most matches last."""
        self.true, counts = true, np.array([len(similar) for similar in true], int)
        most, queries = counts.max(initial=0), len(true)
        # the queries from first_query[k] on have more than k true matches
        self.first_query = np.searchsorted(counts, np.arange(most), side="right")
        self.threshold = np.empty((most, queries), np.float32)  # to be ahead of the k-th match
        self.ahead = np.zeros((most, queries), np.int32)
        for query, similar in enumerate(true):
            self.threshold[: len(similar), query] = similar - np.float32(TIE)
        self.best_wrong = np.full(queries, -np.inf)

    def count_rows(self, tile: np.ndarray, top: int) -> None:
        """Count similarities (queries, candidates) of the queries from `top` on; -inf: none."""
        queries = slice(top, top + len(tile))
        self.best_wrong[queries] = np.maximum(self.best_wrong[queries], tile.max(axis=1))
        for query, row in enumerate(tile, top):
            for k in range(len(self.true[query])):
                self.ahead[k, query] += np.count_nonzero(row >= self.threshold[k, query])

    def count_columns(self, tile: np.ndarray, left: int) -> None:
        """Count similarities (candidates, queries) of the queries from `left` on."""
        right = left + tile.shape[1]
        best = self.best_wrong[left:right]
        np.maximum(best, tile.max(axis=0), out=best)
        for top in range(0, len(tile), 255):  # bytes can count so many
            for k, first in enumerate(np.maximum(self.first_query, left)):
                ahead = tile[top : top + 255, first - left :] >= self.threshold[k, first:right]
                self.ahead[k, first:right] += ahead.view(np.uint8).sum(axis=0, dtype=np.uint8)

    def ranks(self, candidates: int) -> np.ndarray:
        """RANKS of each query."""
        columns = zip(self.true, self.ahead.T, self.best_wrong, strict=True)
        ranks = [
            _ranks(candidates, true, ahead[: len(true)], best) for true, ahead, best in columns
        ]
        return np.array(ranks, RANKS)


def _rank_large(
    unit: np.ndarray, start: int, end: int, tally: "_Tally", pool: ThreadPoolExecutor
) -> np.ndarray:
    """Rank the rows of one individual by sorting, and count them for the queries of `tally`."""
    ranks, buffer = [], np.empty(min(BLOCK, end - start) * len(unit), np.float32)
    for top in range(start, end, BLOCK):
        block = _product(unit[top : min(top + BLOCK, end)], unit, buffer)
        tally.count_columns(block[:, : len(tally.true)], 0)
        shares = np.array_split(np.arange(len(block)), torch.get_num_threads())
        ranked = partial(_rank_rows, block, top=top, start=start, end=end)
        ranks += pool.map(ranked, [share for share in shares if len(share)])
    return np.concatenate(ranks)


def _rank_rows(block: np.ndarray, rows: np.ndarray, top: int, start: int, end: int) -> np.ndarray:
    """RANKS of queries by their similarities to all rows; `start` to `end` are their individual's.

    `rows` of `block`, whose first row is query `top`; they are sorted where they are.
    """
    ranks = []
    for place in rows:
        row = block[place]
        true = np.sort(np.delete(row[start:end], top + place - start))[::-1]
        row[start:end] = -np.inf
        row.sort()
        ahead = len(row) - np.searchsorted(row, true - np.float32(TIE))
        ranks.append(_ranks(len(row) - 1, true, ahead, row[-1]))
    return np.array(ranks, RANKS)


def _ranks(
    candidates: int, true: np.ndarray, ahead: np.ndarray, best_wrong: float
) -> tuple[float, ...]:
    """RANKS of a query with `ahead` wrong candidates ahead of each true match."""
    if not len(true):
        return candidates, 0, np.nan, np.nan, best_wrong if candidates else np.nan
    place = np.arange(1, len(true) + 1)
    precision = (place / (place + ahead)).mean()
    return candidates, len(true), 1 + ahead[0], precision, max(best_wrong, true[0])

"""Ranks of true matches by similarity, for which each pair of annotations is multiplied once."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

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

    Returns (n, 5) float64: candidates, true matches, rank of the nearest true match, average
    precision (both NaN without any), cosine to the nearest candidate (NaN without any). A tie (up
    to TIE) with a wrong candidate counts as behind it. The two similarities of a pair are one
    number: half of all products are enough, but within individuals of more than FEW rows.
    """
    starts = np.flatnonzero(np.r_[True, individuals[1:] != individuals[:-1]])
    groups = np.c_[starts, np.r_[starts[1:], len(individuals)]]
    large = np.diff(groups)[:, 0] > FEW
    tally = _Tally([true for group in groups[~large] for true in _true_matches(unit, *group)])
    # numpy counts and sorts without the interpreter's lock
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        _rank_small(unit, groups[~large], tally, pool)
        ranks = [_rank_large(unit, *group, tally, pool) for group in groups[large]]
    return np.concatenate([tally.ranks(len(unit) - 1), *ranks])


def _rank_small(
    unit: np.ndarray, groups: np.ndarray, tally: "_Tally", pool: ThreadPoolExecutor
) -> None:
    """Count the candidates among the first individuals, which begin and end as in `groups`."""
    count = len(tally.true)
    buffer = np.empty(min(ROWS, count) * min(COLUMNS, count), np.float32)
    for top in range(0, count, ROWS):
        bottom = min(top + ROWS, count)
        for left in range(top, count, COLUMNS):
            right = min(left + COLUMNS, count)
            part = _product(unit[top:bottom], unit[left:right], buffer)
            for start, end in groups[(groups[:, 0] < bottom) & (groups[:, 1] > left)]:
                part[max(0, start - top) : end - top, max(0, start - left) : end - left] = -np.inf
            rows = pool.submit(tally.count_rows, part, top)
            # those left of `bottom` are rows of the same block
            tally.count_columns(part[:, max(0, bottom - left) :], max(left, bottom))
            rows.result()


def _product(rows: np.ndarray, columns: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    """Similarities (rows, columns), in memory that is used again: to get it anew takes time."""
    part = buffer[: len(rows) * len(columns)].reshape(len(rows), len(columns))
    return np.matmul(rows, columns.T, out=part)


def _true_matches(unit: np.ndarray, start: int, end: int) -> list[np.ndarray]:
    """Similarities of each row of an individual to its other ones, falling."""
    similar = unit[start:end] @ unit[start:end].T
    return [np.sort(np.delete(row, place))[::-1] for place, row in enumerate(similar)]


class _Tally:
    """For each query, how many wrong candidates are ahead of each true match, block by block."""

    def __init__(self, true: list[np.ndarray]) -> None:
        """`true`: similarities of each query's true matches, falling; those with most last."""
        self.true, counts = true, np.array([len(similar) for similar in true], int)
        shape = counts.max(initial=0), len(true)
        self.first = np.searchsorted(counts, np.arange(shape[0]), side="right")  # with a k-th match
        self.least, self.wrong = np.empty(shape, np.float32), np.zeros(shape, np.int32)
        for query, similar in enumerate(true):
            self.least[: len(similar), query] = similar - np.float32(TIE)
        self.best = np.full(len(true), -np.inf)

    def count_rows(self, part: np.ndarray, top: int) -> None:
        """Count similarities (queries, candidates) of the queries from `top` on; -inf: none."""
        queries = slice(top, top + len(part))
        self.best[queries] = np.maximum(self.best[queries], part.max(axis=1))
        for query, row in enumerate(part, top):
            for place in range(len(self.true[query])):
                self.wrong[place, query] += np.count_nonzero(row >= self.least[place, query])

    def count_columns(self, part: np.ndarray, left: int) -> None:
        """Count similarities (candidates, queries) of the queries from `left` on."""
        right = left + part.shape[1]
        np.maximum(self.best[left:right], part.max(axis=0), out=self.best[left:right])
        for top in range(0, len(part), 255):  # bytes can count so many
            for place, first in enumerate(np.maximum(self.first, left)):
                ahead = part[top : top + 255, first - left :] >= self.least[place, first:right]
                self.wrong[place, first:right] += ahead.view(np.uint8).sum(axis=0, dtype=np.uint8)

    def ranks(self, candidates: int) -> np.ndarray:
        """The five columns of each query."""
        counted = zip(self.true, self.wrong.T, self.best, strict=True)
        rows = [_row(candidates, true, wrong[: len(true)], best) for true, wrong, best in counted]
        return np.array(rows).reshape(-1, 5)


def _rank_large(
    unit: np.ndarray, start: int, end: int, tally: "_Tally", pool: ThreadPoolExecutor
) -> np.ndarray:
    """Rank the rows of one individual by sorting, and count them for the queries of `tally`."""
    ranks, buffer = [], np.empty(min(BLOCK, end - start) * len(unit), np.float32)
    for top in range(start, end, BLOCK):
        part = _product(unit[top : min(top + BLOCK, end)], unit, buffer)
        tally.count_columns(part[:, : len(tally.true)], 0)
        shares = np.array_split(np.arange(len(part)), torch.get_num_threads())
        ranked = partial(_rank_rows, part, top=top, start=start, end=end)
        ranks += pool.map(ranked, [own for own in shares if len(own)])
    return np.concatenate(ranks)


def _rank_rows(part: np.ndarray, rows: np.ndarray, top: int, start: int, end: int) -> np.ndarray:
    """Columns of queries by their similarities to all rows, of which start to end are their own.

    `rows` of `part`, whose first one is query `top`; they are sorted where they are.
    """
    ranks = []
    for place in rows:
        row = part[place]
        true = np.sort(np.delete(row[start:end], top + place - start))[::-1]
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

"""Metrics of many queries at once, one value a query, each named in full.

Q queries, T positives of all of them together. Junk is removed before ranks are counted and
ties count against the model: `multigrain.metrics.positive_ranks` and `multigrain.exact_ranks`
see to both. A mean is taken over the values that are not NaN.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from multigrain.metrics import MetricError, Ranks

Values = npt.NDArray[np.float64]  # [Q], NaN for a query without positives
UKBENCH_GROUP = 4


class RankTable(NamedTuple):
    """The ranks of every query's positives.

    `ranks` int64 [T], 0-based, ascending within a query; `query` int64 [T] ascending, whose
    they are; `place` int64 [T], the number of positives before it (j of the formulas);
    `num_positives` int64 [Q], those that were not found included.
    """

    ranks: npt.NDArray[np.int64]
    query: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    num_positives: npt.NDArray[np.int64]

    @classmethod
    def of(cls, ranks: Sequence[Ranks], num_positives: Sequence[int]) -> Self:
        """Put the ascending ranks of each query together; raises MetricError for others."""
        found = np.array([len(own) for own in ranks], np.int64)
        wanted = np.asarray(num_positives, np.int64)
        if found.shape != wanted.shape or (found > wanted).any():
            raise MetricError(
                f"{len(ranks)} queries, {len(wanted)} counts, or more ranks than that"
            )
        flat = np.concatenate([np.empty(0, np.int64), *ranks]).astype(np.int64)
        query = np.repeat(np.arange(len(found)), found)
        place = np.arange(len(flat)) - np.repeat(np.cumsum(found) - found, found)
        steps = np.diff(flat)[np.diff(query) == 0] if len(flat) else flat
        if (flat < 0).any() or (steps <= 0).any():
            raise MetricError("ranks of a query must ascend from 0")
        return cls(flat, query, place, wanted)

    def sums(self, terms: npt.NDArray[np.floating | np.bool_]) -> Values:
        """Sum terms [T] by query, NaN for queries without positives."""
        total = np.bincount(self.query, weights=terms, minlength=len(self.num_positives))
        return np.where(self.num_positives > 0, total, np.nan)

    def each(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Spread a number of each query [Q] over its positives [T]."""
        return numbers[self.query].astype(np.int64)


def ap(table: RankTable) -> Values:
    """Average precision, rectangular: `1/n sum_j (j+1)/(r_j+1)` (scikit-learn's)."""
    return table.sums(_precision(table)) / _n(table)


def ap_trapezoid(table: RankTable) -> Values:
    """`1/2n sum_j [(r_j == 0 ? 1 : j/r_j) + (j+1)/(r_j+1)]` (Holidays, Copydays, Oxford/Paris)."""
    before = np.where(table.ranks == 0, 1.0, table.place / np.maximum(table.ranks, 1))
    return table.sums(before + _precision(table)) / (2 * _n(table))


def map_at_k(table: RankTable, k: int) -> Values:
    """Average precision among the first k, over `min(n, k)`: GLDv2's normaliser.

    A positive that was not found adds nothing.
    """
    early = np.where(table.ranks < k, _precision(table), 0.0)
    return table.sums(early) / np.minimum(_n(table), k)


def map_at_r(table: RankTable) -> Values:
    """`1/R sum over r_j < R of (j+1)/(r_j+1)`, R = n (Musgrave et al. 2020, section 4)."""
    early = np.where(table.ranks < table.each(table.num_positives), _precision(table), 0.0)
    return table.sums(early) / _n(table)


def r_precision(table: RankTable) -> Values:
    """Share of positives among the first R, R = n."""
    return table.sums(table.ranks < table.each(table.num_positives)) / _n(table)


def recall_at_k(table: RankTable, k: int) -> Values:
    """1 where a positive is among the first k, else 0 (metric learning's Recall@k)."""
    return table.sums((table.place == 0) & (table.ranks < k))


def cmc_at_k(table: RankTable, k: int) -> Values:
    """Cumulative match: 1 where the first match stands among the first k.

    The formula of `recall_at_k`; re-identification removes the query's own camera as junk.
    """
    return recall_at_k(table, k)


def minp(table: RankTable) -> Values:
    """`n / (r_last + 1)`, 0 where a positive was not found (Ye et al. 2021: mINP is the mean)."""
    last = (table.place == table.each(table.num_positives) - 1) / (table.ranks + 1)
    return table.sums(last) * _n(table)


def precision_at_k(table: RankTable, k: int) -> Values:
    """Share of positives among the first k, k cut to the last positive's place.

    The mP@k of revisited Oxford and Paris (Radenovic et al. 2018).
    """
    found = np.bincount(table.query, minlength=len(table.num_positives))
    # A positive that was not found stands behind everything.
    ends = np.where(found < table.num_positives, k, 0)
    np.maximum.at(ends, table.query, table.ranks + 1)
    return table.sums(table.ranks < k) / np.maximum(np.minimum(ends, k), 1)


def ukbench_ns(table: RankTable) -> Values:
    """Positives among the first four of groups of four; the query counts itself, best 4."""
    if (table.num_positives != UKBENCH_GROUP).any():
        raise MetricError("ukbench_ns is for four positives a query, itself among them")
    return table.sums(table.ranks < UKBENCH_GROUP)


Metric = Callable[[RankTable], Values]

_METRICS: dict[str, Metric] = {
    function.__name__: function
    for function in (ap, ap_trapezoid, map_at_r, r_precision, minp, ukbench_ns)
}
_METRICS_AT: dict[str, Callable[[RankTable, int], Values]] = {
    "map": map_at_k,
    "recall": recall_at_k,
    "cmc": cmc_at_k,
    "precision": precision_at_k,
}


def metric(name: str) -> Metric:
    """The metric of a name: `ap`, `map_at_r`, ..., or with a number `recall_at_5`.

    Raises MetricError for a name that none has.
    """
    if name in _METRICS:
        return _METRICS[name]
    parts = re.fullmatch("([a-z]+)_at_([1-9][0-9]*)", name)
    if parts is None or parts[1] not in _METRICS_AT:
        at = (f"{kind}_at_k" for kind in _METRICS_AT)
        raise MetricError(f"no metric {name!r}: choose of {', '.join([*_METRICS, *at])}")
    function, k = _METRICS_AT[parts[1]], int(parts[2])
    return lambda table: function(table, k)


def highest_rank(names: Sequence[str], num_positives: Sequence[int]) -> int | None:
    """The number of ranks these metrics look at; None when they look at all."""
    highest = 1
    for name in names:
        if name in ("map_at_r", "r_precision"):
            highest = max(highest, *num_positives, 1)
        elif name == "ukbench_ns":
            highest = max(highest, UKBENCH_GROUP)
        elif name in _METRICS:
            return None
        else:
            highest = max(highest, int(name.rpartition("_")[2]))
    return highest


def mean(values: Values) -> float:
    """Mean over the queries that have positives; raises MetricError when there is none."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        raise MetricError("no query has a positive: nothing to score")
    return float(kept.mean())


def _precision(table: RankTable) -> Values:
    """Precision at each positive [T]."""
    precision: Values = (table.place + 1) / (table.ranks + 1)
    return precision


def _n(table: RankTable) -> npt.NDArray[np.int64]:
    """Positives of each query; 1 where there is none, whose sum is NaN already."""
    return np.maximum(table.num_positives, 1)

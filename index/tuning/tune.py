"""Stage F: the fewest lists and candidates that reach a recall, measured on held-out queries.

Letters: Q queries, D embedding.
"""

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from index.faiss_lists import nearest_rows
from index.manifest import CurvePoint, SearchPart
from index.searching.candidates import unit_blocks
from index.searching.ranker import Ranker
from index.tuning.curve import best_point, fastest_point

RERANKS = (20, 50, 100, 200)
NUM_NEIGHBOURS = 10
# The truth of a larger collection is that of a sample, or it would take longer than the build.
MAX_TRUTH_ROWS = 1_000_000
# What a request may ask for beyond the target; a curve that ends at the target offers nothing.
_REQUESTABLE_RECALL = 0.99
_LEAST_GAIN = 1e-3
_BATCH = 32
_RESAMPLES = 1000
_LOWER_END = 0.025  # of the 95 % interval
# A product of fp32 matrices and a sum in fp64 of the same two vectors differ by less.
_COSINE_ERROR = 5e-6
_SEED = 20190216

_logger = logging.getLogger(__name__)


def tune(
    ranker: Ranker,
    queries: NDArray[np.float32],
    *,
    target: float,
    num_threads: int,
    seed: int = _SEED,
    clock: Callable[[], float] = time.perf_counter,
    max_truth_rows: int = MAX_TRUTH_ROWS,
) -> SearchPart:
    """Measure searches of unit queries fp32 [Q, D] and take the fastest that reaches the target.

    A search reaches it when the lower end of its recall's 95 % interval does. Where none does,
    the best is taken, with a warning. The points measured depend on the rows, the queries and
    the seed only; their times, and so which of those that reach the target is taken, on the
    machine.
    """
    if not len(queries):
        _logger.warning("the search was not tuned: no photo to ask for can be read")
        return SearchPart(target=target)
    bench = _Bench(
        ranker,
        queries / np.linalg.norm(queries, axis=1, keepdims=True),
        num_threads=num_threads,
        seed=seed,
        clock=clock,
        max_truth_rows=max_truth_rows,
    )
    for recall in (target, max(target, _REQUESTABLE_RECALL)):
        _explore(bench.at, nlist=ranker.nlist, recall=recall)
    curve = [bench.points[key] for key in sorted(bench.points)]
    point = fastest_point(curve, target)
    if point is None:
        point = best_point(curve)
        _logger.warning(
            "recall %g was asked for, the best search reaches %.4f: nprobe %d, rerank %d",
            target,
            point.recall_lower,
            point.nprobe,
            point.rerank,
        )
    return SearchPart(
        **point.model_dump(exclude={"microseconds"}),
        curve=curve,
        target=target,
        num_queries=len(queries),
        sampled_rows=bench.sampled_rows,
    )


def _explore(at: Callable[[int, int], CurvePoint], *, nlist: int, recall: float) -> None:
    """Measure towards the fewest lists that reach a recall, for each number of candidates."""
    most, has_reached = nlist, False
    for rerank in RERANKS:
        # More candidates take longer, so they are of use only with fewer lists.
        if has_reached and (most == 0 or at(most, rerank).recall_lower < recall):
            return
        too_few = _too_few_lists(lambda nprobe: at(nprobe, rerank), most=most, recall=recall)  # noqa: B023
        if too_few is not None:
            most, has_reached = too_few, True
    if not has_reached:
        at(nlist, RERANKS[-1])


def _too_few_lists(at: Callable[[int], CurvePoint], *, most: int, recall: float) -> int | None:
    """The most lists measured that miss a recall which a few more reach: doubled, then halved.

    None where up to `most` do not reach it, or four times the lists add nothing: what is missing
    then is lost by the code.
    """
    low, high = 0, 1
    while at(high).recall_lower < recall:
        if high == most or (high >= 4 and at(high).recall < at(high // 4).recall + _LEAST_GAIN):  # noqa: PLR2004
            return None
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        if at(middle).recall_lower < recall:
            low = middle
        else:
            high = middle
    return low


class _Bench:
    """Measures each search of the held-out queries once, on one thread."""

    def __init__(
        self,
        ranker: Ranker,
        queries: NDArray[np.float32],
        *,
        num_threads: int,
        seed: int,
        clock: Callable[[], float],
        max_truth_rows: int,
    ) -> None:
        self.points: dict[tuple[int, int], CurvePoint] = {}
        self._ranker, self._queries, self._clock = ranker, queries, clock
        random = np.random.default_rng(seed)
        ids = ranker.live_ids
        self.sampled_rows = max_truth_rows if len(ids) > max_truth_rows else None
        if self.sampled_rows:
            ids = np.sort(random.choice(ids, self.sampled_rows, replace=False))
        # Of a sample, truth and answers are both of the sample's rows.
        self._source = ranker.within(ids)
        self._num_true = min(NUM_NEIGHBOURS, len(ids))
        truth = nearest_rows(
            queries, unit_blocks(ranker.rows, ids), self._num_true, num_threads=num_threads
        )
        self._least_cosines = truth.scores[:, -1] - _COSINE_ERROR
        self._resamples = random.multinomial(
            len(queries), np.full(len(queries), 1 / len(queries)), size=_RESAMPLES
        )

    def at(self, nprobe: int, rerank: int) -> CurvePoint:
        """Recall@10 and time of a search; a row as near as the tenth true one counts as true."""
        key = (nprobe, rerank)
        if key not in self.points:
            self.points[key] = self._measured(nprobe, rerank)
        return self.points[key]

    def _measured(self, nprobe: int, rerank: int) -> CurvePoint:
        recalls, seconds = list[float](), list[float]()
        for start in range(0, len(self._queries), _BATCH):
            batch = self._queries[start : start + _BATCH]
            began = self._clock()
            found = self._ranker.search_in(
                self._source, batch, NUM_NEIGHBOURS, nprobe=nprobe, rerank=rerank
            )
            seconds.append((self._clock() - began) / len(batch))
            least = self._least_cosines[start : start + _BATCH]
            recalls += [
                int((one.scores >= bound).sum()) / self._num_true
                for one, bound in zip(found, least, strict=True)
            ]
        resampled = self._resamples @ np.array(recalls) / len(recalls)
        return CurvePoint(
            nprobe=nprobe,
            rerank=rerank,
            recall=float(np.mean(recalls)),
            recall_lower=float(np.quantile(resampled, _LOWER_END)),
            # Of the batches the median: another process's moment of work is no property of it.
            microseconds=round(1e6 * float(np.median(seconds)), 1),
        )

"""What lists, codes and fewer dimensions lose, each against exact search of the stored rows.

Letters: Q queries, D embedding, d dimensions kept.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.judging.questions import NUM_NEIGHBOURS, Ids, Judged, Questions, Score, judge
from index.searcher import Searcher
from multigrain.ranking import exact_search

# 256 MiB of fp32 values: rows beyond are drawn, those that answer a query always among them.
_MOST_VALUES = 1 << 26
_BATCH = 32
_SHARES = (1, 2, 4, 8, 16)
_SEED = 20190221


class Line(NamedTuple):
    """One way to search, what it finds, and milliseconds a query where it is a search.

    `key` names it in expectations: `tuned` of `tuned.recall_at_1`.
    """

    key: str
    name: str
    judged: Judged
    milliseconds: float | None = None

    @property
    def score(self) -> Score:
        """The means over queries."""
        return self.judged.score


def search_lines(searcher: Searcher, questions: Questions) -> Iterator[Line]:
    """Exact search, then what codes alone find, fewer and fewer lists, and the tuned search."""
    rows, answers, nlist = questions.rows, questions.answers, searcher.nlist
    reference, seconds = _timed(lambda part: _ids(searcher, part, exact=True), rows)

    def line(key: str, name: str, found: Sequence[Ids], seconds: float) -> Line:
        return Line(key, name, judge(found, reference=reference, answers=answers), 1e3 * seconds)

    yield line("exact", "exact: every stored row", reference, seconds)
    if nlist == 0:
        return
    ranker = searcher.present.ranker
    coded = partial(ranker.coded, k=NUM_NEIGHBOURS, nprobe=nlist)
    yield line("codes", f"every list ({nlist}), codes alone", *_timed(coded, rows))
    for nprobe in _halved(nlist):
        search = partial(_ids, searcher, nprobe=nprobe)
        name = f"{nprobe} of {nlist} lists, re-scored"
        yield line(f"lists_{nprobe}", name, *_timed(search, rows))
    yield line("tuned", "the tuned search", *_timed(partial(_ids, searcher), rows))


def dimension_lines(searcher: Searcher, questions: Questions) -> Iterator[Line]:
    """Exact search with the first D, D / 2 ... D / 16 dimensions, each scaled to unit length.

    The axes of a whitening come by falling variance, so the first d of its D are the whitening
    to d. Where there are more rows than 2^26 / D, some are drawn, and all answers with them.
    """
    ids = _drawn(searcher, questions)
    gallery = searcher.present.embeddings(ids)
    reference: list[Ids] | None = None
    for share in _SHARES:
        num_dims = searcher.dim // share
        if num_dims < 1:
            return
        ranking = exact_search(
            _first(questions.rows, num_dims), _first(gallery, num_dims), NUM_NEIGHBOURS
        )
        found = list(ids[ranking.rows])
        reference = reference or found
        judged = judge(found, reference=reference, answers=questions.answers)
        yield Line(f"dimensions_{num_dims}", f"{num_dims} dimensions", judged)


def _drawn(searcher: Searcher, questions: Questions) -> Ids:
    ids, most = searcher.present.live_ids, _MOST_VALUES // searcher.dim
    if len(ids) <= most:
        return ids
    drawn = np.random.default_rng(_SEED).choice(ids, most, replace=False)
    return np.unique(np.concatenate([drawn, *questions.answers]))


def _first(rows: NDArray[np.float32], num_dims: int) -> NDArray[np.float32]:
    part = rows[:, :num_dims]
    # A row may have nothing in its first dimensions: then it is near nothing.
    norms = np.maximum(np.linalg.norm(part, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.ascontiguousarray(part / norms)


def _halved(nlist: int) -> list[int]:
    """All lists, half of them and so on down to one."""
    return [nlist >> step for step in range(nlist.bit_length())]


def _ids(searcher: Searcher, rows: NDArray[np.float32], **depth: Any) -> list[Ids]:
    return [one.ids for one in searcher.rank(rows, NUM_NEIGHBOURS, **depth)]


def _timed(
    search: Callable[[NDArray[np.float32]], list[Ids]], rows: NDArray[np.float32]
) -> tuple[list[Ids], float]:
    """What is found in batches of 32, and the median batch's seconds a query."""
    found, seconds = list[Ids](), list[float]()
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        began = time.perf_counter()
        found += search(part)
        seconds.append((time.perf_counter() - began) / len(part))
    return found, float(np.median(seconds))

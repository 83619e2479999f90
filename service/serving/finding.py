"""A batch of embeddings searched in one generation of the index.

Letters: Q queries, D embedding.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.searcher import Searcher
from index.searching.scoring import Ranked
from service.asking.paging import Picked, pick
from service.asking.plan import Plan
from service.batching.queries import Found, Query

_NOTHING = Picked(Ranked(np.empty(0, np.int64), np.empty(0, np.float32)), has_more=False)


def pick_pages(
    searcher: Searcher, queries: Sequence[Query], embeddings: NDArray[np.float32]
) -> list[Picked]:
    """The page each query asks for, embeddings fp32 [Q, D]; equal plans are searched together."""
    picked = [_NOTHING] * len(queries)
    for (plan, depth), rows in _groups(queries).items():
        allowed = searcher.matching(plan.filters) if plan.filters else None
        ranked = searcher.rank(
            embeddings[rows],
            depth,
            nprobe=plan.nprobe,
            recall=plan.recall,
            exact=plan.exact,
            allowed=allowed,
            rerank=plan.rerank,
        )
        for row, one in zip(rows, ranked, strict=True):
            search = queries[row].search
            assert search is not None
            picked[row] = pick(search.page, one, searcher.embeddings, searcher.calibration)
    return picked


def _groups(queries: Sequence[Query]) -> dict[tuple[Plan, int], list[int]]:
    """The rows of the queries that are searched, by plan and depth."""
    groups: dict[tuple[Plan, int], list[int]] = defaultdict(list)
    for row, query in enumerate(queries):
        if query.search is not None:
            groups[query.search.plan, query.search.page.depth].append(row)
    return groups


def hydrate(searcher: Searcher, queries: Sequence[Query], picked: Sequence[Picked]) -> list[Found]:
    """What the catalog knows of the pages, asked once for all."""
    hits = searcher.neighbours([one.ranked for one in picked])
    return [
        Found(
            neighbours,
            one.has_more,
            searcher.embeddings(one.ranked.ids.tolist())
            if query.search is not None and query.search.with_embeddings
            else None,
            one.collapsed,
        )
        for query, one, neighbours in zip(queries, picked, hits, strict=True)
    ]

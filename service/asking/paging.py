"""Which of the ranked contents are the hits of one page.

Letters: D embedding, n contents, m hits.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.searching.alike import collapse, dedup_cosine
from index.searching.scoring import Ranked
from multigrain.calibration import Calibration
from service.asking.options import MAX_WINDOW

# How deep is ranked: the least of these that holds the page. A deeper search re-scores more
# candidates, at a millisecond for a hundred of 2048 dimensions, and so may find others: few depths
# keep the pages of one query in one order, and its answer independent of who shares the batch.
DEPTHS = (16, 64, 256, MAX_WINDOW + 2)

Embeddings = Callable[[Sequence[int]], NDArray[np.float32]]


class Page(NamedTuple):
    """The part of a ranking that is wanted: `dedup` collapses near-duplicates."""

    limit: int = 10
    offset: int = 0
    min_score: float | None = None
    min_probability: float | None = None
    dedup: bool | float = False
    without_id: int | None = None

    @property
    def depth(self) -> int:
        """How many contents to rank: one more than the page ends with tells whether it is the last.

        Which ones collapse is only known once they are ranked, so then all are.
        """
        needed = self.offset + self.limit + 2
        if self.dedup is not False:
            return DEPTHS[-1]
        return next(d for d in DEPTHS if d >= needed)


class Collapsed(NamedTuple):
    """The cosine from which photos were one, and for how many others each hit stands, int64 [m]."""

    cosine: float
    counts: NDArray[np.int64]


class Picked(NamedTuple):
    """The contents of a page, whether others follow, and what was collapsed, where it was asked."""

    ranked: Ranked
    has_more: bool
    collapsed: Collapsed | None = None


def pick(
    page: Page, ranked: Ranked, embeddings: Embeddings, calibration: Calibration | None = None
) -> Picked:
    """The page of a ranking of `page.depth` contents; `embeddings` gives fp32 [n, D] by id.

    Without a calibration no content is probable enough for a page that asks for it.
    """
    keep = np.ones(len(ranked.ids), bool)
    if page.without_id is not None:
        keep &= ranked.ids != page.without_id
    if page.min_score is not None:
        keep &= ranked.scores >= page.min_score
    if page.min_probability is not None:
        known = calibration.probabilities(ranked.scores) if calibration else -np.ones(len(keep))
        keep &= known >= page.min_probability
    places = np.flatnonzero(keep)
    end = page.offset + page.limit
    wanted, collapsed = slice(page.offset, end), None
    cosine = dedup_cosine(page.dedup, calibration)
    if cosine is not None:
        rows = embeddings(ranked.ids[places].tolist())
        kept = collapse(rows, cosine, at_most=end + 1)
        places, collapsed = places[kept.places], Collapsed(cosine, kept.num_collapsed[wanted])
    return Picked(ranked.part(places[wanted]), len(places) > end, collapsed)

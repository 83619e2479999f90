"""Which of the ranked contents are the hits of one page.

Letters: D embedding, n contents.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.searching.scoring import Ranked
from multigrain.calibration import Calibration
from service.asking.options import MAX_WINDOW

# How deep is ranked: the least of these that holds the page. A deeper search re-scores more
# candidates, at a millisecond for a hundred of 2048 dimensions, and so may find others: few depths
# keep the pages of one query in one order, and its answer independent of who shares the batch.
DEPTHS = (16, 64, 256, MAX_WINDOW + 2)
# Equal embeddings differ from 1 by the rounding of their product.
_COSINE_ERROR = 1e-6

Embeddings = Callable[[Sequence[int]], NDArray[np.float32]]


class Page(NamedTuple):
    """The part of a ranking that is wanted; `dedup_cosine` None keeps all, `without_id` all ids."""

    limit: int = 10
    offset: int = 0
    min_score: float | None = None
    min_probability: float | None = None
    dedup_cosine: float | None = None
    without_id: int | None = None

    @property
    def depth(self) -> int:
        """How many contents to rank: one more than the page ends with tells whether it is the last.

        Which ones collapse is only known once they are ranked, so then all are.
        """
        needed = self.offset + self.limit + 2
        return DEPTHS[-1] if self.dedup_cosine else next(d for d in DEPTHS if d >= needed)


class Picked(NamedTuple):
    """The contents of a page, and whether others follow."""

    ranked: Ranked
    has_more: bool


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
    if page.dedup_cosine is not None:
        rows = embeddings(ranked.ids[places].tolist())
        places = places[_unlike(rows, page.dedup_cosine, at_most=end + 1)]
    chosen = places[page.offset : end]
    return Picked(Ranked(ranked.ids[chosen], ranked.scores[chosen]), len(places) > end)


def _unlike(rows: NDArray[np.float32], cosine: float, *, at_most: int) -> list[int]:
    """The first rows of unit fp32 [n, D] that are not as near as `cosine` to one before them."""
    kept, kept_rows = list[int](), np.empty_like(rows)
    for place, row in enumerate(rows):
        if len(kept) == at_most:
            break
        if (kept_rows[: len(kept)] @ row < cosine - _COSINE_ERROR).all():
            kept_rows[len(kept)] = row
            kept.append(place)
    return kept

"""Near-duplicates among what a search has found: the best of them stands for the others.

Letters: n contents found, m of which stay, D embedding.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator, WithJsonSchema

from multigrain.calibration import Calibration

# Two photos that show the same thing with this probability are one, where that is known;
# elsewhere those of this cosine.
DUPLICATE_PROBABILITY = 0.9
DUPLICATE_COSINE = 0.98
# How many of the nearest are looked at: which of them collapse is only known once they are ranked.
NUM_COMPARED = 1000
# Equal embeddings differ from 1 by the rounding of their product.
_COSINE_ERROR = 1e-6
_BLOCK_ROWS = 64


def _dedup(given: Any) -> bool | float:
    word = str(given).lower()
    if word in ("true", "false"):
        return word == "true"
    try:
        cosine = float(given)
    except (TypeError, ValueError):
        cosine = 0.0
    if not 0 < cosine <= 1:
        raise ValueError("give true, false, or a cosine above 0 and at most 1")
    return cosine


# As a setting or a parameter: whether to collapse, or from which cosine on.
Dedup = Annotated[
    bool | float,
    PlainValidator(_dedup),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}
    ),
]


class Kept(NamedTuple):
    """Places of what stays, ascending, and how many others each of them stands for: int64 [m]."""

    places: NDArray[np.int64]
    num_collapsed: NDArray[np.int64]


def dedup_cosine(dedup: bool | float, calibration: Calibration | None) -> float | None:  # noqa: FBT001 - `true` is a value of it
    """The cosine from which two photos are one; None where none are.

    For True it is that of a probability of 0.9 by the index's calibration, at most 1 (not even
    equal photos may reach it), and 0.98 without one.
    """
    if dedup is False:
        return None
    if dedup is not True:
        return dedup
    if calibration is None:
        return DUPLICATE_COSINE
    return min(1.0, calibration.cosine_of(DUPLICATE_PROBABILITY))


def collapse(rows: NDArray[np.float32], cosine: float, *, at_most: int) -> Kept:
    """The first `at_most` rows of unit fp32 [n, D], best first, no two of them as near as `cosine`.

    A row that is as near to one before it goes; the first such one stands for it. What stays, and
    for how many, is the same for every `at_most` that reaches it.
    """
    owners, kept = np.full(len(rows), -1), list[int]()
    for start in range(0, len(rows), _BLOCK_ROWS):
        near = rows[start : start + _BLOCK_ROWS] @ rows[start:].T >= cosine - _COSINE_ERROR
        for place, alike in enumerate(near, start):
            if len(kept) == at_most:
                break
            if owners[place] < 0:
                owners[place:][(owners[place:] < 0) & alike[place - start :]] = len(kept)
                owners[place] = len(kept)  # also a row that is not of unit length to the last bit
                kept.append(place)
    counts = np.bincount(owners[owners >= 0], minlength=len(kept))
    return Kept(np.array(kept, np.int64), counts - 1)

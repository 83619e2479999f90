"""Lists searched for queries whose nearest lists are known, on a CPU or a GPU.

Letters: Q queries, D embedding, k candidates.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.faiss_module import load_faiss


class Candidates(NamedTuple):
    """Found rows, best first: approximate scores fp32 [Q, k], ids int64 [Q, k], -1 for none."""

    scores: NDArray[np.float32]
    ids: NDArray[np.int64]


class Coarse(NamedTuple):
    """The lists to search: numbers int64 [Q, nprobe] and their centroids' scores fp32."""

    scores: NDArray[np.float32]
    lists: NDArray[np.int64]


def search_preassigned(
    index: Any, queries: NDArray[np.float32], k: int, *, coarse: Coarse, params: Any
) -> Candidates:
    """The k best rows of unit queries fp32 [Q, D] in the given lists, by their codes."""
    # The wrapper in Python takes no parameters.
    found = Candidates(
        np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    )
    pointer = load_faiss().swig_ptr
    index.search_preassigned_c(
        len(queries),
        pointer(queries),
        k,
        pointer(coarse.lists),
        pointer(coarse.scores),
        pointer(found.scores),
        pointer(found.ids),
        False,
        params,
    )
    return found

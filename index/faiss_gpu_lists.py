"""A shard's lists on a GPU.

faiss-gpu takes no id selector, so twice as many candidates are asked for and those that may not be
found are left out here. A query that has too few left is searched on the CPU, as are all queries
that ask for more than a GPU gives.

Letters: Q queries, D embedding, k candidates.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from index.faiss_gpu import FaissDevice
from index.faiss_module import load_faiss
from index.faiss_preassigned import Candidates, Coarse, search_preassigned

# faiss-gpu's bound on candidates and on lists.
MOST_ON_GPU = 2048
_SPARE = 2


class GpuLists:
    """Lists copied to a GPU; concurrent callers take turns."""

    def __init__(self, index: Any, device: FaissDevice) -> None:
        self._index, self._device = index, device

    @classmethod
    def copied(cls, index: Any, device: FaissDevice) -> Self | None:
        """The lists on the GPU; None, after one line, where faiss does not take them."""
        on_gpu = device.on_gpu(lambda gpu: gpu.copied_in(index))
        return None if on_gpu is None else cls(on_gpu, device)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        coarse: Coarse,
        flags: NDArray[np.bool_],
    ) -> tuple[Candidates, NDArray[np.int64]]:
        """The k best flagged rows of unit queries fp32 [Q, D], and the queries left to the CPU."""
        nothing = Candidates(
            np.full((len(queries), k), -np.inf, np.float32),
            np.full((len(queries), k), -1, np.int64),
        )
        num_asked, nprobe = min(_SPARE * k, MOST_ON_GPU), coarse.lists.shape[1]
        if max(k, nprobe) > MOST_ON_GPU:
            return nothing, np.arange(len(queries))
        params = load_faiss().SearchParametersIVF(nprobe=nprobe)
        raw = self._device.on_gpu(
            lambda _: search_preassigned(
                self._index, queries, num_asked, coarse=coarse, params=params
            )
        )
        if raw is None:
            return nothing, np.arange(len(queries))
        return _flagged(raw, k, flags)


def _flagged(
    raw: Candidates, k: int, flags: NDArray[np.bool_]
) -> tuple[Candidates, NDArray[np.int64]]:
    """The first k flagged of each query's candidates, and the queries that may have more."""
    are_there = raw.ids >= 0
    may_be_found = are_there & flags[raw.ids]
    # Those that may be found first, in their order.
    order = np.argsort(~may_be_found, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(may_be_found, order, axis=1)
    scores = np.where(kept, np.take_along_axis(raw.scores, order, axis=1), -np.inf)
    ids = np.where(kept, np.take_along_axis(raw.ids, order, axis=1), -1)
    is_short = are_there.all(axis=1) & (may_be_found.sum(axis=1) < k)
    return Candidates(scores.astype(np.float32), ids), np.flatnonzero(is_short)

"""Where candidates for exact re-scoring come from: faiss lists, or a scan of chosen rows.

Letters: Q queries, D embedding, k candidates, n ids.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from index.codebook.rotation import Rotation
from index.faiss_lists import CoarseQuantizer, ShardLists, merge_candidates, nearest_rows
from index.faiss_preassigned import Candidates
from index.rows import Rows

# 8 MiB of fp32 values: a block and the rows it was read from stay in the cache of a core.
_BLOCK_VALUES = 1 << 21


class Depth(NamedTuple):
    """How far a search looks: lists a query, candidates re-scored."""

    nprobe: int
    num_candidates: int


class CandidateSource(Protocol):
    """Proposes rows of a chosen set; `num_rows` of them exist."""

    @property
    def num_rows(self) -> int:
        """How many rows can be found."""

    def find(self, queries: NDArray[np.float32], depth: Depth) -> Candidates:
        """The best rows of unit queries fp32 [Q, D] as far as `depth` looks."""

    def deeper(self, depth: Depth) -> Depth:
        """Twice as far; `depth` itself where nothing more can be found."""


class ListCandidates:
    """Rows of the lists nearest to a query: one coarse assignment for all shards."""

    def __init__(
        self,
        coarse: CoarseQuantizer,
        shards: Sequence[ShardLists],
        chosen: NDArray[np.bool_],
        *,
        rotation: Rotation,
    ) -> None:
        self.num_rows = int(chosen.sum())
        self._coarse, self._shards, self._rotation = coarse, shards, rotation
        bitmap = np.packbits(chosen, bitorder="little")
        self._chosen = [shard.chosen(chosen, bitmap) for shard in shards]

    def find(self, queries: NDArray[np.float32], depth: Depth) -> Candidates:
        """The best rows by their codes, in the nearest lists."""
        queries = self._rotation.apply(queries)
        coarse = self._coarse.assign(queries, depth.nprobe)
        return merge_candidates(
            [
                shard.search(queries, depth.num_candidates, coarse=coarse, chosen=own)
                for shard, own in zip(self._shards, self._chosen, strict=True)
            ]
        )

    def deeper(self, depth: Depth) -> Depth:
        """Twice the lists and candidates, as far as there are any."""
        return Depth(
            min(2 * depth.nprobe, self._coarse.nlist), min(2 * depth.num_candidates, self.num_rows)
        )


class ScanCandidates:
    """Every one of a few rows: ids int64 [n], all of them live, ascending."""

    def __init__(self, rows: Rows, ids: NDArray[np.int64]) -> None:
        self.num_rows = len(ids)
        self._rows, self._ids = rows, ids

    def find(self, queries: NDArray[np.float32], depth: Depth) -> Candidates:
        """The best of all rows, on the caller's thread."""
        blocks = unit_blocks(self._rows, self._ids)
        return nearest_rows(queries, blocks, depth.num_candidates, num_threads=1)

    def deeper(self, depth: Depth) -> Depth:
        """Twice the candidates, as far as there are any."""
        return depth._replace(num_candidates=min(2 * depth.num_candidates, self.num_rows))


def unit_blocks(
    rows: Rows, ids: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """The ids and their rows scaled to unit length, fp32 [n, D], some thousands at a time."""
    step = max(1, _BLOCK_VALUES // rows.dim)
    for start in range(0, len(ids), step):
        part = ids[start : start + step]
        yield part, rows.units(part)

"""What searches the rows of a generation by their codes: faiss, over the lists of its shards."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.codebook.rotation import Rotation
from index.faiss_gpu import FaissDevice
from index.faiss_lists import CoarseQuantizer, ShardLists
from index.layout import Layout
from index.manifest import ShardPart
from index.searching.candidates import CandidateSource, ListCandidates


class Lists(Protocol):
    """Rows in `nlist` lists, 0 where every row is compared."""

    @property
    def nlist(self) -> int:
        """The number of lists."""

    @property
    def most_candidates(self) -> int | None:
        """How many rows a search gives at most; None: as many as there are."""

    @property
    def are_own(self) -> bool:
        """Whether they are the shards' own, whose answers are the same wherever they are read."""

    def of(self, chosen: NDArray[np.bool_]) -> CandidateSource:
        """The rows of the chosen ids, a flag for each."""

    def search_on(self, device: FaissDevice) -> None:
        """Search on a GPU where there is one that takes them."""


class FaissLists:
    """The lists of a generation's shards, in memory or mapped."""

    most_candidates = None
    are_own = True

    def __init__(
        self,
        layout: Layout,
        *,
        codebook: str,
        shards: Sequence[ShardPart],
        dim: int,
        mapped: bool = False,
    ) -> None:
        self._coarse = CoarseQuantizer(layout.trained(codebook))
        self._rotation = Rotation.open(layout.rotation(codebook), dim=dim)
        self._shards = [
            ShardLists(
                layout.lists(part.folder),
                first_id=part.first_id,
                num_rows=part.num_codes,
                dim=dim,
                mapped=mapped,
            )
            for part in shards
        ]

    @property
    def nlist(self) -> int:
        """The number of lists; 0 where every row is compared."""
        return self._coarse.nlist

    def of(self, chosen: NDArray[np.bool_]) -> ListCandidates:
        """The rows of the chosen ids, a flag for each."""
        return ListCandidates(self._coarse, self._shards, chosen, rotation=self._rotation)

    def search_on(self, device: FaissDevice) -> None:
        """Search on a GPU where there is one that takes them; scores are as exact."""
        for shard in self._shards:
            shard.copy_to(device)

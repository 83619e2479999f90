"""Candidates from a Milvus collection that holds the rows that were live at publish.

Letters: Q queries, D embedding, k candidates, n ids.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_gpu import FaissDevice
from index.faiss_lists import merge_candidates
from index.faiss_preassigned import Candidates
from index.manifest import MilvusPart
from index.milvus_address import parse_address
from index.milvus_client import EMBEDDING, is_there, milvus_errors, num_rows_of, open_client
from index.milvus_index import milvus_index
from index.searching.candidates import Depth

# Milvus's own limit on what a search gives.
MOST_CANDIDATES = 16384
# Ids an expression names: some 800 KB of text, which Milvus parses anew for each search.
_MOST_NAMED = 100_000
_ANSWER_SECONDS = 30.0
_LOAD_SECONDS = 3600.0


class MilvusLists:
    """A generation's collection; `loaded` are the ids of its rows, int64 [n], ascending."""

    most_candidates = MOST_CANDIDATES
    are_own = False

    def __init__(
        self, uri: str, part: MilvusPart, *, factory: str, loaded: NDArray[np.int64]
    ) -> None:
        """Raises IndexFolderError where the collection is missing or holds other rows."""
        self._address, self._name, self._loaded = parse_address(uri), part.collection, loaded
        self.nlist = milvus_index(factory).nlist
        self._client = open_client(self._address)
        try:
            self._check()
        except BaseException:
            self._client.close()
            raise

    def _check(self) -> None:
        name = f"milvus {self._address.uri}: collection {self._name}"
        with milvus_errors(self._address, doing=f"opening collection {self._name}"):
            if not is_there(self._client, self._name):
                raise IndexFolderError(
                    f"{name} is not there; give the address it was loaded into, or run "
                    "index.build --backend milvus, which loads it again"
                )
            self._client.load_collection(self._name, timeout=_LOAD_SECONDS)
            found = num_rows_of(self._client, self._name)
        if found != len(self._loaded):
            raise IndexFolderError(
                f"{name} holds {found} rows instead of {len(self._loaded)}; run index.build "
                "--backend milvus, which loads it again"
            )

    def of(self, chosen: NDArray[np.bool_]) -> "MilvusCandidates":
        """The rows of the chosen ids, a flag for each."""
        return MilvusCandidates(self, chosen[self._loaded], self._loaded)

    def search_on(self, _device: FaissDevice) -> None:
        """Milvus searches where it was set up to."""

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def search(self, queries: NDArray[np.float32], depth: Depth, *, expression: str) -> Candidates:
        """The best rows of unit queries fp32 [Q, D] that an expression allows."""
        params = {"nprobe": depth.nprobe} if self.nlist else {}
        with milvus_errors(self._address, doing=f"searching collection {self._name}"):
            answers = self._client.search(
                self._name,
                data=list(queries),
                anns_field=EMBEDDING,
                limit=depth.num_candidates,
                filter=expression,
                output_fields=["id"],
                search_params={"params": params},
                timeout=_ANSWER_SECONDS,
            )
        found = _candidates(answers, num_queries=len(queries), k=depth.num_candidates)
        ids = found.ids[found.ids >= 0]
        places = np.searchsorted(self._loaded, ids).clip(max=len(self._loaded) - 1)
        if (self._loaded[places] != ids).any():
            raise IndexFolderError(
                f"milvus {self._address.uri}: collection {self._name} holds ids that this index "
                "has not; run index.build --backend milvus once it is dropped"
            )
        return found


class MilvusCandidates:
    """Some of a collection's rows: a flag for each of the loaded ids, int64 [n]."""

    def __init__(
        self, lists: MilvusLists, is_chosen: NDArray[np.bool_], loaded: NDArray[np.int64]
    ) -> None:
        self.num_rows = int(is_chosen.sum())
        self._lists = lists
        self._expressions = list(expressions(loaded, is_chosen))

    def find(self, queries: NDArray[np.float32], depth: Depth) -> Candidates:
        """The best rows by Milvus's codes, in its nearest lists."""
        depth = self._within_limits(depth)
        return merge_candidates(
            [self._lists.search(queries, depth, expression=one) for one in self._expressions]
        )

    def deeper(self, depth: Depth) -> Depth:
        """Twice the lists and candidates, as far as there are any and Milvus gives them."""
        nprobe = min(2 * depth.nprobe, self._lists.nlist)
        return self._within_limits(Depth(nprobe, 2 * depth.num_candidates))

    def _within_limits(self, depth: Depth) -> Depth:
        most = min(self.num_rows, self._lists.most_candidates)
        return depth._replace(num_candidates=min(depth.num_candidates, most))


def expressions(
    loaded: NDArray[np.int64], is_chosen: NDArray[np.bool_], *, most: int = _MOST_NAMED
) -> Iterator[str]:
    """Milvus's filters for some of the loaded ids; each chosen id meets exactly one of them.

    The fewer are named, those inside or those outside, `most` of them in an expression.
    """
    inside, outside = loaded[is_chosen], loaded[~is_chosen]
    if not len(outside):
        yield ""
    elif len(inside) <= len(outside):
        for start in range(0, len(inside), most):
            yield f"id in {inside[start : start + most].tolist()}"
    else:
        starts = range(0, len(outside), most)
        for start in starts:
            named = outside[start : start + most].tolist()
            lower = f"id >= {named[0]} and " if start else ""
            behind = start + most
            upper = f"id < {outside[behind]} and " if behind < len(outside) else ""
            yield f"{lower}{upper}id not in {named}"


def _candidates(answers: Any, *, num_queries: int, k: int) -> Candidates:
    """Milvus's answers, of which each may be shorter than k; more alike is a larger score."""
    scores = np.full((num_queries, k), -np.inf, np.float32)
    ids = np.full((num_queries, k), -1, np.int64)
    for place, hits in enumerate(answers):
        ids[place, : len(hits)] = hits.ids
        scores[place, : len(hits)] = hits.distances
    return Candidates(scores, ids)

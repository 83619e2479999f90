"""Milvus's index for a faiss string: the same lists and the same codes, by Milvus's names."""

import re
from typing import Any, NamedTuple

from index.errors import IndexFolderError

_IVF = re.compile(r"IVF(?P<nlist>[0-9]+)(_HNSW[0-9]+)?,(?P<code>\w+)")
_PQ = re.compile(r"PQ(?P<m>[0-9]+)(np)?")
# Milvus rows are fp32, so codes of 16 bits are no codes there.
_TYPES = {
    "Flat": "IVF_FLAT",
    "SQfp16": "IVF_FLAT",
    "SQbf16": "IVF_FLAT",
    "SQ8": "IVF_SQ8",
    "RaBitQ": "IVF_RABITQ",
}
_MOST_LISTS = 65536


class MilvusIndex(NamedTuple):
    """An index type and its parameters; `nlist` is 0 where every row is compared."""

    type: str
    params: dict[str, Any]

    @property
    def nlist(self) -> int:
        """The number of lists a segment has."""
        return int(self.params.get("nlist", 0))


def milvus_index(factory: str) -> MilvusIndex:
    """What Milvus calls a faiss string; raises IndexFolderError for a code it does not have.

    The graph over centroids has no counterpart: Milvus compares a query with all of them. It
    makes lists in each of its segments, and at most 65,536.
    """
    if factory == "Flat":
        return MilvusIndex("FLAT", {})
    found = _IVF.fullmatch(factory)
    code = found["code"] if found else ""
    if found:
        nlist = min(int(found["nlist"]), _MOST_LISTS)
        if code in _TYPES:
            return MilvusIndex(_TYPES[code], {"nlist": nlist})
        if pq := _PQ.fullmatch(code):
            return MilvusIndex("IVF_PQ", {"nlist": nlist, "m": int(pq["m"]), "nbits": 8})
    raise IndexFolderError(
        f"factory {factory!r}: Milvus has no such codes; give --factory with a code of Flat, SQ8, "
        "SQfp16, SQbf16, PQ<m> or RaBitQ"
    )

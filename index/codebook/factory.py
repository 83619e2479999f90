"""Which faiss string a collection gets, and where its search starts."""

from typing import NamedTuple

# k-means needs 39 rows a centroid; fewer make lists that hold nothing.
MIN_ROWS_PER_LIST = 39
_SMALLEST_IVF = 16 * MIN_ROWS_PER_LIST
_WIDE = 1024


class _Row(NamedTuple):
    """Up to `below` rows: lists, coarse suffix, code at up to 1,024 dimensions, above, least."""

    below: float
    nlist: int
    coarse: str
    code: str
    code_wide: str
    code_least: str


# The index reduces nothing, so a wide embedding gets the smaller code earlier.
_TABLE = (
    _Row(10_000, 16, "", "SQfp16", "SQfp16", "SQfp16"),
    _Row(100_000, 512, "", "SQfp16", "SQ8", "RaBitQ"),
    _Row(10**6, 4096, "_HNSW32", "SQ8", "SQ8", "RaBitQ"),
    _Row(10**7, 16384, "_HNSW32", "SQ8", "RaBitQ", "RaBitQ"),
    _Row(float("inf"), 65536, "_HNSW32", "SQ8", "RaBitQ", "RaBitQ"),
)
# Lists to search first, by nlist; the upper end of each measured range, as nothing is tuned.
_START_NPROBE = ((16, 16), (512, 8), (4096, 16), (16384, 32))
_LARGEST_START_NPROBE = 64
_START_RERANK = 20


def factory_strings(*, num_rows: int, dim: int) -> tuple[str, ...]:
    """The faiss strings for so many live rows of D values, the richest first, each once.

    Below 624 rows every row is compared; above, the table's number of lists is halved until
    each list has 39 rows to be trained on.
    """
    if num_rows < _SMALLEST_IVF:
        return ("Flat",)
    row = next(row for row in _TABLE if num_rows < row.below)
    nlist = row.nlist
    while nlist * MIN_ROWS_PER_LIST > num_rows:
        nlist //= 2
    codes = (row.code if dim <= _WIDE else row.code_wide, row.code_least)
    return tuple(f"IVF{nlist}{row.coarse},{code}" for code in dict.fromkeys(codes))


def is_exact(factory: str) -> bool:
    """Whether every row is compared, so that there is nothing to tune."""
    return factory == "Flat"


def start_nprobe(nlist: int) -> int:
    """How many lists to search before anything is tuned."""
    for up_to, nprobe in _START_NPROBE:
        if nlist <= up_to:
            return min(nprobe, nlist)
    return _LARGEST_START_NPROBE


def start_rerank(limit: int) -> int:
    """How many candidates to re-score for `limit` neighbours."""
    return max(_START_RERANK, 2 * limit)

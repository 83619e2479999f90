"""What an index takes: bytes on disk and in memory, by arithmetic; and the string that fits."""

from typing import NamedTuple

from pydantic import ByteSize

from index.codebook.factory import factory_strings
from index.codebook.kmeans import SCORES_ON_CPU, VALUES_AT_ONCE
from index.codebook.rotation import needs_rotation
from index.errors import IndexFolderError
from index.faiss_encode import BLOCK_ROWS
from index.faiss_train import TRAIN_ROWS_PER_LIST, list_shape
from index.store import EMBEDDING_DTYPE

_FLOAT_BYTES = 4
_LINK_BYTES = 4
_TOLERANCE = 0.2
# Each row's list, found before the lists are filled.
_LABEL_BYTES = 8
# The catalog's row, its unique path and hash, and the index that filters use (index.md, 3).
_CATALOG_ROW_BYTES = 235


class Footprint(NamedTuple):
    """Bytes of an index: each part's files, and the memory that serves it.

    The lists of each shard hold the centroids too, and the codebook holds them once more. The
    store and the catalog are mapped, so they take no memory that the system cannot take back.
    """

    store: int
    lists: int
    codebook: int
    catalog: int
    serving: int

    @property
    def disk(self) -> int:
        """All files of one generation."""
        return self.store + self.lists + self.codebook + self.catalog


def footprint(factory: str, *, num_rows: int, dim: int, num_shards: int) -> Footprint:
    """The bytes of so many rows of D values; raises IndexFolderError for a string not served."""
    shape = list_shape(factory, dim=dim)
    centroids = shape.nlist * (dim * _FLOAT_BYTES + shape.num_links * _LINK_BYTES)
    rotation = dim * dim * _FLOAT_BYTES if needs_rotation(factory) else 0
    lists = num_rows * shape.row_bytes + num_shards * centroids
    bitmaps = num_shards * (num_rows // 8 + 1)
    return Footprint(
        store=num_rows * dim * EMBEDDING_DTYPE.itemsize,
        lists=lists,
        codebook=centroids + rotation,
        catalog=num_rows * _CATALOG_ROW_BYTES,
        serving=lists + centroids + rotation + bitmaps,
    )


def choose_factory(
    *,
    num_live: int,
    num_rows: int,
    num_shards: int,
    dim: int,
    ram: int | None,
    factory: str | None = None,
) -> str:
    """The string asked for, else the richest of the table whose serving memory fits `ram` bytes.

    The table goes by live rows, the memory by all of them. Raises IndexFolderError, naming the
    least that would do, when none fits.
    """
    strings = (factory,) if factory else factory_strings(num_rows=num_live, dim=dim)
    if ram is None:
        return strings[0]
    needed = {
        string: footprint(string, num_rows=num_rows, dim=dim, num_shards=num_shards).serving
        for string in strings
    }
    for string in strings:
        if needed[string] <= ram:
            return string
    string = min(strings, key=lambda one: needed[one])
    raise IndexFolderError(
        f"--ram {ram} ({human_bytes(ram)}) is too little to serve {num_rows} rows of {dim} "
        f"values: {string} takes the least, {needed[string]} bytes ({human_bytes(needed[string])})"
    )


class Expected(NamedTuple):
    """What a build expects to make and to take, in bytes of disk and of memory."""

    num_rows: int
    factory: str
    disk: int
    serving: int
    embedding: int
    building: int

    def text(self) -> str:
        """One line for people."""
        return (
            f"at most {self.num_rows} rows, factory {self.factory}: memory for serving "
            f"{human_bytes(self.serving)}, for embedding {human_bytes(self.embedding)}, for "
            f"building {human_bytes(self.building)} beside the model"
        )


class MemoryCheck(NamedTuple):
    """Bytes a build expected its process to take, its model included, and what it took."""

    expected: int
    peak: int

    @property
    def is_outside(self) -> bool:
        """Whether they differ by more than a fifth."""
        return abs(self.peak - self.expected) > _TOLERANCE * self.expected


def human_bytes(number: float) -> str:
    """Bytes in powers of 1,000 with one decimal."""
    return ByteSize(int(number)).human_readable(decimal=True, separator=" ")


def building_bytes(factory: str, *, num_rows: int, dim: int, shard_rows: int) -> int:
    """The most memory that training, encoding and publishing take beside what a process has.

    The largest of: the sample with its centroids and a block; a shard's lists with a block; and
    what searches take of an index whose lists stay in their files, before it is published.
    """
    shape = list_shape(factory, dim=dim)
    row, centroids = dim * _FLOAT_BYTES, shape.nlist * dim * _FLOAT_BYTES
    block = min(num_rows, BLOCK_ROWS) * row
    copies = 2 if needs_rotation(factory) else 1
    num_sampled = min(num_rows, TRAIN_ROWS_PER_LIST * shape.nlist)
    sampled = num_sampled * dim * EMBEDDING_DTYPE.itemsize
    held = num_sampled * row if num_sampled * dim <= VALUES_AT_ONCE else block
    scores = min(num_sampled * shape.nlist, SCORES_ON_CPU) * _FLOAT_BYTES
    # faiss takes the centroids off the rows in a copy of its own.
    codec = min(num_sampled, shape.codec_rows) * row * (copies + 1)
    training = sampled + max(held + scores + 3 * centroids, codec + centroids)
    in_shard = min(num_rows, shard_rows)
    lists = in_shard * (shape.row_bytes + _LABEL_BYTES)
    encoding = lists + 2 * centroids + block * copies
    parts = -(-num_rows // shard_rows)
    whole = footprint(factory, num_rows=num_rows, dim=dim, num_shards=parts)
    return max(training, encoding, whole.serving - whole.lists)

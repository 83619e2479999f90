"""A shard's faiss lists, written from its rows: assigned, rotated, encoded, hashed on the way.

Letters: D embedding, n rows, K lists.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.codebook.kmeans import nearest_on
from index.codebook.rotation import Rotation
from index.errors import IndexFolderError
from index.faiss_gpu import FaissDevice
from index.faiss_module import coarse_of, load_faiss, read_faiss, require_rows
from index.searching.half import as_fp32
from index.store import FileDigest, FileRecord, Rows16

BLOCK_ROWS = 65_536
_WRITE_BYTES = 2**22
# Up to so many lists a product with all centroids takes no longer than a graph, and is exact.
_MOST_COMPARED_LISTS = 16_384

_Assign = Callable[[NDArray[np.float32]], NDArray[np.int64]]


class EncodedShard(NamedTuple):
    """Checksums of the rows and of the lists that were written."""

    rows: FileRecord
    lists: FileRecord


def encode_rows(
    trained: Path,
    rows: Rows16,
    target: Path,
    *,
    rotation: Rotation,
    first_id: int,
    coded: NDArray[np.bool_] | None = None,
    num_threads: int,
    device: str = "cpu",
    faiss_device: FaissDevice | None = None,
) -> EncodedShard:
    """Write the lists of fp16 rows [n, D] with ids first_id .. first_id + n - 1.

    `coded` [n] tells the rows that the lists are to hold, None: all; Flat lists hold every row.
    Lists are found on `device` when it is a GPU, and rows encoded on `faiss_device` when that is
    one. Raises IndexFolderError when faiss did not store every row, or the file cannot be written.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(num_threads)
    index = read_faiss(trained)
    blocks = _Blocks(rows, coded)
    filled = _filled_on_gpu(index, blocks, rotation, faiss_device, first_id=first_id)
    if filled is not None:
        index = filled
    elif _has_plain_lists(index):
        assign = _assigner(index, rotation, device=device)
        _add_presized(index, blocks, rotation, assign, first_id=first_id)
    else:
        _add(index, blocks, rotation, first_id=first_id)
    require_rows(index, len(rows) if coded is None else int(coded.sum()), target)
    del blocks
    # Not before: whoever takes a core from an assignment keeps its other threads waiting.
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as hashing:
        record = reading.submit(_record_of, rows)
        lists = write_hashed(index, target, hashing)
        return EncodedShard(record.result(), lists)


def _filled_on_gpu(
    index: Any,
    blocks: "_Blocks",
    rotation: Rotation,
    faiss_device: FaissDevice | None,
    *,
    first_id: int,
) -> Any | None:
    """The index with all rows, filled on a GPU; None where the CPU has to do it."""

    def fill(device: FaissDevice) -> Any:
        on_gpu = device.copied_in(index)
        for numbers, block in blocks:
            on_gpu.add_with_ids(rotation.apply_alike(block), numbers + first_id)
        return device.copied_out(on_gpu)

    # A graph of centroids would be searched on the CPU; torch's product finds lists on the GPU.
    if faiss_device is None or not _has_plain_lists(index) or _is_graph(coarse_of(index)):
        return None
    return faiss_device.on_gpu(fill)


class _Blocks:
    """Numbers and fp32 rows of those to be encoded, 65,536 at a time."""

    def __init__(self, rows: Rows16, coded: NDArray[np.bool_] | None) -> None:
        self._coded = coded
        self._rows: Rows16 | NDArray[np.float32] = rows
        if len(rows) <= BLOCK_ROWS:  # a single block is made fp32 once, however often it is asked
            self._rows = as_fp32(rows)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Row numbers int64 [b] and their rows fp32 [b, D]."""
        for start in range(0, len(self._rows), BLOCK_ROWS):
            block = self._rows[start : start + BLOCK_ROWS]
            numbers = np.arange(start, start + len(block), dtype=np.int64)
            if self._coded is not None:
                chosen = self._coded[start : start + len(block)]
                block, numbers = block[chosen], numbers[chosen]
            if len(block):
                yield numbers, as_fp32(block)


def _record_of(rows: Rows16) -> FileRecord:
    digest = FileDigest()
    for start in range(0, len(rows), BLOCK_ROWS):
        digest.update(rows[start : start + BLOCK_ROWS])
    return digest.record()


def _has_plain_lists(index: Any) -> bool:
    """Whether lists are arrays that can be filled by given assignments; fast-scan's are packed."""
    faiss = load_faiss()
    return isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan)


def _add_presized(
    index: Any, blocks: _Blocks, rotation: Rotation, assign: _Assign, *, first_id: int
) -> None:
    """Find every row's list first, so that no list grows by doubling: half the memory at worst."""
    found = [np.empty(0, dtype=np.int64)]
    for _, block in blocks:
        found.append(assign(block))
        del block  # before the next one is made
    lists = np.concatenate(found)
    _presize(index, np.bincount(lists, minlength=index.nlist))
    pointer, start = load_faiss().swig_ptr, 0
    for numbers, block in blocks:
        rotated, ids = rotation.apply_alike(block), numbers + first_id
        chosen = np.ascontiguousarray(lists[start : start + len(block)])
        index.add_core(len(block), pointer(rotated), pointer(ids), pointer(chosen))
        start += len(block)
        del block, rotated


def _presize(index: Any, sizes: NDArray[np.int64]) -> None:
    """Make room for each list's rows; a list keeps its room when it is emptied again."""
    for number, size in enumerate(sizes.tolist()):
        index.invlists.resize(number, size)
        index.invlists.resize(number, 0)


def _add(index: Any, blocks: _Blocks, rotation: Rotation, *, first_id: int) -> None:
    is_ivf = isinstance(index, load_faiss().IndexIVF)
    for numbers, block in blocks:
        if is_ivf:
            index.add_with_ids(rotation.apply_alike(block), numbers + first_id)
        else:
            index.add(rotation.apply_alike(block))


def _assigner(index: Any, rotation: Rotation, *, device: str) -> _Assign:
    """How a block of unrotated rows finds its lists: int64 [n]."""
    coarse, is_far = coarse_of(index), index.nlist > _MOST_COMPARED_LISTS
    if is_far and _is_graph(coarse) and not device.startswith("cuda"):
        return lambda block: _first(coarse, rotation.apply_alike(block))
    # Centroids are turned back once, instead of every row twice.
    centroids = rotation.undo(coarse.reconstruct_n(0, index.nlist))
    return nearest_on(device, centroids)


def _is_graph(coarse: Any) -> bool:
    return isinstance(coarse, load_faiss().IndexHNSW)


def _first(graph: Any, block: NDArray[np.float32]) -> NDArray[np.int64]:
    _, lists = graph.search(block, 1)
    return np.ascontiguousarray(lists[:, 0], dtype=np.int64)


def list_sizes(path: Path, nlist: int) -> NDArray[np.int64]:
    """How many rows each list of a file holds: int64 [nlist]; codes are mapped, not read."""
    index = read_faiss(path, load_faiss().IO_FLAG_MMAP)
    sizes = (index.invlists.list_size(number) for number in range(nlist))
    return np.fromiter(sizes, dtype=np.int64, count=nlist)


def write_hashed(index: Any, path: Path, hashing: Executor) -> FileRecord:
    """Write a faiss index and give its checksums; raises IndexFolderError naming the path.

    They are taken by the one thread of `hashing`, while the next piece is written.
    """
    faiss = load_faiss()
    digest, faults, last = FileDigest(), list[OSError](), hashing.submit(lambda: None)
    try:
        with path.open("wb") as file:

            def write(data: bytes) -> None:
                # An exception must not pass through faiss; what comes after one is dropped.
                nonlocal last
                try:
                    if not faults:
                        file.write(data)
                        last.result()  # so that no more than two pieces are held
                        last = hashing.submit(digest.update, data)
                except OSError as error:
                    faults.append(error)

            writer = faiss.PyCallbackIOWriter(write, _WRITE_BYTES)
            buffered = faiss.BufferedIOWriter(writer, _WRITE_BYTES)
            faiss.write_index(index, buffered)
            del buffered  # writes what it still holds
    except OSError as error:
        faults.append(error)
    if faults:
        raise IndexFolderError(
            f"{path}: cannot be written ({faults[0].strerror}); mend the disk, then run again to "
            "continue"
        ) from faults[0]
    return hashing.submit(digest.record).result()

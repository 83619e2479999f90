"""Comparing a shard's files with their checksums, and their contents with each other."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_check import count_rows, held_ids
from index.layout import Layout
from index.manifest import ShardPart
from index.merge import coded_rows
from index.store import FileRecord, Rows16, ShardDocument, file_record, map_rows
from multigrain.files import sha256_of

_BLOCK_ROWS = 65_536
# Embeddings are checked to 1e-3 when they are made; fp16 rounds each value by up to 2^-11.
NORM_TOLERANCE = 2e-3


class Fault(NamedTuple):
    """A damaged file: what is wrong, and which of its 64 MiB blocks, where that is known."""

    file: Path
    what: str
    blocks: tuple[int, ...] = ()


def missing_or_cut(path: Path, size: int) -> Fault | None:
    """The fault of a file that is not there, or of another size."""
    if not path.is_file():
        return Fault(path, "missing")
    found = path.stat().st_size
    return Fault(path, f"{found} bytes instead of {size}") if found != size else None


def differing(path: Path, digest: str) -> Fault | None:
    """The fault of a file whose sha256 does not begin with `digest`."""
    return None if sha256_of(path).startswith(digest) else Fault(path, "its hash is another")


def check_shard(
    layout: Layout, part: ShardPart, *, dim: int, live: NDArray[np.bool_] | None, deep: bool
) -> Iterator[Fault]:
    """The faults of a shard; `live` [n] are its rows' flags, None where they are not known."""
    damaged = list(check_shard_files(layout, part, deep=deep))
    yield from damaged
    if damaged:
        return
    document = ShardDocument.model_validate_json(layout.shard_document(part.folder).read_bytes())
    try:
        yield from _check_lists(layout, part, document, deep=deep)
    except IndexFolderError as error:
        lists = layout.lists(part.folder)
        yield Fault(lists, str(error).removeprefix(f"{lists}: "))
    if deep:
        rows = layout.embeddings(part.folder)
        mapped = map_rows(rows, num_rows=part.n, dim=dim)
        yield from (Fault(rows, what) for what in _check_rows(mapped, part.first_id, live))


def check_shard_files(layout: Layout, part: ShardPart, *, deep: bool) -> Iterator[Fault]:
    """The faults of a shard's files as bytes: sizes, and with `deep` every checksum."""
    path = layout.shard_document(part.folder)
    if not path.is_file():
        yield Fault(path, "missing")
        return
    data = path.read_bytes()
    if sha256(data).hexdigest() != part.sha256:
        yield Fault(path, "its hash is not the manifest's")
        return
    yield from _check_files(path.parent, ShardDocument.model_validate_json(data), deep=deep)


def _check_files(folder: Path, document: ShardDocument, *, deep: bool) -> Iterator[Fault]:
    for name, record in document.files.items():
        fault = missing_or_cut(folder / name, record.size)
        if fault is None and deep:
            fault = _compare(folder / name, record)
        if fault is not None:
            yield fault


def _compare(path: Path, record: FileRecord) -> Fault | None:
    found = file_record(path)
    if found == record:
        return None
    pairs = enumerate(zip(found.crc32, record.crc32, strict=True))
    blocks = tuple(number for number, (one, other) in pairs if one != other)
    return Fault(path, "bytes differ", blocks)


def _check_lists(
    layout: Layout, part: ShardPart, document: ShardDocument, *, deep: bool
) -> Iterator[Fault]:
    path = layout.lists(part.folder)
    num_rows = count_rows(path)
    if num_rows != document.num_codes:
        yield Fault(path, f"holds {num_rows} rows instead of {document.num_codes}")
        return
    ids = held_ids(path) if deep else None
    if ids is None:
        return
    promised = part.first_id + np.flatnonzero(coded_rows(layout, part.folder, document))
    if not np.array_equal(ids, promised):
        num_twice = len(ids) - len(np.unique(ids))
        num_strange = int(np.count_nonzero(~np.isin(ids, promised)))
        yield Fault(path, f"{num_strange} ids are not of this shard, {num_twice} come twice")


def _check_rows(rows: Rows16, first_id: int, live: NDArray[np.bool_] | None) -> Iterator[str]:
    """What is wrong with the rows: each has unit norm, but for dead ones that are all zeros."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        norms = np.linalg.norm(rows[start : start + _BLOCK_ROWS].astype(np.float32), axis=1)
        # A NaN or infinite value makes the comparison false.
        bad = ~(np.abs(norms - 1) <= NORM_TOLERANCE)
        if live is not None:
            bad &= live[start : start + len(norms)] | (norms != 0)
        else:
            bad &= norms != 0
        if bad.any():
            first = first_id + start + int(np.argmax(bad))
            yield f"{int(bad.sum())} rows are no unit vectors, the first is that of id {first}"

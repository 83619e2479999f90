"""Which generation of an index folder is opened, and what is checked before it is."""

import logging
from collections.abc import Callable
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.current import Pointer, checked_manifest, pointers, read_current
from index.encode import read_shard
from index.errors import BackendAwayError, IndexFolderError
from index.faiss_module import load_faiss
from index.layout import Layout
from index.lock import open_shared
from index.manifest import Manifest
from index.searching.live import live_flags
from index.store import require_size

_logger = logging.getLogger(__name__)

T = TypeVar("T")
# Opens a generation whose manifest is held, so that no builder removes it.
Opener = Callable[[Layout, Manifest, BinaryIO], T]


def open_newest(layout: Layout, opener: Opener[T]) -> T:
    """Open the generation CURRENT names, or, with a warning, the newest one that opens.

    Raises IndexFolderError naming the damaged file when none opens, and BackendAwayError.
    """
    load_faiss()
    faults = list[IndexFolderError]()
    for pointer in pointers(layout):
        try:
            opened = _open(layout, pointer, opener)
        except BackendAwayError:
            raise  # one that is older would wait for it as long
        except IndexFolderError as error:
            _logger.warning("generation %s cannot be opened: %s", pointer.generation, error)
            faults.append(error)
            continue
        if faults or read_current(layout) is None:
            _logger.warning("generation %s is used instead", pointer.generation)
        return opened
    if faults:
        raise faults[0]
    raise IndexFolderError(f"{layout.root}: no index here; make one with python -m index.build")


def open_current(layout: Layout, opener: Opener[T]) -> T:
    """Open the generation CURRENT names and no other; raises IndexFolderError."""
    load_faiss()
    pointer = read_current(layout)
    if pointer is None:
        raise IndexFolderError(f"{layout.current}: missing, or not the name of a manifest")
    return _open(layout, pointer, opener)


def _open(layout: Layout, pointer: Pointer, opener: Opener[T]) -> T:
    path = layout.manifest(pointer.generation)
    try:
        held = open_shared(path)
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return opener(layout, checked_manifest(held.read(), pointer, name=str(path)), held)
    except BaseException:
        held.close()
        raise


def check_files(layout: Layout, manifest: Manifest) -> NDArray[np.bool_]:
    """Compare sizes, headers and counts with the manifest; gives the live flag of each id."""
    counts = manifest.counts
    require_size(layout.root / manifest.catalog.file, manifest.catalog.size)
    live = live_flags(layout, manifest)
    for file in manifest.codebook_files:
        require_size(layout.root / file.file, file.size)
    for part in manifest.shards:
        document = read_shard(layout, part.folder, expected_sha256=part.sha256)
        if (document.first_id, document.n, document.D) != (part.first_id, part.n, manifest.model.D):
            raise IndexFolderError(f"{layout.shard_document(part.folder)}: not the manifest's")
    num_rows = sum(part.n for part in manifest.shards)
    if (num_rows, int(live.sum())) != (counts.rows, counts.live):
        raise IndexFolderError(
            f"{layout.manifest(manifest.generation)}: counts {counts.rows} rows, {counts.live} "
            f"live, but the shards hold {num_rows} and the bitmap {int(live.sum())}"
        )
    return live

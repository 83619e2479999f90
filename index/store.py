"""The index folder's raw files: staged rows, shards, live bitmap.

Letters: D embedding, n rows.
"""

import os
import shutil
import zlib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from index.errors import IndexFolderError
from index.layout import Layout
from index.steps import Steps, no_steps
from multigrain.files import fsync_folder, write_via_temporary

EMBEDDING_DTYPE = np.dtype("<f2")
_CRC_BLOCK_BYTES = 64 * 2**20
_READ_BYTES = 2**22

Rows16 = NDArray[np.float16]


class FileRecord(BaseModel):
    """A shard's file: size in bytes, sha256, and crc32 of each 64 MiB block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str
    crc32: list[int]


class ShardDocument(BaseModel):
    """SHARD.json: ids first_id .. first_id + n - 1; holds no time and no machine.

    `codes` is given where the lists hold fewer rows than n; coded.bits says which.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_id: int
    n: int
    D: int
    dtype: str
    codebook: str
    fingerprint: str
    files: dict[str, FileRecord]
    codes: int | None = None

    @property
    def num_codes(self) -> int:
        """How many rows the lists hold."""
        return self.n if self.codes is None else self.codes


class FileDigest:
    """Size, sha256 and block checksums of bytes, taken piece by piece as they are written."""

    def __init__(self) -> None:
        self._sha256, self._crcs, self._crc, self._size = sha256(), list[int](), 0, 0

    def update(self, data: bytes | NDArray[Any]) -> None:
        """Take in the next bytes."""
        view = memoryview(data if isinstance(data, bytes) else data.view(np.uint8).data).cast("B")
        self._sha256.update(view)
        while view:
            room = _CRC_BLOCK_BYTES - self._size % _CRC_BLOCK_BYTES
            self._crc = zlib.crc32(view[:room], self._crc)
            self._size += len(view[:room])
            if self._size % _CRC_BLOCK_BYTES == 0:
                self._crcs.append(self._crc)
                self._crc = 0
            view = view[room:]

    def record(self) -> FileRecord:
        """The checksums of what was taken in."""
        last = [self._crc] if self._size % _CRC_BLOCK_BYTES else []
        return FileRecord(
            size=self._size, sha256=self._sha256.hexdigest(), crc32=[*self._crcs, *last]
        )


def file_record(path: Path) -> FileRecord:
    """Size, sha256 and block checksums of a file, in one pass."""
    digest = FileDigest()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.record()


def map_rows(path: Path, *, num_rows: int, dim: int) -> Rows16:
    """Map the first rows of a row file: fp16 [n, D], unit within fp16's rounding, read-only.

    Raises IndexFolderError for a file that is missing or too short.
    """
    if num_rows == 0:
        return np.empty((0, dim), dtype=EMBEDDING_DTYPE)
    _require_bytes(path, num_rows * dim * EMBEDDING_DTYPE.itemsize)
    return np.memmap(path, dtype=EMBEDDING_DTYPE, mode="r", shape=(num_rows, dim))


def _require_bytes(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else 0
    if found < size:
        raise IndexFolderError(
            f"{path}: damaged, {found} bytes where {size} are needed; restore the file or build "
            "into a new --out"
        )


def fsync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def install_folder(temporary: Path, target: Path, *, steps: Steps) -> None:
    """Sync a finished temporary folder and rename it to `target`; one already there wins.

    The names are hashes, so a file the other one has lost is taken from the new one.
    """
    for file in sorted(temporary.iterdir()):
        fsync_file(file)
    fsync_folder(temporary)
    steps("rename folder")
    if target.exists():
        for file in temporary.iterdir():
            if not (target / file.name).exists():
                file.rename(target / file.name)
        fsync_folder(target)
        shutil.rmtree(temporary)
    else:
        temporary.rename(target)
        fsync_folder(target.parent)
    steps("folder renamed")


def pack_live(live_ids: NDArray[np.int64], *, num_ids: int) -> NDArray[np.uint8]:
    """A bitmap with the bits of the live ids set: uint8 [ceil(num_ids / 8)], low bit first."""
    bits = np.zeros(num_ids, dtype=np.uint8)
    bits[live_ids] = 1
    return np.packbits(bits, bitorder="little")


def unpack_live(bitmap: NDArray[np.uint8], *, num_ids: int) -> NDArray[np.bool_]:
    """One boolean an id."""
    return np.unpackbits(bitmap, count=num_ids, bitorder="little").astype(bool)


def write_whole(path: Path, data: bytes, *, steps: Steps = no_steps) -> None:
    """Replace a file of the folder, with a step before and after."""
    steps(f"write {path.name}")
    with write_via_temporary(path) as temporary:
        temporary.write_bytes(data)
    steps(f"{path.name} written")


def remove_temporaries(layout: Layout) -> None:
    """Remove what a killed builder left under temporary names."""
    for folder in _folders_with_temporaries(layout):
        for entry in folder.glob(".*.tmp*"):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _folders_with_temporaries(layout: Layout) -> Iterable[Path]:
    return (
        layout.root,
        layout.manifests,
        layout.models,
        layout.codebooks,
        layout.tombstones,
        layout.catalogs,
        layout.staging,
        layout.adds,
    )


def require_size(path: Path, size: int) -> None:
    """Refuse a missing file or one of another size; raises IndexFolderError naming it."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be read ({error.strerror})") from error
    if found != size:
        raise IndexFolderError(f"{path}: damaged, {found} bytes instead of {size}")


def bytes_below(folders: Iterable[Path]) -> int:
    """Bytes of the files in some folders, each counted once however many names it has."""
    names = (path for folder in folders for path in folder.rglob("*"))
    found = (path.stat(follow_symlinks=False) for path in names)
    files = {(one.st_dev, one.st_ino): one.st_size for one in found if S_ISREG(one.st_mode)}
    return sum(files.values())

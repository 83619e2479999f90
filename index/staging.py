"""Rows of unfinished shards: appended, made durable by count, truncated to it after a kill."""

import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.layout import Layout
from index.steps import Steps
from index.store import EMBEDDING_DTYPE
from multigrain.files import fsync_folder


class StagedShard(NamedTuple):
    """An unfinished shard: its first id (also its name) and its rows."""

    first_id: int
    num_rows: int

    @property
    def name(self) -> str:
        """The name of its file below staging/."""
        return f"{self.first_id:016d}"

    @property
    def end(self) -> int:
        """The id behind its last row."""
        return self.first_id + self.num_rows


def recover(layout: Layout, durable: list[StagedShard], *, dim: int) -> None:
    """Cut every staged file to its durable rows; drop files no durable row is known of.

    Raises IndexFolderError when a file holds fewer rows than the journal promises.
    """
    known = {layout.staged(shard.name): shard.num_rows for shard in durable}
    for path in layout.staging.iterdir():
        if path not in known:
            path.unlink()
    for path, num_rows in known.items():
        _truncate(path, num_rows * dim * EMBEDDING_DTYPE.itemsize, journal=layout.journal)


def _truncate(path: Path, size: int, *, journal: Path) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise IndexFolderError(
            f"{path}: {found} bytes, but {size} were made durable; "
            f"restore the file, or remove {journal} and build again to read those photos again"
        )
    if found > size:
        os.truncate(path, size)


class StagingWriter:
    """Appends rows in id order, `shard_rows` to a file; durable only after `sync`."""

    def __init__(
        self,
        layout: Layout,
        *,
        last: StagedShard | None,
        next_id: int,
        dim: int,
        shard_rows: int,
        steps: Steps,
    ) -> None:
        self._layout, self._shard_rows, self._steps = layout, shard_rows, steps
        self.dim = dim
        # Ids are a shard's first and its row: others must not have taken those in between.
        if last is None or last.num_rows >= shard_rows or last.end != next_id:
            last = StagedShard(next_id, 0)
        self._open = last
        self._changed: dict[int, StagedShard] = {}
        self._file = layout.staged(last.name).open("ab")

    def append(self, rows: NDArray[np.float16] | NDArray[np.float32]) -> None:
        """Write unit rows [n, D] as fp16 behind the last ones."""
        data = np.ascontiguousarray(rows, dtype=EMBEDDING_DTYPE)
        while len(data):
            room = self._shard_rows - self._open.num_rows
            self._write(data[:room])
            data = data[room:]
            if self._open.num_rows == self._shard_rows:
                self._next_shard()

    def sync(self) -> list[StagedShard]:
        """Make every row durable; gives the shards that grew since the last call."""
        self._steps("fsync rows")
        self._sync_file()
        self._steps("rows synced")
        changed = sorted(self._changed.values())
        self._changed.clear()
        return changed

    def _write(self, rows: NDArray[np.float16]) -> None:
        self._steps("write rows")
        self._file.write(rows.tobytes())
        self._open = self._open._replace(num_rows=self._open.num_rows + len(rows))
        self._changed[self._open.first_id] = self._open
        self._steps("rows written")

    def _next_shard(self) -> None:
        self._sync_file()
        self._file.close()
        self._open = StagedShard(self._open.first_id + self._open.num_rows, 0)
        self._file = self._layout.staged(self._open.name).open("ab")

    def _sync_file(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        fsync_folder(self._layout.staging)

    def __enter__(self) -> Self:
        """Open for appending."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the file; rows since the last `sync` may be lost."""
        self._file.close()


def staging_behind(
    layout: Layout,
    staged: list[StagedShard],
    *,
    next_id: int,
    dim: int,
    shard_rows: int,
    steps: Steps,
) -> StagingWriter:
    """Open staging behind its durable rows, those of `staged`; raises as `recover`."""
    recover(layout, staged, dim=dim)
    last = staged[-1] if staged else None
    return StagingWriter(
        layout, last=last, next_id=next_id, dim=dim, shard_rows=shard_rows, steps=steps
    )

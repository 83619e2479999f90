"""The stored rows of a generation or a build, found by id."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from index.paging import read_rows
from index.searching.half import unit
from index.store import EMBEDDING_DTYPE, Rows16, map_rows


class RowRange(NamedTuple):
    """A file of rows: ids first_id .. first_id + n - 1."""

    first_id: int
    n: int
    path: Path


class Rows(Protocol):
    """Rows found by id, wherever they lie."""

    @property
    def dim(self) -> int:
        """The embedding's dimension D."""

    def gather(self, ids: NDArray[np.int64]) -> Rows16:
        """The rows of ids [n] in their order, fp16 [n, D]."""

    def units(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The same scaled to unit length, fp32 [n, D]."""


class StoredRows:
    """Maps row files and gathers rows by id; ids below start where a file's first_id says."""

    def __init__(self, ranges: Iterable[RowRange], *, dim: int) -> None:
        self._ranges = sorted(part for part in ranges if part.n)
        self._first_ids = np.array([part.first_id for part in self._ranges], dtype=np.int64)
        self._maps = [map_rows(part.path, num_rows=part.n, dim=dim) for part in self._ranges]
        self._dim = dim

    @property
    def dim(self) -> int:
        """The embedding's dimension D."""
        return self._dim

    def gather(self, ids: NDArray[np.int64]) -> Rows16:
        """The rows of ids [n] in their order, fp16 [n, D]; raises IndexError for an unknown id."""
        gathered = np.empty((len(ids), self._dim), dtype=EMBEDDING_DTYPE)
        # Read in the order of the file: neighbouring rows share pages.
        order = np.argsort(ids, kind="stable")
        files = np.searchsorted(self._first_ids, ids[order], side="right") - 1
        for number in np.unique(files):
            if number < 0:
                raise IndexError(f"id {ids.min()} has no row")
            places = order[files == number]
            numbers = ids[places] - self._first_ids[number]
            gathered[places] = read_rows(self._maps[number], numbers)
        return gathered

    def units(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The same scaled to unit length, fp32 [n, D]."""
        return unit(self.gather(ids))

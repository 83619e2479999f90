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
        files = np.searchsorted(self._first_ids, ids, side="right") - 1
        numbers = np.unique(files).tolist()
        if numbers and numbers[0] < 0:
            raise IndexError(f"id {ids.min()} has no row")
        if len(numbers) == 1:
            return self._read(numbers[0], ids)
        gathered = np.empty((len(ids), self._dim), dtype=EMBEDDING_DTYPE)
        for number in numbers:
            places = np.flatnonzero(files == number)
            gathered[places] = self._read(number, ids[places])
        return gathered

    def _read(self, number: int, ids: NDArray[np.int64]) -> Rows16:
        return read_rows(self._maps[number], ids - self._first_ids[number])

    def units(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """The same scaled to unit length, fp32 [n, D]."""
        return unit(self.gather(ids))

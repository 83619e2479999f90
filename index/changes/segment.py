"""Segments of the journal: each a file of lines and, beside it, a file of rows.

A row is durable before its line, so that a line promises its row. What is cut or damaged ends a
segment: readers stop there, and whoever appends next removes it.
"""

import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.changes.record import Added, Change, SegmentStart, from_line, to_line
from index.layout import Layout
from index.steps import Steps
from index.store import EMBEDDING_DTYPE, Rows16, write_whole
from multigrain.files import fsync_folder

_SEGMENT_NAME = re.compile(r"[0-9]{6,12}\.jsonl")


class Part(NamedTuple):
    """What was read of a segment: its changes in order, the rows of its adds fp16 [n, D]."""

    changes: list[Change]
    rows: Rows16


class Segment:
    """One segment, read piece by piece; `start` is None until its first line could be read."""

    def __init__(self, layout: Layout, number: int) -> None:
        self.number = number
        self.start: SegmentStart | None = None
        self.num_rows = 0
        self._num_bytes = 0
        self._lines, self._rows = layout.segment(number), layout.segment_rows(number)

    @property
    def end(self) -> int:
        """The id behind its last row; 0 for a segment without a start."""
        return self.start.first_id + self.num_rows if self.start else 0

    @property
    def is_read(self) -> bool:
        """Whether every byte was read as a line, as it should be once nobody appends."""
        return self._lines.stat().st_size == self._num_bytes

    def read(self) -> Part:
        """What was appended since the last call; raises OSError."""
        changes, first = list[Change](), self.num_rows
        lines = iter(self._read_lines())
        if self.start is None:
            self._begin(next(lines, b""))
        # Behind the lines: their rows were written before them.
        num_there = self._num_rows_there()
        for line in lines:
            record = from_line(line)
            if not isinstance(record, Change) or not self._goes_on(record, num_there):
                break
            changes.append(record)
            self._num_bytes += len(line)
            self.num_rows += isinstance(record, Added)
        return Part(changes, self._read_rows(first))

    def _begin(self, line: bytes) -> None:
        record = from_line(line)
        if isinstance(record, SegmentStart):
            self.start, self._num_bytes = record, len(line)

    def _read_lines(self) -> list[bytes]:
        if self.is_read:
            return []
        with self._lines.open("rb") as file:
            file.seek(self._num_bytes)
            return file.read().splitlines(keepends=True)

    def _goes_on(self, record: Change, num_there: int) -> bool:
        """Whether an add is that of the next row, and its row is there."""
        if not isinstance(record, Added):
            return self.start is not None
        return record.id == self.end and self.num_rows < num_there

    @property
    def _dim(self) -> int:
        return self.start.D if self.start else 1

    def _num_rows_there(self) -> int:
        size = self._rows.stat().st_size if self._rows.exists() else 0
        return size // (self._dim * EMBEDDING_DTYPE.itemsize)

    def _read_rows(self, first: int) -> Rows16:
        shape = (self.num_rows - first, self._dim)
        if not shape[0]:
            return np.empty(shape, EMBEDDING_DTYPE)
        skipped = first * self._dim * EMBEDDING_DTYPE.itemsize
        values = np.fromfile(self._rows, EMBEDDING_DTYPE, math.prod(shape), offset=skipped)
        return values.reshape(shape)

    def append(self, record: Change, row: Rows16 | None, *, steps: Steps) -> None:
        """Write the next change, its row fp16 [D] first; each is durable when this returns.

        Only under the journal's lock, with everything read. Raises OSError.
        """
        if row is not None:
            steps("write added row")
            _append(self._rows, row.tobytes(), behind=self.num_rows * row.nbytes)
        steps("write change")
        _append(self._lines, to_line(record), behind=self._num_bytes)
        steps("change written")


def _append(path: Path, data: bytes, *, behind: int) -> None:
    """Write data behind a file's first bytes, in the place of whatever a torn write left."""
    with path.open("r+b") as file:
        file.truncate(behind)
        file.seek(behind)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def segment_numbers(layout: Layout) -> list[int]:
    """The segments there are, in order; none in a folder that was made before there were any."""
    if not layout.adds.is_dir():
        return []
    names = (path.name for path in layout.adds.iterdir())
    return sorted(int(name.split(".")[0]) for name in names if _SEGMENT_NAME.fullmatch(name))


def begin_segment(layout: Layout, number: int, start: SegmentStart, *, steps: Steps) -> None:
    """Write an empty segment; it is there when its lines are."""
    layout.segment_rows(number).write_bytes(b"")
    fsync_folder(layout.adds)
    write_whole(layout.segment(number), to_line(start), steps=steps)


def remove_segments(layout: Layout, *, up_to: int, steps: Steps) -> None:
    """Remove the segments that every generation has folded in."""
    old = [number for number in segment_numbers(layout) if number <= up_to]
    for number in old:
        steps("remove segment")
        layout.segment(number).unlink()
        layout.segment_rows(number).unlink(missing_ok=True)
        steps("segment removed")

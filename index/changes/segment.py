"""Segments of the journal: each a file of lines and, beside it, a file of rows.

A row is durable before its line, so that a line promises its row. A kill leaves at most a line
without an end, and a row without a line: readers pass over both, and whoever appends next takes
their place. Anything else that is not as it was written is damage: it costs the changes it
holds, and whatever stands behind it is read. No id that may have been given is given again.
"""

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.changes.record import Added, Change, SegmentStart, from_line, to_line
from index.layout import Layout
from index.steps import Steps
from index.store import EMBEDDING_DTYPE, Rows16, write_whole
from multigrain.files import fsync_folder

_SEGMENT_NAME = re.compile(r"([0-9]{6,12})\.(jsonl|f16)")


class Part(NamedTuple):
    """What was read of a segment: its changes in order, and the rows of its adds by id, fp16 [D].

    An add whose row is lost or damaged has none; `places` are the lines' numbers, from 1.
    """

    changes: list[Change]
    rows: dict[int, Rows16]
    places: list[int]


class Segment:
    """One segment, read piece by piece.

    `start` is what its first line says; where that is damaged, what is given `instead`, else
    None. `num_lines`, in `num_bytes`, were read; `damaged` are the numbers of those among them
    that are not as they were written.
    """

    def __init__(self, layout: Layout, number: int, *, instead: SegmentStart | None = None) -> None:
        self.number = number
        self.start: SegmentStart | None = None
        self.damaged = list[int]()
        self._instead = instead
        self.num_lines = self.num_bytes = self._end = 0
        self._is_damaged_behind = False
        self._lines, self._rows = layout.segment(number), layout.segment_rows(number)

    @property
    def end(self) -> int:
        """The id behind every one that may have been given; 0 for a segment without a start."""
        if self.start is None:
            return 0
        return self._end + self.num_rows_lost

    @property
    def is_read(self) -> bool:
        """Whether every byte was read as a line; the last one may have no end after a kill."""
        return _size(self._lines) == self.num_bytes

    @property
    def num_rows_lost(self) -> int:
        """How many rows behind the last line had lines of their own, which are lost.

        A kill leaves one row without a line. More, or one behind a damaged line, had lines.
        """
        if self.start is None:
            return 0
        num_there = _size(self._rows) // self._row_bytes
        num_left = self.start.first_id + num_there - self._end
        is_torn = num_left == 1 and not self._is_damaged_behind
        return 0 if num_left <= 0 or is_torn else num_left

    @property
    def num_odd_bytes(self) -> int:
        """How many bytes stand behind the last whole row."""
        return _size(self._rows) % self._row_bytes

    @property
    def _row_bytes(self) -> int:
        dim = self.start.D if self.start else 1
        return dim * EMBEDDING_DTYPE.itemsize

    def read(self) -> Part:
        """What was appended since the last call; raises OSError."""
        changes, places = list[Change](), list[int]()
        for line in self._read_lines():
            self.num_lines += 1
            self.num_bytes += len(line)
            record = from_line(line)
            if self.num_lines == 1:
                self._begin(record)
            elif isinstance(record, Change) and self._goes_on(record):
                self._is_damaged_behind = False
                changes.append(record)
                places.append(self.num_lines)
            else:
                self._damage()
        adds = [one for one in changes if isinstance(one, Added)]
        return Part(changes, self._read_rows(adds), places)

    def _begin(self, record: object) -> None:
        is_whole = isinstance(record, SegmentStart)
        self.start = record if isinstance(record, SegmentStart) else self._instead
        self._end = self.start.first_id if self.start else 0
        if not is_whole:
            self._damage()

    def _damage(self) -> None:
        self._is_damaged_behind = True
        self.damaged.append(self.num_lines)

    def _read_lines(self) -> list[bytes]:
        """The whole lines that were not read yet; a file without any has lost its first."""
        size = _size(self._lines)
        data = b"" if size == self.num_bytes else _read(self._lines, self.num_bytes, size)
        lines = [line + b"\n" for line in data.split(b"\n")[:-1]]
        return lines if lines or self.num_lines else [b""]

    def _goes_on(self, record: Change) -> bool:
        """Whether an add's id is behind those before it."""
        if not isinstance(record, Added):
            return True
        if record.id < self._end:
            return False
        self._end = record.id + 1
        return True

    def _read_rows(self, adds: Sequence[Added]) -> dict[int, Rows16]:
        """The rows that are there, and as they were written."""
        if self.start is None or not adds:
            return {}
        first, num_bytes = adds[0].id, self._row_bytes
        length = (adds[-1].id + 1 - first) * num_bytes
        data = memoryview(_read(self._rows, (first - self.start.first_id) * num_bytes, length))
        rows = dict[int, Rows16]()
        for one in adds:
            begin = (one.id - first) * num_bytes
            row = data[begin : begin + num_bytes]
            if zlib.crc32(row) == one.row_crc32:
                rows[one.id] = np.frombuffer(row, EMBEDDING_DTYPE)
        return rows

    def append(self, record: Change, row: Rows16 | None, *, steps: Steps) -> None:
        """Write the next change, an add's row fp16 [D] first; durable when this returns.

        Only under the journal's lock, with everything read, and an add under the id `end`.
        Raises OSError.
        """
        if row is not None:
            assert self.start is not None
            steps("write added row")
            place = record.id - self.start.first_id
            _append(self._rows, row.tobytes(), behind=place * row.nbytes)
        steps("write change")
        _append(self._lines, to_line(record), behind=self.num_bytes)
        steps("change written")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, place: int, length: int) -> bytes:
    """So many bytes from a place on, fewer where the file ends before."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(place)
        return file.read(length)


def _append(path: Path, data: bytes, *, behind: int) -> None:
    """Write data behind a file's first bytes, in the place of whatever a torn write left."""
    with path.open("r+b") as file:
        file.truncate(behind)
        file.seek(behind)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def segment_numbers(layout: Layout) -> list[int]:
    """The segments there are, in order; none in a folder that was made before there were any.

    Rows without lines are one whose lines were lost; an empty file of rows is that of a segment
    that was about to begin.
    """
    if not layout.adds.is_dir():
        return []
    found = ((path, _SEGMENT_NAME.fullmatch(path.name)) for path in layout.adds.iterdir())
    return sorted({int(name[1]) for path, name in found if name and _is_begun(path)})


def _is_begun(path: Path) -> bool:
    return path.suffix == ".jsonl" or _size(path) > 0


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
        layout.segment(number).unlink(missing_ok=True)
        layout.segment_rows(number).unlink(missing_ok=True)
        steps("segment removed")

"""What can be done about a damaged journal of adds: a torn tail is cut, the rest is told."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from index.changes.record import Added
from index.changes.segment import Segment, segment_numbers
from index.layout import Layout
from index.lock import adds_lock

_CUT = "what a change that never came to its end left was cut off"
_LINES = "left: what its damaged lines say is lost; the next index.build takes in the others"
_ROWS = "left: the next index.build embeds added photos without a row again, ids stay"
_BYTES = "left: its photo is found, its bytes are lost; delete it, then add it again"


class Repair(NamedTuple):
    """What was done about a damaged file; `is_whole` where it is as it was written."""

    file: Path
    what: str
    is_whole: bool


def repair_adds(layout: Layout, damaged: Sequence[Path]) -> Iterator[Repair]:
    """Cut what a kill left behind the last change; say of the rest what a build makes of it."""
    with adds_lock(layout.adds_lock):
        for number in segment_numbers(layout):
            segment = Segment(layout, number)
            part = segment.read()
            lines, rows = layout.segment(number), layout.segment_rows(number)
            if lines in damaged:
                os.truncate(lines, segment.num_bytes)
                yield _repair(lines, _LINES if segment.damaged else None)
            if rows in damaged and segment.start:
                os.truncate(rows, rows.stat().st_size - segment.num_odd_bytes)
                num_adds = sum(isinstance(one, Added) for one in part.changes)
                is_whole = len(part.rows) == num_adds and not segment.num_rows_lost
                yield _repair(rows, None if is_whole else _ROWS)
    yield from (_repair(path, _BYTES) for path in damaged if path.parent == layout.uploads)


def _repair(path: Path, left: str | None) -> Repair:
    return Repair(path, left or _CUT, is_whole=left is None)

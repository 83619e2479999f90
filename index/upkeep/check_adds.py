"""The journal of adds and deletes, compared with its own checksums."""

from collections.abc import Iterator

import numpy as np

from index.changes.record import Added, Deleted, Linked
from index.changes.segment import Segment, segment_numbers
from index.layout import Layout
from index.lock import adds_lock
from index.upkeep.check_shard import NORM_TOLERANCE, Fault, differing, missing_or_cut


def check_adds(layout: Layout, *, folded: int, deep: bool) -> list[Fault]:
    """The faults of the segments behind `folded`, and of the bytes their adds promise.

    Lines and rows are always read whole, the added bytes with `deep`. While nothing is written
    where that can be asked for: half a change would look like damage.
    """
    if not layout.adds.is_dir():
        return []
    try:
        with adds_lock(layout.adds_lock):
            return list(_check(layout, folded, deep=deep))
    except PermissionError:
        return list(_check(layout, folded, deep=deep))


def _check(layout: Layout, folded: int, *, deep: bool) -> Iterator[Fault]:
    for number in segment_numbers(layout):
        if number > folded:
            yield from _check_segment(layout, number, deep=deep)


def _check_segment(layout: Layout, number: int, *, deep: bool) -> Iterator[Fault]:
    segment, lines = Segment(layout, number), layout.segment(number)
    part = segment.read()
    for place in segment.damaged:
        yield Fault(lines, f"line {place} is damaged")
    if not segment.is_read:
        yield Fault(lines, f"line {segment.num_lines + 1} has no end")
    rows = layout.segment_rows(number)
    if segment.start is None:
        return
    if segment.num_odd_bytes:
        yield Fault(rows, f"{segment.num_odd_bytes} bytes of a row that is not whole")
    if segment.num_rows_lost:
        yield Fault(rows, f"{segment.num_rows_lost} rows whose lines are lost")
    for change, place in zip(part.changes, part.places, strict=True):
        if not isinstance(change, Deleted):
            yield from _check_upload(layout, change, deep=deep)
        if isinstance(change, Added):
            row = part.rows.get(change.id)
            norm = 0.0 if row is None else float(np.linalg.norm(row.astype(np.float32)))
            # A NaN or infinite value makes the comparison false.
            if not abs(norm - 1) <= NORM_TOLERANCE:
                yield Fault(rows, f"the row of id {change.id}, line {place}, is damaged")


def _check_upload(layout: Layout, added: Added | Linked, *, deep: bool) -> Iterator[Fault]:
    path = layout.upload(added.sha256)
    fault = missing_or_cut(path, added.num_bytes)
    if fault is None and deep:
        fault = differing(path, added.sha256)
    if fault is not None:
        yield fault

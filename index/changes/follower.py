"""Follows the journal of adds and deletes behind what a generation has folded in."""

import logging
from collections.abc import Callable

from index.changes.recent import Recent, RecentChanges
from index.changes.segment import Segment, segment_numbers
from index.errors import IndexFolderError
from index.layout import Layout

_logger = logging.getLogger(__name__)


class Follower:
    """Reads what was appended since the last look; for one caller at a time."""

    def __init__(
        self,
        layout: Layout,
        *,
        folded: int,
        fingerprint: str,
        dim: int,
        ids_of: Callable[[list[bytes]], dict[bytes, int]],
    ) -> None:
        self._layout, self._folded, self._fingerprint = layout, folded, fingerprint
        self._segments: dict[int, Segment] = {}
        self._changes = RecentChanges(layout, dim=dim, ids_of=ids_of)
        self._recent = self._changes.now()

    def refresh(self) -> Recent:
        """What the journal comes to now, the same object where nothing was appended.

        Raises IndexFolderError where a segment cannot be read.
        """
        try:
            has_changed = self._read_on()
        except OSError as error:
            name = error.filename or self._layout.adds
            raise IndexFolderError(f"{name}: cannot be read ({error.strerror})") from error
        if has_changed:
            self._recent = self._changes.now()
        return self._recent

    @property
    def open_segment(self) -> Segment | None:
        """The segment that changes are appended to; None where a build has begun none for them."""
        last = self._segments[max(self._segments)] if self._segments else None
        return last if last and self._is_ours(last) else None

    def _read_on(self) -> bool:
        """Whether there was anything new.

        One that is not the last of the list was closed before the list was made, so that it is
        read to its end before those behind it.
        """
        has_changed = False
        for number in segment_numbers(self._layout):
            if number <= self._folded:
                continue
            segment = self._segments.setdefault(number, Segment(self._layout, number))
            is_new = segment.start is None
            part = segment.read()
            if part.changes and self._is_ours(segment):
                self._changes.take(part.changes, part.rows)
                has_changed = True
            elif is_new and segment.start and not self._is_ours(segment):
                path = self._layout.segment(number)
                _logger.warning("%s: rows of another model; a build embeds them again", path)
        return has_changed

    def _is_ours(self, segment: Segment) -> bool:
        return segment.start is not None and segment.start.fingerprint == self._fingerprint

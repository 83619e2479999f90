"""Follows the journal of adds and deletes behind what a generation has folded in."""

import logging

from index.catalog_reader import CatalogReader
from index.changes.recent import Recent
from index.changes.record import Added
from index.changes.segment import Part, Segment, segment_numbers
from index.changes.taking import RecentChanges
from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import Manifest

_logger = logging.getLogger(__name__)


class Follower:
    """Reads what was appended since the last look; for one caller at a time."""

    def __init__(self, layout: Layout, manifest: Manifest, catalog: CatalogReader) -> None:
        self._layout, self._folded = layout, manifest.adds.folded
        self._fingerprint = manifest.model.fingerprint
        self._segments: dict[int, Segment] = {}
        self._changes = RecentChanges(layout, dim=manifest.model.D, ids_of=catalog.ids_of)
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
            num_damaged = len(segment.damaged)
            part = segment.read()
            for line in segment.damaged[num_damaged:]:
                _logger.warning("%s: line %d is damaged", self._layout.segment(number), line)
            part = self._findable(segment, part)
            if part.changes:
                self._changes.take(part.changes, part.rows)
                has_changed = True
        return has_changed

    def _findable(self, segment: Segment, part: Part) -> Part:
        """All but adds without a row of this model; a build embeds those from their bytes."""
        rows = part.rows if self._is_ours(segment) else {}
        adds = [one for one in part.changes if isinstance(one, Added)]
        if num_lost := sum(one.id not in rows for one in adds):
            path = self._layout.segment_rows(segment.number)
            reason = "damaged" if self._is_ours(segment) else "rows of another model"
            _logger.warning("%s: %s; a build embeds %d photos again", path, reason, num_lost)
        changes = [one for one in part.changes if not isinstance(one, Added) or one.id in rows]
        return Part(changes, rows, [])

    def _is_ours(self, segment: Segment) -> bool:
        return segment.start is not None and segment.start.fingerprint == self._fingerprint

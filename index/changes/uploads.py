"""The bytes of added photos leave the folder when their photo has."""

import logging
import os

from index.changes.record import Deleted
from index.changes.segment import Segment, segment_numbers
from index.lock import adds_lock
from index.workshop import Workshop

_logger = logging.getLogger(__name__)


def remove_uploads(shop: Workshop) -> None:
    """Remove the added bytes of removed contents, unless they were added again since.

    After the generation without them is live. The tombstone stays, so that a kill in between
    leaves them to the next build; bytes nothing is known of stay too.
    """
    layout = shop.layout
    if not layout.uploads.is_dir():
        return
    with os.scandir(layout.uploads) as entries:
        there = {entry.name for entry in entries}
    gone = there & shop.journal.removed_uploads() if there else set[str]()
    if not gone:
        return
    # A change writes the bytes before its line.
    with adds_lock(layout.adds_lock):
        for name in sorted(gone - _added_again(shop)):
            shop.steps("remove upload")
            try:
                layout.upload(name).unlink(missing_ok=True)
            except PermissionError as error:
                _logger.warning("%s: its photo was deleted, but %s", error.filename, error.strerror)
            shop.steps("upload removed")


def _added_again(shop: Workshop) -> set[str]:
    """The bytes that changes name which no build has taken in."""
    folded, found = shop.journal.folded(), set[str]()
    for number in segment_numbers(shop.layout):
        if number > folded:
            changes = Segment(shop.layout, number).read().changes
            found |= {one.sha256 for one in changes if not isinstance(one, Deleted)}
    return found

"""The disk an index folder is on: what a build needs of it, and the error when it is full."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from index.codebook.footprint import human_bytes
from index.errors import DiskFullError, IndexFolderError
from index.layout import Layout
from index.store import bytes_below

# faiss and SQLite keep the number of an error to themselves, so it is known by its text. SQLite
# calls a quota or a limit an I/O error.
_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL = (*map(os.strerror, _NUMBERS), "disk is full", "disk I/O error")


class DiskNeed:
    """Bytes a build needs for all its files; the rows and lists there are count for it."""

    def __init__(self, layout: Layout, total: int) -> None:
        self._layout = layout
        self.total = total

    def missing(self) -> int:
        """Bytes still to be written, about; a catalog is always written anew."""
        kept = (self._layout.models, self._layout.codebooks, self._layout.shards)
        return max(self.total - bytes_below([*kept, self._layout.staging]), 0)

    def free(self) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(self._layout.root).free

    def warning(self) -> str | None:
        """A line when less is free than needed."""
        missing, free = self.missing(), self.free()
        if free >= missing:
            return None
        return f"{self._layout.root}: {_text(missing, free)}"


@contextmanager
def full_disk_errors(layout: Layout, total: int) -> Iterator[DiskNeed]:
    """Turn whatever a full disk raises into a DiskFullError with the bytes needed and free.

    `total` bytes are needed as far as is known; who learns more sets it anew.
    """
    need = DiskNeed(layout, total)
    try:
        yield need
    except (OSError, IndexFolderError) as error:
        if not any(text in str(error) for text in _FULL):
            raise
        said = str(error)
        if isinstance(error, OSError):
            said = f"{error.filename or layout.root}: {error.strerror}; make room, then run again"
            said += " to continue"
        raise DiskFullError(f"{said}: {_text(need.missing(), need.free())}") from error


def _text(missing: int, free: int) -> str:
    return f"the build needs about {human_bytes(missing)} more, {human_bytes(free)} are free"

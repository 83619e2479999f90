"""One builder a folder, and generations that stay while a reader has them open."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from index.errors import BuilderBusyError, IndexFolderError

# A holder appends a line or starts a segment, which takes milliseconds unless the disk hangs.
_ADDS_TIMEOUT_SECONDS = 10.0
_ADDS_RETRY_SECONDS = 0.005


@contextmanager
def builder_lock(path: Path) -> Iterator[None]:
    """Hold the builder's LOCK, which carries the holder's pid; raises BuilderBusyError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        if not _lock(file, fcntl.LOCK_EX):
            holder = file.read().decode(errors="replace").strip() or "unknown"
            raise BuilderBusyError(f"{path}: another build is running (pid {holder}); wait for it")
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        yield


@contextmanager
def adds_lock(path: Path) -> Iterator[None]:
    """Hold the journal's lock for one change; raises IndexFolderError after waiting in vain."""
    with _opened(path) as file:
        give_up_at = time.monotonic() + _ADDS_TIMEOUT_SECONDS
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > give_up_at:
                raise IndexFolderError(
                    f"{path}: held by another process for {_ADDS_TIMEOUT_SECONDS:g} s; try again"
                )
            time.sleep(_ADDS_RETRY_SECONDS)
        yield


def take_lock(path: Path) -> BinaryIO | None:
    """Lock a file until it is closed, at the latest by the end of the process; None: it is held."""
    file = _opened(path)
    if _lock(file, fcntl.LOCK_EX):
        return file
    file.close()
    return None


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b")


def open_shared(path: Path) -> BinaryIO:
    """Open a manifest with a shared flock, so that the builder keeps its generation."""
    file = path.open("rb")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def is_read_by_someone(path: Path) -> bool:
    """Whether a reader holds the manifest."""
    with path.open("rb") as file:
        return not _lock(file, fcntl.LOCK_EX)


def _lock(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

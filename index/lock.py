"""One builder a folder, and generations that stay while a reader has them open."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from index.errors import BuilderBusyError, IndexFolderError, OnlyReadError
from index.layout import Layout

# A holder appends a line or starts a segment, which takes milliseconds unless the disk hangs.
_ADDS_TIMEOUT_SECONDS = 10.0
_ADDS_RETRY_SECONDS = 0.005
# Another process may be fetching a large generation, which then is there for both.
_COPY_TIMEOUT_SECONDS, _COPY_RETRY_SECONDS = 3600.0, 0.1


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
    with _waited_for(path, seconds=_ADDS_TIMEOUT_SECONDS, retry_seconds=_ADDS_RETRY_SECONDS):
        yield


@contextmanager
def copy_lock(path: Path) -> Iterator[None]:
    """Hold a copy's LOCK while it is brought up to date; raises as `adds_lock`."""
    with _waited_for(path, seconds=_COPY_TIMEOUT_SECONDS, retry_seconds=_COPY_RETRY_SECONDS):
        yield


@contextmanager
def _waited_for(path: Path, *, seconds: float, retry_seconds: float) -> Iterator[None]:
    with _opened(path) as file:
        give_up_at = time.monotonic() + seconds
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > give_up_at:
                raise IndexFolderError(
                    f"{path}: held by another process for {seconds:g} s; try again"
                )
            time.sleep(retry_seconds)
        yield


def require_original(layout: Layout) -> None:
    """Refuse to change a copy of an index that lies elsewhere; raises OnlyReadError."""
    if layout.origin.exists():
        raise OnlyReadError(
            f"{layout.root}: a copy of {layout.origin.read_text('utf-8').strip()}, which is only "
            "read; change the folder it was pushed from, build and push again"
        )


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

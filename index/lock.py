"""One builder a folder, and generations that stay while a reader has them open."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from index.errors import BuilderBusyError


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

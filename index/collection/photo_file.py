"""A photo's file: read only when it is a regular one, and never past what is expected."""

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

from multigrain.locations import Url, is_url
from multigrain.object_store import (
    ObjectDeniedError,
    ObjectMissingError,
    ObjectStore,
    ObjectStoreError,
)
from multigrain.photo import PhotoError

# What is no file, and a name no file can have, stay so until the scan sees another stat.
NOT_A_FILE = "not_a_file"
PATH_INVALID = "path_invalid"


def read_photo_file(path: Path | str, *, max_bytes: int) -> bytes:
    """The file's bytes; raises PhotoError, also for a pipe, a device, or more than `max_bytes`.

    A text may be the address of an object; raises ObjectStoreError where the store gives no
    answer, which says nothing of the photo.
    """
    if isinstance(path, str) and is_url(path):
        return _read_object(Url(path), max_bytes=max_bytes)
    try:
        # Not blocking: a pipe that nobody writes to would hold its reader for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            stat = os.fstat(descriptor)
            if not S_ISREG(stat.st_mode):
                raise PhotoError(NOT_A_FILE, f"{path}: not a regular file")
            data = b"" if stat.st_size > max_bytes else _read(descriptor, stat.st_size, max_bytes)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PhotoError("photo_missing", f"{path}: vanished") from error
    except OSError as error:
        raise PhotoError("photo_unreadable", f"{path}: {error.strerror}") from error
    except ValueError as error:  # an embedded null byte
        raise PhotoError(PATH_INVALID, f"{path!r}: {error}") from error
    if len(data) > max_bytes or stat.st_size > max_bytes:
        raise PhotoError("payload_too_large", f"{path}: over {max_bytes} bytes")
    return data


def _read_object(url: Url, *, max_bytes: int) -> bytes:
    try:
        data = ObjectStore(url).read(max_bytes=max_bytes)
    except ObjectMissingError as error:
        raise PhotoError("photo_missing", f"{url}: vanished") from error
    except ObjectDeniedError as error:
        raise PhotoError("photo_unreadable", str(error)) from error
    if len(data) > max_bytes:
        raise PhotoError("payload_too_large", f"{url}: over {max_bytes} bytes")
    return data


def _read(descriptor: int, size: int, max_bytes: int) -> bytes:
    """A file's bytes, in one call while it keeps its size; one byte more than allowed, if grown."""
    data = os.read(descriptor, size + 1)
    if len(data) == size:  # the end was met
        return data
    parts, num_read = [data], len(data)
    while data and num_read <= max_bytes:
        data = os.read(descriptor, max_bytes + 1 - num_read)
        parts.append(data)
        num_read += len(data)
    return b"".join(parts)


def read_same_bytes(paths: Iterable[Path | Url], digest: bytes, *, num_bytes: int) -> bytes | None:
    """The bytes with this sha256 from the first file that still holds them; else None.

    A file that was changed, or swapped for another photo, is not the one that was indexed.
    """
    for path in paths:
        try:
            data = read_photo_file(path, max_bytes=num_bytes)
        except (PhotoError, ObjectStoreError):
            continue  # gone, or another file now: another path may hold the same bytes
        if sha256(data).digest() == digest:
            return data
    return None

"""Files of an object store, through fsspec; nothing of it is imported until one is named.

Credentials, regions and endpoints are those that the store's own client finds in the environment.
"""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from multigrain.errors import MultiGrainError
from multigrain.locations import Url

_MODIFIED = ("mtime", "LastModified", "updated", "last_modified", "created")
_MARKS = ("ETag", "etag", "md5Hash", "ino")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_INT63 = 2**63 - 1


class ObjectStoreError(MultiGrainError):
    """A store that cannot be reached, or refuses; the message names the address."""


class ObjectMissingError(ObjectStoreError):
    """Nothing lies at an address."""


class ObjectDeniedError(ObjectStoreError):
    """The store knows the caller, or nobody, and does not let them."""


class StoredObject(NamedTuple):
    """What is known of an object without reading it.

    `name` is the last part of its path, a folder's ends in "/". `mark` is a number of 63 bits made
    of the store's own tag of its bytes, 0 where it has none.
    """

    name: str
    size: int
    modified_ns: int
    mark: int


class ObjectStore:
    """The objects below an address; safe under concurrent callers.

    Every method raises ObjectStoreError.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise ObjectStoreError(
                f"{url}: fsspec is not installed: install multigrain-retrieval[objects]"
            ) from error
        try:
            # A listing is asked for to see what changed. Only disks have folders to be made.
            options = {"auto_mkdir": True} if url.startswith("file:") else {}
            self._files, root = url_to_fs(url, use_listings_cache=False, **options)
        except (ImportError, ValueError) as error:  # a package not installed, an unknown scheme
            raise ObjectStoreError(f"{url}: {error}") from error
        self._root = root.rstrip("/")

    def read(self, name: str = "", *, max_bytes: int | None = None) -> bytes:
        """An object's bytes, of more than `max_bytes` the first `max_bytes` + 1."""
        path, end = self._path(name), None if max_bytes is None else max_bytes + 1
        with self._errors(name):
            try:
                data: bytes = self._files.cat_file(path, start=None, end=end)
            except OSError as error:
                # Of an empty object no range can be asked for.
                if error.errno != errno.EINVAL or self._files.info(path)["size"]:
                    raise
                data = b""
        return data

    def write(self, name: str, data: bytes) -> None:
        """Replace an object."""
        with self._errors(name):
            self._files.pipe_file(self._path(name), data)

    def download(self, name: str, target: Path) -> None:
        """Copy an object to a file; raises OSError too, for a full disk."""
        with self._errors(name):
            self._files.get_file(self._path(name), str(target))

    def upload(self, source: Path, name: str) -> None:
        """Replace an object by a file's bytes."""
        with self._errors(name):
            self._files.put_file(str(source), self._path(name))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        try:
            with self._errors(name):
                self._files.rm_file(self._path(name))
        except ObjectMissingError:
            return

    def stat(self, name: str = "") -> StoredObject:
        """What is known of an object; raises ObjectMissingError for a folder, too."""
        with self._errors(name):
            info = self._files.info(self._path(name))
        if info["type"] != "file":
            raise ObjectMissingError(f"{self._address(name)}: not there, or a folder")
        return _stored(info, info["name"].rpartition("/")[2])

    def folder(self, name: str = "") -> list[StoredObject]:
        """What lies in a folder, by the bytes of the names; raises ObjectMissingError."""
        path = self._path(name)
        with self._errors(name):
            infos = self._files.ls(path, detail=True)
        found = [_stored(info, _name_in(path, info)) for info in infos if _is_below(path, info)]
        return sorted(found, key=lambda one: one.name.encode("utf-8", "surrogatepass"))

    def sizes(self, name: str) -> dict[str, int]:
        """Every object below a folder, however deep, by its name below the address, with bytes."""
        with self._errors(name):
            infos = self._files.find(self._path(name), detail=True)
        return {path[len(self._root) + 1 :]: int(info["size"]) for path, info in infos.items()}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _address(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissingError(f"{self._address(name)}: not there") from error
        except PermissionError as error:
            raise ObjectDeniedError(
                f"{self._address(name)}: access denied ({error}); see the credentials in the "
                "environment"
            ) from error
        except Exception as error:  # each store's client has errors of its own
            if isinstance(error, OSError) and error.errno in _DISK_FULL:
                raise
            what = f"{type(error).__name__}: {error}"
            raise ObjectStoreError(f"{self._address(name)}: no answer ({what})") from error


def _is_below(folder: str, info: Mapping[str, Any]) -> bool:
    """Whether an entry lies in a folder: listing an object gives itself, as does a folder's mark.

    A folder in it whose name is empty is named "/".
    """
    name = str(info["name"])
    is_mark = name == f"{folder}/" and info["type"] != "directory"
    return name.startswith(f"{folder}/") and not is_mark


def _name_in(folder: str, info: Mapping[str, Any]) -> str:
    name = str(info["name"])[len(folder) + 1 :].rstrip("/")
    return f"{name}/" if info["type"] == "directory" else name


def _stored(info: Mapping[str, Any], name: str) -> StoredObject:
    mark = next((str(info[key]) for key in _MARKS if info.get(key)), "")
    digest = sha256(mark.encode()).digest()[:8] if mark else b""
    return StoredObject(
        name, int(info["size"] or 0), _modified_ns(info), int.from_bytes(digest, "big") & _INT63
    )


def _modified_ns(info: Mapping[str, Any]) -> int:
    """When an object was written, as its store says it; 0 where it does not."""
    value = next((info[key] for key in _MODIFIED if info.get(key)), 0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    seconds = value.timestamp() if isinstance(value, datetime) else float(value)
    return round(seconds * 1e9)

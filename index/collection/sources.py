"""Where photos come from: a folder's files, here or in an object store, or a list of paths.

Every regular file whose name, and whose folders' names, do not start with "." is a candidate:
its content decides whether it is a photo. Scan order is the order of the paths' bytes.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from index.catalog_scan import FoundPhoto
from index.collection.photo_file import NOT_A_FILE, PATH_INVALID
from index.collection.stored_photos import scan_objects
from index.errors import IndexFolderError
from multigrain.locations import Url
from multigrain.object_store import ObjectMissingError, ObjectStore
from multigrain.photo_list import is_photo_list, is_utf8, read_photo_list

# SQLite's integers are signed, inode numbers are not.
_INT63 = 2**63 - 1


# A store answers after tens of milliseconds, in which a core decodes several photos.
_REMOTE_READERS = 16


# A name's sort key, and the name.
_Name = tuple[bytes, str]


class Source(NamedTuple):
    """A collection to scan: its root as the catalog names it, and what stands there."""

    root: str
    path: Path | Url

    @property
    def base(self) -> Path | Url:
        """The folder its photos' paths start from."""
        folder = os.path.dirname(self.root)  # noqa: PTH120 - a folder's root ends in "/"
        return Path(folder) if isinstance(self.path, Path) else Url(folder)


class _Folder(NamedTuple):
    device: int
    inode: int


def open_source(path: Path | Url) -> Source:
    """A folder or a CSV/JSONL list as a source; raises IndexFolderError for anything else.

    A folder of an object store too; raises ObjectStoreError.
    """
    if not isinstance(path, Path):
        return _open_stored(path)
    absolute = os.path.abspath(path)  # noqa: PTH100 - links in the name stay as the user wrote them
    if not is_utf8(absolute):
        raise IndexFolderError(f"--photos {absolute!r}: the name is not UTF-8; rename the folder")
    if path.is_dir():
        _require_listable(path)
        return Source(absolute.rstrip("/") + "/", Path(absolute))
    if path.is_file() and is_photo_list(path):
        return Source(absolute, Path(absolute))
    if path.exists():
        raise IndexFolderError(f"--photos {path}: give a folder, a .csv or a .jsonl list")
    raise IndexFolderError(f"--photos {path}: no such folder or list")


def _open_stored(url: Url) -> Source:
    if not is_utf8(url):
        raise IndexFolderError(f"--photos {url!r}: the name is not UTF-8")
    if is_photo_list(Path(url)):
        raise IndexFolderError(
            f"--photos {url}: lists are read from this machine, folders from an object store too"
        )
    try:
        names = ObjectStore(url).folder()
    except ObjectMissingError as error:
        raise IndexFolderError(f"--photos {url}: no such folder") from error
    if not names:
        raise IndexFolderError(f"--photos {url}: no folder with objects in it")
    return Source(f"{url}/", url)


def _require_listable(root: Path) -> None:
    try:
        with os.scandir(root):
            pass
    except OSError as error:
        raise _unreadable(root, error) from error


def num_readers(photos: Iterable[Path | Url], *, num_cores: int) -> int:
    """How many threads read and decode: more than there are cores where they wait for a store."""
    is_remote = any(not isinstance(one, Path) for one in photos)
    return max(num_cores, _REMOTE_READERS if is_remote else 0)


def scan(source: Source, *, skip: Path) -> Iterator[FoundPhoto]:
    """Every candidate of a source in scan order, leaving out the index folder `skip`, if any.

    A folder reached twice through links is entered once. Raises IndexFolderError for a folder
    that cannot be listed, PhotoListError for a list that cannot be read, ObjectStoreError.
    """
    if not isinstance(source.path, Path):
        return scan_objects(source.path)
    if is_photo_list(source.path) and not source.path.is_dir():
        return _scan_list(source.path)
    entered = {_identity(skip.stat())} if skip.exists() else set[_Folder]()
    return _walk(source.path, entered)


def _walk(root: Path, entered: set[_Folder]) -> Iterator[FoundPhoto]:
    """Depth first; a folder sorts as its name and "/", so paths come out in bytewise order."""
    # Text, not pathlib, which would take more time than the file system.
    base = os.path.join(root, "")  # noqa: PTH118
    # A stack of folders being listed, not calls: a tree may be deeper than Python's stack.
    listed = [("", iter(_listed_root(root, entered)))]
    while listed:
        prefix, names = listed[-1]
        folder, label = base + prefix, _class_of(prefix)
        for key, name in names:
            if key.endswith(b"/"):
                try:
                    inside = _enter(root / prefix / name, entered)
                except OSError:
                    yield _failed(prefix + name, "folder_unreadable", label=label)
                    continue
                listed.append((f"{prefix}{name}/", iter(inside)))
                break
            if found := _find(folder + name, prefix + name, label=label):
                yield found
        else:
            listed.pop()


def _class_of(prefix: str) -> str | None:
    """The class of photos below a folder "a/b/", the first folder of their paths, as training."""
    return prefix.partition("/")[0] or None


def _listed_root(root: Path, entered: set[_Folder]) -> list[_Name]:
    try:
        return _enter(root, entered)
    except OSError as error:
        raise _unreadable(root, error) from error


def _enter(folder: Path, entered: set[_Folder]) -> list[_Name]:
    """The names in a folder, none where it was entered before; raises OSError."""
    identity = _identity(folder.stat())
    if identity in entered:
        return []
    entered.add(identity)
    return _sorted_names(folder)


def _unreadable(root: Path, error: OSError) -> IndexFolderError:
    return IndexFolderError(
        f"--photos {root}: the folder cannot be listed ({error.strerror}); mount it or mend its "
        "permissions, or its photos would leave the index"
    )


def _sorted_names(folder: Path) -> list[_Name]:
    with os.scandir(folder) as entries:
        return sorted(
            (os.fsencode(f"{entry.name}/" if _is_folder(entry) else entry.name), entry.name)
            for entry in entries
            if not entry.name.startswith(".")
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _find(
    file: str, path: str, *, attributes: str | None = None, label: str | None = None
) -> FoundPhoto | None:
    """A file as a scan records it; None for a pipe, a socket or a device."""
    stat = _stat(file) if path.isascii() or is_utf8(path) else "path_not_utf8"
    if isinstance(stat, str):
        return _failed(path, stat, attributes=attributes, label=label)
    if not S_ISREG(stat.st_mode):
        return None
    return FoundPhoto(
        path,
        stat.st_dev & _INT63,
        stat.st_ino & _INT63,
        stat.st_size,
        stat.st_mtime_ns,
        None,
        attributes,
        label,
    )


def _stat(file: str) -> os.stat_result | str:
    """A file's stat, or the code of what is wrong with it."""
    try:
        return os.stat(file)  # noqa: PTH116 - see _walk
    except (FileNotFoundError, NotADirectoryError):
        return "photo_missing"
    except OSError:
        return "photo_unreadable"
    except ValueError:  # an embedded null byte
        return PATH_INVALID


def _failed(
    path: str, code: str, *, attributes: str | None = None, label: str | None = None
) -> FoundPhoto:
    label = _readable(label) if label else None
    return FoundPhoto(_readable(path), 0, 0, 0, 0, code, attributes, label)


def _readable(name: str) -> str:
    """A name in UTF-8, as the catalog's text is; other bytes are spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _scan_list(photos: Path) -> Iterator[FoundPhoto]:
    rows = dict[str, dict[str, Any]]()
    for photo in read_photo_list(photos):
        rows.setdefault(os.path.normpath(photo.path), photo.attributes)
    for path in sorted(rows, key=str.encode):
        attributes = json.dumps(rows[path], sort_keys=True) if rows[path] else None
        label = label_of(rows[path].get("label"))
        file = os.path.join(photos.parent, path)  # noqa: PTH118 - see _walk
        found = _find(file, path, attributes=attributes, label=label)
        yield found or _failed(path, NOT_A_FILE, attributes=attributes, label=label)


def label_of(value: Any) -> str | None:
    """A label of a list as text; what is neither text nor number is none."""
    is_label = isinstance(value, str | int | float) and not isinstance(value, bool)
    return (str(value) or None) if is_label else None


def _identity(stat: os.stat_result) -> _Folder:
    return _Folder(stat.st_dev, stat.st_ino)

"""Find photos: below a folder, or named by a CSV or JSONL list."""

import os
from collections.abc import Iterator
from pathlib import Path

from multigrain.heif import is_heif
from multigrain.photo_list import PhotoListError, is_photo_list, read_photo_list

# Names that are taken at their word; a file with any other name is looked into.
_PHOTO_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
    ".heic", ".heif",
))  # fmt: skip
_PHOTO_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
NUM_MAGIC_BYTES = 12


def find_photos(folder: Path) -> list[str]:
    """Return the photos below a folder, as sorted paths relative to it with forward slashes.

    Hidden files and folders are left out, and so is what by name and by content is no photo,
    or no regular file. Raises PhotoListError when nothing is left, and for a sub-folder that
    cannot be looked into.
    """
    if not folder.is_dir():
        raise PhotoListError(f"no folder {folder}")
    try:
        found = [path.relative_to(folder).as_posix() for path in _files_below(folder)]
    except OSError as error:
        raise PhotoListError(
            f"{error.filename} cannot be looked into ({error.strerror}): make it readable, or "
            f"move it out of {folder}"
        ) from error
    if not found:
        raise PhotoListError(f"no photos below {folder}")
    return sorted(found)


def paths_of(source: Path) -> list[Path]:
    """Return the photos of a folder, or of a CSV/JSONL list with a `path` column.

    A relative path in a list starts at the list's own folder.
    """
    if not is_photo_list(source):
        return [source / name for name in find_photos(source)]
    paths = [source.parent / photo.path for photo in read_photo_list(source)]
    if not paths:
        raise PhotoListError(f"{source}: no photos in this list")
    return paths


def has_photo_suffix(name: str) -> bool:
    """Whether a file is named like a photo."""
    return os.path.splitext(name)[1].lower() in _PHOTO_SUFFIXES  # noqa: PTH122 - no Path a member


def any_photo(folder: Path) -> Path | None:
    """Return one photo below a folder; None where there is none, or where none can be looked at."""
    try:
        return next(_files_below(folder), None)
    except OSError:
        return None


def _files_below(folder: Path) -> Iterator[Path]:
    entered, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        parent = waiting.pop()
        stat = parent.stat()
        if (stat.st_dev, stat.st_ino) in entered:
            continue  # reached before through a link: a loop would never end
        entered.add((stat.st_dev, stat.st_ino))
        folders = []
        with os.scandir(parent) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                # A link to itself is neither; asking the entry would raise.
                thing = Path(entry.path) if entry.is_symlink() else entry
                if entry.name.startswith("."):
                    continue
                if thing.is_dir():
                    folders.append(Path(entry.path))
                elif thing.is_file() and _is_photo(Path(entry.path)):
                    yield Path(entry.path)
        waiting += reversed(folders)


def _is_photo(path: Path) -> bool:
    """Judge by name first: opening each of a million files would take minutes."""
    if path.suffix.lower() in _PHOTO_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return starts_like_photo(file.read(NUM_MAGIC_BYTES))
    except OSError:
        return False  # unreadable, and not named like a photo


def starts_like_photo(start: bytes) -> bool:
    """Whether the first NUM_MAGIC_BYTES of a file are those of a photo."""
    webp = start.startswith(b"RIFF") and start[8:] == b"WEBP"
    avif = start[4:] in (b"ftypavif", b"ftypavis")
    return start.startswith(_PHOTO_STARTS) or webp or avif or is_heif(start)

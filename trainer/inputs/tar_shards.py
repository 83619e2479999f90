"""Photos in tar shards, read at random through an index of offsets that is made once.

A member `class/name.jpg` has the class of its first folder; beside `key.cls` (webdataset) it has
the class written there. Nothing is ever unpacked.
"""

import os
import posixpath
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError, open_photo
from multigrain.photo_list import PhotoListError
from multigrain.progress import Progress
from multigrain.transforms import Pixels
from trainer.inputs.photo_set import stamp_of
from trainer.inputs.photo_sources import Say, Source
from trainer.inputs.photos import has_photo_suffix
from trainer.inputs.tar_index import Member, ShardIndexes

_LONGEST_CLASS = 1024  # bytes of a .cls member


class TarError(MultiGrainError):
    """Shards that cannot be read."""


class TarStore(NamedTuple):
    """Photos at known places of tar files."""

    shards: tuple[Path, ...]
    names: tuple[str, ...]
    places: npt.NDArray[np.int64]  # [photos, 3]: shard, offset, bytes

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return "tar shards"

    def image(self, item: int, *, min_side: int) -> Image.Image:
        """Decode one photo; raises PhotoError."""
        shard, offset, num_bytes = self.places[item].tolist()
        path = self.shards[shard]
        try:
            # Opened for each photo: a thousand shards would be too many open files.
            descriptor = os.open(path, os.O_RDONLY)
            try:
                data = os.pread(descriptor, num_bytes, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise PhotoError("photo_unreadable", f"cannot read {path}: {error}") from error
        if len(data) < num_bytes:
            raise PhotoError("photo_unreadable", f"{path} ends within {self.names[item]!r}")
        return open_photo(data, min_side=min_side).image

    def pixels(self, item: int, *, min_side: int) -> Pixels:
        """Decode one photo; raises PhotoError."""
        return np.array(self.image(item, min_side=min_side))

    def stamp(self, item: int) -> str:
        """Return the place in the shard, and the shard's size and time of change."""
        shard, offset, num_bytes = self.places[item].tolist()
        return f"{offset} {num_bytes} {stamp_of(self.shards[shard])}"


def is_tar(source: Path) -> bool:
    """Whether a source is a tar file, or a folder with tar files right below it."""
    return source.suffix.lower() == ".tar" or any(_tars_in(source))


def read_tar(source: Path, *, say: Say, cache_dir: Path | None = None) -> Source:
    """Find the photos of a tar file, or of all tar files of a folder.

    The offsets are kept in `cache_dir` (default: the user's cache), each shard's by its path,
    size and time of change. Raises TarError for a shard that is damaged or compressed, and
    PhotoListError without photos.
    """
    shards = tuple(_tars_in(source)) or (source,)
    indexes = ShardIndexes(cache_dir)
    progress = Progress(len(shards), "shards")
    names: list[str] = []
    classes: list[str | None] = []
    places: list[tuple[int, int, int]] = []
    for number, shard in enumerate(shards):
        title = f"{shard.name}/" if len(shards) > 1 else ""
        for member in _members(shard, indexes):
            names.append(title + member.name)
            classes.append(member.class_name)
            places.append((number, member.offset, member.num_bytes))
        progress.update(number + 1)
    if indexes.num_made:
        progress.close()
    if not names:
        raise PhotoListError(f"no photos in {source}")
    say(f"{source}: {len(shards)} tar shards, {indexes.num_made} of them indexed now")
    if indexes.why_unwritten:
        say(f"{indexes.why_unwritten}: the next run indexes the shards again")
    store = TarStore(shards, tuple(names), np.array(places, np.int64))
    nothing = (None,) * len(names)
    return Source(source, store, tuple(names), tuple(classes), nothing, nothing)


def _tars_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".tar" and not path.name.startswith(".") and path.is_file():
            yield path


def _members(shard: Path, indexes: ShardIndexes) -> list[Member]:
    try:
        return indexes.of(shard, make=_scan)
    except (OSError, tarfile.TarError) as error:
        raise TarError(
            f"{shard}: cannot be read as a plain tar file ({error}); a compressed one must be "
            f"unpacked, its photos cannot be reached at random"
        ) from error


def _scan(shard: Path) -> list[Member]:
    """Read the headers of a tar file; raises OSError and tarfile.TarError."""
    photos: list[tuple[str, Member]] = []
    classes: dict[str, str] = {}
    size = shard.stat().st_size
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            name = posixpath.normpath(member.name).lstrip("/")
            folder, base = posixpath.split(name)
            key = posixpath.join(folder, base.split(".", 1)[0])
            if not member.isfile() or base.startswith("."):
                continue
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"it ends within {member.name!r}")
            if base.endswith(".cls") and member.size <= _LONGEST_CLASS:
                content = tar.extractfile(member)
                assert content is not None
                classes[key] = content.read().decode("utf-8", "surrogateescape").strip()
            elif has_photo_suffix(base):
                top = name.split("/", 1)[0] if folder else None
                photos.append((key, Member(name, member.offset_data, member.size, top)))
    return [
        member._replace(class_name=classes.get(key, member.class_name)) for key, member in photos
    ]

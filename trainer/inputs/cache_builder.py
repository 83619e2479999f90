"""Build a cache of resized photos, a part at a time: what is finished is never done again."""

import hashlib
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from multigrain.ahead import in_order
from multigrain.files import atomic_write_text, write_via_temporary
from multigrain.photo import PhotoError
from multigrain.progress import Progress
from trainer.inputs.cache_reader import (
    BUILDING,
    COMPLETE,
    FORMAT,
    CachedPhoto,
    CacheError,
    Kind,
    Part,
    part_file,
    read_document,
    read_part,
)
from trainer.inputs.photo_sources import Joined, Say

PHOTOS_PER_PART = 1024  # what is lost at most when the machine stops
_AHEAD_PER_THREAD = 4


class CacheSettings(NamedTuple):
    """How photos are kept: `side` is the shorter one, pixels; `quality` is of JPEG."""

    kind: Kind
    side: int
    quality: int


class _Resized(NamedTuple):
    photo_id: int
    data: bytes
    size: tuple[int, int]  # width, height
    why_bad: str | None


def build_cache(
    joined: Joined, out: Path, settings: CacheSettings, *, num_threads: int, say: Say
) -> Path:
    """Write the cache into `out` and return it; begun before, it is finished or repaired.

    A part is written again when a photo's file, its split or its group has changed since.
    Photos that cannot be read are left out, counted, and listed in `bad_images.txt`.
    Raises CacheError when `out` holds a cache of other photos or settings.
    """
    photos = joined.photos
    document = {"format": FORMAT, **settings._asdict(), "digest": photos.digest()}
    _begin(out, document)
    num_parts = -(-len(photos.names) // PHOTOS_PER_PART)
    progress, num_bytes, num_written = Progress(len(photos.names), "photos"), 0, 0
    bad: list[tuple[str, str]] = []
    for number in range(num_parts):
        ids = range(len(photos.names))[number * PHOTOS_PER_PART :][:PHOTOS_PER_PART]
        part, digest = read_part(out, number, settings.kind), _digest(joined, ids)
        if part is None or part.digest != digest or _any_mended(joined, ids, part, settings):
            num_written += 1
            resized = _resized(joined, ids, settings, num_threads)
            file = part_file(out, number)
            _write_part(file, joined, resized, settings.kind, progress, digest=digest)
            part = read_part(out, number, settings.kind)
            assert part is not None
        bad += part.bad
        num_bytes += sum(photo.num_bytes for photo in part.photos)
        progress.update(ids.stop, f"{len(bad)} unreadable")
    progress.close()
    lines = [f"{name}\t{why}\n".encode(errors="backslashreplace").decode() for name, why in bad]
    atomic_write_text(out / "bad_images.txt", "".join(lines))
    names = None if photos.class_names is None else list(photos.class_names)
    finished = document | {"num_parts": num_parts, "class_names": names}
    atomic_write_text(out / COMPLETE, json.dumps(finished))
    (out / BUILDING).unlink(missing_ok=True)
    kept = len(photos.names) - len(bad)
    say(
        f"{out}: {kept} photos in {num_parts} parts, {num_written} of them written now, "
        f"{num_bytes / 1e6:.1f} MB"
    )
    if bad:
        say(f"{len(bad)} photos cannot be read and are left out: see {out / 'bad_images.txt'}")
    return out


def _begin(out: Path, document: dict[str, Any]) -> None:
    """Refuse a folder that holds something else; note what is being built."""
    found = read_document(out / COMPLETE) or read_document(out / BUILDING)
    if found is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise CacheError(f"{out}: is not empty and is no cache: give another --out")
        out.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out / BUILDING, json.dumps(document))
        return
    for key, value in document.items():
        if found.get(key) != value:
            what = "other photos" if key == "digest" else f"{key} {found.get(key)}, not {value}"
            raise CacheError(f"{out}: holds a cache of {what}: give another --out, or remove it")


def _digest(joined: Joined, ids: Iterable[int]) -> str:
    """Hex SHA-256 of all that a part is made of."""
    photos = joined.photos
    groups = photos.groups or (None,) * len(photos.names)
    rows = [(joined.splits[number], groups[number], photos.stamp(number)) for number in ids]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _any_mended(joined: Joined, ids: Iterable[int], part: Part, settings: CacheSettings) -> bool:
    """Whether a photo that could not be read now can: a disk or a permission is no stamp's."""
    bad = {name for name, _ in part.bad}
    for photo_id in ids if bad else ():
        if joined.photos.names[photo_id] in bad:
            try:
                joined.photos.image(photo_id, min_side=settings.side)
            except PhotoError:
                continue
            return True
    return False


def _write_part(
    file: Path,
    joined: Joined,
    items: Iterable[_Resized],
    kind: Kind,
    progress: Progress,
    *,
    digest: str,
) -> None:
    photos: list[CachedPhoto] = []
    bad: list[tuple[str, str]] = []
    offset = 0
    file.with_suffix(".json").unlink(missing_ok=True)  # it belongs to what is now replaced
    with write_via_temporary(file) as temporary, temporary.open("wb") as stream:
        for resized in items:
            if resized.why_bad is not None:
                bad.append((joined.photos.names[resized.photo_id], resized.why_bad))
            else:
                stream.write(resized.data)
                photos.append(_row(joined, resized, offset, kind))
                offset += len(resized.data)
            progress.update(resized.photo_id + 1)
    text = json.dumps({"photos": photos, "bad": bad, "digest": digest})
    atomic_write_text(file.with_suffix(".json"), text)


def _resized(
    joined: Joined, ids: Iterable[int], settings: CacheSettings, num_threads: int
) -> Iterable[_Resized]:
    def resize(photo_id: int) -> _Resized:
        try:
            image = joined.photos.image(photo_id, min_side=settings.side)
        except PhotoError as error:
            return _Resized(photo_id, b"", (0, 0), f"{error.code}: {error}")
        image = shrunk(image, settings.side)
        return _Resized(photo_id, _encode(image, settings), image.size, None)

    window = _AHEAD_PER_THREAD * num_threads
    return in_order(resize, ids, num_threads=num_threads, window=window)


def _row(joined: Joined, resized: _Resized, offset: int, kind: Kind) -> CachedPhoto:
    photos, photo_id = joined.photos, resized.photo_id
    return CachedPhoto(
        name=photos.names[photo_id],
        class_name=photos.class_names[photos.labels[photo_id]] if photos.class_names else None,
        group=photos.groups[photo_id] if photos.groups else None,
        split=joined.splits[photo_id],
        offset=offset,
        num_bytes=len(resized.data),
        height=resized.size[1],
        width=resized.size[0],
        checksum=zlib.crc32(resized.data) if kind == "jpeg" else 0,
    )


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """Return the image with a shorter side of at most `side` pixels, in shape."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (max(side, round(image.width * scale)), max(side, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _encode(image: Image.Image, settings: CacheSettings) -> bytes:
    if settings.kind == "raw":
        return np.asarray(image).tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=settings.quality)
    return buffer.getvalue()

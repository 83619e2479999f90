"""Photo bytes to an upright RGB image: the only place in the project where a photo is decoded.

Content decides the format, never a name. The header is checked against the limits before a
pixel is decoded, so a decompression bomb costs nothing.
"""

import io
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from multigrain.errors import MultiGrainError
from multigrain.exif import Taken, taken
from multigrain.heif import can_open_heif, is_heif
from multigrain.photo_limits import DEFAULT_LIMITS, PhotoLimits

# A JPEG may be decoded at 1/2, 1/4 or 1/8 while it stays this much larger than the model's
# input; below 1.5 the following resize would see too few pixels to average.
DRAFT_MARGIN = 1.5

_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_EXCHANGED = (5, 6, 7, 8)
_MAX_16_BIT = 65_535
# Pillow's decoders are not uniform in what they raise on damaged bytes.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)
_BOMB_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What an unreadable file starts with, so that "not a photo" can be told from "a broken photo".
_OTHER_TYPES = (
    (b"%PDF-", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"%!PS", "PostScript"),
    (b"\x1f\x8b", "gzip"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"8BPS", "PSD"),
)
_TGA_END = b"TRUEVISION-XFILE.\0"
# The same of the photos that are decoded, for those whose format is not accepted.
_PHOTO_TYPES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG", "PNG"),
    (rb"RIFF.{4}WEBP", "WEBP"),
    (rb"GIF8", "GIF"),
    (rb"BM", "BMP"),
    (rb"II\*\0|MM\0\*", "TIFF"),
    (rb".{4}ftypavi[fs]", "AVIF"),
)


class PhotoError(MultiGrainError):
    """A photo that cannot be used; `code` is stable and names the reason.

    Codes: empty_image, image_undecodable, unsupported_media_type, image_too_many_pixels,
    image_side_too_long, image_side_too_short, payload_too_large, photo_missing, photo_unreadable.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Photo(NamedTuple):
    """A decoded photo: upright RGB image, and what its header said.

    `image` may be smaller than `width` x `height` (reduced-scale decoding); the two numbers
    are the upright size of the full photo in pixels.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    exif_rotated: bool
    taken: Taken = Taken()


def open_photo(
    source: bytes | Path,
    *,
    min_side: int | None = None,
    limits: PhotoLimits = DEFAULT_LIMITS,
) -> Photo:
    """Decode a photo to an upright RGB image; the first frame of an animation.

    `min_side` is the length of the shorter side the caller needs, in pixels: a JPEG is then
    decoded at reduced scale while its shorter side stays at least 1.5 times that. Grey,
    palette, 1-bit, CMYK and 16-bit photos become 8-bit RGB, transparency lies on white.
    Raises PhotoError, and nothing else, for whatever is wrong with the photo.
    """
    data = _read(source, limits)
    openers = ["HEIF"] if is_heif(data) else _openers(limits)
    with _decoder_errors(limits), Image.open(io.BytesIO(data), formats=openers) as opened:
        if opened.format not in limits.formats:
            raise _unsupported(str(opened.format), limits)
        _check_size(opened.size, limits)
        width, height = opened.size
        if min_side is not None:
            _draft(opened, min_side)
        opened.load()
        # After loading: Pillow turns a TIFF upright by itself and then drops the tag.
        orientation, when = _orientation(opened), _taken(opened)
        image = _upright(_to_rgb(opened), orientation)
    if orientation in _SIDES_EXCHANGED:
        width, height = height, width
    return Photo(image, width, height, opened.format or "", orientation != 1, when)


def _openers(limits: PhotoLimits) -> list[str]:
    """The decoders that see a photo: MPO has none of its own, JPEG's opens it.

    HEIF's, which has to be installed, sees none but HEIF.
    """
    return sorted({"JPEG" if name == "MPO" else name for name in limits.formats} - {"HEIF"})


def _read(source: bytes | Path, limits: PhotoLimits) -> bytes:
    if isinstance(source, Path):
        source = _read_file(source, limits)
    if not source:
        raise PhotoError("empty_image", "the photo is empty (0 bytes)")
    if len(source) > limits.max_bytes:
        raise _too_large(len(source), limits)
    for magic, name in _OTHER_TYPES:
        if source.lstrip()[: len(magic)].lower() == magic.lower():
            raise _unsupported(name, limits)
    if is_heif(source):
        _require_heif(limits)
    if source.endswith(_TGA_END):
        raise _unsupported("TGA", limits)
    for pattern, name in _PHOTO_TYPES:
        if name not in _openers(limits) and re.match(pattern, source, re.DOTALL):
            raise _unsupported(name, limits)
    return source


def _require_heif(limits: PhotoLimits) -> None:
    if "HEIF" not in limits.formats:
        raise _unsupported("HEIF", limits)
    if not can_open_heif():
        raise _unsupported("HEIF, which multigrain-retrieval[heif] reads where installed", limits)


def _read_file(path: Path, limits: PhotoLimits) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise PhotoError("photo_unreadable", f"{path} is no regular file")
        if status.st_size > limits.max_bytes:
            raise _too_large(status.st_size, limits)
        return path.read_bytes()
    except FileNotFoundError:
        raise PhotoError("photo_missing", f"no file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PhotoError("photo_unreadable", f"cannot read {str(path)!r}: {error}") from error


def _too_large(num_bytes: int, limits: PhotoLimits) -> PhotoError:
    return PhotoError(
        "payload_too_large",
        f"the photo has {num_bytes} bytes, the limit is {limits.max_bytes}",
    )


def _unsupported(name: str, limits: PhotoLimits) -> PhotoError:
    return PhotoError(
        "unsupported_media_type", f"this is {name}; accepted formats: {_accepted(limits)}"
    )


def _accepted(limits: PhotoLimits) -> str:
    return ", ".join(name for name in limits.formats if name != "HEIF" or can_open_heif())


@contextmanager
def _decoder_errors(limits: PhotoLimits) -> Iterator[None]:
    """Turn whatever a decoder raises into a PhotoError."""
    try:
        yield
    except _BOMB_ERRORS as error:  # its own text names Pillow's limit alone
        most = min(limits.max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise PhotoError(
            "image_too_many_pixels", f"more pixels than the limit of {most / 1e6:.0f} MP"
        ) from error
    except UnidentifiedImageError as error:  # its own text holds an address in memory
        raise PhotoError(
            "image_undecodable", f"no photo of an accepted format: {_accepted(limits)}"
        ) from error
    except _DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise PhotoError("image_undecodable", f"not a readable photo: {reason}") from error


def _check_size(size: tuple[int, int], limits: PhotoLimits) -> None:
    width, height = size
    if max(size) > limits.max_side:
        raise PhotoError(
            "image_side_too_long", f"{width}x{height}: a side may have {limits.max_side} pixels"
        )
    if min(size) < limits.min_side:
        raise PhotoError(
            "image_side_too_short",
            f"{width}x{height}: a side has at least {limits.min_side} pixels",
        )
    if width * height > limits.max_pixels:
        raise PhotoError(
            "image_too_many_pixels",
            f"{width}x{height} = {width * height / 1e6:.0f} MP, "
            f"the limit is {limits.max_pixels / 1e6:.0f} MP",
        )


def _orientation(opened: Image.Image) -> int:
    """EXIF orientation, 1 for everything that is absent, damaged or out of range."""
    try:
        value = opened.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1  # damaged metadata does not make the pixels unusable
    return value if value in _TRANSPOSITIONS else 1


def _taken(opened: Image.Image) -> Taken:
    try:
        return taken(opened)
    except _DECODER_ERRORS:  # damaged metadata, as above
        return Taken()


def _draft(opened: Image.Image, min_side: int) -> None:
    """Choose the reduced scale of a JPEG; other formats ignore it."""
    needed = round(min_side * DRAFT_MARGIN)
    opened.draft(None, (needed, needed))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bit(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    """Scale deep grey to 8 bits; Pillow's own conversion clips (40000 becomes 255).

    Integers within 16 bits are divided by 257, by a table: a large photo then costs one byte a
    pixel more, not eight. Anything else is stretched to its own range.
    """
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= _MAX_16_BIT:
        table = np.round(np.arange(_MAX_16_BIT + 1) / 257).astype(np.uint8)
        grey = table[values]
    elif np.isfinite(low) and np.isfinite(high):
        scale = 255.0 / max(high - low, 1e-12)
        grey = np.round((values - np.float32(low)) * np.float32(scale)).astype(np.uint8)
    else:
        raise ValueError("non-finite pixel values")
    return Image.fromarray(grey, mode="L").convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSITIONS[orientation]) if orientation != 1 else image

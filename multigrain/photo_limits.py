"""Which photos are accepted; free of imports, so that settings can name the formats."""

from typing import Literal, NamedTuple, get_args

# Names of Pillow. MPO is the JPEG of phones that take several pictures at once. Off the list on
# purpose: EPS runs a program, FITS and PSD have a history of faults, JPEG 2000 takes a second for
# two megapixels. HEIF is accepted where the extra `heif` is installed.
PhotoFormat = Literal["JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"]
FORMATS: tuple[PhotoFormat, ...] = get_args(PhotoFormat)


class PhotoLimits(NamedTuple):
    """What is accepted: bytes, pixels (width x height), sides in pixels, formats."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_side: int = 20_000
    min_side: int = 1
    formats: tuple[PhotoFormat, ...] = FORMATS


DEFAULT_LIMITS = PhotoLimits()

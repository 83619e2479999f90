"""Small JPEG copies of photos, for people to look at."""

import io

from PIL import Image

from multigrain.photo import open_photo


def jpeg_thumbnail(photo: bytes, *, size: int, quality: int = 85) -> bytes:
    """A JPEG of the photo, upright, that fits a square of `size` pixels; raises PhotoError."""
    image = open_photo(photo, min_side=size).image
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=quality)
    return jpeg.getvalue()

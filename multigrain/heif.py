"""HEIF, in which iPhones write photos: told by its bytes, decoded by pillow-heif (extra `heif`)."""

# The last two say only that pictures are kept as ISO 23008-12 has it, AVIF's among them.
_BRANDS = (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1",
)  # fmt: skip
_LONGEST_TYPE_BOX = 256


def is_heif(start: bytes) -> bool:
    """Whether the file type box names HEIF and, among its compatible brands, no AVIF.

    `start` is a photo, or as much of its beginning as there is: the first 12 bytes at least.
    """
    size = min(int.from_bytes(start[:4]), _LONGEST_TYPE_BOX)
    brands = [start[place : place + 4] for place in range(8, size, 4)]
    is_avif = b"avif" in brands or b"avis" in brands
    return start[4:8] == b"ftyp" and brands[:1] != [] and brands[0] in _BRANDS and not is_avif


def can_open_heif() -> bool:
    """Let Pillow open HEIF from now on; False where pillow-heif is not installed.

    The picture itself is decoded, never a thumbnail beside it, which may show something else;
    in one thread, for callers bring theirs. Its decoder allocates no more pixels than the header
    names, or 65,536.
    """
    from PIL import Image

    if "HEIF" in Image.OPEN:
        return True
    try:
        import pillow_heif

        pillow_heif.register_heif_opener(
            decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
        )
    except ImportError:
        return False
    return True

"""Decoding: every kind of photo becomes upright RGB, and everything else a PhotoError."""

import io
import json
import os
import random
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from multigrain.heif import can_open_heif
from multigrain.photo import PhotoError, open_photo
from multigrain.photo_limits import DEFAULT_LIMITS, FORMATS, PhotoFormat, PhotoLimits


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    if image_format == "HEIF" and not can_open_heif():
        pytest.skip("the heif extra is not installed")
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def code_of(source: bytes | Path, limits: PhotoLimits = DEFAULT_LIMITS) -> str:
    with pytest.raises(PhotoError) as caught:
        open_photo(source, limits=limits)
    return caught.value.code


@pytest.mark.parametrize(
    ("mode", "image_format", "mean"),
    [
        ("L", "PNG", (100, 100, 100)),
        ("1", "PNG", (255, 255, 255)),
        ("P", "PNG", (100, 100, 100)),
        ("CMYK", "JPEG", (155, 155, 155)),
        ("RGB", "WEBP", (100, 100, 100)),
        ("RGB", "BMP", (100, 100, 100)),
        ("RGB", "TIFF", (100, 100, 100)),
        ("L", "GIF", (100, 100, 100)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, image_format: str, mean: tuple[int, int, int]) -> None:
    """A flat picture of any mode and format decodes to its colour in RGB."""
    value = {"CMYK": (100, 100, 100, 0), "1": 1, "RGB": (100, 100, 100)}.get(mode, 100)
    image = Image.new("L" if mode == "P" else mode, (8, 6), value)  # type: ignore[arg-type]
    photo = open_photo(encode(image.convert(mode), image_format))
    assert photo.image.mode == "RGB"
    assert (photo.width, photo.height, photo.format) == (8, 6, image_format)
    assert np.asarray(photo.image).mean(axis=(0, 1)) == pytest.approx(mean, abs=3)


def test_transparent_pixels_lie_on_white() -> None:
    """Hidden colour does not show through, half transparency is mixed with white."""
    image = Image.new("RGBA", (4, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    pixels = np.asarray(open_photo(encode(image, "PNG")).image)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1] == pytest.approx([127, 127, 127], abs=1)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    """40000 of 65535 becomes 156, where Pillow's own conversion gives 255."""
    image = Image.fromarray(np.full((3, 3), 40000, np.uint16))
    pixels = np.asarray(open_photo(encode(image, "PNG")).image)
    assert pixels.max() == pixels.min() == 156


@pytest.mark.parametrize("orientation", [*range(10), 99])
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    """A photo stored turned, with its EXIF tag, equals the upright one; odd tags count as 1."""
    upright = np.zeros((6, 9, 3), np.uint8)
    upright[:3, :4] = (255, 0, 0)
    upright[3:, 5:] = (0, 255, 0)
    stored = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, 3),
    }.get(orientation, upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = open_photo(encode(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    assert np.array_equal(np.asarray(photo.image), upright)
    assert (photo.width, photo.height) == (9, 6)
    assert photo.exif_rotated == (2 <= orientation <= 8)


def test_avif_of_a_general_brand_is_not_taken_for_heif() -> None:
    """The major brand mif1 with avif among the compatible ones is AVIF."""
    data = bytearray(encode(Image.new("RGB", (16, 16), (9, 200, 30)), "AVIF"))
    assert data[4:12] == b"ftypavif"
    size = int.from_bytes(data[:4])
    assert b"avif" in [bytes(data[start : start + 4]) for start in range(16, size, 4)]
    data[8:12] = b"mif1"
    assert open_photo(bytes(data)).format == "AVIF"


def test_heif_without_its_decoder_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a photo like others, so what is missing is said; it is not among what is accepted."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    with pytest.raises(PhotoError, match=r"HEIF, .*\[heif\].*formats: .*AVIF$") as refused:
        open_photo(b"\0\0\0\x18ftypheic\0\0\0\0")
    assert refused.value.code == "unsupported_media_type"


def test_heif_is_decoded_upright_within_the_limits(test_data: Path) -> None:
    """Turned by the container, of any mode; the header is enough to refuse."""
    upright = Image.effect_noise((6, 9), 40).resize((60, 90)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    data = encode(turned, "HEIF", exif=exif.tobytes(), quality=95)
    photo = open_photo(data)
    assert (photo.width, photo.height, photo.format) == (60, 90, "HEIF")
    difference = np.asarray(photo.image).astype(int) - np.asarray(upright)
    assert np.abs(difference).mean() < 3
    assert code_of(data, PhotoLimits(max_pixels=5399)) == "image_too_many_pixels"
    assert code_of(data[: len(data) // 2]) == "image_undecodable"
    files = {"zPug_3.heic": (64, 64), "L_8__29x100.heif": (29, 100)}
    for name, size in files.items():
        assert open_photo(test_data / "hard" / "files" / name).image.size == size
    assert code_of(test_data / "hard" / "files" / "corrupted.heic") == "image_undecodable"


def test_heif_of_more_pixels_than_its_header_names_is_refused() -> None:
    """The decoder takes no memory for what the limits have not seen."""
    data = encode(Image.new("RGB", (2000, 1500)), "HEIF")
    size = data.index(b"ispe") + 8
    assert data[size : size + 8] == (2000).to_bytes(4) + (1500).to_bytes(4)
    few = data[:size] + (20).to_bytes(4) + (15).to_bytes(4) + data[size + 8 :]
    assert code_of(few) == "image_undecodable"


def test_deep_grey_of_every_kind_is_scaled() -> None:
    """Floats and 32-bit integers are stretched to their own range, NaN is refused."""
    ramp = np.linspace(-2, 3, 12).reshape(3, 4)
    for values in (ramp.astype(np.float32), (ramp * 1e6).astype(np.int32)):
        pixels = np.asarray(open_photo(encode(Image.fromarray(values), "TIFF")).image)
        assert (pixels.min(), pixels.max()) == (0, 255)
    ramp[0, 0] = np.nan
    broken = encode(Image.fromarray(ramp.astype(np.float32)), "TIFF")
    assert code_of(broken) == "image_undecodable"


def test_a_pipe_and_an_impossible_name_are_refused_at_once(tmp_path: Path) -> None:
    """A FIFO is not waited for, a NUL in a name is no crash."""
    os.mkfifo(tmp_path / "pipe.jpg")
    assert code_of(tmp_path / "pipe.jpg") == "photo_unreadable"
    assert code_of(Path("a\0b.jpg")) == "photo_unreadable"


def test_an_animation_gives_its_first_frame() -> None:
    """The first of three frames is decoded."""
    frames = [Image.new("L", (5, 5), shade) for shade in (10, 120, 240)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(open_photo(data).image).max() == 10


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"", "empty_image"),
        (b"hello", "image_undecodable"),
        (b"%PDF-1.7 and more", "unsupported_media_type"),
        (b"PK\x03\x04rest", "unsupported_media_type"),
        (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_media_type"),
        (Path("no/such/photo.jpg"), "photo_missing"),
        (Path("/"), "photo_unreadable"),
    ],
)
def test_what_is_no_photo_is_refused_with_its_code(source: bytes | Path, code: str) -> None:
    """Each way to fail has a stable code."""
    assert code_of(source) == code


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (PhotoLimits(max_bytes=50), "payload_too_large"),
        (PhotoLimits(max_pixels=99), "image_too_many_pixels"),
        (PhotoLimits(max_side=19), "image_side_too_long"),
        (PhotoLimits(min_side=6), "image_side_too_short"),
        (PhotoLimits(formats=("JPEG",)), "unsupported_media_type"),
    ],
)
def test_limits_are_kept(limits: PhotoLimits, code: str, tmp_path: Path) -> None:
    """A photo of 20 x 5 beyond a limit is refused, as bytes and as a file."""
    data = encode(Image.new("RGB", (20, 5)), "PNG")
    assert code_of(data, limits) == code
    (tmp_path / "photo").write_bytes(data)
    assert code_of(tmp_path / "photo", limits) == code


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_that_is_not_accepted_is_named(name: PhotoFormat) -> None:
    """Every format but one is taken; its decoder sees no byte of a photo of that one."""
    others = PhotoLimits(formats=tuple(other for other in FORMATS if other != name))
    options = {"save_all": True, "append_images": [Image.new("RGB", (20, 5))]}
    data = encode(Image.new("RGB", (20, 5)), name, **(options if name == "MPO" else {}))
    assert open_photo(data, limits=PhotoLimits(formats=(name,))).format == name
    with pytest.raises(PhotoError, match=f"this is {name}; accepted formats: .*") as refused:
        open_photo(data, limits=others)
    assert refused.value.code == "unsupported_media_type"


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    """400 megapixels in a few bytes: the header is enough to refuse."""
    ihdr = b"IHDR" + (20_000).to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    chunk = (13).to_bytes(4) + ihdr + zlib.crc32(ihdr).to_bytes(4)
    whole = encode(Image.new("1", (16, 16)), "PNG")
    bomb = whole[:8] + chunk + whole[8 + len(chunk) :]
    with pytest.raises(PhotoError, match="the limit of 50 MP") as refused:
        open_photo(bomb)
    assert refused.value.code == "image_too_many_pixels"
    with pytest.raises(PhotoError, match="the limit of 179 MP"):  # Pillow's own
        open_photo(bomb, limits=PhotoLimits(max_pixels=10**9))


@given(cut=st.integers(1, 600), seed=st.integers(0, 2**32 - 1))
def test_damaged_bytes_raise_nothing_but_photo_error(cut: int, seed: int) -> None:
    """A cut or corrupted JPEG decodes or raises PhotoError, the same both times."""
    rng = random.Random(seed)  # noqa: S311 - a seeded fault, not a secret
    data = bytearray(encode(Image.effect_noise((32, 32), 40), "JPEG"))[:-cut]
    for _ in range(4):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)

    def outcome() -> object:
        try:
            return open_photo(bytes(data)).image.tobytes()
        except PhotoError as error:
            return error.code

    assert outcome() == outcome()


def test_truncated_photos_are_never_completed_with_grey() -> None:
    """Pillow's process-wide switch for it stays off, and half a JPEG is refused."""
    data = encode(Image.effect_noise((64, 64), 40), "JPEG")
    assert code_of(data[: len(data) // 2]) == "image_undecodable"
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_large_jpeg_is_decoded_at_reduced_scale() -> None:
    """The shorter side stays at least 1.5 times what is needed, the full size is reported."""
    photo = open_photo(encode(Image.new("RGB", (1600, 1200)), "JPEG"), min_side=200)
    assert photo.image.size == (400, 300)
    assert (photo.width, photo.height) == (1600, 1200)


def test_reduced_scale_changes_the_prepared_pixels_little(test_data: Path) -> None:
    """On a 24-megapixel photo the prepared picture moves by under two grey levels on average."""
    from multigrain.transforms import Preprocessing

    rule, path = Preprocessing(size=224), test_data / "hard/files/big_6000x4000.jpg"
    reduced = rule.prepare(open_photo(path, min_side=rule.min_side).image)
    full = rule.prepare(open_photo(path).image)
    assert np.abs(reduced.astype(int) - full.astype(int)).mean() < 2


def test_hard_files_decode_or_are_refused_as_their_table_says(test_data: Path) -> None:
    """`ok` files have their size, `reject` files raise, `either` files answer twice the same."""
    wrong = []
    for record in json.loads((test_data / "hard/manifest.json").read_text()):
        outcomes = [_outcome(test_data / "hard" / record["file"]) for _ in range(2)]
        size = record.get("rgb_size")
        fits = {
            "ok": outcomes[0] == tuple(size) if size else isinstance(outcomes[0], tuple),
            "reject": isinstance(outcomes[0], str),
            "either": True,
        }[record["want"]]
        if not fits or outcomes[0] != outcomes[1]:
            wrong.append((record["file"], record["want"], outcomes))
    assert not wrong


def _outcome(path: Path) -> tuple[int, int] | str:
    try:
        photo = open_photo(path)
    except PhotoError as error:
        return error.code
    assert photo.image.mode == "RGB"
    return photo.image.size

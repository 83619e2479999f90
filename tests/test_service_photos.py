"""Photos of every kind over HTTP: sizes, formats, cuts; what looks alike embeds alike."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features
from service_running import Service

from multigrain.heif import can_open_heif
from multigrain.photo_limits import FORMATS
from service.errors import KINDS
from service.serving.runtime import Runtime
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

Draw = Callable[[int], Image.Image]
LEAST_COSINE = 0.99


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def embedding(service: Service, photo: bytes) -> np.ndarray:
    response = service.client.post("/embed", content=photo)
    assert response.status_code == 200, response.text
    return np.array(response.json()["embedding"])


@pytest.mark.parametrize(
    ("size", "code"),
    [
        ((1, 1), None),
        ((2, 3), None),
        ((4000, 1), None),
        ((3, 3000), None),
        ((65000, 1), "image_side_too_long"),
        ((1, 65000), "image_side_too_long"),
        ((9000, 9000), "image_too_many_pixels"),
    ],
)
def test_a_photo_of_any_shape_is_searched_or_refused(
    service: Service, size: tuple[int, int], code: str | None
) -> None:
    """By its sides and its pixels, never by an accident of resizing."""
    response = service.search(encoded(Image.new("1", size), "PNG"))
    assert response.status_code == (KINDS[code].status if code else 200), response.text
    assert response.json().get("code") == code


@pytest.mark.parametrize("image_format", [one for one in FORMATS if one != "MPO"])
def test_every_format_of_the_list_is_searched(
    service: Service, draw: Draw, image_format: str
) -> None:
    """And told by its bytes; the picture is found."""
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    if image_format == "HEIF" and not can_open_heif():
        pytest.skip("the heif extra is not installed")
    answer = service.search(encoded(draw(2), image_format), limit=1).json()
    assert answer["query"]["format"] == image_format
    assert answer["results"][0]["uri"].endswith("02.jpg")


@pytest.mark.parametrize("image_format", ["JPEG2000", "ICO", "EPS", "PDF", "TGA"])
def test_a_format_off_the_list_is_refused(service: Service, draw: Draw, image_format: str) -> None:
    """Naming those that are on it."""
    response = service.search(encoded(draw(2), image_format))
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "JPEG" in response.json()["detail"]


def test_a_photo_off_the_settings_is_refused(
    service: Service, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`min_side` and `formats` are what the service was told."""
    settings = Settings(index=service.server.runtime.settings.index, min_side=8, formats=["PNG"])
    monkeypatch.setattr(service.server.runtime, "limits", Runtime(settings).limits)
    refused = service.search(encoded(draw(2), "JPEG"))
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_media_type")
    assert refused.json()["detail"] == "this is JPEG; accepted formats: PNG"
    refused = service.search(encoded(Image.new("RGB", (9, 7)), "PNG"))
    assert (refused.status_code, refused.json()["code"]) == (422, "image_side_too_short")
    assert service.search(encoded(Image.new("RGB", (9, 8)), "PNG")).status_code == 200


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_of_an_animation_the_first_picture_is_searched(
    service: Service, draw: Draw, image_format: str
) -> None:
    """However many follow."""
    others = [Image.new("RGB", (96, 72), (n % 256, 0, n // 256)) for n in range(500)]
    photo = encoded(draw(3), image_format, save_all=True, append_images=others)
    answer = service.search(photo, limit=1).json()
    assert answer["results"][0]["uri"].endswith("03.jpg")


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6, 0.97])
def test_a_cut_photo_gets_the_same_answer_twice(service: Service, draw: Draw, share: float) -> None:
    """Nothing is filled in with grey: what cannot be decoded to its end is refused."""
    photo = encoded(draw(4), "JPEG", quality=95)
    cut = photo[: int(len(photo) * share)]
    first, second = service.search(cut), service.search(cut)
    assert first.status_code == second.status_code == 400
    assert first.json()["code"] == second.json()["code"] == "image_undecodable"


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 99])
def test_a_photo_is_found_however_it_was_held(
    service: Service, draw: Draw, orientation: int
) -> None:
    """The orientation is undone; 0 and 99 mean nothing."""
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose
    turned = draw(4) if orientation not in undone else draw(4).transpose(undone[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = encoded(turned, "JPEG", quality=95, exif=exif)
    upright = embedding(service, encoded(draw(4), "JPEG", quality=95))
    assert embedding(service, photo) @ upright >= LEAST_COSINE
    assert service.search(photo, limit=1).json()["results"][0]["uri"].endswith("04.jpg")


def test_files_that_look_alike_embed_alike(service: Service, test_data: Path) -> None:
    """Modes, depths, formats and orientations of one picture have one embedding."""
    manifest = json.loads((test_data / "hard" / "manifest.json").read_text())
    pairs = {one["file"]: one["looks_like"] for one in manifest if one.get("looks_like")}
    assert pairs
    known = {
        name: embedding(service, (test_data / "hard" / name).read_bytes())
        for name in {*pairs, *pairs.values()}
    }
    cosines = {name: float(known[name] @ known[other]) for name, other in pairs.items()}
    assert {name: cosine for name, cosine in cosines.items() if cosine < LEAST_COSINE} == {}

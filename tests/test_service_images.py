"""Thumbnails, health and the page's files over a real socket."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from service_running import Service

pytest_plugins = ["service_fixtures"]

NUM_PHOTOS = 12
DOCUMENT = Path(__file__).parents[1] / "docs" / "service.md"


@pytest.fixture
def lost_photo(photos: Path) -> Iterator[Path]:
    """The file behind id 11, to be spoiled by a test and put back after it."""
    path = photos / "11.jpg"
    data = path.read_bytes()
    yield path
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def id_of(service: Service, photo: bytes) -> str:
    found: str = service.search(photo, limit=1).json()["results"][0]["id"]
    return found


def test_thumbnail_url_of_a_hit_shows_the_photo(
    service: Service, jpeg: Callable[[int], bytes]
) -> None:
    """What a hit links to is a JPEG of the photo's shape, at most its own size."""
    hit = service.search(jpeg(7), limit=1).json()["results"][0]
    response = service.client.get(hit["thumbnail_url"])
    assert response.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(response.content)).size == (96, 72)


@pytest.mark.parametrize("size", [128, 256, 512])
def test_thumbnail_fits_its_size(service: Service, size: int) -> None:
    """All three sizes are served."""
    response = service.client.get("/images/0/thumbnail", params={"size": size})
    assert response.status_code == 200
    assert max(Image.open(io.BytesIO(response.content)).size) <= size


def test_thumbnail_the_client_has_is_not_sent_again(service: Service) -> None:
    """If-None-Match with the entity tag is answered 304 without a body."""
    first = service.client.get("/images/0/thumbnail")
    again = service.client.get(
        "/images/0/thumbnail", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    other_size = service.client.get("/images/0/thumbnail?size=128")
    assert other_size.headers["ETag"] != first.headers["ETag"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/images/{NUM_PHOTOS}/thumbnail", 404, "image_not_found"),
        (f"/images/{2**63 - 1}/thumbnail", 404, "image_not_found"),
        (f"/images/{2**63}/thumbnail", 422, "validation"),
        ("/images/-1/thumbnail", 422, "validation"),
        ("/images/abc/thumbnail", 422, "validation"),
        ("/images/%2e%2e/thumbnail", 422, "validation"),
        ("/images/..%2f..%2fetc%2fpasswd/thumbnail", 404, "not_found"),
        ("/images/0/thumbnail?size=99999", 422, "validation"),
        ("/images/0/thumbnail?size=128&size=256", 422, "validation"),
        ("/images/0/thumbnail?width=128", 422, "validation"),
    ],
)
def test_wrong_thumbnail_request_is_a_problem(
    service: Service, path: str, status: int, code: str
) -> None:
    """Unknown ids are a 404, impossible ids and sizes a 422, never a 500."""
    response = service.client.get(path)
    assert (response.status_code, response.json()["code"]) == (status, code)


def put_another_photo(path: Path) -> None:
    path.write_bytes((path.parent / "00.jpg").read_bytes())


def put_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b"junk"), put_another_photo, put_a_link]
)
def test_thumbnail_of_a_lost_photo_is_photo_missing(
    service: Service, lost_photo: Path, spoil: Callable[[Path], object]
) -> None:
    """An original that was deleted or overwritten, even by another photo, is reported as gone."""
    image_id = id_of(service, lost_photo.read_bytes())
    spoil(lost_photo)
    response = service.client.get(f"/images/{image_id}/thumbnail")
    assert (response.status_code, response.json()["code"]) == (404, "photo_missing")


def test_health_names_model_index_and_engine(service: Service) -> None:
    """The body says what is loaded and how the engine is doing."""
    body = service.health().json()
    assert body["status"] == "ok"
    assert body["checks"]["index"] == {"generation": body["generation"], "num_photos": NUM_PHOTOS}
    assert body["checks"]["model"]["device"]
    assert body["checks"]["engine"]["queue"] == 0
    assert body["version"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probe_of_a_ready_service_is_200(service: Service, path: str) -> None:
    """Both probes answer without a body."""
    response = service.client.get(path)
    assert (response.status_code, response.content) == (200, b"")


def test_page_allows_no_foreign_and_no_inline_code(service: Service) -> None:
    """The page comes with a strict policy and keeps it: scripts and styles are files of ours."""
    response = service.client.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<style" not in response.text
    assert " style=" not in response.text
    assert "http" not in response.text
    for name, kind in (("page.js", "javascript"), ("page.css", "css"), ("icon.svg", "svg")):
        assert kind in service.client.get(f"/page/{name}").headers["Content-Type"]


@pytest.mark.parametrize("path", ["/", "/page/page.js"])
@pytest.mark.parametrize("asked", ["bytes=0-3", "bytes=99999999-", "bytes=x", "rows=1-2"])
def test_range_of_a_file_is_ignored(service: Service, path: str, asked: str) -> None:
    """The page's files are small: whatever part is asked for, the whole is sent."""
    part = service.client.get(path, headers={"Range": asked})
    assert (part.status_code, part.content) == (200, service.client.get(path).content)


def test_every_documented_path_is_served(service: Service) -> None:
    """What docs/service.md lists as GET answers 200, but for jobs that nobody began."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `GET ")]
    found = [path for row in rows for path in re.findall(r"`(?:GET )?(/[^`]*)`", row)]
    paths = [path for path in found if "{job}" not in path]
    assert "/openapi.json" in paths
    statuses = {path: service.client.get(path.format(id=0)).status_code for path in paths}
    assert set(statuses.values()) == {200}, statuses


def test_interface_description_names_the_routes(service: Service) -> None:
    """/openapi.json lists what there is, photo body included."""
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {"/search", "/images/{image_id}/thumbnail", "/health", "/livez", "/readyz"} <= set(paths)
    assert "multipart/form-data" in paths["/search"]["post"]["requestBody"]["content"]

"""Photos added and deleted over HTTP while searches are answered."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from pydantic import SecretStr
from service_running import Service, running, wait_until

from index.builder import build_index
from multigrain.embedder import Embedder
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

Jpeg = Callable[[int], bytes]
ADMIN = {"X-API-Key": "of-the-admin"}
NUM_PHOTOS = 12
NEW = str(NUM_PHOTOS)


@pytest.fixture
def root(index_root: Path, tmp_path: Path) -> Path:
    """A copy of the index, for a test that changes it."""
    return Path(shutil.copytree(index_root, tmp_path / "index"))


@contextmanager
def serving(root: Path, **settings: Any) -> Iterator[Service]:
    keys = [SecretStr(ADMIN["X-API-Key"])]
    options = {"adds": True, "adds_poll_s": 0.05, "embedding_cache": 0} | settings
    with running(Settings(index=root, port=0, admin_key=keys, **options)) as service:
        yield service


@pytest.fixture
def service_with_adds(root: Path) -> Iterator[Service]:
    with serving(root) as service:
        yield service


@pytest.fixture(scope="module")
def unchanged(index_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests whose changes are refused."""
    root = tmp_path_factory.mktemp("unchanged") / "index"
    shutil.copytree(index_root, root)
    with serving(root) as service:
        yield service


def add(service: Service, photo: bytes, metadata: Any = None, **options: Any) -> httpx2.Response:
    """Send a photo as curl -F does."""
    data = {} if metadata is None else {"metadata": metadata}
    options.setdefault("headers", ADMIN)
    return service.client.post("/images", files={"image": photo}, data=data, **options)


def delete(service: Service, image_id: str) -> int:
    return service.client.delete(f"/images/{image_id}", headers=ADMIN).status_code


def nearest(service: Service, photo: bytes) -> dict[str, Any]:
    """The first hit."""
    answer = service.search(photo, limit=1)
    assert answer.status_code == 200, answer.text
    hit: dict[str, Any] = answer.json()["results"][0]
    return hit


def test_an_added_photo_is_a_hit_at_once(service_with_adds: Service, jpeg: Jpeg) -> None:
    """With its attributes, its thumbnail and a place of its own; sent again it keeps its id."""
    service, photo = service_with_adds, jpeg(50)
    first = add(service, photo, json.dumps({"label": "dog", "n": [1.5, None]}))
    assert (first.status_code, first.json()["id"]) == (201, NEW)
    assert first.headers["Location"] == f"/images/{NEW}"
    again = add(service, photo)
    assert (again.status_code, again.json()) == (200, first.json())
    assert add(service, jpeg(3)).status_code == 200
    hit = nearest(service, photo)
    assert (hit["id"], hit["metadata"]["label"], hit["metadata"]["n"]) == (NEW, "dog", [1.5, None])
    assert hit["score"] > 0.999
    thumbnail = service.client.get(hit["thumbnail_url"])
    assert Image.open(io.BytesIO(thumbnail.content)).size == (96, 72)
    image = service.client.get(f"/images/{NEW}").json()
    assert image["metadata"]["label"] == "dog"
    counts = service.client.get("/index").json()["counts"]
    assert counts == {"vectors": NUM_PHOTOS + 1, "adds": 1, "tombstones": 0}
    dogs = {"must": [{"field": "label", "eq": "dog"}]}
    found = service.search(photo, filter=json.dumps(dogs)).json()["results"]
    assert [one["id"] for one in found] == [NEW]
    listed = service.client.get("/images", params={"limit": 100}).json()["images"]
    assert [one["id"] for one in listed] == [str(number) for number in range(NUM_PHOTOS + 1)]


def test_a_deleted_photo_is_gone_at_once(service_with_adds: Service, jpeg: Jpeg) -> None:
    """Everywhere; again it is not found, and added again it has another id."""
    service = service_with_adds
    assert nearest(service, jpeg(5))["id"] == "5"
    assert delete(service, "5") == 204
    assert delete(service, "5") == 404
    assert nearest(service, jpeg(5))["id"] != "5"
    for path in ("/images/5", "/images/5/thumbnail", "/images/5/similar"):
        answer = service.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "image_not_found"), path
    assert add(service, jpeg(5)).json()["id"] == NEW
    assert nearest(service, jpeg(5))["id"] == NEW


def test_changes_survive_a_restart_a_build_and_a_reload(
    root: Path, photos: Path, tiny_checkpoint: Path, jpeg: Jpeg
) -> None:
    """Under the same ids, while what is added after the build stays too."""
    with serving(root) as service:
        add(service, jpeg(50), json.dumps({"label": "dog"}))
        assert delete(service, "5") == 204
    with serving(root) as service:
        assert nearest(service, jpeg(50))["id"] == NEW
        assert delete(service, "5") == 404
        build_index([photos], tiny_checkpoint, root, Embedder.open(tiny_checkpoint))
        late = add(service, jpeg(51)).json()["id"]
        job = service.client.post("/admin/reload", headers=ADMIN).headers["Location"]
        wait_until(lambda: service.client.get(job, headers=ADMIN).json()["status"] != "running")
        facts = service.client.get("/index").json()
        assert facts["generation"] == "000002"
        assert facts["counts"] == {"vectors": NUM_PHOTOS + 1, "adds": 1, "tombstones": 1}
        hit = nearest(service, jpeg(50))
        assert (hit["id"], hit["metadata"]["label"]) == (NEW, "dog")
        assert nearest(service, jpeg(51))["id"] == late
        assert nearest(service, jpeg(5))["id"] not in ("5", None)
        assert delete(service, NEW) == 204
        assert nearest(service, jpeg(50))["id"] != NEW


def test_another_service_sees_changes_and_takes_none(root: Path, jpeg: Jpeg) -> None:
    """Until the first has ended."""
    with serving(root) as replica:
        with serving(root) as service:
            assert add(service, jpeg(50)).status_code == 201
            refused = add(replica, jpeg(51))
            assert (refused.status_code, refused.json()["code"]) == (409, "not_writer")
            wait_until(lambda: nearest(replica, jpeg(50))["id"] == NEW)
            assert delete(service, NEW) == 204
            wait_until(lambda: nearest(replica, jpeg(50))["id"] != NEW)
        assert add(replica, jpeg(51)).status_code == 201


def test_a_service_without_adds_refuses_them(root: Path, jpeg: Jpeg) -> None:
    """With the reason; it still sees those of others."""
    with serving(root, adds=False) as service:
        refused = add(service, jpeg(50))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "--adds" in refused.json()["detail"]
        assert delete(service, "5") == 403


def test_a_folder_that_takes_no_changes_is_searched(root: Path, jpeg: Jpeg) -> None:
    """One that no build has made ready: refused without naming the folder, and nothing written."""
    shutil.rmtree(root / "adds")
    with serving(root) as service:
        refused = add(service, jpeg(50))
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert str(root) not in refused.text
        assert nearest(service, jpeg(5))["id"] == "5"
    assert not (root / "adds").exists()
    assert not list((root / "uploads").iterdir())


def test_who_has_no_admin_key_changes_nothing(unchanged: Service, jpeg: Jpeg) -> None:
    """Without a key or with another one."""
    for headers in ({}, {"X-API-Key": "guessed"}):
        assert add(unchanged, jpeg(50), headers=headers).status_code == 401
        assert unchanged.client.delete("/images/5", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ("{", "no JSON"),
        ("[1]", "a JSON object"),
        ('{"n": NaN}', "no JSON"),
        ('{"text": "\\ud800"}', "no JSON"),
        ('{"paths": []}', "the index's own"),
        ('"dog"', "a JSON object"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(
    unchanged: Service, jpeg: Jpeg, metadata: str, word: str
) -> None:
    """Before anything is written."""
    refused = add(unchanged, jpeg(50), metadata)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation")
    assert word in refused.json()["detail"]
    assert unchanged.searcher.num_live == NUM_PHOTOS


def test_a_request_that_is_wrong_adds_nothing(unchanged: Service, jpeg: Jpeg) -> None:
    """Each with its own code; searches go on."""
    service, client = unchanged, unchanged.client
    cases = [
        (client.post("/images", files={"photo": jpeg(50)}, headers=ADMIN), 422, "validation"),
        (client.post("/images", content=b"", headers=ADMIN), 422, "validation"),
        (add(service, b"no photo"), 400, "image_undecodable"),
        (add(service, jpeg(50), params={"limit": 3}), 422, "validation"),
        (
            client.post("/images", files={"image": jpeg(50)}, data={"name": "x"}, headers=ADMIN),
            422,
            "validation",
        ),
        (client.delete("/images/-1", headers=ADMIN), 422, "validation"),
        (client.delete(f"/images/{2**63}", headers=ADMIN), 422, "validation"),
        (client.delete(f"/images/{2**63 - 1}", headers=ADMIN), 404, "image_not_found"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert client.get("/index").json()["counts"]["adds"] == 0
    assert nearest(service, jpeg(5))["id"] == "5"


def test_bytes_sent_again_take_the_attributes_given(service_with_adds: Service, jpeg: Jpeg) -> None:
    """Indexed or added before: the same id, found by the new attributes at once."""
    service = service_with_adds
    assert add(service, jpeg(50), json.dumps({"label": "cat"})).status_code == 201
    for photo, expected in ((jpeg(50), NEW), (jpeg(3), "3")):
        again = add(service, photo, json.dumps({"label": "dog"}))
        assert (again.status_code, again.json()["id"]) == (200, expected)
    dogs = {"must": [{"field": "label", "eq": "dog"}]}
    found = service.search(jpeg(3), filter=json.dumps(dogs)).json()["results"]
    assert [one["id"] for one in found] == ["3", NEW]
    assert add(service, jpeg(3)).status_code == 200
    listed = service.client.get("/images", params={"filter": json.dumps(dogs)}).json()["images"]
    assert [one["id"] for one in listed] == ["3", NEW]

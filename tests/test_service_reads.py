"""What can be asked without a search by photo: stored photos, embeddings, forms of many photos."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from service_running import Service, running

from index.builder import build_index
from multigrain.embedder import Embedder
from service.errors import KINDS
from service.receiving.upload import MAX_PHOTOS
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

NUM_LISTED = 24
Jpeg = Callable[[int], bytes]


def answered(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def refused(response: httpx2.Response, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (KINDS[code].status, code), response.text
    return body


def test_similar_photos_are_those_a_search_finds_without_the_photo_itself(
    asked: Service, jpeg: Jpeg
) -> None:
    """Without a forward pass; there is no query photo to tell of."""
    searched = answered(asked.search(jpeg(5), limit=20, exact=True))
    found = answered(asked.client.get("/images/5/similar?limit=19&exact=true"))
    hits = [hit["id"] for hit in searched["results"] if hit["id"] != "5"]
    assert [hit["id"] for hit in found["results"]] == hits[:19]
    assert [hit["rank"] for hit in found["results"]] == list(range(1, 20))
    assert (found["query"], found["batch_size"], found["timing_ms"]["decode"]) == (None, 0, 0)


def test_similar_photos_come_in_pages(asked: Service) -> None:
    """All others, each once, in the options of a search."""
    pages = [
        answered(asked.client.get(f"/images/0/similar?limit=8&offset={offset}&exact=true"))
        for offset in (0, 8, 16)
    ]
    ids = [hit["id"] for page in pages for hit in page["results"]]
    assert sorted(map(int, ids)) == list(range(1, NUM_LISTED))
    assert [page["has_more"] for page in pages] == [True, True, False]
    cats = {"must": [{"field": "label", "eq": "cat"}]}
    url = "/images/0/similar"
    found = answered(asked.client.get(url, params={"limit": 50, "filter": json.dumps(cats)}))
    assert {int(hit["id"]) % 2 for hit in found["results"]} == {0}


@pytest.mark.parametrize("route", ["/images/{}", "/images/{}/similar"])
@pytest.mark.parametrize(
    ("image_id", "code"),
    [
        ("-1", "validation"),
        (str(2**63), "validation"),
        (str(2**63 - 1), "image_not_found"),
        ("abc", "validation"),
        ("%2e%2e", "validation"),
        ("1.5", "validation"),
        ("999999", "image_not_found"),
    ],
)
def test_an_id_that_is_none_is_a_problem(
    asked: Service, route: str, image_id: str, code: str
) -> None:
    """Unknown ids are a 404, impossible ones a 422."""
    refused(asked.client.get(route.format(image_id)), code)


@pytest.mark.parametrize(
    "url",
    [
        "/images/0?size=1",
        "/images/0/similar?limit=0",
        "/images/0/similar?limit=1&limit=2",
        "/images/0/similar?nprobe=9",
        "/images?limit=0",
        "/images?cursor=-1",
        "/images?cursor=x",
        "/images?limit=1&limit=1",
        "/images?page=1",
        "/index?all=1",
        "/embed?limit=1",
    ],
)
def test_a_parameter_that_is_none_is_refused(asked: Service, url: str) -> None:
    """On every route, unknown, repeated or out of range."""
    method = "POST" if url.startswith("/embed") else "GET"
    refused(asked.client.request(method, url), "validation")


def test_what_is_known_of_a_photo(asked: Service, jpeg: Jpeg) -> None:
    """Everything but its bytes, with the attributes of the list it came from."""
    image = answered(asked.client.get("/images/1"))
    assert image == {
        "id": "1",
        "uri": "01.jpg",
        "thumbnail_url": "/images/1/thumbnail?size=256",
        "sha256": sha256(jpeg(1)).hexdigest(),
        "bytes": len(jpeg(1)),
        "width": 96,
        "height": 72,
        "format": "JPEG",
        "taken_at": None,
        "camera": None,
        "metadata": {"label": "dog", "price": 1, "sold": True, "paths": ["01.jpg"]},
    }


@pytest.mark.parametrize("size", [1, 5, NUM_LISTED, 1000])
def test_all_photos_are_read_page_by_page(asked: Service, size: int) -> None:
    """By id, each once, until there is no cursor."""
    ids, cursor = list[str](), None
    while True:
        params = {"limit": size} | ({"cursor": cursor} if cursor else {})
        page = answered(asked.client.get("/images", params=params))
        assert page["count"] == len(page["images"]) <= size
        ids += [image["id"] for image in page["images"]]
        if not (cursor := page["next_cursor"]):
            break
    assert ids == [str(number) for number in range(NUM_LISTED)]


def test_photos_are_read_by_a_filter(asked: Service) -> None:
    """As a search is; one that cannot be asked is refused as there."""
    dogs = json.dumps({"must_not": [{"field": "label", "eq": "cat"}]})
    page = answered(asked.client.get("/images", params={"filter": dogs, "limit": 4}))
    assert [image["id"] for image in page["images"]] == ["1", "3", "5", "7"]
    assert page["next_cursor"] == "7"
    refused(asked.client.get("/images", params={"filter": "x"}), "filter_invalid")


def test_an_embedding_is_the_models_own(asked: Service, jpeg: Jpeg) -> None:
    """As numbers and in base64, from a form, a raw body and JSON; a search with it agrees."""
    assert asked.server.runtime.opened is not None
    embedder: Embedder = asked.server.runtime.opened.engine.embedder
    expected = embedder.embed([jpeg(7)])[0]
    as_form = answered(asked.client.post("/embed", files={"image": jpeg(7)}))
    np.testing.assert_allclose(as_form["embedding"], expected, atol=1e-5)
    assert as_form["dim"] == len(expected)
    assert as_form["query"]["sha256"] == sha256(jpeg(7)).hexdigest()
    raw = answered(asked.client.post("/embed?encoding_format=base64", content=jpeg(7)))
    decoded = np.frombuffer(base64.b64decode(raw["embedding"]), dtype="<f4")
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    body = {"image_base64": base64.b64encode(jpeg(7)).decode()}
    as_json = answered(asked.client.post("/embed", json=body))
    found = asked.client.post("/search?limit=1", json={"embedding": as_json["embedding"]})
    assert answered(found)["results"][0]["id"] == "7"


@pytest.mark.parametrize(
    ("request_parts", "code"),
    [
        ({"json": {"embedding": [1.0]}}, "validation"),
        ({"json": {"image_url": "http://127.0.0.1/"}}, "image_url_disabled"),
        ({"files": {"image": b""}}, "empty_image"),
        ({"files": {"image": b"text"}}, "image_undecodable"),
        ({"files": {"image": b"text"}, "data": {"limit": "1"}}, "validation"),
        ({}, "validation"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    asked: Service, request_parts: dict[str, Any], code: str
) -> None:
    """With the codes of a search."""
    refused(asked.client.post("/embed", **request_parts), code)


def test_many_photos_in_one_form_are_each_answered_by_themselves(
    asked: Service, jpeg: Jpeg
) -> None:
    """In their order, as alone; a bad and an empty one are problems among them."""
    photos = [jpeg(2), b"no photo", jpeg(9), b""]
    response = asked.client.post(
        "/search/batch?limit=2", files=[("image", one) for one in photos], data={"exact": "true"}
    )
    batch = answered(response)
    assert batch["count"] == 4
    alone = [answered(asked.search(jpeg(seed), limit=2, exact=True)) for seed in (2, 9)]
    for item, expected in zip((batch["items"][0], batch["items"][2]), alone, strict=True):
        assert item["result"]["results"] == expected["results"]
    problems = [batch["items"][place]["problem"] for place in (1, 3)]
    assert [one["code"] for one in problems] == ["image_undecodable", "empty_image"]
    assert [one["status"] for one in problems] == [400, 400]
    assert all(list(item) in (["result"], ["problem"]) for item in batch["items"])


@pytest.mark.parametrize(
    ("request_parts", "code"),
    [
        ({"content": b"photo"}, "unsupported_media_type"),
        ({"json": {"image_base64": "aaaa"}}, "unsupported_media_type"),
        ({"files": {"photo": b"x"}}, "validation"),
        ({"files": [("image", b"x")] * (MAX_PHOTOS + 1)}, "validation"),
        ({"files": [("image", b"x")] * 100}, "malformed_multipart"),
        ({"files": {"image": b"x"}, "data": {"limit": "0"}}, "validation"),
        ({"files": {"image": b"x"}, "data": {"filter": "x"}}, "filter_invalid"),
    ],
)
def test_a_form_of_many_photos_is_refused_as_a_whole(
    asked: Service, request_parts: dict[str, Any], code: str
) -> None:
    """Where the fault is none of a single photo."""
    refused(asked.client.post("/search/batch", **request_parts), code)


def test_photos_beyond_the_queue_are_refused_one_by_one(
    asked: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request holds one place; those it finds no place for are told to come back."""
    assert asked.server.runtime.opened is not None
    monkeypatch.setattr(asked.server.runtime.opened.batcher.places, "max_queue", 3)
    files = [("image", jpeg(seed)) for seed in range(6)]
    items = answered(asked.client.post("/search/batch?limit=1", files=files))["items"]
    assert ["result" in item for item in items] == [True] * 3 + [False] * 3
    assert {item["problem"]["code"] for item in items[3:]} == {"queue_full"}


def test_all_routes_share_one_queue(asked: Service, jpeg: Jpeg) -> None:
    """Searches, embeddings and stored photos asked for at once: each gets its own answer."""

    def ask(number: int) -> str:
        seed = number % 6
        if number % 3 == 0:
            return str(answered(asked.search(jpeg(seed), limit=1))["results"][0]["id"])
        if number % 3 == 1:
            answered(asked.client.post("/embed", files={"image": jpeg(seed)}))
            return str(seed)
        found = answered(asked.client.get(f"/images/{seed}/similar?limit=1"))
        assert found["results"][0]["id"] != str(seed)
        return str(seed)

    with ThreadPoolExecutor(12) as clients:
        found = list(clients.map(ask, range(36)))
    assert found == [str(number % 6) for number in range(36)]


def test_the_index_tells_what_it_is(asked: Service) -> None:
    """Size, kind, model: as the manifest has them."""
    facts = answered(asked.client.get("/index"))
    assert facts["counts"] == {"vectors": NUM_LISTED, "adds": 0, "tombstones": 0}
    assert (facts["type"], facts["nlist"], facts["metric"]) == ("IVF4,SQfp16", 4, "cosine")
    assert 1 <= facts["nprobe"] <= 4
    assert facts["fingerprints"]["model"] == asked.searcher.fingerprint
    assert len(facts["fingerprints"]["preprocessing"]) == 64
    assert facts["built_with"] == {"engine": facts["engine"], "precision": facts["precision"]}


def test_an_empty_index_is_served_and_finds_nothing(
    tmp_path: Path, tiny_checkpoint: Path, jpeg: Jpeg
) -> None:
    """An index of no photos is no fault: it is ready, and every list it answers is empty."""
    (tmp_path / "photos").mkdir()
    embedder = Embedder.open(tiny_checkpoint)
    build_index([tmp_path / "photos"], tiny_checkpoint, tmp_path / "index", embedder)
    with running(Settings(index=tmp_path / "index", port=0)) as empty:
        found = empty.search(jpeg(0))
        assert (found.status_code, found.json()["results"], found.json()["count"]) == (200, [], 0)
        assert not found.json()["has_more"]
        assert empty.client.get("/images").json()["images"] == []
        assert empty.client.get("/images/0").status_code == 404
        assert empty.health().status_code == 200

"""What a search may be asked, over HTTP: bodies, pages, filters, depths, parts of the answer."""

import base64
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from gpu_fixtures import FakeGpuFaiss
from service_running import Service, running, wait_until

from index.faiss_gpu import FaissDevice
from service.asking.search_options import Asked, SearchOptions
from service.batching.queries import Query
from service.errors import KINDS
from service.routes.search import search_of
from service.serving.written import write
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

NUM_PHOTOS = 24
Jpeg = Callable[[int], bytes]


def ids(response: httpx2.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return [int(hit["id"]) for hit in response.json()["results"]]


def problem(response: httpx2.Response, code: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (KINDS[code].status, code), response.text
    return body


def opened(service: Service) -> Any:
    assert service.server.runtime.opened is not None
    return service.server.runtime.opened


def everything(service: Service, photo: bytes, **parameters: Any) -> list[int]:
    return ids(service.search(photo, limit=50, exact=True, **parameters))


def embedding_of(service: Service, photo: bytes) -> list[float]:
    answer = service.search(photo, include="query_embedding").json()
    embedding: list[float] = answer["query_embedding"]
    return embedding


@pytest.mark.parametrize(("include", "thread"), [("metadata", "Thread"), ("embedding", "decode")])
def test_a_long_answer_is_not_written_on_the_event_loop(
    asked: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch, include: str, thread: str
) -> None:
    """A hundred embeddings take longer than others may be held up."""
    written_by = list[str]()

    def write_and_tell(*given: Any, **named: Any) -> Any:
        written_by.append(threading.current_thread().name)
        return write(*given, **named)

    monkeypatch.setattr("service.routes.search.write", write_and_tell)
    assert asked.search(jpeg(0), include=include).status_code == 200
    assert [name.partition("-")[0].split("_")[0] for name in written_by] == [thread]


def test_a_photo_in_base64_finds_what_the_form_finds(asked: Service, jpeg: Jpeg) -> None:
    """With or without data: before it; parameters stand in the query string."""
    text = base64.b64encode(jpeg(3)).decode()
    expected = ids(asked.search(jpeg(3), limit=4))
    for value in (text, f"data:image/jpeg;base64,{text}"):
        response = asked.client.post("/search?limit=4", json={"image_base64": value})
        assert ids(response) == expected
        assert response.json()["query"]["sha256"] == sha256(jpeg(3)).hexdigest()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"image_base64": "abc"}, "bad_base64"),
        ({"image_base64": "ab c="}, "bad_base64"),
        ({"image_base64": "äöü="}, "bad_base64"),
        ({"image_base64": "data:image/png,abcd"}, "bad_base64"),
        ({"image_base64": ""}, "empty_image"),
        ({"image_base64": "aGVsbG8="}, "image_undecodable"),
        ({"image_base64": "A" * 15 * 2**20}, "payload_too_large"),
        ({"image_base64": 1}, "validation"),
        ({"image_base64": "aGVsbG8=", "embedding": [1.0]}, "validation"),
        ({"image": "aGVsbG8="}, "validation"),
        ({}, "validation"),
        ([], "validation"),
        ({"image_url": "http://127.0.0.1/"}, "image_url_disabled"),
        ({"image_url": "file:///etc/passwd"}, "image_url_disabled"),
    ],
)
def test_a_json_body_without_a_photo_is_a_problem(asked: Service, body: Any, code: str) -> None:
    """Each way has its code, and a photo that is too large is refused before it is decoded."""
    problem(asked.client.post("/search", json=body), code)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"\\ud800":1}'])
def test_what_is_no_json_is_malformed(asked: Service, body: bytes) -> None:
    """However deep it is nested."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    problem(asked.client.post("/search", content=body, headers=headers), "malformed_json")


def test_an_embedding_finds_what_its_photo_finds(asked: Service, jpeg: Jpeg) -> None:
    """Of any length but zero, without a forward pass; there is no photo to tell of."""
    expected = asked.search(jpeg(5), limit=6, include="query_embedding").json()
    for factor in (1, 1e-300, 1e300):
        embedding = [factor * number for number in expected["query_embedding"]]
        response = asked.client.post("/search?limit=6", json={"embedding": embedding})
        assert ids(response) == [int(hit["id"]) for hit in expected["results"]]
        answer = response.json()
        assert (answer["query"], answer["batch_size"]) == (None, 0)


def wrong_embedding(dim: int, name: str) -> str:
    one = {
        "short": [1.0] * (dim - 1),
        "long": [1.0] * 10**6,
        "nothing": [],
        "zero": [0] * dim,
        "text": ["1"] * dim,
        "truth": [True] * dim,
        "null": [None] * dim,
        "nested": [[1.0]] * dim,
        "list": "1.0",
        "nan": [float("nan")] * dim,
        "infinite": [float("inf")] + [0] * (dim - 1),
        "huge": [10**400] + [0] * (dim - 1),
    }[name]
    return json.dumps({"embedding": one})


WRONG = "short long nothing zero text truth null nested list nan infinite huge"


@pytest.mark.parametrize("name", WRONG.split())
def test_what_is_no_embedding_is_refused(asked: Service, jpeg: Jpeg, name: str) -> None:
    """By length and by values, with the number of dimensions there are."""
    body = wrong_embedding(len(embedding_of(asked, jpeg(0))), name)
    headers = {"Content-Type": "application/json"}
    response = asked.client.post("/search", content=body, headers=headers)
    assert problem(response, "embedding_invalid")["errors"][0]["loc"] == "body.embedding"


@pytest.mark.parametrize("size", [1, 5, 7])
def test_pages_are_the_parts_of_one_ranking(asked: Service, jpeg: Jpeg, size: int) -> None:
    """They neither overlap nor leave a hit out, ranks go on, and the last says it is."""
    whole, pages, ranks = everything(asked, jpeg(8)), list[int](), list[int]()
    has_more = True
    while has_more:
        answer = asked.search(jpeg(8), limit=size, offset=len(pages), exact=True).json()
        assert answer["offset"] == len(pages)
        pages += [int(hit["id"]) for hit in answer["results"]]
        ranks += [hit["rank"] for hit in answer["results"]]
        has_more = answer["has_more"]
    assert pages == whole
    assert ranks == list(range(1, NUM_PHOTOS + 1))
    assert asked.search(jpeg(8), offset=900).json()["results"] == []


def test_min_score_ends_the_hits(asked: Service, jpeg: Jpeg) -> None:
    """Those below it are neither sent nor counted as more."""
    hits = asked.search(jpeg(2), limit=50, exact=True).json()["results"]
    bound = hits[9]["score"]
    answer = asked.search(jpeg(2), limit=50, exact=True, min_score=bound).json()
    assert [hit["id"] for hit in answer["results"]] == [hit["id"] for hit in hits[:10]]
    assert not answer["has_more"]
    assert asked.search(jpeg(2), limit=3, exact=True, min_score=bound).json()["has_more"]


def test_a_probability_is_asked_of_calibrated_indexes(asked: Service, jpeg: Jpeg) -> None:
    """The refusal says what to run."""
    body = problem(asked.search(jpeg(2), min_probability=0.5), "validation")
    assert body["errors"][0]["loc"] == "query.min_probability"
    assert "index.calibrate" in body["errors"][0]["msg"]


def test_dedup_keeps_the_best_of_equal_hits(asked: Service, jpeg: Jpeg) -> None:
    """The copy of the first photo goes, at the default and at 1; at a small cosine nearly all."""
    whole = everything(asked, jpeg(0))
    assert whole[:2] == [0, NUM_PHOTOS - 1]
    strict = everything(asked, jpeg(0), dedup=1)
    assert strict == [one for one in whole if one != NUM_PHOTOS - 1]
    assert everything(asked, jpeg(0), dedup="false") == whole
    default = everything(asked, jpeg(0), dedup="true")
    assert set(default) <= set(strict)
    assert everything(asked, jpeg(0), dedup=0.98) == default
    assert everything(asked, jpeg(0), dedup=0.001) == [0]
    pages = [asked.search(jpeg(0), limit=1, offset=o, exact=True, dedup=1).json() for o in (0, 1)]
    assert [page["results"][0]["id"] for page in pages] == [str(one) for one in strict[:2]]
    assert [page["collapsed"] for page in pages] == [1, 0]


def test_an_answer_says_what_was_collapsed(asked: Service, jpeg: Jpeg) -> None:
    """For each hit and in all, with the cosine; nothing of it where nothing was to be collapsed."""
    answer = asked.search(jpeg(0), limit=50, exact=True, dedup="true").json()
    assert answer["dedup_cosine"] == 0.98
    counts = [hit["collapsed"] for hit in answer["results"]]
    assert counts[0] >= 1
    assert answer["collapsed"] == sum(counts) == NUM_PHOTOS - len(counts)
    plain = asked.search(jpeg(0), limit=50, exact=True).json()
    assert not {"collapsed", "dedup_cosine"} & {*plain, *plain["results"][0]}


@pytest.mark.parametrize(
    ("asked_filter", "expected"),
    [
        ({"must": [{"field": "label", "eq": "cat"}]}, range(0, NUM_PHOTOS, 2)),
        ({"must_not": [{"field": "label", "eq": "cat"}]}, range(1, NUM_PHOTOS, 2)),
        ({"must": [{"field": "attributes.price", "gte": 3, "lt": 5}]}, [3, 4]),
        ({"must": [{"field": "attributes.price", "in": [1, 2, 99]}]}, [1, 2]),
        ({"must": [{"field": "attributes.sold", "eq": True}]}, [0, 1, 2]),
        ({"must": [{"field": "width", "gt": 10**30}]}, []),
        ({"must": [{"field": "label", "eq": "'; DROP TABLE photo; --"}]}, []),
        (
            {
                "must": [{"field": "label", "in": ["cat", "dog"]}],
                "must_not": [{"field": "attributes.price", "gt": 1}],
            },
            [0, 1],
        ),
        ({}, range(NUM_PHOTOS)),
    ],
)
def test_a_filter_leaves_only_what_meets_it(
    asked: Service, jpeg: Jpeg, asked_filter: dict[str, Any], expected: list[int]
) -> None:
    """`must` and `must_not`, in the query string and as a form field."""
    text = json.dumps(asked_filter)
    assert sorted(everything(asked, jpeg(0), filter=text)) == list(expected)
    response = asked.client.post(
        "/search?limit=50&exact=true", files={"image": jpeg(0)}, data={"filter": text}
    )
    assert sorted(ids(response)) == list(expected)


def test_requests_of_one_batch_keep_their_own_filters(asked: Service, jpeg: Jpeg) -> None:
    """Different filters and depths share a forward pass and not their answers."""
    engine = opened(asked).engine
    queries = []
    for seed in range(4):
        source = engine.take_in(jpeg(seed) + b"x", asked.server.runtime.limits)
        text = json.dumps({"must": [{"field": "label", "eq": "dog" if seed % 2 else "cat"}]})
        options = SearchOptions(filter=text, nprobe=1 + seed % 3, limit=3)
        search = search_of(Asked(options), engine, asked.server.runtime.settings)
        queries.append(Query(source, search))
    answers = engine.answer(queries)
    assert [answer.batch_size for answer in answers] == [4, 4, 4, 4]
    for seed, answer in enumerate(answers):
        assert {hit.id % 2 for hit in answer.found.hits} == {seed % 2}
        assert answer.found.hits[0].id == seed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cat",
        "[]",
        '{"should":[]}',
        '{"must":{}}',
        '{"must":[{"field":"label"}]}',
        '{"must":[{"eq":"cat"}]}',
        '{"must":[{"field":"secret","eq":1}]}',
        '{"must":[{"field":"label","eq":1}]}',
        '{"must":[{"field":"label","gt":"a"}]}',
        '{"must":[{"field":"width","eq":"wide"}]}',
        '{"must":[{"field":"width","eq":NaN}]}',
        '{"must":[{"field":"taken_at","gt":"yesterday"}]}',
        '{"must":[{"field":"attributes.a\\"b","eq":1}]}',
        '{"must":[{"field":"attributes.","eq":1}]}',
        '{"must":[{"field":"label","in":[]}]}',
        '{"must":[{"field":"label","eq":["cat"]}]}',
        '{"must":[{"must":[]}]}',
        '{"must_not":[{"field":"width","gt":1,"lt":9}]}',
        '{"must":[' + ",".join(['{"field":"width","eq":1}'] * 33) + "]}",
        '{"must":[{"field":"width","in":[' + ",".join(["1"] * 101) + "]}]}",
        '{"must":[' * 300,
        json.dumps({"must": [{"field": "label", "eq": "x" * 4096}]}),
    ],
)
def test_a_filter_that_cannot_be_asked_is_named(asked: Service, jpeg: Jpeg, text: str) -> None:
    """422 filter_invalid, with what is wrong."""
    body = problem(asked.search(jpeg(0), filter=text), "filter_invalid")
    assert body["detail"].startswith("filter")


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1e300", "9" * 25])
def test_huge_numbers_in_a_filter_hurt_nobody(asked: Service, jpeg: Jpeg, number: str) -> None:
    """They are compared, or refused."""
    text = f'{{"must":[{{"field":"width","eq":{number}}}]}}'
    response = asked.search(jpeg(0), filter=text)
    assert response.status_code == 422 or ids(response) == []


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\u2028", "😀", "%", "\\", "$.a"])
def test_odd_texts_in_a_filter_match_nothing(asked: Service, jpeg: Jpeg, text: str) -> None:
    """As a value, and in the name of an attribute."""
    value = json.dumps({"must": [{"field": "label", "eq": text}]})
    assert ids(asked.search(jpeg(0), filter=value)) == []
    name = json.dumps({"must": [{"field": f"attributes.{text}", "eq": "x"}]})
    assert asked.search(jpeg(0), filter=name).status_code in {200, 422}


def test_a_depth_is_bounded_by_the_lists_and_the_settings(asked: Service, jpeg: Jpeg) -> None:
    """Nprobe goes up to the cap; it, recall and exact exclude each other."""
    assert ids(asked.search(jpeg(1), nprobe=3, limit=1)) == [1]
    assert "at most 3" in problem(asked.search(jpeg(1), nprobe=4), "validation")["detail"]
    for pair in ({"nprobe": 1, "exact": True}, {"nprobe": 1, "recall": 0.5}):
        body = problem(asked.search(jpeg(1), **pair), "validation")
        assert "give one of them" in body["detail"]
    assert problem(asked.search(jpeg(1), limit=51), "validation")["errors"] == [
        {"loc": "query.limit", "msg": "at most 50 here"}
    ]


def test_exact_is_for_small_collections(asked: Service, jpeg: Jpeg) -> None:
    """One photo more than the setting allows, and it is refused."""
    assert len(everything(asked, jpeg(0))) == NUM_PHOTOS
    settings = asked.server.runtime.settings
    asked.server.runtime.settings = settings.model_copy(update={"exact_max_photos": 23})
    try:
        body = problem(asked.search(jpeg(0), exact=True), "validation")
    finally:
        asked.server.runtime.settings = settings
    assert body["errors"][0]["loc"] == "query.exact"


def test_parts_of_the_answer_are_there_when_asked_for(asked: Service, jpeg: Jpeg) -> None:
    """Embeddings are unit vectors whose product is the score; what was not asked for is absent."""
    bare = asked.search(jpeg(4), include="").json()["results"][0]
    assert list(bare) == ["rank", "id", "score", "same_probability", "uri"]
    assert bare["same_probability"] is None  # nobody has calibrated this index
    answer = asked.search(jpeg(4), include="embedding,query_embedding").json()
    query = np.array(answer["query_embedding"])
    for hit in answer["results"]:
        assert list(hit) == ["rank", "id", "score", "same_probability", "uri", "embedding"]
        assert np.linalg.norm(hit["embedding"]) == pytest.approx(1, abs=1e-5)
        assert query @ hit["embedding"] == pytest.approx(hit["score"], abs=1e-4)


def test_a_client_may_wait_shorter_than_the_service_does(
    asked: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timeout_ms counts from the complete body, in the query string and in the form."""
    batcher = opened(asked).batcher
    run_batch = batcher.runs.run_batch

    def slow(queries: Any) -> Any:
        time.sleep(0.15)
        return run_batch(queries)

    monkeypatch.setattr(batcher.runs, "run_batch", slow)
    problem(asked.search(jpeg(0), timeout_ms=50), "deadline_exceeded")
    response = asked.client.post("/search", files={"image": jpeg(0)}, data={"timeout_ms": "50"})
    problem(response, "deadline_exceeded")
    assert asked.search(jpeg(0), timeout_ms=30_000).status_code == 200


def test_lists_are_searched_on_the_device_of_the_settings(
    listed: Path, asked: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --search-device cuda a GPU, here a pretended one, finds what the CPU finds."""
    gpu = FakeGpuFaiss()
    monkeypatch.setattr("index.searcher.FaissDevice", partial(FaissDevice, module=gpu))
    with running(Settings(index=listed, port=0, search_device="cuda")) as service:
        found = ids(service.search(jpeg(3)))
    assert "search" in gpu.used
    assert found == ids(asked.search(jpeg(3)))


@pytest.mark.parametrize("num_gpus", [1, 0])
def test_a_reload_searches_where_the_settings_say(
    listed: Path,
    asked: Service,
    jpeg: Jpeg,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    num_gpus: int,
) -> None:
    """On the GPU; where there is none a line says so, and the CPU answers on."""
    gpu = FakeGpuFaiss(num_gpus=num_gpus)
    monkeypatch.setattr("index.searcher.FaissDevice", partial(FaissDevice, module=gpu))
    with running(Settings(index=listed, port=0, search_device="cuda")) as service:
        before = service.searcher
        caplog.clear()
        job = opened(service).reloader.begin()
        wait_until(lambda: job.status != "running")
        assert (job.status, service.searcher is before) == ("done", False)
        gpu.used.clear()
        found = [ids(service.search(jpeg(3))) for _ in range(2)]
    assert ("search" in gpu.used) is bool(num_gpus)
    assert found == [ids(asked.search(jpeg(3)))] * 2
    said = [line for line in caplog.messages if line.startswith("faiss works on the CPU")]
    assert len(said) == (0 if num_gpus else 1)

"""POST /search over a real socket: the right neighbours, and the promised shape."""

import io
import re
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from service_running import Service

from index.manifest import CurvePoint, SearchPart
from index.searching.neighbours import Neighbour
from index.searching.scoring import Ranked
from service.asking.paging import Page
from service.asking.plan import Plan
from service.batching.queries import Pixels, Query, Search, Source

pytest_plugins = ["service_fixtures"]

NUM_PHOTOS = 12

Jpeg = Callable[[int], bytes]


def query(pixels: Pixels, page: Page, plan: Plan | None = None) -> Query:
    return Query(Source(looks=(pixels,)), Search(plan or Plan(), page))


def test_indexed_photo_finds_itself_in_the_promised_shape(service: Service, jpeg: Jpeg) -> None:
    """The answer has every field of the interface, and the photo itself comes first."""
    photo = jpeg(3)
    response = service.search(photo, limit=4)
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == [
        "request_id", "generation", "model", "metric", "query", "results", "count", "offset",
        "has_more", "batch_size", "timing_ms",
    ]  # fmt: skip
    assert answer["query"] == {
        "sha256": sha256(photo).hexdigest(),
        "width": 96,
        "height": 72,
        "format": "JPEG",
        "exif_rotated": False,
    }
    first = answer["results"][0]
    assert list(first) == [
        "rank",
        "id",
        "score",
        "same_probability",
        "uri",
        "thumbnail_url",
        "metadata",
    ]
    assert first["uri"].endswith("03.jpg")
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert isinstance(first["id"], str)
    assert first["metadata"]["paths"] == [first["uri"]]
    assert (answer["metric"], answer["count"], answer["offset"]) == ("cosine", 4, 0)
    assert answer["model"].startswith("multigrain-squeezenet1_1@sha256:")


def test_ranks_rise_and_scores_fall(service: Service, jpeg: Jpeg) -> None:
    """Hits are numbered from 1 by falling cosine within [-1, 1]."""
    hits = service.search(jpeg(5)).json()["results"]
    scores = [hit["score"] for hit in hits]
    assert [hit["rank"] for hit in hits] == list(range(1, 11))
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)


def test_stage_times_add_up_to_no_more_than_the_total(service: Service, jpeg: Jpeg) -> None:
    """timing_ms names every stage, and Server-Timing says the same, and what the writing took."""
    response = service.search(jpeg(1))
    timing = response.json()["timing_ms"]
    stages = ["receive", "decode", "queue", "infer", "search", "metadata"]
    assert list(timing) == [*stages, "total"]
    assert 0 < sum(timing[stage] for stage in stages) <= timing["total"] + 0.1
    said = re.findall(r"(\w+);dur=([\d.]+)", response.headers["Server-Timing"])
    times = {stage: float(milliseconds) for stage, milliseconds in said}
    assert list(times) == [*stages, "serialize", "total"]
    assert {stage: times[stage] for stage in stages} == {stage: timing[stage] for stage in stages}
    assert timing["total"] <= times["total"]
    assert 0 < times["serialize"] < times["total"]


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/x-www-form-urlencoded", None])
def test_raw_body_finds_what_the_form_finds(
    service: Service, jpeg: Jpeg, content_type: str | None
) -> None:
    """A photo as the body itself, under whatever type curl claims, gives the same hits."""
    headers = {"Content-Type": content_type} if content_type else {}
    raw = service.client.post("/search", content=jpeg(2), headers=headers)
    assert raw.json()["results"] == service.search(jpeg(2)).json()["results"]


def test_limit_may_be_a_form_field(service: Service, jpeg: Jpeg) -> None:
    """A form with limit=2 does what ?limit=2 does."""
    answer = service.client.post("/search", files={"image": jpeg(0)}, data={"limit": "2"}).json()
    assert (answer["count"], answer["has_more"]) == (2, True)


def test_fewer_hits_than_asked_for_when_fewer_exist(service: Service, jpeg: Jpeg) -> None:
    """A limit beyond the collection returns the whole collection and says there is no more."""
    answer = service.search(jpeg(0), limit=100).json()
    assert (answer["count"], answer["has_more"]) == (NUM_PHOTOS, False)
    assert len({hit["id"] for hit in answer["results"]}) == NUM_PHOTOS


@pytest.fixture
def tuned(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The index as if it had been measured at two depths; collects the recalls searched with."""
    searcher = service.searcher
    points = [
        CurvePoint(nprobe=n, rerank=20, recall=r, recall_lower=r, microseconds=n)
        for n, r in ((2, 0.9), (8, 0.98))
    ]
    searched, rank = list[float | None](), searcher.rank

    def noted(*given: Any, recall: float | None, **named: Any) -> list[Ranked]:
        searched.append(recall)
        return rank(*given, recall=recall, **named)

    changed = {"factory": "IVF8,SQ8", "search": SearchPart(nprobe=2, rerank=20, curve=points)}
    monkeypatch.setattr(searcher, "manifest", searcher.manifest.model_copy(update=changed))
    monkeypatch.setattr(searcher, "rank", noted)
    return searched


def test_a_recall_is_asked_for_in_the_query_or_the_form(
    service: Service, jpeg: Jpeg, tuned: list[float | None]
) -> None:
    """Each request is searched as it asks; beside it `limit` may stand in the other place."""
    assert service.search(jpeg(0), recall=0.95).status_code == 200
    assert service.search(jpeg(0)).status_code == 200
    answer = service.client.post(
        "/search?limit=3", files={"image": jpeg(0)}, data={"recall": "0.5"}
    ).json()
    assert tuned == [0.95, None, 0.5]
    assert answer["count"] == 3


@pytest.mark.parametrize("place", ["query", "form"])
def test_a_recall_out_of_reach_is_refused_naming_those_there_are(
    service: Service, jpeg: Jpeg, tuned: list[float | None], place: str
) -> None:
    """422 before anything is searched."""
    files, wanted = {"image": jpeg(0)}, {"recall": "0.99"}
    response = (
        service.client.post("/search", files=files, params=wanted)
        if place == "query"
        else service.client.post("/search", files=files, data=wanted)
    )
    assert response.status_code == 422
    (fault,) = response.json()["errors"]
    assert fault["loc"] == f"{place}.recall"
    assert "0.9, 0.98" in fault["msg"]
    assert tuned == []


@pytest.mark.parametrize("recall", ["0", "-1", "1.1", "nan", "much"])
def test_a_recall_that_is_none_is_refused(service: Service, jpeg: Jpeg, recall: str) -> None:
    """As any other parameter out of range."""
    response = service.client.post("/search", files={"image": jpeg(0)}, params={"recall": recall})
    assert (response.status_code, response.json()["code"]) == (422, "validation")


def test_recall_is_described(service: Service) -> None:
    """In the query string and as a form field."""
    described = service.client.get("/openapi.json").json()["paths"]["/search"]["post"]
    assert "recall" in [one["name"] for one in described["parameters"]]
    form = described["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["recall"]["anyOf"][0]["type"] == "number"


def test_an_engine_searches_each_query_at_its_own_recall(
    service: Service, draw: Callable[[int], Image.Image], tuned: list[float | None]
) -> None:
    """A batch of different recalls is searched once for each; answers stay with their queries."""
    assert service.server.runtime.opened is not None
    engine = service.server.runtime.opened.engine
    recalls = [0.9, None, 0.9, 0.5]
    pixels = [engine.embedder.preprocessing.prepare(draw(seed)) for seed in range(4)]
    answers = engine.answer(
        [
            query(one, Page(limit=1 + row), Plan(recall=recall))
            for row, (one, recall) in enumerate(zip(pixels, recalls, strict=True))
        ]
    )
    assert tuned == [0.9, None, 0.5]
    assert [answer.found.hits[0].id for answer in answers] == [0, 1, 2, 3]
    assert [len(answer.found.hits) for answer in answers] == [1, 2, 3, 4]


def test_metadata_that_json_cannot_say_is_mended_not_a_500(
    service: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lone surrogates become U+FFFD, NaN and infinities null, however deep they stand."""
    searcher = service.searcher
    odd = {
        "na\udc00me": ["\ud800", {"deep": float("nan")}],
        "far": float("inf"),
        "n": 1,
        "ok": "ä😀",
    }

    def odd_neighbours(*_given: object, **_named: object) -> list[list[Neighbour]]:
        return [[Neighbour(0, 1.0, "caf\udce9.jpg", odd)]]

    monkeypatch.setattr(searcher, "neighbours", odd_neighbours)
    response = service.search(jpeg(0))
    assert response.status_code == 200
    hit = response.json()["results"][0]
    assert hit["uri"] == "caf\ufffd.jpg"
    assert hit["metadata"] == {
        "na\ufffdme": ["\ufffd", {"deep": None}], "far": None, "n": 1, "ok": "ä😀",
    }  # fmt: skip


def test_rotated_twin_finds_the_upright_photo(
    service: Service, draw: Callable[[int], Image.Image]
) -> None:
    """A photo stored sideways with an EXIF orientation is the same photo."""
    sideways = draw(4).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    sideways.save(buffer, "JPEG", quality=95, exif=exif)
    answer = service.search(buffer.getvalue(), limit=1).json()
    assert answer["query"]["exif_rotated"]
    assert (answer["query"]["width"], answer["query"]["height"]) == (96, 72)
    assert answer["results"][0]["uri"].endswith("04.jpg")


def test_bytes_decide_not_the_file_name(
    service: Service, draw: Callable[[int], Image.Image]
) -> None:
    """A PNG under a hostile .jpg name and type is decoded as PNG, and the name opens nothing."""
    buffer = io.BytesIO()
    draw(6).save(buffer, "PNG")
    files = {"image": ("../../etc/passwd\r\nX: y.jpg", buffer.getvalue(), "image/jpeg")}
    answer = service.client.post("/search", files=files, params={"limit": 1}).json()
    assert answer["query"]["format"] == "PNG"
    assert answer["results"][0]["uri"].endswith("06.jpg")


def test_simultaneous_requests_share_batches_and_keep_their_answers(
    service: Service, jpeg: Jpeg
) -> None:
    """48 requests at once are run in batches, and each gets the answer it gets alone."""
    alone = {seed: service.search(jpeg(seed), limit=3).json() for seed in range(NUM_PHOTOS)}
    assert {answer["batch_size"] for answer in alone.values()} == {1}
    seeds = [seed for seed in range(NUM_PHOTOS) for _ in range(4)]
    with ThreadPoolExecutor(24) as clients:
        responses = list(clients.map(lambda seed: service.search(jpeg(seed), limit=3), seeds))
    answers = [response.json() for response in responses]
    for seed, answer in zip(seeds, answers, strict=True):
        found = [(hit["id"], hit["score"]) for hit in answer["results"]]
        expected = [(hit["id"], hit["score"]) for hit in alone[seed]["results"]]
        assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
        assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=1e-4)
    assert statistics.mean(answer["batch_size"] for answer in answers) > 1


def test_batch_size_counts_the_photos_of_the_same_shape(
    service: Service, draw: Callable[[int], Image.Image]
) -> None:
    """Wide and upright photos of one batch go through the model in passes of their own."""
    assert service.server.runtime.opened is not None
    engine = service.server.runtime.opened.engine
    wide, upright = (
        query(np.asarray(draw(0).resize(size)), Page(limit=1)) for size in ((96, 64), (64, 96))
    )
    answers = engine.answer([wide, upright, wide])
    assert [answer.batch_size for answer in answers] == [2, 1, 2]


def test_bad_photo_among_good_ones_fails_alone(service: Service, jpeg: Jpeg) -> None:
    """Of 16 simultaneous requests only the one that is no photo is refused."""
    bodies = [jpeg(seed % NUM_PHOTOS) for seed in range(16)]
    bodies[7] = b"no photo at all"
    with ThreadPoolExecutor(16) as clients:
        responses = list(clients.map(service.search, bodies))
    codes = [response.status_code for response in responses]
    assert codes.pop(7) == 400
    assert set(codes) == {200}


def test_request_id_of_the_client_is_kept_when_harmless(service: Service, jpeg: Jpeg) -> None:
    """A short plain id comes back in header and body; anything else is replaced."""
    for given, kept in (("trace-1", True), ("a" * 65, False), ("spaced out", False)):
        response = service.client.post("/search", content=jpeg(0), headers={"X-Request-ID": given})
        assert (response.headers["X-Request-ID"] == given) is kept
        assert response.json()["request_id"] == response.headers["X-Request-ID"]


def test_answer_is_not_cached_and_not_sniffed(service: Service, jpeg: Jpeg) -> None:
    """The headers say so, and name the generation searched."""
    response: httpx2.Response = service.search(jpeg(0))
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Index-Generation"] == response.json()["generation"]

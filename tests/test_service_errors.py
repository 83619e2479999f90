"""Everything a client can get wrong is a problem document, and the next request works."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from service_running import Service, running

from index.errors import IndexFolderError
from service.errors import KINDS, ProblemError
from service.serving.runtime import Runtime
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

MAX_BODY_BYTES = 10 * 2**20
Jpeg = Callable[[int], bytes]


def check_problem(response: httpx2.Response, code: str) -> dict[str, Any]:
    """Compare a response with the promise about problem documents."""
    problem: dict[str, Any] = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["code"] == code
    assert response.status_code == problem["status"] == KINDS[code].status
    assert problem["type"] == "/problems/" + code.replace("_", "-")
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.fixture(autouse=True)
def _still_answers(service: Service, jpeg: Jpeg) -> Iterator[None]:
    """After each of these tests a good photo is answered and the service is healthy."""
    yield
    assert service.search(jpeg(0)).status_code == 200
    assert service.health().status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=abc",
        "limit=1e3",
        "limit=" + "1" * 20,
        "limit=101",
        "limit=",
        "limit=3&limit=4",
        "colour=red",
        "offset=-1",
        "offset=991",
        "offset=1000",
        "min_score=nan",
        "min_score=inf",
        "min_score=2",
        "nprobe=0",
        "nprobe=1000000000",
        "exact=perhaps",
        "dedup=0",
        "dedup=nan",
        "include=everything",
        "include=metadata,metadata",
        "timeout_ms=9",
        "timeout_ms=30001",
    ],
)
def test_invalid_query_parameter_is_named(service: Service, jpeg: Jpeg, query: str) -> None:
    """Out of range, malformed, repeated and unknown parameters are a 422 that names them."""
    response = service.client.post(f"/search?{query}", files={"image": jpeg(0)})
    problem = check_problem(response, "validation")
    assert problem["errors"][0]["loc"] == "query." + query.partition("=")[0]
    assert problem["errors"][0]["msg"]


def test_limit_in_query_and_form_is_refused(service: Service, jpeg: Jpeg) -> None:
    """One parameter in two places is not guessed about."""
    response = service.client.post("/search?limit=3", files={"image": jpeg(0)}, data={"limit": "3"})
    assert check_problem(response, "validation")["errors"][0]["loc"] == "form.limit"


@pytest.mark.parametrize(
    ("request_parts", "code"),
    [
        ({}, "validation"),
        ({"files": {"photo": b"x"}}, "validation"),
        ({"files": {"image": b""}}, "empty_image"),
        ({"content": b"", "headers": {"Content-Type": "image/png"}}, "empty_image"),
        ({"files": [("image", b"x"), ("image", b"y")]}, "duplicate_image_part"),
        ({"files": {"image": b"hello"}}, "image_undecodable"),
        ({"content": b"%PDF-1.7 and more"}, "unsupported_media_type"),
        ({"json": {"image_url": "http://127.0.0.1/"}}, "image_url_disabled"),
        (
            {"content": b"--", "headers": {"Content-Type": "multipart/form-data"}},
            "malformed_multipart",
        ),
    ],
)
def test_unusable_body_is_a_problem(
    service: Service, request_parts: dict[str, Any], code: str
) -> None:
    """Each way to send no usable photo has its own code."""
    problem = check_problem(service.client.post("/search", **request_parts), code)
    faults = [fault["loc"] for fault in problem.get("errors", [])]
    assert faults == (["body.image"] if code == "validation" else [])


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/search", "method_not_allowed"),
        ("PUT", "/search", "method_not_allowed"),
        ("POST", "/search/", "not_found"),
        ("POST", "/health", "method_not_allowed"),
        ("GET", "/nothing", "not_found"),
        ("GET", "/page/nothing.js", "not_found"),
        ("GET", "/page/..%2fapp.py", "not_found"),
    ],
)
def test_wrong_route_is_a_problem(service: Service, method: str, path: str, code: str) -> None:
    """The framework's own errors have the same shape as ours."""
    check_problem(service.client.request(method, path), code)


def test_declared_oversize_is_refused(service: Service) -> None:
    """A body one byte over the limit is refused by its Content-Length."""
    response = service.client.post("/search", content=bytes(MAX_BODY_BYTES + 1))
    check_problem(response, "payload_too_large")


def test_chunked_oversize_is_refused(service: Service) -> None:
    """Without a Content-Length the bytes themselves are counted."""
    blocks = (bytes(2**20) for _ in range(11))
    check_problem(service.client.post("/search", content=blocks), "payload_too_large")


def test_body_of_exactly_the_limit_is_read(service: Service) -> None:
    """The limit itself is allowed: such a body fails only for not being a photo."""
    response = service.client.post("/search", content=bytes(MAX_BODY_BYTES))
    check_problem(response, "image_undecodable")


def raw_exchange(service: Service, sent: bytes) -> bytes:
    """Send bytes over a socket of our own, and return what comes back first."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(sent)
        return connection.recv(65536)


def test_false_content_length_cannot_pass_the_limit(service: Service) -> None:
    """A body longer than declared ends where it was declared; the rest is another request."""
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    assert raw_exchange(service, head + b"hello" + bytes(1000)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent", [b"", b"\xff\xd8 some"])
def test_client_that_leaves_during_the_upload_is_forgotten(service: Service, sent: bytes) -> None:
    """Nothing is left behind when a connection closes before its body is complete."""
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
    batcher = opened(service).batcher
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + sent)
        wait_until(lambda: batcher.places.num_taken == 1)
    wait_until(lambda: batcher.places.num_taken == 0)
    assert service.health().status_code == 200


def test_client_that_leaves_while_it_waits_costs_no_inference(
    service: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose client has gone is taken out of the queue unrun."""
    batcher = opened(service).batcher
    sizes: list[int] = []
    answer = batcher.runs.run_batch

    def slow_answer(queries: Any) -> Any:
        sizes.append(len(queries))
        time.sleep(0.2)
        return answer(queries)

    monkeypatch.setattr(batcher.runs, "run_batch", slow_answer)
    with ThreadPoolExecutor(1) as other:
        running_one = other.submit(service.search, jpeg(1))
        wait_until(lambda: batcher.runs.num_running == 1)
        head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(jpeg(2))
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as leaving:
            leaving.sendall(head + jpeg(2))
            wait_until(lambda: batcher.num_queued == 1)
        assert running_one.result().status_code == 200
    wait_until(lambda: batcher.places.num_taken == 0)
    assert sizes == [1]


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def opened(service: Service) -> Any:
    assert service.server.runtime.opened is not None
    return service.server.runtime.opened


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("secret"), "internal"), (IndexFolderError("secret"), "index_unavailable")],
)
def test_fault_of_the_engine_tells_the_client_nothing_of_the_inside(
    service: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    """A fault below is a 500 or 503 whose text does not repeat the exception's."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(service.searcher, "rank", fail)
    response = service.search(jpeg(0))
    check_problem(response, code)
    assert "secret" not in response.text
    monkeypatch.undo()


def test_model_that_keeps_failing_is_tested_and_ends_the_service(
    index_root: Path, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is a 500; then the model fails its own test: 503, and an error at the end."""
    with running(Settings(index=index_root, port=0)) as broken:
        watchdog = opened(broken).watchdog
        watchdog._every_seconds = 0.05

        def fail(*_arguments: object, **_options: object) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(opened(broken).engine.embedder, "embed_pixels", fail)
        for _ in range(3):
            check_problem(broken.search(jpeg(0)), "internal")
        wait_until(lambda: broken.server.failure is not None)
        assert "failed its test 3 times" in str(broken.server.failure)
        assert broken.server.runtime.status == "dead"


def test_bad_photos_in_a_row_do_not_make_a_sound_model_look_broken(
    index_root: Path, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos that embed to no number are a 500 each; the model passes its test, health stays."""
    with running(Settings(index=index_root, port=0)) as sound:
        engine = opened(sound).engine
        opened(sound).watchdog._every_seconds = 0.02
        infer = engine.embedder._engine.infer

        def infer_nan(batch: Any) -> Any:
            pooled = infer(batch)
            return pooled if (batch == batch.flat[0]).all() else pooled * float("nan")

        monkeypatch.setattr(engine.embedder._engine, "infer", infer_nan)
        for _ in range(4):
            check_problem(sound.search(jpeg(0)), "internal")
        wait_until(lambda: opened(sound).batcher.runs.num_failed_in_row == 0)
        assert sound.health().json()["status"] == "ok"
        monkeypatch.undo()
        assert sound.search(jpeg(0)).status_code == 200


def test_livez_is_503_while_a_forward_pass_hangs(index_root: Path, jpeg: Jpeg) -> None:
    """Past stuck_after_s only a restart is expected to help; one that does end is well again."""
    settings = Settings(index=index_root, port=0, stuck_after_s=0.2, request_timeout_ms=100)
    with running(settings) as hanging:
        may_go_on = threading.Event()
        batcher = opened(hanging).batcher
        answer = batcher.runs.run_batch

        def hang(queries: Any) -> Any:
            may_go_on.wait(10)
            return answer(queries)

        batcher.runs.run_batch = hang
        check_problem(hanging.search(jpeg(0)), "deadline_exceeded")
        wait_until(lambda: hanging.client.get("/livez").status_code == 503)
        health = hanging.health()
        assert (health.status_code, health.json()["status"]) == (503, "dead")
        head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
        refused = raw_exchange(hanging, head)  # of the body nothing is sent
        assert refused.startswith(b"HTTP/1.1 503")
        assert hanging.client.get("/images/0").status_code == 200
        may_go_on.set()
        wait_until(lambda: hanging.client.get("/livez").status_code == 200)
        assert hanging.health().status_code == 200


def test_overload_is_refused_with_a_time_to_come_back(index_root: Path, jpeg: Jpeg) -> None:
    """With room for one request, others at the same time get 429 and Retry-After."""
    settings = Settings(index=index_root, port=0, max_queue=1, max_batch=1, max_wait_ms=0)
    with running(settings) as small, ThreadPoolExecutor(16) as clients:
        photos = [jpeg(seed % 4) for seed in range(32)]
        responses = list(clients.map(small.search, photos))
        refused = [response for response in responses if response.status_code != 200]
        assert 0 < len(refused) < len(responses)
        for response in refused:
            check_problem(response, "queue_full")
            assert int(response.headers["Retry-After"]) >= 1
        assert small.search(jpeg(0)).status_code == 200


def test_search_without_room_is_refused_before_it_is_routed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal costs no look at the parameters: an invalid one is a 429 too while it is full."""
    monkeypatch.setattr(opened(service).batcher.places, "max_queue", 0)
    refused = service.client.post("/search?limit=0", content=b"")
    check_problem(refused, "queue_full")
    assert int(refused.headers["Retry-After"]) >= 1
    assert service.client.get("/images/0/thumbnail").status_code == 200
    monkeypatch.undo()


def test_slow_body_and_late_answer_are_given_up(index_root: Path, jpeg: Jpeg) -> None:
    """A body that stalls is a 408, an answer after the deadline a 504."""
    settings = Settings(index=index_root, port=0, body_timeout_s=0.1, request_timeout_ms=100)
    with running(settings) as hasty:
        head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        assert raw_exchange(hasty, head + b"half").startswith(b"HTTP/1.1 408")
        rank = hasty.searcher.rank

        def slow_rank(*given: Any, **named: Any) -> Any:
            time.sleep(0.3)
            return rank(*given, **named)

        hasty.searcher.rank = slow_rank  # type: ignore[method-assign]
        check_problem(hasty.search(jpeg(0)), "deadline_exceeded")


def test_no_search_before_the_model_is_loaded_nor_while_draining(index_root: Path) -> None:
    """A service that starts or ends says so."""
    runtime = Runtime(Settings(index=index_root))
    with pytest.raises(ProblemError) as caught:
        runtime.ready()
    assert (caught.value.code, runtime.status) == ("not_ready", "starting")
    runtime.draining = True
    assert runtime.status == "draining"

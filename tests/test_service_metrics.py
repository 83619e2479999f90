"""What the service counts and logs: true numbers under fixed names."""

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from service_running import Service, running, wait_until

from service.server import DrainingServer, PortError
from service.settings import Settings
from service.watching.logs import JsonFormatter

pytest_plugins = ["service_fixtures"]

Jpeg = Callable[[int], bytes]
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]
ADMIN = "of-the-admin"


@pytest.fixture(scope="module")
def counted(index_root: Path) -> Iterator[Service]:
    """A service of whose numbers only these tests are the cause."""
    settings = Settings(index=index_root, port=0, admin_key=[SecretStr(ADMIN)])
    with running(settings) as service:
        yield service


def numbers(url: str) -> Numbers:
    """Every sample, by name and labels, without the prefix."""
    answer = httpx2.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (one.name.removeprefix("multigrain_"), frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(answer.text)
        for one in family.samples
    }


def value(found: Numbers, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def grown(before: Numbers, after: Numbers, name: str, **labels: str) -> float:
    return value(after, name, **labels) - value(before, name, **labels)


def test_search_is_counted_timed_and_measured(counted: Service, jpeg: Jpeg) -> None:
    """One search is one request, one batch, one photo of its size, one time of each stage."""
    before = numbers(counted.url)
    photo = jpeg(50)
    assert counted.search(photo).status_code == 200
    after = numbers(counted.url)
    of_search = {"route": "/search", "method": "POST"}
    assert grown(before, after, "http_requests_total", **of_search, status="200") == 1
    assert grown(before, after, "http_request_duration_seconds_count", **of_search) == 1
    for stage in ("receive", "decode", "queue", "infer", "search", "metadata", "serialize"):
        assert grown(before, after, "stage_duration_seconds_count", stage=stage) == 1
    assert grown(before, after, "batch_size_sum") == 1
    assert grown(before, after, "batches_total", result="ok") == 1
    assert grown(before, after, "image_pixels_sum") == 96 * 72
    assert grown(before, after, "upload_bytes_sum") > len(photo)
    assert grown(before, after, "top1_score_count") == 1
    assert grown(before, after, "embedding_cache_total", hit="false") == 1
    assert value(after, "http_in_flight") == 1  # the request for the numbers


def test_state_is_looked_up(counted: Service) -> None:
    """Queue, index, model and process are described as they are."""
    found = numbers(counted.url)
    assert value(found, "queue_depth") == value(found, "arriving") == 0
    assert value(found, "index_vectors", part="main") == 12
    assert value(found, "index_vectors", part="deleted") == 0
    by_name = {name: dict(labels) for name, labels in found}
    assert by_name["index_info"]["generation"] == "000001"
    assert by_name["model_info"]["backbone"] == "squeezenet1_1"
    assert value(found, "process_resident_memory_bytes") > 0
    wait_until(lambda: ("event_loop_lag_seconds", frozenset()) in numbers(counted.url))


@pytest.mark.parametrize(
    ("body", "name", "labels"),
    [
        (b"hello", "image_errors_total", {"reason": "image_undecodable"}),
        (b"%PDF-1.7", "image_errors_total", {"reason": "unsupported_media_type"}),
        (bytes(10 * 2**20 + 1), "rejected_total", {"reason": "too_large"}),
    ],
)
def test_bad_photos_and_refusals_are_told_apart(
    counted: Service, body: bytes, name: str, labels: dict[str, str]
) -> None:
    """A photo's fault is counted by its code, a refusal by its reason."""
    before = numbers(counted.url)
    counted.client.post("/search", content=body)
    assert grown(before, numbers(counted.url), name, **labels) == 1


def test_full_queue_is_counted_as_a_refusal(counted: Service, jpeg: Jpeg) -> None:
    """A 429 has its reason, whoever has refused."""
    assert counted.server.runtime.opened is not None
    batcher, before = counted.server.runtime.opened.batcher, numbers(counted.url)
    batcher.places.num_taken += batcher.places.max_queue
    assert counted.search(jpeg(0)).status_code == 429
    batcher.places.num_taken -= batcher.places.max_queue
    assert grown(before, numbers(counted.url), "rejected_total", reason="queue_full") == 1


def test_client_that_leaves_is_counted(counted: Service) -> None:
    """A connection closed during the upload is a 499 that nobody reads."""
    before = numbers(counted.url)
    host, port = counted.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        wait_until(lambda: numbers(counted.url)["http_in_flight", frozenset()] == 2)
    wait_until(lambda: grown(before, numbers(counted.url), "cancelled_total", stage="receive"))
    labels = {"route": "/search", "method": "POST", "status": "499"}
    assert grown(before, numbers(counted.url), "http_requests_total", **labels) == 1


@pytest.mark.parametrize("stage", ["decode", "queue", "infer"])
def test_client_that_leaves_is_counted_where_its_request_was(
    counted: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """While its photo is decoded, waits for a batch, or is in one."""
    before = numbers(counted.url)
    ready = counted.server.runtime.opened
    assert ready is not None
    may_go_on, has_come = threading.Event(), threading.Event()

    def held(work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (has_come.set(), may_go_on.wait(60), work(*given))[2]

    if stage == "decode":
        monkeypatch.setattr(ready.engine, "take_in", held(ready.engine.take_in))
    else:
        monkeypatch.setattr(ready.batcher.runs, "run_batch", held(ready.batcher.runs.run_batch))
    with ThreadPoolExecutor(1) as other:
        if stage == "queue":  # behind the batch of another
            other.submit(counted.search, jpeg(51))
            assert has_come.wait(60)
        with leaving(counted.url) as send:
            if stage == "queue":  # what is no photo waits for no turn to be decoded
                send(json.dumps({"embedding": [1.0] * ready.engine.embedder.dim}).encode(), "json")
            else:
                send(jpeg(52), "octet-stream")
            assert has_come.wait(60)
            wait_until(lambda: ready.batcher.num_queued == (stage == "queue"))
        left = {"name": "cancelled_total", "stage": stage}
        wait_until(lambda: grown(before, numbers(counted.url), **left) == 1)
        may_go_on.set()
    wait_until(lambda: ready.batcher.runs.num_running == 0)


@contextmanager
def leaving(url: str) -> Iterator[Callable[[bytes, str], None]]:
    """A function that sends a search, whose client has gone when the block ends."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:

        def send(body: bytes, kind: str) -> None:
            length = f"Content-Length: {len(body)}"
            lines = (
                "POST /search HTTP/1.1",
                "Host: x",
                f"Content-Type: application/{kind}",
                length,
            )
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

        yield send


def test_labels_do_not_grow_with_what_is_asked(counted: Service) -> None:
    """Paths are counted by template, unknown ones as `other`, odd methods too."""
    for path in ("/images/1/thumbnail", "/images/2/thumbnail", "/none/1", "/none/2"):
        counted.client.get(path)
    counted.client.request("PURGE", "/search")
    found = numbers(counted.url)
    routes = {dict(labels)["route"] for name, labels in found if name == "http_requests_total"}
    assert "/images/{image_id}/thumbnail" in routes
    assert "other" in routes
    assert not any("none" in route or route.startswith("/images/1") for route in routes)
    labels = {"route": "/images/{image_id}/thumbnail", "method": "GET", "status": "200"}
    assert value(found, "http_requests_total", **labels) == 2


def test_reload_is_counted(counted: Service) -> None:
    """Each reload that has ended, with its result and its time."""
    before = numbers(counted.url)
    counted.client.post("/admin/reload", headers={"X-API-Key": ADMIN})
    wait_until(lambda: grown(before, numbers(counted.url), "index_reloads_total", result="done"))
    assert grown(before, numbers(counted.url), "index_reload_duration_seconds_count") == 1


def test_numbers_may_have_a_port_of_their_own(index_root: Path) -> None:
    """Then the service's own port does not show them, and a port in use is named."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings = Settings(index=index_root, port=0, metrics_port=port)
    with running(settings) as service:
        assert value(numbers(f"http://127.0.0.1:{port}"), "index_vectors", part="main") == 12
        assert service.client.get("/metrics").status_code == 404
        with pytest.raises(PortError, match=f"port {port}: .*--metrics-port"):
            DrainingServer(settings)


def test_probes_and_numbers_are_quick_while_the_model_is_busy(index_root: Path, jpeg: Jpeg) -> None:
    """None of them waits for the queue, the model or a decoding thread."""
    settings = Settings(index=index_root, port=0, max_queue=16, decode_threads=1)
    with running(settings) as busy:
        assert busy.server.runtime.opened is not None
        batcher = busy.server.runtime.opened.batcher
        may_go_on = threading.Event()
        answer = batcher.runs.run_batch
        batcher.runs.run_batch = lambda queries: (may_go_on.wait(60), answer(queries))[1]
        asking = [threading.Thread(target=busy.search, args=(jpeg(n),)) for n in range(16)]
        for one in asking:
            one.start()
        wait_until(lambda: batcher.places.num_taken == 16)
        for path in ("/health", "/livez", "/readyz", "/metrics"):
            started_at = time.perf_counter()
            assert busy.client.get(path).status_code == 200
            assert time.perf_counter() - started_at < 1
        may_go_on.set()
        for one in asking:
            one.join(120)


def test_answer_is_a_log_line_with_its_request_id(
    counted: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path as it was sent, status, time and id; probes leave no line."""
    with caplog.at_level(logging.INFO, "service.watching.observing"):
        headers = {"X-Request-ID": "mine-1"}
        counted.client.get("/images/9%0a9/thumbnail?secret=1", headers=headers)
        counted.client.get("/readyz")
        wait_until(lambda: caplog.records)
    (record,) = caplog.records
    fields = json.loads(JsonFormatter().format(record))
    assert (fields["request_id"], fields["status"]) == ("mine-1", 422)
    assert (fields["method"], fields["path"]) == ("GET", "/images/9%0a9/thumbnail")
    assert "secret" not in caplog.text


def test_json_line_holds_message_extras_and_traceback() -> None:
    """A line is one object however many lines the traceback has."""
    try:
        int("wrong")
    except ValueError:
        given = {"msg": "failed %s", "args": ("x",), "levelname": "ERROR", "request_id": "r1"}
        record = logging.makeLogRecord(given | {"exc_info": sys.exc_info()})
    line = JsonFormatter().format(record)
    fields = json.loads(line)
    assert "\n" not in line
    assert (fields["message"], fields["level"], fields["request_id"]) == ("failed x", "ERROR", "r1")
    assert "ValueError: invalid literal" in fields["exception"]

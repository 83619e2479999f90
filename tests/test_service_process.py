"""`python -m service` as a process: how it starts, refuses to start, and ends."""

import gzip
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest
import torch
from pydantic import SecretStr
from service_running import Service, running

from multigrain.checkpoint import save_checkpoint
from multigrain.document import plain_document
from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from multigrain.program import run_main
from multigrain.transforms import Preprocessing
from service.__main__ import PROG, main
from service.batching.batcher import Batcher
from service.batching.device_sizes import device_sizes
from service.healthcheck import check
from service.healthcheck import main as healthcheck
from service.server import DrainingServer, PortError
from service.serving.engine import Engine, FingerprintMismatchError
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

COMMAND = [sys.executable, "-m", "service"]


def run_service(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *flags],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the service as a process of its own and wait until it is ready."""
    port = free_port()
    with subprocess.Popen(
        [*COMMAND, *flags, "--port", str(port)], stderr=subprocess.PIPE, text=True
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            give_up_at = time.monotonic() + 600  # 9 s on two free cores
            while check(url) is not None:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < give_up_at
                time.sleep(0.05)
            yield process, url
        finally:
            process.kill()


def test_help_is_quick_and_names_every_setting() -> None:
    """--help answers without loading torch."""
    started_at = time.monotonic()
    done = run_service("--help")
    assert time.monotonic() - started_at < 5  # under a second on a machine that is not busy
    assert done.returncode == 0
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in done.stdout


def test_program_starts_without_torch() -> None:
    """Reading settings imports nothing slow, which is what makes --help quick."""
    code = "import sys, service.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        ((), {}, "--index is required"),
        (("--index", "x", "--prot", "1"), {}, "did you mean --port"),
        (("--index", "x"), {"MULTIGRAIN_MAX_BATCH": "abc"}, "--max-batch"),
        (("--index", "x"), {"MULTIGRAIN_MAX_BATCH": "-1"}, "--max-batch"),
        (("--index", "x", "--formats", "JPG"), {}, "--formats"),
        (("--index", "x", "--port", "70000"), {}, "--port"),
    ],
)
def test_wrong_setting_is_one_line_and_exit_code_2(
    flags: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    """The line names the setting."""
    done = run_service(*flags, **environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_folder_without_an_index_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line says what is missing and how to make it."""
    monkeypatch.setattr(sys, "argv", ["service", "--index", str(tmp_path), "--port", "0"])
    assert run_main(main, prog=PROG) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"python -m service: {tmp_path}")
    assert "index.build" in said


def test_port_in_use_is_named(service: Service, index_root: Path) -> None:
    """A second service on one port says so before it loads anything."""
    port = int(service.url.rpartition(":")[2])
    with pytest.raises(PortError, match=rf"port {port}: Address already in use; .*--port"):
        DrainingServer(Settings(index=index_root, port=port))


def test_host_that_is_none_is_named(index_root: Path) -> None:
    """No label of a name has 70 letters."""
    host = "a" * 70 + ".example"
    with pytest.raises(PortError, match=rf"{host} port 0: .*--host"):
        DrainingServer(Settings(index=index_root, host=host, port=0))


def test_checkpoint_of_another_model_is_refused(index_root: Path, tmp_path: Path) -> None:
    """--checkpoint must be the one the index was built with; both fingerprints are named."""
    torch.manual_seed(1)
    document = plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=Preprocessing(size=64),
        p=3.0,
    )
    other = tmp_path / "other.safetensors"
    fingerprint = save_checkpoint(other, MultiGrain.build(document), document)
    settings = Settings(index=index_root, checkpoint=other, port=0)
    with pytest.raises(FingerprintMismatchError, match=fingerprint[:12]), running(settings):
        pass


def test_checkpoint_that_fits_is_taken(
    index_root: Path, tiny_checkpoint: Path, jpeg: Callable[[int], bytes]
) -> None:
    """--checkpoint with the right fingerprint answers as the folder's own copy does."""
    settings = Settings(index=index_root, checkpoint=tiny_checkpoint, port=0)
    with running(settings) as service:
        assert service.search(jpeg(2), limit=1).json()["results"][0]["uri"].endswith("02.jpg")


def test_service_that_opens_says_starting_and_ends_when_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jpeg: Callable[[int], bytes]
) -> None:
    """While the model is converted probes are answered; a failure ends the server with it."""
    may_fail = threading.Event()

    def fail_slowly(*_given: object, **_named: object) -> None:
        may_fail.wait(10)
        raise MultiGrainError("the model does not open")

    monkeypatch.setattr(Engine, "open", fail_slowly)
    server = DrainingServer(Settings(index=tmp_path, port=0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [server.listener]})
    thread.start()
    while not server.started:
        time.sleep(0.005)
    with httpx2.Client(base_url=server.url) as client:
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        assert health.json()["checks"]["model"] is None
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        refused = client.post("/search", content=jpeg(0))
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert int(refused.headers["Retry-After"]) >= 1
    may_fail.set()
    thread.join(120)
    assert not thread.is_alive()
    assert str(server.failure) == "the model does not open"


def test_smallest_settings_work(index_root: Path, jpeg: Callable[[int], bytes]) -> None:
    """One photo a batch, one decoding thread, no waiting: slow perhaps, but right."""
    settings = Settings(
        index=index_root, port=0, max_batch=1, max_wait_ms=0, max_queue=1, decode_threads=1
    )
    with running(settings) as service:
        answers = [service.search(jpeg(seed)) for seed in range(3)]
        assert [one.status_code for one in answers] == [200] * 3
        assert [one.json()["batch_size"] for one in answers] == [1] * 3


@pytest.mark.parametrize(
    ("given", "device", "expected"),
    [
        ({}, "cpu", (8, 4)),
        ({}, "cuda", (32, 4)),
        ({"max_inflight_pixels": 10**9}, "cpu", (8, 16)),
        ({"max_inflight_pixels": 10**9}, "cuda:1", (32, 8)),
        ({"max_batch": 3, "decode_threads": 2}, "cuda", (3, 2)),
        ({"max_inflight_pixels": 1}, "cpu", (8, 1)),
    ],
)
def test_device_decides_what_the_settings_leave_open(
    tmp_path: Path, given: dict[str, int], device: str, expected: tuple[int, int]
) -> None:
    """Photos in a batch, and decoding threads of 16 processors within the pixel budget."""
    settings = Settings(index=tmp_path, **given)
    assert device_sizes(settings, device=device, num_cpus=16) == expected


def test_help_says_what_a_pixel_in_flight_costs() -> None:
    """Who sizes a machine reads the bytes of the worst photo, not of the best."""
    assert "8 to 12 bytes" in str(Settings.model_fields["max_inflight_pixels"].description)


def test_decoding_threads_are_bounded_by_the_pixels_in_flight(index_root: Path) -> None:
    """As many threads as photos of the largest size fit into the pixel budget."""
    settings = Settings(index=index_root, port=0, decode_threads=64)
    with running(settings) as service:
        assert service.server.runtime.decoders._max_workers == 4


def test_sigterm_drains_then_ends(index_root: Path, jpeg: Callable[[int], bytes]) -> None:
    """After SIGTERM probes say 503, searches are refused, the process ends, and its log says so."""
    with started("--index", str(index_root), "--drain-grace-s", "1") as (process, url):
        with httpx2.Client(base_url=url) as client:
            assert client.post("/search", content=jpeg(0)).status_code == 200
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert client.get("/readyz").status_code == 503
            assert client.get("/livez").status_code == 200
            refused = client.post("/search", content=jpeg(0))
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            assert int(refused.headers["Retry-After"]) >= 1
        assert process.wait(15) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
        assert "draining: the port is closed in 1 s" in said
        assert said.splitlines()[-1].endswith("ended")


def test_request_in_flight_at_sigterm_is_answered(
    index_root: Path, jpeg: Callable[[int], bytes]
) -> None:
    """A search that runs when the service begins to end still gets its hits."""
    with running(Settings(index=index_root, port=0, drain_grace_s=0.1)) as service:
        opened = service.server.runtime.opened
        assert opened is not None
        batcher: Batcher[object, object] = opened.batcher  # type: ignore[assignment]
        answer = batcher.runs.run_batch
        batcher.runs.run_batch = lambda queries: time.sleep(0.5) or answer(queries)  # type: ignore[func-returns-value]
        statuses: list[int] = []
        asking = threading.Thread(
            target=lambda: statuses.append(service.search(jpeg(0)).status_code)
        )
        asking.start()
        while not batcher.runs.num_running:
            time.sleep(0.005)
        service.server.handle_exit(signal.SIGTERM, None)
        service.server._captured_signals.clear()
        asking.join(120)
        assert statuses == [200]


def test_second_sigterm_ends_at_once(index_root: Path) -> None:
    """Neither the grace nor a request that never ends is waited for then."""
    with started("--index", str(index_root), "--drain-grace-s", "60") as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) in (0, -signal.SIGTERM)


def test_sigterm_under_load_breaks_no_search(
    index_root: Path, jpeg: Callable[[int], bytes]
) -> None:
    """While it drains every request is answered: 200, or 503 with a time to come back."""
    with started("--index", str(index_root), "--drain-grace-s", "0.5") as (process, url):
        answers, lost_at = list[httpx2.Response](), list[float]()

        def ask() -> None:
            with httpx2.Client(base_url=url) as client:
                while process.poll() is None:
                    try:
                        answers.append(client.post("/search", content=jpeg(0)))
                    except httpx2.TransportError:
                        lost_at.append(time.monotonic())
                        return

        clients = [threading.Thread(target=ask) for _ in range(3)]
        for client in clients:
            client.start()
        while len(answers) < 10:
            time.sleep(0.01)
        signalled_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        for client in clients:
            client.join(120)
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all(at - signalled_at >= 0.5 for at in lost_at)  # the port closes after the grace
        assert all("Retry-After" in one.headers for one in answers if one.status_code == 503)


def test_sighup_reloads_the_index_and_sigkill_loses_no_change(
    index_root: Path, tmp_path: Path, jpeg: Callable[[int], bytes]
) -> None:
    """One goes on; killed under load, it leaves the next what it has answered, and the writing."""
    root, key = shutil.copytree(index_root, tmp_path / "index"), {"X-API-Key": "of-the-admin"}
    flags = ("--index", str(root), "--adds", "--admin-key", key["X-API-Key"])
    with started(*flags) as (process, url), ThreadPoolExecutor(2) as others:
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        said = next(line for line in process.stderr if "reload 1" in line)
        assert "generation 000001 answers" in said
        for seed in range(20):
            others.submit(httpx2.post, f"{url}/search", content=jpeg(seed))
        added = httpx2.post(f"{url}/images", content=jpeg(50), headers=key, timeout=30)
        assert added.status_code == 201, added.text
        process.kill()
    settings = Settings(index=root, port=0, adds=True, admin_key=[SecretStr(key["X-API-Key"])])
    with running(settings) as service:
        found = service.search(jpeg(50), limit=1).json()["results"][0]
        assert found["id"] == added.json()["id"]
        more = service.client.post("/images", content=jpeg(51), headers=key)
        assert more.status_code == 201, more.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_gpu_that_is_not_there_is_one_line_and_exit_code_2(
    index_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line says what to choose instead."""
    flags = ["service", "--index", str(index_root), "--port", "0", "--device", "cuda"]
    monkeypatch.setattr(sys, "argv", flags)
    assert run_main(main, prog=PROG) == 2
    (said,) = capfd.readouterr().err.splitlines()
    assert "no CUDA device is visible; use cpu or auto" in said


def test_healthcheck_tells_a_ready_service_from_an_absent_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe is quiet when all is well, says what is wrong otherwise, and asks no proxy."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert check(service.url) is None
    assert "does not answer" in str(check(f"http://127.0.0.1:{free_port()}"))
    service.server.runtime.draining = True
    assert "503" in str(check(service.url))
    service.server.runtime.draining = False


def test_healthcheck_asks_the_port_of_its_container(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The setting that moves the service moves the probe with it."""
    monkeypatch.setattr(sys, "argv", ["service.healthcheck"])
    monkeypatch.setenv("MULTIGRAIN_PORT", str(free_port()))
    assert healthcheck() == 1
    assert "does not answer" in capsys.readouterr().err
    monkeypatch.setenv("MULTIGRAIN_PORT", service.url.rpartition(":")[2])
    assert healthcheck() == 0


def test_every_failure_to_open_is_an_error_the_user_can_read() -> None:
    """What keeps the service from starting descends from the family the main reports."""
    assert issubclass(FingerprintMismatchError, MultiGrainError)
    assert issubclass(PortError, MultiGrainError)


class Collector(BaseHTTPRequestHandler):
    """Takes what OpenTelemetry sends, as its collector would."""

    received: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        """Keep path and body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_telemetry_tells_requests_and_their_stages(
    index_root: Path, jpeg: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector hears of a search and of each of its stages, and of no probe."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        flags = ("--index", str(index_root), "--telemetry", "--drain-grace-s", "0")
        with started(*flags) as (process, service_url):
            assert httpx2.post(f"{service_url}/search", content=jpeg(0)).status_code == 200
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        collector.shutdown()
    spans = b"".join(body for path, body in Collector.received if path == "/v1/traces")
    for name in (b"/search", b"decode", b"queue", b"infer", b"metadata"):
        assert name in spans
    assert b"/health" not in spans

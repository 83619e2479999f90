"""Photos fetched from addresses that clients name: only from vetted ones, and bounded."""

import asyncio
import gzip
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from service_running import running

from service.errors import ProblemError
from service.receiving.addresses import is_public
from service.receiving.fetcher import Fetcher
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

MAX_BYTES = 1000
PHOTO = b"a photo"
BOMB = gzip.compress(bytes(10**6))


class Elsewhere(BaseHTTPRequestHandler):
    """A server out there, of which each path misbehaves in its own way."""

    def do_GET(self) -> None:
        """Answer by the path."""
        answers: dict[str, Callable[[], None]] = {
            "/photo": lambda: self._send(200, PHOTO),
            "/host": lambda: self._send(200, self.headers["Host"].encode()),
            "/absent": lambda: self._send(404, b""),
            "/declared": lambda: self._send(200, b"", ("Content-Length", "1000000000")),
            "/endless": self._never_end,
            "/bomb": lambda: self._send(200, BOMB, ("Content-Encoding", "gzip")),
            "/to-photo": lambda: self._send(302, b"", ("Location", "/photo")),
            "/to-inside": lambda: self._send(302, b"", ("Location", "http://inside.example/photo")),
            "/to-file": lambda: self._send(302, b"", ("Location", "file:///etc/passwd")),
            "/to-nowhere": lambda: self._send(302, b"", ("Location", "//[")),
            "/loop": lambda: self._send(302, b"", ("Location", "/loop")),
        }  # fmt: skip
        answers[self.path]()

    def _send(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def _never_end(self) -> None:
        self._send(200, b"")
        try:
            for _ in range(200):
                self.wfile.write(bytes(10))
                time.sleep(0.01)
        except OSError:
            return  # whoever asked has had enough

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the server out there listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


async def resolve(host: str, _port: int) -> Sequence[str]:
    """Names that no other resolver knows: a second look-up would find nothing."""
    known = {
        "photos.example": ["127.0.0.1"],
        "inside.example": ["10.0.0.7"],
        "both.example": ["127.0.0.1", "10.0.0.7"],
    }
    if host not in known:
        raise OSError
    return known[host]


def fetch(url: str, *, seconds: float = 5.0) -> bytes:
    """Fetch with 127.0.0.1 in the part of the open internet."""
    fetcher = Fetcher(
        max_bytes=MAX_BYTES, resolve=resolve, may_reach=lambda address: address == "127.0.0.1"
    )

    async def main() -> bytes:
        async with asyncio.timeout(seconds):
            return await fetcher.fetch(url)

    return asyncio.run(main())


def test_photo_is_fetched_from_the_address_that_was_vetted(port: int) -> None:
    """The host is looked up once, and asked under its own name; a redirect is followed."""
    assert fetch(f"http://photos.example:{port}/photo") == PHOTO
    assert fetch(f"http://photos.example:{port}/host") == f"photos.example:{port}".encode()
    assert fetch(f"http://photos.example:{port}/to-photo#part") == PHOTO


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/absent", "image_url_refused", "answers 404"),
        ("/declared", "payload_too_large", "1000 bytes"),
        ("/endless", "payload_too_large", "1000 bytes"),
        ("/bomb", "image_url_refused", "compressed"),
        ("/to-inside", "image_url_refused", "no public address"),
        ("/to-file", "image_url_refused", "http"),
        ("/to-nowhere", "image_url_refused", "cannot be fetched"),
        ("/loop", "image_url_refused", "3 redirects"),
    ],
)
def test_answer_that_is_no_photo_is_refused(port: int, path: str, code: str, words: str) -> None:
    """Too large, compressed, led elsewhere or not there: each ends early and says why."""
    with pytest.raises(ProblemError, match=words) as caught:
        fetch(f"http://photos.example:{port}{path}")
    assert caught.value.code == code


def test_slow_answer_takes_no_longer_than_the_caller_waits(port: int) -> None:
    """A server that drips is left at the deadline."""
    with pytest.raises(TimeoutError):
        fetch(f"http://photos.example:{port}/endless", seconds=0.1)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://photos.example/a.jpg",
        "//photos.example/a.jpg",
        "http://",
        "http://[::1",
        "http://photos.example:99999/",
        "http://me:secret@photos.example/",
        "http://phötos.example/",
        "http://unknown.example/",
        "http://inside.example/",
        "http://both.example/",
        "http://photos.example/\0",
        "http://photos.example/" + "a" * 3000,
    ],
)
def test_url_that_may_not_be_fetched_is_refused(url: str) -> None:
    """Other schemes, users, unknown hosts, hosts with any address inside."""
    with pytest.raises(ProblemError) as caught:
        fetch(url)
    assert caught.value.code == "image_url_refused"
    assert "10.0.0.7" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - not bound to
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("no address", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(
    address: str,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Neither this machine nor its network, in whatever spelling."""
    assert is_public(address) is expected


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
    ],
)
def test_this_machine_is_not_reached_in_any_spelling(url: str) -> None:
    """The system's own resolver turns each of these into an address that is refused."""
    with pytest.raises(ProblemError) as caught:
        asyncio.run(Fetcher(max_bytes=MAX_BYTES).fetch(url))
    assert caught.value.code == "image_url_refused"


def test_search_takes_a_url_only_where_that_is_enabled(
    index_root: Path, jpeg: Callable[[int], bytes], port: int
) -> None:
    """Enabled, the photo behind the URL is searched with, and an address inside is a 422."""
    with running(Settings(index=index_root, port=0, image_url=True)) as service:
        inside = service.client.post(
            "/search", json={"image_url": f"http://127.0.0.1:{port}/photo"}
        )
        assert (inside.status_code, inside.json()["code"]) == (422, "image_url_refused")
        assert service.client.post("/search", json={"image_url": 7}).status_code == 422

        async def fetched(_url: str) -> bytes:
            return jpeg(3)

        service.server.runtime.fetcher.fetch = fetched  # type: ignore[method-assign]
        found = service.client.post("/search", json={"image_url": "https://photos.example/3.jpg"})
        assert found.json()["results"][0]["uri"] == "03.jpg"

        async def never(_url: str) -> bytes:
            await asyncio.sleep(10)
            return b""

        service.server.runtime.fetcher.fetch = never  # type: ignore[method-assign]
        late = service.client.post(
            "/search?timeout_ms=50", json={"image_url": "https://x.example/"}
        )
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")

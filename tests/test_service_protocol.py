"""Requests that are odd as HTTP: methods, paths, headers, versions, names of files and fields."""

import logging
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from service_running import Service, wait_until

from service.receiving.request_head import BoundedHeadProtocol

pytest_plugins = ["service_fixtures"]

CLOSE = b"Connection: close"
Jpeg = Callable[[int], bytes]


@pytest.fixture(autouse=True)
def _still_answers(service: Service, jpeg: Jpeg) -> Iterator[None]:
    """After each of these tests a good photo is answered and the service is healthy."""
    yield
    assert service.search(jpeg(0)).status_code == 200
    assert service.health().status_code == 200


def exchange(service: Service, sent: bytes) -> bytes:
    """Send bytes over a socket of our own, and return all until the server closes it."""
    host, port = service.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(sent)
        while block := connection.recv(65536):
            received += block
    return received


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("HEAD /search HTTP/1.1", 405),
        ("OPTIONS /search HTTP/1.1", 405),
        ("DELETE /search HTTP/1.1", 405),
        ("POST //search HTTP/1.1", 404),
        ("POST /search/ HTTP/1.1", 404),
        ("POST /Search HTTP/1.1", 404),
        ("GET /%00 HTTP/1.1", 404),
        ("GET /images/0%00 HTTP/1.1", 422),
        (f"POST /search?limit={'1' * 8192} HTTP/1.1", 422),
        (f"POST /search?{'x' * 8192}=1 HTTP/1.1", 422),
        ("POST /search HTTP/1.0", 422),
        ("BREW /search HTTP/1.1", 400),
        ("POST /search HTTP/9.9", 400),
        ("nonsense", 400),
    ],
)
def test_odd_request_line_is_answered(service: Service, line: str, status: int) -> None:
    """With the problem where the application answers, and by the server else."""
    answer = exchange(
        service, f"{line}\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode(), head
    if status != 400 and not line.startswith("HEAD"):
        assert b"application/problem+json" in head
        assert f'"status":{status}'.encode() in body


def test_large_and_missing_headers_are_no_matter(service: Service) -> None:
    """64 kB in one header; the old protocol, and no Host."""
    large = b"X-Large: " + b"a" * 65536
    for lines in (
        [b"GET /version HTTP/1.1", CLOSE, b"Host: x", large],
        [b"GET /version HTTP/1.0"],
        [b"GET /version HTTP/1.1", CLOSE],
    ):
        assert exchange(service, b"\r\n".join([*lines, b"", b""])).split()[1] == b"200"


def test_requests_may_follow_each_other_unasked(service: Service, jpeg: Jpeg) -> None:
    """Sent together, a large body and part of the next head in one piece: each is answered."""
    photo = jpeg(0) + bytes(100_000)
    head = b"POST /search?limit=1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(photo)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head + photo + b"GET /version HTTP/1.1\r\nHo")
        time.sleep(0.05)
        connection.sendall(b"st: x\r\nConnection: close\r\n\r\n")
        received = b""
        while block := connection.recv(65536):
            received += block
    assert received.count(b"HTTP/1.1 200") == 2, received


@pytest.mark.parametrize("host", ["[", "[::1", "x:99999", "x y", "x/../y", ""])
def test_host_that_is_none_is_no_matter(service: Service, host: str) -> None:
    """A path that is no route is a 404 whatever the Host is, and the answer stays short."""
    path = "/none" + "e" * 5000
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    answer = exchange(service, head.encode())
    assert answer.split()[1] == b"404", answer
    assert b"application/problem+json" in answer
    assert len(answer) < 2000


def test_headers_without_end_are_refused(service: Service) -> None:
    """However many are sent, a few are read."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nX-Endless: ")
        received, num_sent = b"", 0
        try:
            while num_sent < 100 * 2**20:
                connection.sendall(b"a" * 2**16)
                num_sent += 2**16
        except OSError:
            pass
        else:
            received = connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 400") or 0 < num_sent < 50 * 2**20


@pytest.mark.parametrize("num_bytes", [0, 3 * 2**20])
def test_a_head_that_is_none_is_answered_while_the_body_still_comes(
    service: Service, num_bytes: int
) -> None:
    """The answer arrives, however much is sent behind the head."""
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type\r\nContent-Length: 3145728\r\n\r\n"
    for _ in range(5):
        assert exchange(service, head + bytes(num_bytes)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /version HT",
        b"GET /version HTTP/1.1\r\nHost: x\r\n",
        b"GET /version HTTP/1.1\r\nHost: x\r\n\r\nGET /ver",
    ],
)
def test_headers_that_never_come_are_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """The connection ends, also when an earlier request on it was answered."""
    monkeypatch.setattr(BoundedHeadProtocol, "head_timeout_seconds", 0.2)
    began_at = time.monotonic()
    answer = exchange(service, sent)
    assert 0.1 < time.monotonic() - began_at < 4
    assert answer.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.1 400") == (1 if sent else 0)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../../etc/passwd", 200),
        ("a\x00b", 200),
        ("a\r\nX-Evil: y", 200),
        ("\u00e4", 200),
        ("n" * 10_000, 400),
    ],
)
def test_a_file_name_is_never_looked_at(
    service: Service, jpeg: Jpeg, caplog: pytest.LogCaptureFixture, name: str, status: int
) -> None:
    """The photo is searched with; neither header nor log comes of it; a long one is refused."""
    caplog.set_level(logging.DEBUG, "service")
    disposition = f'Content-Disposition: form-data; name="image"; filename="{name}"'
    body = b"--b\r\n" + disposition.encode() + b"\r\n\r\n" + jpeg(3) + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = service.client.post("/search?limit=1", content=body, headers=headers)
    assert response.status_code == status, response.text
    assert "X-Evil" not in response.headers
    wait_until(lambda: "POST /search" in caplog.text)
    assert name not in caplog.text
    assert "X-Evil" not in caplog.text


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({f"f{number}": "1" for number in range(2000)}, "malformed_multipart"),
        ({"limit": "1" * 2**20}, "malformed_multipart"),
        ({"": "1"}, "malformed_multipart"),
    ],
)
def test_fields_are_bounded(
    service: Service, jpeg: Jpeg, fields: dict[str, str], code: str
) -> None:
    """In number and in size, and each has a name."""
    response = service.client.post("/search", files={"image": jpeg(0)}, data=fields)
    assert (response.status_code, response.json()["code"]) == (400, code)


@pytest.mark.parametrize("given", ["a\r\nX-Evil: 1", "a" * 10_000, "\x00", "a b", "é"])
def test_a_request_id_that_is_not_plain_is_replaced(service: Service, given: str) -> None:
    """No header is made of it."""
    head = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: "
    answer = exchange(service, head + given.encode() + b"\r\n\r\n").partition(b"\r\n\r\n")[0]
    assert b"evil" not in answer.lower()
    assert given.encode() not in answer

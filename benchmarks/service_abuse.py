"""Bodies that no client should send, and whether the service takes them as it should."""

import itertools
import random
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.http_load import BOUNDARY, Target, photos_of, request_of
from benchmarks.processes import Server

_CONTENT_TYPES = (
    f"multipart/form-data; boundary={BOUNDARY}",
    "multipart/form-data",
    "application/json",
    "image/jpeg",
    "text/plain",
    "\x7f/\x01",
)
_TIMEOUT_SECONDS = 30.0
_MALFORMED_SHARE = 10
# As many as a batch has: they are decoded and answered side by side.
NUM_CLIENTS = 8


def fuzzed_statuses(server: Server, photos: Path, *, num_bodies: int, seed: int) -> Counter[int]:
    """How often each status answered bodies with flipped, cut, doubled and invented bytes."""
    bodies = _damaged(photos, random.Random(seed))  # noqa: S311 - no secret
    types = random.Random(seed)  # noqa: S311 - no secret
    return Counter(
        _post(server, body, types.choice(_CONTENT_TYPES))
        for body in itertools.islice(bodies, num_bodies)
    )


class Endured(NamedTuple):
    """How often each status answered, and the server's memory behind all by that behind a tenth."""

    statuses: Counter[int]
    memory_growth: float


def endure(server: Server, photos: Path, *, num_requests: int, seed: int) -> Endured:
    """Send many photos, eight at a time, a tenth of them malformed, and watch anonymous memory.

    Behind a tenth of them every pool and buffer has its size.
    """
    mixed = _mixed(photos, random.Random(seed))  # noqa: S311 - no secret
    statuses, before, early = Counter[int](), 0, max(1, num_requests // 10)
    send = partial(_post, server, content_type=_CONTENT_TYPES[0])
    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        while statuses.total() < num_requests:
            statuses.update(clients.map(send, itertools.islice(mixed, NUM_CLIENTS)))
            if not before and statuses.total() >= early:
                before = server.anonymous_bytes
    return Endured(statuses, server.anonymous_bytes / max(1, before))


def _mixed(photos: Path, draw: random.Random) -> Iterator[bytes]:
    """Good bodies, and in place of each tenth a damaged one."""
    good, damaged = _bodies(photos), _damaged(photos, draw)
    for number in itertools.count():
        yield next(damaged if number % _MALFORMED_SHARE == 0 else good)


def _bodies(photos: Path) -> Iterator[bytes]:
    target = Target("127.0.0.1", 80, "/search", "image")
    for serial, photo in enumerate(itertools.cycle(list(photos_of(photos)))):
        yield request_of(target, photo, serial).partition(b"\r\n\r\n")[2]


def _damaged(photos: Path, draw: random.Random) -> Iterator[bytes]:
    for body in _bodies(photos):
        changed = bytearray(body)
        match draw.randrange(5):
            case 0:
                for _ in range(draw.randrange(1, 200)):
                    changed[draw.randrange(len(changed))] = draw.randrange(256)
            case 1:
                del changed[draw.randrange(len(changed)) :]
            case 2:
                changed[: draw.randrange(400)] = draw.randbytes(draw.randrange(400))
            case 3:
                changed += changed[: draw.randrange(len(changed))]
            case _:
                changed = bytearray(draw.randbytes(draw.randrange(2000)))
        yield bytes(changed)


def _post(server: Server, body: bytes, content_type: str) -> int:
    """The status of an answer; 0 where there was none."""
    address = urlsplit(server.url)
    request = urllib.request.Request(
        f"http://{address.netloc}/search", body, {"Content-Type": content_type}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, OSError, ValueError):
        return 0

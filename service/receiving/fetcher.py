"""A photo fetched from an address that a client names, without letting it reach inside."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import httpx2

from service.errors import ProblemError
from service.receiving.addresses import is_public

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_MAX_URL = 2048
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity"}

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, best first; raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class _Target(NamedTuple):
    """The host that was named, as the certificate must and the Host header does name it.

    `url` has a vetted address in its place.
    """

    host: str
    host_header: str
    url: str


class Fetcher:
    """Fetches photos over HTTP and HTTPS, from public addresses only.

    A host is looked up once, every address it has must be public, and the connection goes to
    the first of them, so that a second look-up cannot name another. Redirects are few and each
    is vetted anew; no proxy is used, nothing is decompressed.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        resolve: Resolve = resolve,
        may_reach: Callable[[str], bool] = is_public,
    ) -> None:
        self._max_bytes = max_bytes
        self._resolve = resolve
        self._may_reach = may_reach

    async def fetch(self, url: str) -> bytes:
        """The bytes behind a URL; the caller sets the time it may take.

        Raises ProblemError image_url_refused or payload_too_large.
        """
        # trust_env: a proxy of the environment would look the host up by itself.
        async with httpx2.AsyncClient(trust_env=False, timeout=None, verify=self._tls) as client:
            for _ in range(MAX_REDIRECTS + 1):
                try:
                    answer = await self._ask(client, url)
                except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                    raise _refused(f"it cannot be fetched ({type(error).__name__})") from error
                if isinstance(answer, bytes):
                    return answer
                url = answer
        raise _refused(f"more than {MAX_REDIRECTS} redirects")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made once: reading the authorities takes tens of milliseconds of the event loop."""
        return httpx2.create_ssl_context(trust_env=False)

    async def _ask(self, client: httpx2.AsyncClient, url: str) -> bytes | str:
        """The body, or where it is said to be."""
        target = await self._target(url)
        async with client.stream(
            "GET",
            target.url,
            headers={"Host": target.host_header, **_HEADERS},
            extensions={"sni_hostname": target.host},
        ) as answer:
            if answer.status_code in _REDIRECTS and "location" in answer.headers:
                return urljoin(url, answer.headers["location"])
            if answer.status_code != _OK:
                raise _refused(f"its server answers {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise _refused("its server sends it compressed")
            return await self._body(answer)

    async def _target(self, url: str) -> _Target:
        if len(url) > _MAX_URL:
            raise _refused(f"it is longer than {_MAX_URL} characters")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _refused("it is no URL") from None
        if parts.scheme not in {"http", "https"} or not host:
            raise _refused("http://... or https://... is wanted")
        if parts.username is not None or not parts.netloc.isascii():
            raise _refused("its host is not a plain name")
        address = await self._vetted(host, port or (443 if parts.scheme == "https" else 80))
        shown = f"[{address}]" if ":" in address else address
        netloc = shown if port is None else f"{shown}:{port}"
        asked = parts._replace(netloc=netloc, fragment="").geturl()
        return _Target(host, parts.netloc, asked)

    async def _vetted(self, host: str, port: int) -> str:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise _refused("its host is not known") from None
        # One answer for every address that is not public: who asks shall not learn the network.
        if not addresses or not all(map(self._may_reach, addresses)):
            raise _refused("its host has no public address")
        return addresses[0]

    async def _body(self, answer: httpx2.Response) -> bytes:
        declared = answer.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > self._max_bytes:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> ProblemError:
        return ProblemError(
            "payload_too_large", f"the photo is larger than the limit of {self._max_bytes} bytes"
        )


def _refused(reason: str) -> ProblemError:
    return ProblemError("image_url_refused", f"the image_url is refused: {reason}")

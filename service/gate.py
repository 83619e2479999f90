"""Lets a request in by its key, before it is routed and its body is read."""

import hmac
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.routing import compile_path

from service.access import ACCESS, Access
from service.errors import ProblemError

UNKNOWN_ROUTE = "other"


class Route(NamedTuple):
    """A route's path, with the names of its parts in place of values, and who may use it."""

    path: str
    access: Access


class Gate:
    """Compares keys; an admin key opens the read routes too.

    Without keys the read routes are open to all; without admin keys the admin routes to nobody.
    """

    def __init__(self, *, api_keys: Sequence[SecretStr], admin_keys: Sequence[SecretStr]) -> None:
        self._api_keys = _named("api", api_keys)
        self._admin_keys = _named("admin", admin_keys)
        self._rules = [
            (method, compile_path(path)[0], Route(path, access))
            for (method, path), access in ACCESS.items()
        ]

    def route_of(self, method: str, path: str) -> Route:
        """The route a request asks for; one that is none is like a search."""
        asked = "GET" if method == "HEAD" else method
        for route_method, pattern, route in self._rules:
            if route_method == asked and pattern.match(path):
                return route
        return Route(UNKNOWN_ROUTE, Access.READ)

    def client_of(self, access: Access, headers: Headers) -> str | None:
        """Say which key a request brings (`api-1`), None for one that brings or needs none.

        Raises ProblemError unauthorized or forbidden.
        """
        given = _given_key(headers)
        admin, reader = _match(given, self._admin_keys), _match(given, self._api_keys)
        if access is Access.ADMIN and not self._admin_keys:
            raise ProblemError(
                "forbidden",
                "no admin key is set, so nobody may do this; the service takes one by --admin-key",
            )
        if access is Access.ADMIN and admin is None and reader is not None:
            raise ProblemError("forbidden", "this needs an admin key")
        is_needed = access is Access.ADMIN or (access is Access.READ and self._api_keys)
        if is_needed and admin is None and reader is None:
            raise _unauthorized(was_given=bool(given))
        return admin or reader


def _named(kind: str, keys: Sequence[SecretStr]) -> dict[str, bytes]:
    return {
        f"{kind}-{number}": key.get_secret_value().encode() for number, key in enumerate(keys, 1)
    }


def _given_key(headers: Headers) -> bytes:
    """The key of X-API-Key or `Authorization: Bearer`; empty where there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    # Headers are decoded as latin-1; a key may have been sent as UTF-8.
    return headers.get("x-api-key", bearer).encode("latin-1")


def _match(given: bytes, keys: Mapping[str, bytes]) -> str | None:
    """The name of the key that was given; every key is compared, whichever it is."""
    same = [name for name, key in keys.items() if hmac.compare_digest(given, key)]
    return same[0] if same else None


def _unauthorized(*, was_given: bool) -> ProblemError:
    detail = "the key is not known" if was_given else "a key is needed"
    return ProblemError(
        "unauthorized",
        f"{detail}: send it as Authorization: Bearer or X-API-Key",
        headers={"WWW-Authenticate": "Bearer"},
    )

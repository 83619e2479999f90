"""Keys: which routes need one, which answer a wrong one gets, and that none is ever shown."""

import hmac
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr, ValidationError
from service_running import Service, running
from starlette.datastructures import Headers

from multigrain.program import load_config
from service.access import ACCESS
from service.app import create_app
from service.errors import ProblemError
from service.gate import Gate
from service.serving.runtime import Runtime
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

READER, OTHER_READER, ADMIN = "of-a-reader", "of-another", "of-the-admin"


@pytest.fixture(scope="module")
def locked(index_root: Path) -> Iterator[Service]:
    """A service with two keys for readers, one for the admin, and one origin that may ask."""
    settings = Settings(
        index=index_root,
        port=0,
        api_key=[SecretStr(READER), SecretStr(OTHER_READER)],
        admin_key=[SecretStr(ADMIN)],
        cors_origins=["https://shop.example"],
    )
    with running(settings) as service:
        yield service


def gate(*, api: tuple[str, ...] = (), admin: tuple[str, ...] = ()) -> Gate:
    return Gate(api_keys=[*map(SecretStr, api)], admin_keys=[*map(SecretStr, admin)])


def outcome(asked: Gate, route: tuple[str, str], headers: dict[str, str]) -> str | None:
    """The client's name, or the code of the refusal."""
    try:
        return asked.client_of(asked.route_of(*route).access, Headers(headers))
    except ProblemError as problem:
        return problem.code


SEARCH, RELOAD, HEALTH = ("POST", "/search"), ("POST", "/admin/reload"), ("GET", "/health")


@pytest.mark.parametrize(
    ("api", "admin", "route", "key", "expected"),
    [
        ((), (), SEARCH, "", None),
        ((), (), RELOAD, "", "forbidden"),
        ((), (), RELOAD, "x", "forbidden"),
        ((READER,), (), SEARCH, "", "unauthorized"),
        ((READER,), (), SEARCH, "x", "unauthorized"),
        ((READER,), (), SEARCH, READER, "api-1"),
        ((READER, OTHER_READER), (), SEARCH, OTHER_READER, "api-2"),
        ((READER,), (ADMIN,), SEARCH, ADMIN, "admin-1"),
        ((READER,), (ADMIN,), RELOAD, READER, "forbidden"),
        ((READER,), (ADMIN,), RELOAD, "", "unauthorized"),
        ((READER,), (ADMIN,), RELOAD, ADMIN, "admin-1"),
        ((), (ADMIN,), SEARCH, "", None),
        ((READER,), (ADMIN,), HEALTH, "", None),
        ((READER,), (ADMIN,), HEALTH, "x", None),
        ((READER,), (), ("GET", "/nothing"), "", "unauthorized"),
        ((READER,), (), ("HEAD", "/page/style.css"), "", None),
        ((READER,), (), ("GET", "/images/7/thumbnail"), "", "unauthorized"),
        ((READER,), (ADMIN,), ("GET", "/admin/reload/1"), READER, "forbidden"),
        (("schlüssel",), (), SEARCH, "schlüssel", "api-1"),
    ],
)
def test_key_decides(
    api: tuple[str, ...],
    admin: tuple[str, ...],
    route: tuple[str, str],
    key: str,
    expected: str | None,
) -> None:
    """Both headers count alike, for every kind of route and key."""
    sent = key.encode().decode("latin-1")
    asked = gate(api=api, admin=admin)
    assert outcome(asked, route, {"X-API-Key": sent} if key else {}) == expected
    assert outcome(asked, route, {"Authorization": f"Bearer {sent}"} if key else {}) == expected


def test_another_scheme_is_no_key() -> None:
    """Basic authorization is not taken for a key, whatever it holds."""
    assert outcome(gate(api=(READER,)), SEARCH, {"Authorization": f"Basic {READER}"}) == (
        "unauthorized"
    )


def test_keys_are_compared_in_constant_time_and_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time an answer takes tells neither how much of a key was right nor which one."""
    compared = list[bytes]()
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare(one, other)

    asked = gate(api=(READER, OTHER_READER), admin=(ADMIN,))
    monkeypatch.setattr(hmac, "compare_digest", noted)
    for key in (READER, "wrong"):
        compared.clear()
        outcome(asked, SEARCH, {"X-API-Key": key})
        assert sorted(compared) == sorted(k.encode() for k in (READER, OTHER_READER, ADMIN))


def test_every_route_stands_in_the_table(tmp_path: Path) -> None:
    """No route is added without a decision who may use it, and the table names no other."""
    app = create_app(Runtime(Settings(index=tmp_path)), on_failure=lambda _error: None)
    found = set[tuple[str, str]]()
    for route in iter_route_contexts(app.routes):
        if route.methods is None:  # a folder
            found.add(("GET", f"{route.path}/{{path:path}}"))
        else:
            found |= {(method, str(route.path)) for method in route.methods - {"HEAD"}}
    assert found == set(ACCESS)


def test_refusal_is_a_problem_and_comes_before_the_body(
    locked: Service, jpeg: Callable[[int], bytes]
) -> None:
    """Without a key 401 with the challenge; with one the search is answered."""
    refused = locked.search(jpeg(0))
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.headers["X-Request-ID"]
    in_query = locked.search(jpeg(0), **{"X-API-Key": READER})
    assert in_query.status_code == 401
    given = locked.client.post(
        "/search", files={"image": jpeg(0)}, headers={"Authorization": f"Bearer {READER}"}
    )
    assert given.status_code == 200
    for path in ("/health", "/livez", "/readyz", "/", "/openapi.json"):
        assert locked.client.get(path).status_code == 200


def test_only_named_origins_may_ask(locked: Service) -> None:
    """A page of the named origin may send a key and read the answer's headers, no other page."""
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    known = locked.client.options("/search", headers={"Origin": "https://shop.example", **asking})
    assert known.status_code == 200
    assert known.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Access-Control-Allow-Credentials" not in known.headers
    strange = locked.client.options("/search", headers={"Origin": "https://evil.example", **asking})
    assert "Access-Control-Allow-Origin" not in strange.headers
    answer = locked.client.get("/health", headers={"Origin": "https://shop.example"})
    assert "Server-Timing" in answer.headers["Access-Control-Expose-Headers"]


def test_without_the_setting_no_page_elsewhere_may_ask(service: Service) -> None:
    """Cross-origin requests are off."""
    answer = service.client.get("/health", headers={"Origin": "https://shop.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_printed_settings_show_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--print-config says that there is a key; what it prints is not taken for one."""
    environ = {"MULTIGRAIN_ADMIN_KEY": ADMIN, "MULTIGRAIN_API_KEY": f"[{READER}, {OTHER_READER}]"}

    def load(*flags: str, environ: dict[str, str]) -> Settings:
        argv = ["--index", "x", *flags]
        return load_config(Settings, prog="p", description="d", argv=argv, environ=environ)

    loaded = load(environ=environ)
    assert [key.get_secret_value() for key in loaded.api_key] == [READER, OTHER_READER]
    with pytest.raises(SystemExit):
        load("--print-config", environ=environ)
    printed = capsys.readouterr().out
    assert not re.search(f"{READER}|{OTHER_READER}|{ADMIN}", printed)
    assert len(yaml.safe_load(printed)["api_key"]) == 2
    (tmp_path / "printed.yaml").write_text(printed)
    with pytest.raises(SystemExit):
        load("--config", str(tmp_path / "printed.yaml"), environ={})
    assert "stars" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [{"api_key": [""]}, {"admin_key": [" x"]}, {"admin_key": ["***"]}, {"cors_origins": ["*"]}],
)
def test_key_or_origin_that_protects_nothing_is_refused(wrong: dict[str, list[str]]) -> None:
    """An empty key, one with blanks around it, or any origin at all."""
    with pytest.raises(ValidationError):
        Settings.model_validate({"index": "x", **wrong})


@pytest.mark.parametrize(
    "text", ["[12345678, b]", "[secret-1, 12345678", "[secret-1, {a: 12345678}]"]
)
def test_key_that_cannot_be_read_is_not_shown(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the setting, not what it holds."""
    with pytest.raises(SystemExit):
        load_config(
            Settings,
            prog="p",
            description="d",
            argv=["--index", "x"],
            environ={"MULTIGRAIN_API_KEY": text},
        )
    said = capsys.readouterr().err
    assert re.search("--api-key|MULTIGRAIN_API_KEY", said)
    assert not re.search("secret|12345678", said)


def test_key_is_what_a_clients_share_is_counted_by(
    locked: Service, jpeg: Callable[[int], bytes]
) -> None:
    """A client that has its share on the way gets 429 client_limit; another one is answered."""
    assert locked.server.runtime.opened is not None
    batcher = locked.server.runtime.opened.batcher
    photo, headers = {"image": jpeg(0)}, {"X-API-Key": READER}
    with ExitStack() as held:
        for _ in range(locked.server.runtime.settings.max_queue // 4):
            held.enter_context(batcher.places.take("api-1"))
        refused = locked.client.post("/search", files=photo, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "client_limit")
        assert int(refused.headers["Retry-After"]) >= 1
        other = locked.client.post("/search", files=photo, headers={"X-API-Key": OTHER_READER})
        assert other.status_code == 200
    assert locked.client.post("/search", files=photo, headers=headers).status_code == 200

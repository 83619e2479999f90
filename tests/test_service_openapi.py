"""The description of the API is true: requests made from it find nothing it does not say."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import positive_data_acceptance
from service_running import Service, running

from service.access import ACCESS
from service.errors import PROBLEM_MEDIA_TYPE
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

EXAMPLES = 20
READER, ADMIN = "of-a-reader", "of-the-admin"
# Random bytes are no photo, and no schema can say so; a timeout of 10 ms may end in a 504.
EXCLUDED = [positive_data_acceptance, not_a_server_error]


@pytest.fixture(scope="module")
def operations(asked: Service) -> list[Any]:
    """Every operation the running service describes."""
    schema = schemathesis.openapi.from_url(f"{asked.url}/openapi.json")
    return [operation.ok() for operation in schema.get_all_operations()]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection for all requests."""
    with requests.Session() as opened:
        yield opened


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_is_described_is_so(
    operations: list[Any],
    session: requests.Session,
    mode: GenerationMode,
) -> None:
    """No 500; status, content type and body are documented; what may not be sent is refused."""
    faults = []
    for operation in operations:

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            response = case.call_and_validate(session=session, excluded_checks=EXCLUDED)
            assert response.status_code != 500

        try:
            ask()
        except Unsatisfiable:
            # Where nothing is asked, nothing can be asked wrongly.
            assert mode is GenerationMode.NEGATIVE, operation.label
        except Exception as error:  # noqa: BLE001 - each operation is told of
            faults.append(f"{operation.label}: {error!r} {error}")
    assert faults == [], "\n\n".join(faults)


EVERYTHING = "?include=metadata,thumbnail_url,embedding,query_embedding"


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("POST", f"/search{EVERYTHING}", "/search"),
        ("POST", "/search?include=&limit=1", "/search"),
        ("POST", f"/search/batch{EVERYTHING}", "/search/batch"),
        ("POST", "/embed", "/embed"),
        ("POST", "/embed?encoding_format=base64", "/embed"),
        ("GET", f"/images/3/similar{EVERYTHING}", "/images/{image_id}/similar"),
        ("GET", "/images/3", "/images/{image_id}"),
        ("GET", "/images/3/thumbnail", "/images/{image_id}/thumbnail"),
        ("GET", "/images?limit=3", "/images"),
        ("GET", "/index", "/index"),
        ("GET", "/health", "/health"),
    ],
)
def test_answers_are_as_described(
    asked: Service,
    operations: list[Any],
    session: requests.Session,
    jpeg: Callable[[int], bytes],
    method: str,
    path: str,
    template: str,
) -> None:
    """Random bytes are no photo, so the answers to good requests are compared here."""
    files = [("image", jpeg(0)), ("image", b"none")] if "batch" in path else [("image", jpeg(0))]
    sent = {"files": files} if method == "POST" else {}
    response = session.request(method, asked.url + path, timeout=60, **sent)
    assert response.status_code == 200, response.text
    operation = next(
        one for one in operations if one.path == template and one.method == method.lower()
    )
    operation.validate_response(response)


def test_an_answer_that_is_not_as_described_is_noticed(
    asked: Service, operations: list[Any], session: requests.Session, jpeg: Callable[[int], bytes]
) -> None:
    """The comparison itself can fail."""
    body = {"image_base64": base64.b64encode(jpeg(0)).decode()}
    response = session.post(f"{asked.url}/search", json=body, timeout=60)
    operation = next(one for one in operations if one.path == "/index")
    with pytest.raises(Failure):
        operation.validate_response(response)


@pytest.fixture(scope="module")
def locked(index_root: Path) -> Iterator[Service]:
    """A service with a key for readers and one for administrators."""
    keys = {"api_key": [SecretStr(READER)], "admin_key": [SecretStr(ADMIN)]}
    with running(Settings(index=index_root, port=0, **keys)) as service:
        yield service


def test_keys_that_are_needed_are_described(
    locked: Service, asked: Service, session: requests.Session
) -> None:
    """And asked for: schemathesis takes them away, sends wrong ones, and wants a 401 each time."""
    described = locked.client.get("/openapi.json").json()
    assert described["paths"]["/index"]["get"]["security"] == [{"key": []}, {"bearer": []}]
    reload = described["paths"]["/admin/reload"]["post"]
    assert reload["security"] == [{"admin_key": []}, {"admin_bearer": []}]
    assert "security" not in described["paths"]["/health"]["get"]
    index = schemathesis.openapi.from_dict(described)["/index"]["GET"]
    for headers in ({"X-API-Key": READER}, {"Authorization": f"Bearer {ADMIN}"}):
        case = index.Case(headers=headers)
        assert case.call(base_url=locked.url, session=session).status_code == 200
        case.call_and_validate(base_url=locked.url, session=session)
    open_to_all = asked.client.get("/openapi.json").json()["paths"]["/index"]["get"]
    assert "security" not in open_to_all
    assert "401" not in open_to_all["responses"]


def test_every_answer_is_described_with_its_headers(asked: Service) -> None:
    """A request id on each, a time to come back on each refusal, an example of each problem."""
    described = asked.client.get("/openapi.json").json()
    assert described["info"]["version"] == asked.client.get("/version").json()["version"]
    named = set()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            named.add(operation["operationId"])
            assert (method.upper(), path) in ACCESS
            for status, response in operation["responses"].items():
                assert "X-Request-ID" in response["headers"], (path, status)
                problem = response.get("content", {}).get(PROBLEM_MEDIA_TYPE)
                if problem is not None and status in {"429", "503"}:
                    assert response["headers"]["Retry-After"]["required"]
                for code, example in (problem or {"examples": {}})["examples"].items():
                    assert (example["value"]["code"], example["value"]["status"]) == (
                        code,
                        int(status),
                    )
    assert len(named) == sum(len(methods) for methods in described["paths"].values())
    found = described["paths"]["/search"]["post"]["responses"]["200"]
    assert {"Server-Timing", "X-Index-Generation"} <= found["headers"].keys()


def test_description_can_be_read_without_a_program(asked: Service) -> None:
    """/docs names every operation, parameter and status, escaped, without a script."""
    page = asked.client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert " style=" not in page.text
    for path, methods in asked.client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            start = page.text.index(f"<code>{method.upper()} {path}</code>")
            section = page.text[start : page.text.index("</section>", start)]
            for parameter in operation.get("parameters", []):
                assert f"<code>{parameter['name']}</code>" in section
            for status in operation["responses"]:
                assert f"<td>{status}</td>" in section
    assert asked.client.get("/page/docs.css").status_code == 200

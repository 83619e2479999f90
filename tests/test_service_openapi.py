"""The description of the API is true: requests made from it find nothing it does not say."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import positive_data_acceptance
from service_running import Service

pytest_plugins = ["service_fixtures"]

EXAMPLES = 20
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
    response = session.request(method, asked.url + path, timeout=10, **sent)
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
    response = session.post(f"{asked.url}/search", json=body, timeout=10)
    operation = next(one for one in operations if one.path == "/index")
    with pytest.raises(Failure):
        operation.validate_response(response)

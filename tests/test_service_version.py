"""GET /version tells what answers."""

from importlib.metadata import version
from pathlib import Path

from service_running import Service, running

from service.settings import Settings

pytest_plugins = ["service_fixtures"]


def test_version_is_the_installed_release(service: Service) -> None:
    """Outside of an image no commit is known."""
    answer = service.client.get("/version")
    assert answer.json() == {"version": version("multigrain-retrieval"), "revision": None}
    assert answer.json()["version"] == service.health().json()["version"]


def test_version_tells_the_commit_of_the_image(index_root: Path) -> None:
    """The image's builder passes it on as MULTIGRAIN_REVISION."""
    with running(Settings(index=index_root, port=0, revision="ab12")) as built:
        assert built.client.get("/version").json()["revision"] == "ab12"

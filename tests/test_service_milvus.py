"""A service whose candidates come from Milvus: Milvus Lite, in the test's own process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import SecretStr
from service_running import Service, running, wait_until

from index import build, search
from index.milvus_address import parse_address
from index.milvus_client import open_client
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

ADMIN = {"X-API-Key": "of-the-admin"}


class Folder(NamedTuple):
    """An index on Milvus, the photos it is built from, and where Milvus is."""

    root: Path
    photos: Path
    checkpoint: Path
    uri: str

    def publish(self) -> None:
        """Build again, by the shell's command."""
        asked = ["--photos", self.photos, "--checkpoint", self.checkpoint, "--out", self.root]
        asked += ["--backend", "milvus", "--milvus-uri", self.uri]
        assert build.main([str(word) for word in asked]) == 0


@pytest.fixture
def folder(index_root: Path, photos: Path, tiny_checkpoint: Path, tmp_path: Path) -> Folder:
    root = Path(shutil.copytree(index_root, tmp_path / "index"))
    tree = Path(shutil.copytree(photos, tmp_path / "tree" / "cat")).parent
    made = Folder(root, tree, tiny_checkpoint, str(tmp_path / "milvus.db"))
    made.publish()
    return made


@pytest.fixture
def service(folder: Folder) -> Iterator[Service]:
    settings = Settings(
        index=folder.root, port=0, adds=True, admin_key=[SecretStr(ADMIN["X-API-Key"])]
    )
    with running(settings) as opened:
        yield opened


def results(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_every_search_is_answered_as_by_faiss(
    folder: Folder, service: Service, jpeg: Callable[[int], bytes]
) -> None:
    """Limits, filters, least scores and similar photos, also behind an add and a delete."""
    added = service.client.post("/images", files={"image": jpeg(40)}, headers=ADMIN)
    assert added.status_code == 201
    gone = results(service.search(jpeg(5), limit=1))[0]["id"]
    assert service.client.delete(f"/images/{gone}", headers=ADMIN).status_code == 204
    cat = '{"must": [{"field": "label", "eq": "cat"}]}'
    asked: list[dict[str, Any]] = [
        {"limit": 3},
        {"limit": 100},
        {"limit": 100, "filter": cat},
        {"limit": 100, "min_score": 0.9},
        {"limit": 5, "exact": True},
    ]

    def answers(of: Service) -> list[list[dict[str, Any]]]:
        found = [results(of.search(jpeg(seed), **one)) for seed in (3, 5, 40) for one in asked]
        return [*found, results(of.client.get("/images/3/similar", params={"limit": 4}))]

    on_milvus = answers(service)
    with running(Settings(index=folder.root, port=0, backend="faiss")) as other:
        assert answers(other) == on_milvus
    assert {len(found) for found in on_milvus} >= {3, 4, 12}
    assert gone not in {hit["id"] for found in on_milvus for hit in found}


def test_a_new_generation_is_taken_up_and_the_shell_finds_what_it_holds(
    folder: Folder,
    service: Service,
    jpeg: Callable[[int], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The service goes on with the new collection, and `index.search` asks it too."""
    (folder.photos / "cat" / "new.jpg").write_bytes(jpeg(41))
    folder.publish()
    service.server.runtime.reload()
    wait_until(lambda: service.health().json()["generation"] == "000003", 30)
    hit = results(service.search(jpeg(41), limit=1))[0]
    assert hit["score"] > 0.999
    photo = str(folder.photos / "cat" / "new.jpg")
    assert search.main(["--index", str(folder.root), photo, "--limit", "1"]) == 0
    assert "cat/new.jpg" in capsys.readouterr().out


def test_a_search_without_its_collection_is_503(
    folder: Folder, service: Service, jpeg: Callable[[int], bytes]
) -> None:
    """As where the index's files cannot be read; exact searches need none."""
    client = open_client(parse_address(folder.uri))
    for name in client.list_collections():
        client.drop_collection(name)
    client.close()
    answer = service.search(jpeg(1))
    assert (answer.status_code, answer.json()["code"]) == (503, "index_unavailable")
    assert results(service.search(jpeg(1), exact=True))[0]["score"] > 0.999

"""A service whose index has its catalog in PostgreSQL."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_running import PostgresServer
from pydantic import SecretStr
from service_running import running, wait_until

from index import build, search
from index.errors import IndexFolderError
from service.settings import Settings

pytest_plugins = ["service_fixtures", "postgres_fixtures"]


def test_a_service_asks_the_database_and_takes_up_what_is_published_there(
    index_root: Path,
    photos: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    jpeg: Callable[[int], bytes],
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Searches, filters, listing, adds, and a new generation; without the address it says so."""
    catalog = postgres.create("serving")
    root = Path(shutil.copytree(index_root, tmp_path / "index"))
    tree = Path(shutil.copytree(photos, tmp_path / "tree" / "cat")).parent

    def publish() -> None:
        asked = ["--photos", str(tree), "--checkpoint", str(tiny_checkpoint), "--out", str(root)]
        assert build.main([*asked, "--catalog", catalog.get_secret_value()]) == 0

    publish()
    admin = {"X-API-Key": "of-the-admin"}
    settings = Settings(
        index=root, port=0, catalog=catalog, adds=True, admin_key=[SecretStr("of-the-admin")]
    )
    with running(settings) as service:
        hit = service.search(jpeg(3), limit=1).json()["results"][0]
        assert hit["metadata"]["paths"] == ["03.jpg", "cat/03.jpg"]
        asked = {"filter": '{"must": [{"field": "label", "eq": "cat"}]}', "limit": 1}
        one = service.client.get("/images", params=asked).json()
        assert one["images"][0]["uri"] == "00.jpg"
        added = service.client.post("/images", files={"image": jpeg(40)}, headers=admin)
        assert added.status_code == 201
        (tree / "cat" / "new.jpg").write_bytes(jpeg(41))
        publish()
        service.server.runtime.reload()
        wait_until(lambda: service.health().json()["generation"] == "000003", 30)
        for seed in (40, 41):
            assert service.search(jpeg(seed), limit=1).json()["results"][0]["score"] > 0.999
    monkeypatch.setenv("MULTIGRAIN_CATALOG", catalog.get_secret_value())
    assert search.main(["--index", str(root), str(tree / "cat" / "new.jpg"), "--limit", "1"]) == 0
    assert "cat/new.jpg" in capsys.readouterr().out
    with pytest.raises(IndexFolderError, match="MULTIGRAIN_CATALOG"), running(Settings(index=root)):
        pass

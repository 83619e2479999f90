"""A real index of drawn photos, and a service that answers from it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_running import Service, running

from index.builder import build_index
from multigrain.embedder import Embedder
from service.settings import Settings

NUM_PHOTOS = 12


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, jpeg: Callable[[int], bytes]) -> Path:
    """A folder of drawn photos 00.jpg, 01.jpg ..., the picture of seed 0, 1 ..."""
    folder = tmp_path_factory.mktemp("service") / "photos"
    folder.mkdir()
    for seed in range(NUM_PHOTOS):
        (folder / f"{seed:02}.jpg").write_bytes(jpeg(seed))
    return folder


@pytest.fixture(scope="session")
def index_root(photos: Path, tiny_checkpoint: Path) -> Path:
    """An index of the drawn photos."""
    root = photos.parent / "index"
    build_index([photos], tiny_checkpoint, root, Embedder.open(tiny_checkpoint))
    return root


@pytest.fixture(scope="session")
def service(index_root: Path) -> Iterator[Service]:
    """One service for all tests that only ask; it forgets photos, so that each is inferred."""
    with running(Settings(index=index_root, port=0, embedding_cache=0)) as service:
        yield service

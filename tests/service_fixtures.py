"""Real indexes of drawn photos, and services that answer from them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from service_running import Service, running

from index.builder import BuildOptions, build_index
from multigrain.embedder import Embedder
from service.settings import Settings

NUM_PHOTOS = 12
NUM_LISTED = 24


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


@pytest.fixture(scope="session")
def listed(
    tmp_path_factory: pytest.TempPathFactory, jpeg: Callable[[int], bytes], tiny_checkpoint: Path
) -> Path:
    """An index in 4 lists of 24 listed photos: id n is the picture of seed n, a cat if n is even.

    The last is the first, stored once more with other bytes.
    """
    folder = tmp_path_factory.mktemp("options")
    rows = []
    for seed in range(NUM_LISTED):
        name = f"{seed:02}.jpg"
        (folder / name).write_bytes(jpeg(seed % (NUM_LISTED - 1)) + bytes(seed // (NUM_LISTED - 1)))
        label = "dog" if seed % 2 else "cat"
        rows.append({"path": name, "label": label, "price": seed, "sold": seed < 3})
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    root = folder / "index"
    build_index(
        [folder / "list.jsonl"],
        tiny_checkpoint,
        root,
        Embedder.open(tiny_checkpoint),
        BuildOptions(factory=f"IVF{4},SQfp16"),
    )
    return root


@pytest.fixture(scope="session")
def asked(listed: Path) -> Iterator[Service]:
    """A service that only asks that index."""
    settings = Settings(
        index=listed, port=0, max_nprobe=3, max_limit=50, exact_max_photos=NUM_LISTED
    )
    with running(settings) as service:
        yield service

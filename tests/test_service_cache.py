"""Photos seen before: neither decoded nor inferred, and answered the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_running import Service, running

from service.batching.embedding_cache import EmbeddingCache, Known
from service.batching.queries import PhotoFacts
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

Jpeg = Callable[[int], bytes]


@pytest.fixture(scope="module")
def remembering(index_root: Path) -> Iterator[Service]:
    """A service that remembers two photos."""
    with running(Settings(index=index_root, port=0, embedding_cache=2)) as service:
        yield service


def known(name: str) -> Known:
    return Known(PhotoFacts(name, 1, 1, "JPEG", exif_rotated=False), np.ones(1, np.float32))


def test_the_photo_asked_for_longest_ago_is_forgotten() -> None:
    """Asking renews; hits and misses are counted."""
    cache = EmbeddingCache(2)
    for name in "ab":
        cache.put("model", known(name))
    assert cache.get("model", "a") is not None
    cache.put("model", known("c"))
    assert [cache.get("model", name) is not None for name in "abc"] == [True, False, True]
    assert (cache.num_hits, cache.num_misses) == (3, 1)


def test_an_embedding_belongs_to_its_model() -> None:
    """Another fingerprint knows nothing of it."""
    cache = EmbeddingCache(2)
    cache.put("model", known("a"))
    assert cache.get("other", "a") is None


def test_a_cache_of_none_remembers_nothing() -> None:
    """0 turns it off."""
    cache = EmbeddingCache(0)
    cache.put("model", known("a"))
    assert cache.get("model", "a") is None


def test_a_repeated_photo_is_neither_decoded_nor_inferred(
    remembering: Service, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is the first one's, whichever way the bytes come and whatever is asked."""
    first = remembering.search(jpeg(3), limit=4, include="embedding,query_embedding").json()
    assert first["batch_size"] == 1

    def fail(*_given: Any, **_named: Any) -> None:
        raise AssertionError

    assert remembering.server.runtime.opened is not None
    embedder = remembering.server.runtime.opened.engine.embedder
    monkeypatch.setattr(embedder, "read", fail)
    monkeypatch.setattr(embedder, "embed_pixels", fail)
    url = "/search?limit=4&include=embedding,query_embedding"
    again = remembering.client.post(url, content=jpeg(3)).json()
    assert again["batch_size"] == 0
    for part in ("results", "query", "query_embedding", "has_more"):
        assert again[part] == first[part]
    assert remembering.search(jpeg(3), limit=1).json()["results"][0]["uri"].endswith("03.jpg")
    assert remembering.search(jpeg(4)).status_code == 500


def test_a_bad_photo_is_not_remembered(remembering: Service) -> None:
    """It is refused as often as it is sent."""
    for _ in range(2):
        assert remembering.search(b"no photo").status_code == 400

"""Searches in another order, of mirrored photos, and with probabilities, over HTTP."""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from service_running import Service, running

from index.calibrate import calibrate
from index.manifest import CalibrationPart
from index.searching.reranking import Rerank
from multigrain.augmented import Augment, embed_augmented
from multigrain.embedder import Embedder
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

Jpeg = Callable[[int], bytes]
NUM_PHOTOS = 24


@pytest.fixture(scope="module")
def calibration(
    listed: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CalibrationPart]:
    """A copy of the index of 24 photos, calibrated on edited copies of them."""
    root = tmp_path_factory.mktemp("order") / "index"
    shutil.copytree(listed, root)
    part = calibrate(root, Embedder.open(tiny_checkpoint)).calibration
    assert part is not None
    return root, part


@pytest.fixture(scope="module")
def service(calibration: tuple[Path, CalibrationPart]) -> Iterator[Service]:
    """A service of that index."""
    with running(Settings(index=calibration[0], port=0)) as service:
        yield service


def hits(service: Service, photo: bytes, **parameters: Any) -> list[dict[str, Any]]:
    response = service.search(photo, limit=NUM_PHOTOS, exact=True, include="", **parameters)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def test_every_hit_has_the_probability_of_its_cosine(
    service: Service, calibration: tuple[Path, CalibrationPart], jpeg: Jpeg
) -> None:
    """And min_probability leaves out those below it, wherever it stands."""
    found = hits(service, jpeg(3))
    scores = np.array([hit["score"] for hit in found], float)
    probabilities = [hit["same_probability"] for hit in found]
    assert probabilities == pytest.approx(calibration[1].curve.probabilities(scores), abs=1e-5)
    least = probabilities[5]
    expected = [hit["id"] for hit in found if hit["same_probability"] >= least]
    assert 5 < len(expected) < NUM_PHOTOS
    assert [hit["id"] for hit in hits(service, jpeg(3), min_probability=least)] == expected
    assert hits(service, jpeg(3), min_probability=1) == []
    assert service.search(jpeg(3), min_probability=1.5).status_code == 422


def test_near_duplicates_are_those_of_the_calibration(
    service: Service, calibration: tuple[Path, CalibrationPart], jpeg: Jpeg
) -> None:
    """dedup=true takes the cosine at which two photos are the same with a probability of 0.9."""
    answer = service.search(jpeg(0), limit=NUM_PHOTOS, exact=True, dedup="true").json()
    assert answer["dedup_cosine"] == min(1.0, calibration[1].curve.cosine_of(0.9)) != 0.98
    named = hits(service, jpeg(0), dedup=answer["dedup_cosine"])
    assert [hit["id"] for hit in named] == [hit["id"] for hit in answer["results"]]


@pytest.mark.parametrize("rerank", ["aqe", "kreciprocal"])
def test_a_reranked_answer_is_in_the_order_of_the_index(
    service: Service, jpeg: Jpeg, rerank: str
) -> None:
    """Scores stay those of the plain search, and pages are parts of one order."""
    plain = {hit["id"]: hit["score"] for hit in hits(service, jpeg(5))}
    found = hits(service, jpeg(5), rerank=rerank)
    assert {hit["id"]: hit["score"] for hit in found} == pytest.approx(plain, abs=1e-5)
    query = service.search(jpeg(5), include="query_embedding").json()["query_embedding"]
    assert service.server.runtime.opened is not None
    with service.server.runtime.opened.engine.generations.lease() as searcher:
        row = np.array([query], np.float32)
        (expected,) = searcher.rank(row, NUM_PHOTOS, exact=True, rerank=Rerank(rerank))
    assert [hit["id"] for hit in found] == [str(one) for one in expected.ids]
    pages = [
        service.search(jpeg(5), limit=8, offset=offset, exact=True, rerank=rerank).json()["results"]
        for offset in (0, 8, 16)
    ]
    assert [hit["id"] for page in pages for hit in page] == [hit["id"] for hit in found]


def mirror(photo: bytes) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        ImageOps.mirror(image).save(stream, "PNG")
    return stream.getvalue()


def query_embedding(service: Service, photo: bytes, **parameters: object) -> np.ndarray:
    answer = service.search(photo, include="query_embedding", **parameters).json()
    return np.array(answer["query_embedding"])


def test_a_photo_and_its_mirror_image_are_one_flipped_query(service: Service, jpeg: Jpeg) -> None:
    """The unit mean of both; what the cache knows of the one look is not taken for the other."""
    plain, mirrored = (query_embedding(service, one) for one in (jpeg(7), mirror(jpeg(7))))
    for _ in range(2):
        flipped = query_embedding(service, jpeg(7), augment="flip")
        mean = (plain + mirrored) / np.linalg.norm(plain + mirrored)
        assert flipped @ mean > 0.9999
        assert flipped @ plain < 0.9999
        assert query_embedding(service, jpeg(7)) == pytest.approx(plain, abs=1e-6)


def test_flipped_and_plain_photos_of_one_batch_keep_their_own_looks(
    service: Service, jpeg: Jpeg
) -> None:
    """As in a form of several photos, each alike but one."""
    files = [("image", (f"{seed}.jpg", jpeg(seed), "image/jpeg")) for seed in (1, 2, 9)]
    response = service.client.post(
        "/search/batch?augment=flip&include=query_embedding&limit=1", files=files
    )
    together = [item["result"]["query_embedding"] for item in response.json()["items"]]
    for seed, embedding in zip((1, 2, 9), together, strict=True):
        alone = query_embedding(service, jpeg(seed), augment="flip")
        assert np.array(embedding) @ alone > 0.9999


def test_a_photo_at_several_sizes_is_one_query(
    service: Service, calibration: tuple[Path, CalibrationPart], jpeg: Jpeg
) -> None:
    """As index.search embeds it, mirrored too where that is asked."""
    embedder = Embedder.open(next((calibration[0] / "models").iterdir()))
    for augment in (Augment.MULTISCALE, Augment.FLIP_MULTISCALE):
        (expected,) = embed_augmented(embedder, [jpeg(7)], augment)
        found = query_embedding(service, jpeg(7), augment=augment)
        assert found @ expected > 0.9999
        assert found @ query_embedding(service, jpeg(7)) < 0.9999
    refused = service.search(jpeg(7), augment="flip,multiscale")
    assert refused.json()["errors"][0]["loc"] == "query.augment"


@pytest.mark.parametrize("way", ["embedding", "similar"])
def test_what_is_no_photo_has_no_mirror_image(service: Service, jpeg: Jpeg, way: str) -> None:
    """An option that would do nothing is refused."""
    if way == "embedding":
        body = {"embedding": query_embedding(service, jpeg(0)).tolist()}
        response = service.client.post("/search?augment=flip", json=body)
    else:
        response = service.client.get("/images/0/similar?augment=flip")
    assert response.status_code == 422
    assert response.json()["errors"][0]["loc"] == "query.augment"

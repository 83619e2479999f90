"""The whole path on drawn photos: train, whiten, build, search, serve."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from service_running import Service, running

from index.builder import build_index
from index.layout import Layout
from index.searcher import Searcher
from multigrain.checkpoint import load_checkpoint
from multigrain.embedder import Embedder
from service.settings import Settings
from trainer.engine.processes import alone
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import prepared_photo
from trainer.scenes import draw_collection
from trainer.settings import TrainConfig
from trainer.train import train

ORIENTATION_TAG = 0x0112


class Journey(NamedTuple):
    """What each stage left behind."""

    photos: list[Path]
    checkpoint: Path
    index: Path
    service: Service


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    """Two steps of training, whitened to 8 dimensions, an index, a service."""
    folder = tmp_path_factory.mktemp("journey")
    drawn = draw_collection(
        folder / "photos",
        num_classes=3,
        instances_per_class=4,
        photos_per_instance=2,
        size=96,
        seed=1,
    )
    config = TrainConfig(
        data=drawn,
        out=folder / "run",
        backbone="squeezenet1_1",
        size=64,
        batch_size=12,
        duration="2step",
        whiten_dim=8,
        device="cpu",
        num_threads=1,
        num_workers=0,
    )
    checkpoint = train(config, alone())
    assert checkpoint is not None
    build_index([drawn], checkpoint, folder / "index", Embedder.open(checkpoint, device="cpu"))
    with running(Settings(index=folder / "index", port=0, device="cpu")) as service:
        yield Journey(sorted(drawn.rglob("*.jpg")), checkpoint, folder / "index", service)


def turned_twin(photo: Path) -> bytes:
    """The photo stored on its side, with the EXIF tag that turns it upright."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    buffer = io.BytesIO()
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def test_every_photo_finds_itself(journey: Journey) -> None:
    """First, with cosine 1, among all of the collection."""
    for photo in journey.photos:
        first = journey.service.search(photo.read_bytes(), limit=1).json()["results"][0]
        assert photo.as_posix().endswith(first["uri"])
        assert first["score"] == pytest.approx(1, abs=1e-3)


def test_a_turned_photo_with_its_exif_tag_finds_the_upright_one(journey: Journey) -> None:
    """The same pixels stored on their side are the same query."""
    for photo in journey.photos[:4]:
        answer = journey.service.search(turned_twin(photo), limit=1).json()
        assert answer["query"]["exif_rotated"]
        assert photo.as_posix().endswith(answer["results"][0]["uri"])
        assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_trainer_embedder_and_index_agree_on_every_vector(journey: Journey) -> None:
    """The trainer's own forward pass, the Embedder and the stored row are one vector."""
    model, document, _ = load_checkpoint(journey.checkpoint)
    embedder = Embedder.open(journey.checkpoint, device="cpu", engine="torch", precision="fp32")
    layout = Layout(journey.index)
    (shard,) = (layout.root / "shards").iterdir()
    stored = np.fromfile(shard / "emb.f16", np.float16).reshape(-1, 8).astype(np.float32)
    for row, photo in enumerate(journey.photos):
        pixels = torch.from_numpy(
            prepared_photo(PhotoSet.of_paths([photo]), 0, document.preprocessing)
        )
        with torch.inference_mode():
            trained = model(pixels.permute(2, 0, 1)[None]).embedding[0].numpy()
        (embedded,) = embedder.embed([photo])
        assert float(trained @ embedded) >= 1 - 1e-5
        # Half precision rounds each of a row's values by up to 2^-11 of itself.
        assert float(embedded @ stored[row]) >= 1 - 1e-3


def test_the_service_ranks_as_an_exact_search_does(journey: Journey) -> None:
    """The answer over HTTP is that of the searcher, which is that of a plain product."""
    embedder = Embedder.open(journey.checkpoint, device="cpu")
    rows = embedder.embed(journey.photos)
    searcher = Searcher.open(journey.index)
    for query, photo in zip(rows, journey.photos, strict=True):
        found = searcher.search(query[None], len(rows))[0]
        scores = [neighbour.score for neighbour in found]
        assert scores == pytest.approx(sorted(rows @ query, reverse=True), abs=2e-3)
        answer = journey.service.search(photo.read_bytes(), limit=5).json()
        assert [hit["id"] for hit in answer["results"]] == [str(n.id) for n in found[:5]]
    searcher.close()

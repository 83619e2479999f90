"""Validation: scores equal to those of one query after another, and what is refused."""

from pathlib import Path

import pytest
import torch
from slow_metrics import slow_ap
from torch import Tensor
from trainer_fixtures import draw_flat, draw_small

from multigrain.document import Document, plain_document
from multigrain.metrics import MetricError, positive_ranks
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.finishing.copies import COPIES_PER_PHOTO, Picture, copies_of, prepared_picture
from trainer.finishing.validate import validate
from trainer.inputs.labels import PhotoSet, read_photo_set
from trainer.speech import say_nothing

SMALL = Preprocessing(size=32, rule="whole")


def small_document(class_names: tuple[str, ...] | None = None) -> Document:
    return plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=SMALL,
        p=3.0,
        class_names=class_names,
    )


def small_model(class_names: tuple[str, ...] | None = None) -> MultiGrain:
    torch.manual_seed(0)
    return MultiGrain.build(small_document(class_names)).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    """Twelve photos of six classes, and one that cannot be read."""
    folder = draw_small(
        tmp_path_factory.mktemp("photos") / "drawn", num_classes=6, instances=2, photos=1
    )
    broken = next(folder.iterdir()) / "unreadable.jpg"
    broken.write_bytes(b"no photo")
    return read_photo_set(folder, say=say_nothing)


def embedded_one_by_one(model: MultiGrain, photos: PhotoSet) -> tuple[Tensor, Tensor, list[int]]:
    """Embeddings, logits and ids of the readable photos."""
    readable = [place for place, name in enumerate(photos.names) if "unreadable" not in name]
    outputs = [model(pixels_of(photos, Picture(photo_id))) for photo_id in readable]
    logits = torch.cat([output.logits for output in outputs])
    return torch.cat([output.embedding for output in outputs]), logits, readable


def pixels_of(photos: PhotoSet, picture: Picture) -> Tensor:
    return torch.from_numpy(prepared_picture(photos, picture, SMALL)).permute(2, 0, 1)[None]


@torch.inference_mode()
def expected_scores(model: MultiGrain, photos: PhotoSet) -> dict[str, float]:
    """The same scores, one photo and one query after another."""
    gallery, logits, ids = embedded_one_by_one(model, photos)
    labels = torch.tensor(photos.labels)[ids]
    places = logits.argsort(dim=1, descending=True)
    found = {
        f"top{k}": float((places[:, :k] == labels[:, None]).any(dim=1).double().mean())
        for k in (1, 5)
    }
    nothing = torch.zeros(len(ids), dtype=torch.bool).numpy()
    hits, precisions = [], []
    for row, photo_id in enumerate(ids):
        own = torch.arange(len(ids)) == row
        for copy in range(COPIES_PER_PHOTO):
            query = model(pixels_of(photos, Picture(photo_id, copy))).embedding[0]
            hits.append(positive_ranks((gallery @ query).numpy(), own.numpy(), nothing)[0] == 0)
        same = (labels == labels[row]).numpy()
        ranks = positive_ranks((gallery @ gallery[row]).numpy(), same, own.numpy())
        precisions.append(slow_ap(ranks.tolist(), len(ranks)))
    copy_recall, class_ap = sum(hits) / len(hits), sum(precisions) / len(precisions)
    return found | {"copy_recall_at_1": float(copy_recall), "class_ap": class_ap}


def test_scores_equal_those_computed_one_query_after_another(photos: PhotoSet) -> None:
    """All four, with photos of several shapes in batches and one that cannot be read."""
    model, said = small_model(photos.class_names), list[str]()
    scores = validate(model, photos, SMALL, say=said.append)
    assert scores == pytest.approx(expected_scores(model, photos), abs=1e-6)
    (line,) = said
    assert line.startswith("1 validation photos cannot be read and are left out: ")
    assert "/unreadable.jpg (image_undecodable: " in line


def test_of_many_unreadable_photos_the_first_are_named(tmp_path: Path) -> None:
    """The others are counted; a name that is not UTF-8 is spelled out."""
    flat = draw_flat(tmp_path / "flat", num_photos=3)
    for number in range(5):
        (flat / f"z-caf\udce9-{number}.jpg").write_bytes(b"no photo")
    said = list[str]()
    photos = read_photo_set(flat, say=say_nothing)
    validate(small_model(), photos, SMALL, say=said.append)
    (line,) = said
    assert line.startswith("5 validation photos cannot be read")
    assert line.count("z-caf\\udce9-") == line.count("(image_undecodable") == 3
    assert line.endswith(" and 2 more")


def test_without_classes_there_is_copy_retrieval_alone(tmp_path: Path) -> None:
    """Any folder of photos has a score."""
    flat = read_photo_set(draw_flat(tmp_path / "flat", num_photos=6), say=say_nothing)
    assert set(validate(small_model(), flat, SMALL, say=say_nothing)) == {"copy_recall_at_1"}


def test_a_few_classes_have_no_top5(tmp_path: Path) -> None:
    """Among three classes every answer is among the first five."""
    few = read_photo_set(draw_small(tmp_path / "few"), say=say_nothing)
    scores = validate(small_model(few.class_names), few, SMALL, say=say_nothing)
    assert set(scores) == {"top1", "copy_recall_at_1", "class_ap"}


def test_equal_embeddings_score_nothing(photos: PhotoSet) -> None:
    """A collapsed model ties everywhere, and every tie counts against it."""
    model = small_model(photos.class_names)
    for parameter in model.parameters():
        parameter.data.zero_()
    scores = validate(model, photos, SMALL, say=say_nothing)
    assert (scores["top1"], scores["top5"], scores["copy_recall_at_1"]) == (0, 0, 0)
    assert scores["class_ap"] == pytest.approx(1 / 11)  # its one positive comes last of eleven


def test_a_model_that_returns_no_numbers_is_refused(photos: PhotoSet) -> None:
    """NaN gets an error, not a mark."""
    model = small_model(photos.class_names)
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(MetricError, match="not finite"):
        validate(model, photos, SMALL, say=say_nothing)


def test_a_large_set_has_copies_of_every_nth_photo() -> None:
    """At most two thousand photos are copied, spread evenly."""
    copied = copies_of(range(5000), num_photos=5000)
    assert {picture.photo_id for picture in copied} == set(range(0, 5000, 3))
    assert len(copied) == 1667 * COPIES_PER_PHOTO

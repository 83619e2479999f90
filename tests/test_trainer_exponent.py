"""p*: one pass for all exponents, the choice among them, and the program."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_fixtures import draw_small

from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.config import ConfigError
from multigrain.document import Document, PoolingSpec, plain_document
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.exponent import ExponentConfig, ExponentError, find, with_known_classes
from trainer.finishing.exponent_choice import choose, tried
from trainer.finishing.exponent_grid import search_exponent
from trainer.finishing.exponent_use import as_in_use, set_exponent
from trainer.finishing.validate import validate
from trainer.inputs.labels import PhotoSet, read_photo_set
from trainer.speech import say_nothing
from trainer.whiten import WhitenConfig, whiten

SMALL = Preprocessing(size=32, rule="whole")
GRID = (1.0, 2.0, 5.0)


def small_document(photos: PhotoSet) -> Document:
    return plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=SMALL,
        p=3.0,
        class_names=photos.class_names,
    )


def small_model(photos: PhotoSet) -> MultiGrain:
    torch.manual_seed(0)
    return MultiGrain.build(small_document(photos)).eval()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    folder = draw_small(tmp_path_factory.mktemp("photos") / "drawn", photos=1)
    return read_photo_set(folder, say=say_nothing)


def test_one_pass_scores_like_separate_passes(photos: PhotoSet) -> None:
    """Every exponent of the grid, and the trained one, has the scores of a validation with it."""
    model = small_model(photos)
    choice = search_exponent(model, photos, SMALL, exponents=GRID, trained=3.0, say=say_nothing)
    assert choice is not None
    assert [trial.p for trial in choice.trials] == [1.0, 2.0, 3.0, 5.0]
    for trial in choice.trials:
        set_exponent(model, trial.p)
        alone = validate(model, photos, SMALL, say=say_nothing)
        assert {name: trial.scores[name] for name in alone} == pytest.approx(alone, abs=1e-6)
        assert trial.mean == pytest.approx((trial.scores["top1"] + trial.scores["copy_ap"]) / 2)
    assert choice.chosen in {trial.p for trial in choice.trials if trial.ties}


def test_a_clear_lead_is_taken_and_a_tie_stays_near_the_trained_exponent() -> None:
    """Two of the criteria count alike; chance does not move p."""
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand(400, generator=generator).double()
    level = {"top1": chance.round(), "copy_ap": chance, "class_ap": chance}
    better = level | {"copy_ap": chance + 0.1}
    assert choose(tried((1.0, 3.0, 5.0), [level, level, better]), trained=3.0) == 5.0
    assert choose(tried((1.0, 4.0, 5.0), [level, level, level]), trained=3.0) == 4.0
    noisy = level | {"copy_ap": chance.flip(0) + 0.001}
    trials = tried((1.0, 3.0, 5.0), [level, level, noisy])
    assert max(trials, key=lambda trial: trial.mean).p == 5.0
    assert choose(trials, trained=3.0) == 3.0


def test_without_a_classifier_class_ap_counts_for_the_classes() -> None:
    """And copies alone where there are no classes."""
    ones, zeros = torch.ones(4).double(), torch.zeros(4).double()
    good, bad = {"class_ap": ones, "copy_ap": ones}, {"class_ap": zeros, "copy_ap": ones}
    assert [trial.mean for trial in tried((1.0, 2.0), [good, bad])] == [1.0, 0.5]
    assert [trial.mean for trial in tried((1.0,), [{"copy_ap": ones}])] == [1.0]


def test_too_few_photos_keep_the_trained_exponent(photos: PhotoSet) -> None:
    """Nothing is chosen, and that is said."""
    said: list[str] = []
    few = photos.pick(range(3))
    model = small_model(photos)
    assert not search_exponent(model, few, SMALL, exponents=GRID, trained=3.0, say=said.append)
    assert said == ["p stays 3: 3 validation photos are too few to find p* on"]


def test_a_model_pools_with_the_exponent_of_its_documents_size_while_in_use(
    photos: PhotoSet,
) -> None:
    """And goes back to the trained one."""
    model = small_model(photos)
    document = small_document(photos)
    pooling = document.pooling.model_copy(update={"p_by_size": {32: 4.5, 64: 6.0}})
    with as_in_use(model, document.model_copy(update={"pooling": pooling})):
        assert float(model.pool.p) == 4.5
    assert float(model.pool.p) == 3.0


@pytest.fixture(scope="module")
def checkpoint(photos: PhotoSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "plain.safetensors"
    save_checkpoint(path, small_model(photos), small_document(photos))
    return path


def test_the_program_finds_an_exponent_for_each_size(
    photos: PhotoSet, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another exponent is another embedding; the trained one stays; the classifier is used."""
    config = ExponentConfig(
        checkpoint=checkpoint,
        photos=[photos.root],
        size=(32, 64),
        exponents=(7.0,),
        out=tmp_path / "x.safetensors",
    )
    before, after = load_checkpoint(checkpoint), load_checkpoint(find(config))
    pooling = after.document.pooling
    assert pooling.p == 3.0
    assert set(pooling.p_by_size) == {32, 64}
    assert set(pooling.p_by_size.values()) <= {3.0, 7.0}
    assert float(after.model.pool.p or 0) == pooling.p_by_size[32]
    assert after.fingerprint != before.fingerprint
    said = capsys.readouterr().err
    assert "scored by the classifier's top-1 and copies" in said
    assert "size 64: p* " in said
    again = ExponentConfig(checkpoint=config.out, photos=config.photos, out=tmp_path / "y")
    assert set(load_checkpoint(find(again)).document.pooling.p_by_size) == {32, 64}


def test_a_whitening_is_fitted_again_at_the_new_exponent(
    photos: PhotoSet, checkpoint: Path, tmp_path: Path
) -> None:
    """Refused without photos for it; with them it equals a whitening of the found checkpoint."""
    whitened = whiten(
        WhitenConfig(checkpoint=checkpoint, photos=[photos.root], dim=3, out=tmp_path / "white")
    )
    values: dict[str, Any] = {"photos": [photos.root], "exponents": (2.0, 6.0)}
    with pytest.raises(ExponentError, match="give --whiten PHOTOS"):
        find(ExponentConfig(checkpoint=whitened, out=tmp_path / "x", **values))
    again = find(
        ExponentConfig(checkpoint=whitened, out=tmp_path / "x", whiten=[photos.root], **values)
    )
    plain = find(ExponentConfig(checkpoint=checkpoint, out=tmp_path / "y", **values))
    in_turn = whiten(
        WhitenConfig(checkpoint=plain, photos=[photos.root], dim=3, out=tmp_path / "z")
    )
    assert load_checkpoint(again).fingerprint == load_checkpoint(in_turn).fingerprint


def test_a_whitening_at_another_size_pools_with_its_exponent(
    photos: PhotoSet, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The photos' size and the exponent in use go together; a size without one is said."""
    model, document, _ = load_checkpoint(checkpoint)
    pooling = document.pooling.model_copy(update={"p_by_size": {32: 2.0, 64: 6.0}})
    save_checkpoint(tmp_path / "x", model, document.model_copy(update={"pooling": pooling}))
    values: dict[str, Any] = {"checkpoint": tmp_path / "x", "photos": [photos.root], "dim": 3}
    large = load_checkpoint(whiten(WhitenConfig(size=64, out=tmp_path / "large", **values)))
    assert large.document.preprocessing.size == 64
    assert large.document.embedding.whitening is not None
    assert large.document.embedding.whitening.size == 64
    assert float(large.model.pool.p or 0) == 6.0
    assert "no exponent was found" not in capsys.readouterr().err
    whiten(WhitenConfig(size=96, out=tmp_path / "larger", **values))
    assert "no exponent was found for size 96: pooled with the trained 3" in capsys.readouterr().err


def test_photos_whiten_a_checkpoint_that_was_not(
    photos: PhotoSet, checkpoint: Path, tmp_path: Path
) -> None:
    """As the help says; few photos for it are said, none at all are refused."""
    values: dict[str, Any] = {"checkpoint": checkpoint, "out": tmp_path / "x", "exponents": (2.0,)}
    found = find(ExponentConfig(photos=[photos.root], whiten=[photos.root], **values))
    assert load_checkpoint(found).document.embedding.whitening is not None
    assert "adds one" in (ExponentConfig.model_fields["whiten"].description or "")
    for refused in (ExponentConfig, WhitenConfig):
        with pytest.raises(ConfigError, match="--photos"):
            refused.from_values({"checkpoint": checkpoint, "photos": [], "out": tmp_path})


def test_a_pooling_without_an_exponent_is_refused(photos: PhotoSet, tmp_path: Path) -> None:
    """The message says which pooling it is."""
    document = small_document(photos).model_copy(
        update={"pooling": PoolingSpec(kind="avg", p=None)}
    )
    save_checkpoint(tmp_path / "avg", MultiGrain.build(document), document)
    config = ExponentConfig(checkpoint=tmp_path / "avg", photos=[photos.root], out=tmp_path / "x")
    with pytest.raises(ExponentError, match="pooled by avg, which has no exponent"):
        find(config)


def test_classes_that_the_classifier_does_not_know_serve_class_ap(photos: PhotoSet) -> None:
    """A known part of the classes gets the classifier's labels."""
    assert photos.class_names == ("00-house", "01-cup", "02-fish")
    other = small_document(photos._replace(class_names=("02-fish", "01-cup")))
    assert with_known_classes(photos, other) == (photos, False)
    wider = ("02-fish", "bird", "01-cup", "00-house")
    relabelled, is_known = with_known_classes(
        photos, small_document(photos._replace(class_names=wider))
    )
    assert is_known
    assert relabelled.class_names == wider
    assert [wider[label] for label in relabelled.labels] == [
        photos.class_names[label] for label in photos.labels
    ]

"""p*: one pass for all exponents, the choice among them, and the program."""

import pytest
import torch
from trainer_fixtures import draw_small

from multigrain.document import plain_document
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.exponent_choice import choose, tried
from trainer.exponent_grid import search_exponent
from trainer.exponent_use import as_in_use, set_exponent
from trainer.labels import PhotoSet, read_photo_set
from trainer.speech import say_nothing
from trainer.validate import validate

SMALL = Preprocessing(size=32, rule="whole")
GRID = (1.0, 2.0, 5.0)


def small_model(photos: PhotoSet) -> MultiGrain:
    torch.manual_seed(0)
    return MultiGrain.build(
        plain_document(
            backbone_name="squeezenet1_1",
            feature_dim=512,
            preprocessing=SMALL,
            p=3.0,
            class_names=photos.class_names,
        )
    )


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
    document = plain_document(
        backbone_name="squeezenet1_1", feature_dim=512, preprocessing=SMALL, p=3.0
    )
    pooling = document.pooling.model_copy(update={"p_by_size": {32: 4.5, 64: 6.0}})
    with as_in_use(model, document.model_copy(update={"pooling": pooling})):
        assert float(model.pool.p) == 4.5
    assert float(model.pool.p) == 3.0

"""The end of a run: p*, whitening, scores, checkpoint, report; two processes end like one."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor
from trainer_fixtures import draw_small

from multigrain.checkpoint import load_checkpoint
from multigrain.config import ConfigError
from multigrain.document import Document, EmbeddingSpec, TrainingSpec, plain_document
from multigrain.model import MultiGrain
from multigrain.pooling import SMALLEST_P
from multigrain.transforms import Preprocessing
from trainer.engine.processes import Processes, alone
from trainer.engine.runfolder import RunFolder
from trainer.finishing.copies import COPIES_PER_PHOTO
from trainer.finishing.exponent_choice import Choice
from trainer.finishing.exponent_grid import search_exponent
from trainer.finishing.exponent_use import set_exponent
from trainer.finishing.findings import FINISHED, PLAIN, Findings, evaluate
from trainer.finishing.finish import (
    FinishError,
    FinishPlan,
    Trained,
    WhiteningPlan,
    finish,
    plan_finish,
    plan_whitening,
)
from trainer.finishing.fit_whitening import FitError, fit_on
from trainer.finishing.report_data import REPORT_DATA, ReportData, read_report_data
from trainer.finishing.validate import Values, embed_validation, gathered, validate, values_of
from trainer.inputs.data import Data
from trainer.inputs.labels import PhotoSet, read_photo_set
from trainer.settings import TrainConfig
from trainer.speech import say_nothing

SMALL = Preprocessing(size=32, rule="whole")
TRAINING = TrainingSpec(lambda_=0.5, beta=1.1, views=3, steps=7)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    """Twelve photos of six classes and one that cannot be read."""
    folder = draw_small(
        tmp_path_factory.mktemp("photos") / "drawn", num_classes=6, instances=2, photos=1
    )
    broken = next(folder.iterdir()) / "unreadable.jpg"
    broken.write_bytes(b"no photo")
    return read_photo_set(folder, say=say_nothing)


def small_document(photos: PhotoSet) -> Document:
    document = plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=SMALL,
        p=3.0,
        class_names=photos.class_names,
    )
    embedding = EmbeddingSpec(dim=16, reduction=16, neck="bn", neck_features="before")
    return document.model_copy(update={"embedding": embedding})


def small_model(photos: PhotoSet) -> MultiGrain:
    torch.manual_seed(0)
    return MultiGrain.build(small_document(photos)).eval()


def plan_for(photos: PhotoSet, **changes: Any) -> FinishPlan:
    values: dict[str, Any] = {
        "data": Data(photos, photos, 0.5),
        "sizes": (32, 64),
        "exponents": (1.0, 6.0),
        "whitening": WhiteningPlan(photos, 4, 0.5, 1e-3),
        "report": True,
    }
    return FinishPlan(**(values | changes))


def finished(photos: PhotoSet, folder: Path, **changes: Any) -> tuple[Path, ReportData]:
    folder.mkdir()
    (folder / "config.yaml").write_text("backbone: squeezenet1_1\n")
    model = small_model(photos)
    trained = Trained(model, small_document(photos), TRAINING, {"top1": 0.25})
    run = RunFolder(folder)
    path = finish(trained, plan_for(photos, **changes), processes=alone(), run=run, say=say_nothing)
    data = read_report_data(folder / REPORT_DATA)
    assert data is not None
    return path, data


@pytest.fixture(scope="module")
def whole(photos: PhotoSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportData]:
    return finished(photos, tmp_path_factory.mktemp("finished") / "run")


def test_a_finished_checkpoint_scores_as_its_document_says(
    photos: PhotoSet, whole: tuple[Path, ReportData]
) -> None:
    """Loaded anew, with p* of its size and its whitening; the trained exponent is kept."""
    model, document, fingerprint = load_checkpoint(whole[0])
    assert document.pooling.p == 3.0
    assert set(document.pooling.p_by_size) == {32, 64}
    assert document.training == TRAINING
    assert document.embedding.dim == 4
    assert document.embedding.reduction == 16
    assert document.metrics == pytest.approx(
        validate(model, photos, document.preprocessing, say=say_nothing), abs=1e-6
    )
    assert whole[1].fingerprint == fingerprint
    assert not whole[0].with_name("unwhitened.safetensors").exists()


def test_the_report_has_the_scores_of_every_stage(whole: tuple[Path, ReportData]) -> None:
    """As trained, with p*, and finished; every photo and copy is in the histograms."""
    path, data = whole
    assert [stage.stage for stage in data.stages] == ["trained", PLAIN, FINISHED]
    assert data.stages[0].scores == {"top1": 0.25}
    assert data.stages[1].scores["top1"] == data.stages[2].scores["top1"]
    assert [choice.size for choice in data.choices] == [32, 64]
    copies, classes = data.histograms
    assert (sum(copies.together), sum(copies.apart)) == (36, 36 * 11)
    assert (sum(classes.together), sum(classes.apart)) == (12, 12 * 10)
    assert data.spectrum is not None
    assert (data.spectrum.num_dims, data.spectrum.kept, data.spectrum.photos) == (16, 4, 12)
    assert data.spectrum.ranks[-1] == 16
    assert data.spectrum.shares[0] == 1.0
    by = [query.by for query in data.queries]
    assert (by.count("class"), by.count("copy")) == (6, 6)
    assert all(len(query.neighbours) == 5 for query in data.queries)
    assert "Exponent p*" in path.with_name("report.html").read_text()


def test_without_a_report_no_pictures_are_kept(photos: PhotoSet, tmp_path: Path) -> None:
    """The numbers are, from which `trainer.report` can draw the rest."""
    path, data = finished(photos, tmp_path / "run", exponents=(), whitening=None, report=False)
    assert data.queries == ()
    assert [stage.stage for stage in data.stages] == ["trained", FINISHED]
    assert len(data.histograms) == 2
    assert not path.with_name("report.html").exists()


def test_a_learned_exponent_below_the_smallest_is_kept_as_it_was_used(
    photos: PhotoSet, tmp_path: Path
) -> None:
    """Tensor, document and loaded model agree, and embed as the trained model did."""
    torch.manual_seed(0)
    model = MultiGrain.build(small_document(photos), learnable_p=True).eval()
    set_exponent(model, 0.02)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        before = model(pixels).embedding
    trained = Trained(model, small_document(photos), TRAINING, {})
    plan = plan_for(photos, exponents=(), whitening=None, report=False)
    path = finish(trained, plan, processes=alone(), run=RunFolder(tmp_path), say=say_nothing)
    loaded, document, _ = load_checkpoint(path)
    assert document.pooling.p == pytest.approx(SMALLEST_P)
    assert float(loaded.pool.p or 0) == pytest.approx(SMALLEST_P)
    assert load_file(path)["pool.p"] == loaded.pool.p
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval()(pixels).embedding, before)


def test_neighbours_are_right_by_class_and_by_original(whole: tuple[Path, ReportData]) -> None:
    """The nearest first; a photo is never its own neighbour, a copy's original is."""
    for query in whole[1].queries:
        asked = query.query
        distances = [shown.distance or 0.0 for shown in query.neighbours]
        assert distances == sorted(distances)
        for shown in query.neighbours:
            if query.by == "class":
                assert shown.name != asked.name
                assert shown.right == (shown.label == asked.label)
            else:
                assert shown.right == (shown.name == asked.name)


def test_without_validation_photos_the_exponent_stays_and_nothing_is_scored(
    photos: PhotoSet, tmp_path: Path
) -> None:
    """Neither p*, nor scores, nor pictures; still a checkpoint and a report."""
    nothing = Data(photos, photos.pick(()), 0.5)
    path, data = finished(photos, tmp_path / "run", data=nothing, exponents=(), whitening=None)
    document = load_checkpoint(path).document
    assert (document.pooling.p_by_size, document.metrics) == ({}, {})
    assert document.embedding.whitening is None
    assert (data.choices, data.histograms, data.queries, data.spectrum) == ((), (), (), None)
    assert path.with_name("report.html").exists()


def test_a_failure_keeps_the_model_with_its_exponents(photos: PhotoSet, tmp_path: Path) -> None:
    """What was found before the failing stage is in the file that is left."""
    few = WhiteningPlan(photos.pick(range(7)), None, 0.5, 1e-3)
    with pytest.raises(FinishError, match=r"trainer\.whiten --checkpoint"):
        finished(photos, tmp_path / "run", whitening=few)
    kept = load_checkpoint(tmp_path / "run" / "unwhitened.safetensors").document
    assert set(kept.pooling.p_by_size) == {32, 64}
    assert kept.metrics == {"top1": 0.25}
    assert not (tmp_path / "run" / "model.safetensors").exists()


def settings(photos: PhotoSet, **changes: Any) -> TrainConfig:
    return TrainConfig.from_values({"data": photos.root, "out": photos.root / "run"} | changes)


def test_the_plan_follows_the_settings(photos: PhotoSet) -> None:
    """Every flag of the run's end, and what the photos do not bear is refused at once."""
    document, data = small_document(photos), Data(photos, photos, 0.5)
    config = settings(
        photos,
        more_test_sizes=[64, 32, 96],
        exponents=[2.0, 5.0],
        whiten_dim=3,
        whiten_photos=10,
        whiten_power=0.75,
        whiten_floor=0.01,
        report=False,
    )
    plan = plan_finish(config, data, document, say=say_nothing)
    assert (plan.sizes, plan.exponents, plan.report) == ((32, 64, 96), (2.0, 5.0), False)
    assert plan.whitening is not None
    assert len(plan.whitening.photos.names) == 10
    assert plan.whitening[1:] == (3, 0.75, 0.01)
    unscored = plan_finish(
        settings(photos, whiten_dim=0),
        Data(photos, photos.pick(()), 0.5),
        document,
        say=say_nothing,
    )
    assert (unscored.exponents, unscored.whitening) == ((), None)
    with pytest.raises(FitError, match="whitening to 17 dimensions"):
        plan_finish(settings(photos, whiten_dim=17), data, document, say=say_nothing)


def test_few_photos_are_whitened_only_when_asked(photos: PhotoSet) -> None:
    """A quarter of them would keep too little; a small embedding needs fewer."""
    many = photos.pick([number % 13 for number in range(128)])
    said: list[str] = []

    def plan_on(num_photos: int, *, feature_dim: int, dim: int | None) -> WhiteningPlan | None:
        return plan_whitening(
            many.pick(range(num_photos)),
            feature_dim=feature_dim,
            dim=dim,
            most_photos=500,
            power=0.5,
            floor=1e-3,
            say=said.append,
        )

    assert plan_on(128, feature_dim=512, dim=None)
    assert plan_on(64, feature_dim=16, dim=None)
    assert plan_on(127, feature_dim=512, dim=4)
    assert said == []
    assert plan_on(127, feature_dim=512, dim=None) is None
    (line,) = said
    assert line.startswith("no whitening: fitted on 127 photos, fewer than 128")


def test_a_whitening_that_loses_neighbours_is_said(photos: PhotoSet) -> None:
    """One dimension tells nothing apart: every embedding is 1 or -1."""
    model, said = small_model(photos), list[str]()
    fitted = fit_on(
        model,
        small_document(photos),
        photos,
        dim=1,
        power=0.5,
        floor=1e-3,
        processes=alone(),
        say=say_nothing,
    )
    found = evaluate(model, fitted.document, photos, processes=alone(), say=said.append)
    assert found.metrics["copy_recall_at_1"] < found.stages[0].scores["copy_recall_at_1"]
    assert "--resume auto --whiten-dim 0" in said[-1]
    model.whiten = None
    evaluate(model, small_document(photos), photos, processes=alone(), say=said.append)
    assert said[-1].startswith("finished: ")


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"exponents": [2.0, 0.0]}, "--exponents"),
        ({"more_test_sizes": [16]}, "--more-test-sizes"),
        ({"whiten_floor": 2.0}, "--whiten-floor"),
        ({"whiten_power": math.nan}, "--whiten-power"),
    ],
)
def test_settings_out_of_range_are_refused(
    photos: PhotoSet, changes: dict[str, Any], flag: str
) -> None:
    """The message names the flag."""
    with pytest.raises(ConfigError, match=flag):
        settings(photos, **changes)


class Shared(NamedTuple):
    """What processes find together, the same on each."""

    values: Values
    values_of_one: Values
    choice: Choice
    projection: Tensor
    findings: Findings
    said: list[str]


def found_by(photos: PhotoSet, processes: Processes) -> Shared:
    model, said = small_model(photos), list[str]()
    part = embed_validation(model, photos, SMALL, say=say_nothing)
    values = values_of(part, gathered(part), photos)
    one = photos.pick([0])  # a process without a photo takes part all the same
    part_of_one = embed_validation(model, one, SMALL, say=say_nothing)
    choice = search_exponent(
        model, photos, SMALL, exponents=(1.0, 6.0), trained=3.0, say=said.append
    )
    assert choice is not None
    fitted = fit_on(
        model,
        small_document(photos),
        photos,
        dim=4,
        power=0.5,
        floor=1e-3,
        processes=processes,
        say=said.append,
    )
    assert model.whiten is not None
    values_of_one = values_of(part_of_one, gathered(part_of_one), one)
    found = evaluate(model, fitted.document, photos, processes=processes, say=say_nothing)
    return Shared(values, values_of_one, choice, model.whiten.projection, found, said)


def in_one_of_two(rank: int, folder: str, photos: PhotoSet) -> None:
    """Save what this process has found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    processes = Processes(rank, 2, torch.device("cpu"), dist.group.WORLD)
    torch.save(tuple(found_by(photos, processes)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_end_like_one(photos: PhotoSet, tmp_path: Path) -> None:
    """Every query's value in the same order, nothing padded; the same p* and whitening."""
    mp.spawn(in_one_of_two, args=(str(tmp_path), photos), nprocs=2)
    expected = found_by(photos, alone())
    for rank in range(2):
        found = Shared(*torch.load(tmp_path / f"{rank}.pt", weights_only=False))
        assert {name: len(value) for name, value in found.values.items()} == {
            "top1": 12,
            "top5": 12,
            "class_ap": 12,
            "copy_recall_at_1": 12 * COPIES_PER_PHOTO,
            "copy_ap": 12 * COPIES_PER_PHOTO,
        }
        for name, value in expected.values.items():
            torch.testing.assert_close(found.values[name], value)
        assert len(found.values_of_one["copy_ap"]) == COPIES_PER_PHOTO
        assert found.choice.chosen == expected.choice.chosen
        means = [trial.mean for trial in expected.choice.trials]
        np.testing.assert_allclose([trial.mean for trial in found.choice.trials], means)
        torch.testing.assert_close(found.projection, expected.projection, rtol=1e-3, atol=1e-3)
        assert found.said == expected.said
        assert [stage.stage for stage in found.findings.stages] == [PLAIN, FINISHED]
        for ours, theirs in zip(
            found.findings.histograms, expected.findings.histograms, strict=True
        ):
            assert sum(ours.together) == sum(theirs.together)
            assert sum(ours.apart) == sum(theirs.apart)
        names = [] if rank else [query.query.name for query in expected.findings.queries]
        assert [query.query.name for query in found.findings.queries] == names

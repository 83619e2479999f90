"""What models cost: exact counts, and times of every part."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_fixtures import draw_small

from multigrain.backbone import build_backbone
from multigrain.checkpoint import read_document
from multigrain.classifier import LinearClassifier
from multigrain.config import ConfigError
from multigrain.model import MultiGrain
from multigrain.pooling import GeM
from trainer import timing
from trainer.models.complexity import Complexity, complexity_of
from trainer.timing import TimingConfig, measure


def described(name: str, **options: Any) -> MultiGrain:
    """The trunk with GeM and 1000 classes."""
    backbone = build_backbone(name, **options)
    return MultiGrain(
        backbone=backbone,
        pool=GeM(3.0),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        classifier=LinearClassifier(backbone.num_channels, 1000),
    )


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # ResNet-50's are published; the parameters of all are those of the library's own model.
        ("resnet18", 224, Complexity(11_689_512, 1_814_074_344, 2_685_416)),
        ("resnet50", 224, Complexity(25_557_032, 4_089_185_256, 11_315_688)),
        ("mobilenet_v2", 224, Complexity(3_504_872, 300_775_272, 6_679_112)),
        ("timm:test_vit", 160, Complexity(371_240, 37_953_000, 317_672)),
    ],
)
def test_counts_are_the_known_ones(name: str, size: int, expected: Complexity) -> None:
    """Parameters, multiply-adds and activations, none of which may drift."""
    assert complexity_of(described(name), size=size) == expected


def test_a_denser_last_stage_costs_more_and_has_no_more_weights() -> None:
    """Last stride 1 adds work alone."""
    plain = complexity_of(described("resnet18"), size=64)
    dense = complexity_of(described("resnet18", last_stride=1), size=64)
    assert dense.parameters == plain.parameters
    assert dense.multiply_adds > plain.multiply_adds
    assert dense.activations > plain.activations


def test_every_part_is_timed(tmp_path: Path) -> None:
    """Inference, step, loss, loading, and the share of waiting, on drawn photos."""
    photos = draw_small(tmp_path / "drawn", num_classes=2)
    found = measure(
        TimingConfig(
            backbone="timm:test_resnet",
            num_classes=2,
            size=32,
            batch_size=6,
            runs=2,
            precision="fp32",
            device="cpu",
            data=(photos,),
            num_workers=0,
        )
    )
    for part in ("inference_ms", "training_ms", "loss_ms", "loading_ms"):
        assert 0 < found[part]["low"] <= found[part]["median"] <= found[part]["high"]
    assert found["loss_ms"]["low"] < found["training_ms"]["high"]
    assert 0 < found["stall_share"] < 1
    assert found["training_per_second"] == pytest.approx(6000 / found["training_ms"]["median"])
    assert "stall_share" in timing.table_of(found)


def test_a_checkpoint_is_counted_as_json(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object on stdout and nothing else."""
    argv = ["timing", "--checkpoint", str(tiny_checkpoint)]
    monkeypatch.setattr(sys, "argv", [*argv, "--count-only", "--json"])
    assert timing.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 722_496
    assert found["size"] == read_document(tiny_checkpoint).preprocessing.size
    assert set(found) == {"model", "size", "parameters", "multiply_adds", "activations"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give --backbone or --checkpoint"),
        ({"backbone": "resnet18", "checkpoint": "x"}, "one of them"),
        ({"checkpoint": "x", "num_classes": 5}, "a checkpoint has its own classifier"),
        ({"checkpoint": "x", "data": ["y"], "count_only": True}, "--count-only times nothing"),
        ({"backbone": "resnet18", "batch_size": 4}, "no multiple of --num-views 3"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: dict[str, Any], message: str) -> None:
    """One model, whole photos."""
    with pytest.raises(ConfigError, match=message):
        TimingConfig.from_values(flags)

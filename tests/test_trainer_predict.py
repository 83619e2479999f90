"""Photos classified by a checkpoint, as its model classifies them one by one."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.document import ClassifierSpec
from multigrain.model import MultiGrain
from multigrain.prepared import read_prepared
from multigrain.program import run_main
from trainer import predict as program

NAMES = ("cat", "dog", "cow")


@pytest.fixture(scope="module")
def classifying(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The small checkpoint with a classifier of three classes."""
    torch.manual_seed(1)
    spec = ClassifierSpec(class_names=NAMES)
    document = load_checkpoint(tiny_checkpoint).document.model_copy(update={"classifier": spec})
    path = tmp_path_factory.mktemp("classifying") / "model.safetensors"
    save_checkpoint(path, MultiGrain.build(document), document)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw: Callable[[int], Image.Image]) -> Path:
    """Two photos of two shapes, and one that is none."""
    folder = tmp_path_factory.mktemp("photos")
    draw(0).save(folder / "wide.png")
    draw(1).rotate(90, expand=True).save(folder / "high.png")
    (folder / "bad.png").write_bytes(b"no photo")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *flags: object) -> int:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, flags)])
    return run_main(program.main, prog="predict")


def expected(checkpoint: Path, photo: Path) -> dict[str, float]:
    model, document, _ = load_checkpoint(checkpoint)
    pixels = read_prepared(photo, document.preprocessing).pixels
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None]).logits
    assert logits is not None
    return dict(zip(NAMES, logits.softmax(1)[0].tolist(), strict=True))


def test_each_photo_has_its_likeliest_classes(
    classifying: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In both forms; what cannot be read is named and left out."""
    flags = ["--checkpoint", classifying, "--photos", photos, "--top", 2, "--device", "cpu"]
    for name in ("classes.csv", "classes.jsonl"):
        assert run(monkeypatch, *flags, "--out", tmp_path / name) == 0
        assert "bad.png is left out: " in capsys.readouterr().err
    lines = (tmp_path / "classes.jsonl").read_text().splitlines()
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert len(rows) == 4
    for number, name in enumerate(("high.png", "wide.png")):
        found = json.loads(lines[number])
        likely = sorted(expected(classifying, photos / name).items(), key=lambda one: -one[1])[:2]
        assert found["path"] == str(photos / name)
        assert [one["class"] for one in found["classes"]] == [one for one, _ in likely]
        values = [one["probability"] for one in found["classes"]]
        assert values == pytest.approx([p for _, p in likely], abs=1e-5)
        own = rows[2 * number : 2 * number + 2]
        assert [(row["rank"], row["class"]) for row in own] == [
            (str(rank), one) for rank, (one, _) in enumerate(likely, start=1)
        ]


def test_one_photo_is_told_on_the_terminal(
    classifying: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All classes where more are asked for; without a photo that can be read it ends with 1."""
    flags = ["--checkpoint", classifying, "--device", "cpu", "--photos"]
    assert run(monkeypatch, *flags, photos / "wide.png") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(NAMES)
    assert run(monkeypatch, *flags, photos / "bad.png") == 1


def test_a_checkpoint_without_a_classifier_is_refused(
    tiny_checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And so is a file of another kind than can be written."""
    flags = ["--checkpoint", tiny_checkpoint, "--photos", photos]
    assert run(monkeypatch, *flags) == 2
    assert "has no classifier" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, *flags, "--out", tmp_path / "classes.txt")
    assert "name a file .csv or .jsonl" in capsys.readouterr().err

"""The picture of what training sees."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainer_fixtures import draw_flat

from multigrain.config import ConfigError
from trainer import preview
from trainer.out_file import OutFileError
from trainer.preview import GAP, PreviewConfig, draw_preview
from trainer.settings import TrainConfig


def config(folder: Path, out: Path, **settings: object) -> PreviewConfig:
    fields = {"data": (folder,), "out": out, "size": 32, "num_photos": 3, "columns": 2}
    return PreviewConfig.model_validate(fields | settings)


@pytest.mark.parametrize("augment", ["full", "strong"])
def test_a_row_shows_a_photo_and_its_views(tmp_path: Path, augment: str) -> None:
    """A picture of the right size, another one by another augmentation, the same once more."""
    folder = draw_flat(tmp_path / "flat", num_photos=6)
    made = draw_preview(config(folder, tmp_path / "a.png", augment=augment))
    again = draw_preview(config(folder, tmp_path / "b.png", augment=augment))
    plain = draw_preview(config(folder, tmp_path / "c.png", augment="torch"))
    assert made.read_bytes() == again.read_bytes() != plain.read_bytes()
    with Image.open(made) as picture:
        assert picture.size == (3 * (32 + GAP) + GAP, 3 * (32 + GAP) + GAP)
        cells = np.asarray(picture)
    first = [cells[GAP : GAP + 32, GAP + n * (32 + GAP) :][:, :32] for n in range(3)]
    assert all(cell.std() > 5 for cell in first)
    assert not np.array_equal(first[1], first[2])


def test_mixed_views_and_unreadable_photos_are_drawn_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command, with the settings of a run."""
    folder = draw_flat(tmp_path / "flat", num_photos=3)
    (folder / "photo-000.jpg").write_bytes(b"no photo")
    out = tmp_path / "preview.png"
    run = TrainConfig(data=(folder,), out=tmp_path / "run", size=32, mixup=0.4, erasing=0.5)
    (tmp_path / "config.yaml").write_text(run.to_yaml())
    flags = ["--config", tmp_path / "config.yaml", "--out", out]
    monkeypatch.setattr(sys, "argv", ["preview", *map(str, flags)])
    assert preview.main() == 0
    with pytest.raises(ConfigError, match=r"is no .png: .* give --out preview.png"):
        PreviewConfig.from_values({"data": [folder], "out": tmp_path / "run"})
    with pytest.raises(OutFileError, match="Not a directory"):
        draw_preview(config(tmp_path / "none", out / "below" / "x.png"))
    assert capsys.readouterr().out.strip() == str(out)
    with Image.open(out) as picture:
        assert picture.height == 3 * (32 + GAP) + GAP

"""A checkpoint without training: weights that fit, weights that do not, and the whitening."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from trainer_fixtures import draw_flat

from multigrain.backbone import Backbone, build_backbone
from multigrain.checkpoint import load_checkpoint
from multigrain.config import ConfigError
from multigrain.files import sha256_of
from trainer.finishing.fit_whitening import FitError, safe_dim
from trainer.inputs.labels import PhotoSet
from trainer.out_file import OutFileError, check_out_file
from trainer.pretrained import PretrainedConfig, make_pretrained
from trainer.settings_finish import WHITEN_POWER
from trainer.whiten import WhitenConfig, whiten

SMALL = "squeezenet1_1"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_flat(tmp_path_factory.mktemp("photos") / "flat", num_photos=12)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(torchvision.models.get_model(SMALL, weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small() -> Backbone:
    return build_backbone(SMALL)


def test_a_state_dict_becomes_a_whitened_checkpoint(
    photos: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trunk is the file's, its classifier is dropped and said, its origin is recorded."""
    out = make_pretrained(
        PretrainedConfig(
            backbone=SMALL,
            weights=str(weights),
            weights_licence="BSD-3-Clause",
            out=tmp_path / "x.safetensors",
            size=32,
            whiten=[photos, photos],
            whiten_power=0.75,
        )
    )
    model, document, _ = load_checkpoint(out)
    state = torch.load(weights, weights_only=True)
    assert torch.equal(model.backbone.state_dict()["features.0.weight"], state["features.0.weight"])
    assert document.software["weights_sha256"] == sha256_of(weights)
    assert document.weights_licence == "BSD-3-Clause"
    assert document.embedding.whitening is not None
    assert document.embedding.whitening.photos == 24
    assert document.embedding.whitening.power == 0.75
    assert document.embedding.dim == 6
    assert "classifier is dropped (2 tensors)" in capsys.readouterr().err


def test_whitening_again_replaces_the_whitening(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    """`trainer.whiten` on a plain checkpoint, and on its own result, gives the same tensors."""
    plain = make_pretrained(
        PretrainedConfig(
            backbone=SMALL, weights=str(weights), out=tmp_path / "plain.safetensors", size=32
        )
    )
    outs = []
    for number, checkpoint in enumerate((plain, tmp_path / "0.safetensors")):
        outs.append(
            whiten(
                WhitenConfig(
                    checkpoint=checkpoint,
                    photos=[photos],
                    out=tmp_path / f"{number}.safetensors",
                    dim=4,
                )
            )
        )
    assert load_checkpoint(plain).document.embedding.whitening is None
    assert load_checkpoint(outs[0]).document.embedding.dim == 4
    assert load_checkpoint(outs[0]).fingerprint == load_checkpoint(outs[1]).fingerprint


def test_flags_that_no_checkpoint_could_hold_are_refused(tmp_path: Path) -> None:
    """Sides beyond the preprocessing's, exponents that are no number, dimensions of nothing."""
    plain = {"backbone": SMALL, "out": tmp_path / "x.safetensors"}
    for wrong, reason in (
        ({"size": 4096}, "--size"),
        ({"p": "inf"}, "--p: .*finite"),
        ({"whiten_power": 1.5}, "--whiten-power"),
        ({"whiten_power": "nan"}, "--whiten-power"),
        ({"whiten_dim": 4}, "give --whiten too"),
    ):
        with pytest.raises(ConfigError, match=reason):
            PretrainedConfig.from_values(plain | wrong)
    with pytest.raises(ConfigError, match="--power"):
        WhitenConfig.from_values({"checkpoint": "x", "photos": ["x"], "out": "y", "power": "nan"})


def test_a_folder_as_out_is_refused_before_any_work(tmp_path: Path) -> None:
    """Neither program embeds photos for a result that it cannot write."""
    absent = tmp_path / "absent"
    with pytest.raises(OutFileError, match="is a folder"):
        make_pretrained(PretrainedConfig(backbone="none such", out=tmp_path))
    with pytest.raises(OutFileError, match="is a folder"):
        whiten(WhitenConfig(checkpoint=absent, photos=[absent], out=tmp_path))


@pytest.mark.parametrize("out", ["file/x.safetensors", "file/below/x.safetensors"])
def test_a_file_in_the_way_of_out_is_one_line(tmp_path: Path, out: str) -> None:
    """The folder is made and tried first; of the trial nothing stays."""
    (tmp_path / "file").touch()
    with pytest.raises(OutFileError, match=r"cannot be written \((File exists|Not a directory)\)"):
        make_pretrained(PretrainedConfig(backbone="none such", out=tmp_path / out))
    check_out_file(tmp_path / "new" / "x.safetensors")
    assert not list((tmp_path / "new").iterdir())


def test_the_power_decides_how_far_the_whitening_goes(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    """Row lengths of the projection: all 1 at power 0, at 0.5 the roots of those at 1."""
    plain = make_pretrained(
        PretrainedConfig(
            backbone=SMALL, weights=str(weights), out=tmp_path / "plain.safetensors", size=32
        )
    )
    lengths = {}
    for power in (0.0, 0.5, 1.0):
        config = WhitenConfig(
            checkpoint=plain, photos=[photos], out=tmp_path / "x", dim=4, power=power
        )
        model, document, _ = load_checkpoint(whiten(config))
        assert document.embedding.whitening is not None
        assert document.embedding.whitening.power == power
        assert model.whiten is not None
        lengths[power] = model.whiten.projection.norm(dim=1)
    torch.testing.assert_close(lengths[0.0], torch.ones(4))
    torch.testing.assert_close(lengths[0.5], lengths[1.0].sqrt())
    assert WhitenConfig(checkpoint=plain, photos=[photos], out=plain).power == WHITEN_POWER


def test_dimensions_that_photos_do_not_bear_are_refused_before_embedding(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    """More than the trunk's, or not fewer than the photos."""
    for dim, reason in ((513, "the trunk has 512"), (12, "more than 12 photos, there are 12")):
        config = PretrainedConfig(
            backbone=SMALL,
            weights=str(weights),
            out=tmp_path / "x",
            size=32,
            whiten=[photos],
            whiten_dim=dim,
        )
        with pytest.raises(FitError, match=reason):
            make_pretrained(config)


def test_few_photos_make_a_small_whitening_or_none(weights: Path, tmp_path: Path) -> None:
    """A quarter of the photos at most; fewer than 8 are refused."""
    assert [safe_dim(512, count) for count in (2, 100, 100_000)] == [1, 25, 512]
    few = draw_flat(tmp_path / "few", num_photos=3)
    with pytest.raises(FitError, match="3 readable photos"):
        make_pretrained(
            PretrainedConfig(
                backbone=SMALL, weights=str(weights), out=tmp_path / "x", size=32, whiten=[few]
            )
        )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_v2", "mobilenet_v2_imagenet_dequant.pth"),
        ("squeezenet1_1", "squeezenet1_1_imagenet_features.pth"),
    ],
)
def test_real_weights_find_the_same_object(
    test_data: Path, tmp_path: Path, name: str, file: str
) -> None:
    """Photos of five real objects are each nearest to another photo of the same object."""
    out = make_pretrained(
        PretrainedConfig(
            backbone=name,
            weights=str(test_data / "weights" / file),
            out=tmp_path / "x.safetensors",
            size=128,
        )
    )
    model = load_checkpoint(out).model
    assert model.classifier is None
    assert _first_hits(model, test_data) >= 0.8


def _first_hits(model: nn.Module, test_data: Path) -> float:
    """Return recall@1 of the instance, each photo of five instances against the others."""
    import csv

    from multigrain.transforms import Preprocessing
    from trainer.inputs.reading import prepared_batches, prepared_photo

    with (test_data / "instances" / "gallery.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["instance"]]
    chosen = sorted({row["instance"] for row in rows})[:5]
    rows = [row for row in rows if row["instance"] in chosen]
    rule = Preprocessing(size=128, rule="crop")
    paths = [test_data / "instances" / row["path"] for row in rows]
    found = {}
    for batch in prepared_batches(
        lambda number: prepared_photo(PhotoSet.of_paths(paths), number, rule),
        len(paths),
        skipped=[],
    ):
        with torch.inference_mode():
            found |= dict(zip(batch.numbers, model(batch.pixels).embedding, strict=True))
    embedding = torch.stack([found[number] for number in range(len(paths))])
    nearest = (embedding @ embedding.T).fill_diagonal_(-1).argmax(dim=1).tolist()
    hits = [
        rows[number]["instance"] == rows[other]["instance"] for number, other in enumerate(nearest)
    ]
    return sum(hits) / len(hits)

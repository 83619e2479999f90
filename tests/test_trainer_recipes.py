"""Every recipe is valid, says why, and trains."""

import re
from pathlib import Path
from typing import Any

import pytest
from trainer_fixtures import draw_small

from multigrain.checkpoint import load_checkpoint
from multigrain.program import load_config
from trainer.engine.processes import alone
from trainer.settings import TrainConfig
from trainer.train import train

RECIPES = sorted((Path(__file__).parents[1] / "trainer" / "recipes").glob("*.yaml"))
# A small trunk of the same kind, so that patterns and options still find their part.
SMALL = {"resnet50": "resnet18", "timm:vit_small_patch16_224": "timm:test_vit"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_small(tmp_path_factory.mktemp("photos") / "drawn")


def read(recipe: Path, *flags: str) -> TrainConfig:
    argv = ["--config", str(recipe), "--data", "x", "--out", "y", *flags]
    return load_config(TrainConfig, prog="prog", description="", argv=argv, environ={})


def cheaper(config: TrainConfig, **places: Path) -> TrainConfig:
    """The same training of a smaller model on fewer and smaller views."""
    changes: dict[str, Any] = {
        "backbone": SMALL.get(config.backbone, config.backbone),
        "weights": "none",
        "size": 32,
        "test_size": 32,
        "more_test_sizes": [48] if config.more_test_sizes else [],
        "reduction": config.reduction and 16,
        "batch_size": 6,
        "duration": "2step",
        "compile": "no",
        "num_workers": 0,
        "num_threads": 1,
        "validate_every": "100%",
        "val_fraction": 0.5,
        "whiten_dim": 2 if config.whiten_dim else config.whiten_dim,
        "tensorboard": False,
    }
    return TrainConfig.from_values(config.model_dump(by_alias=True) | changes | places)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_trains_for_two_steps(recipe: Path, photos: Path, tmp_path: Path) -> None:
    """With its own losses, sampler, schedule and optimiser, up to a checkpoint."""
    if "timm:" in recipe.read_text():
        pytest.importorskip("timm")
    config = cheaper(read(recipe), data=photos, out=tmp_path / "run")
    path = train(config, alone())
    assert path is not None
    document = load_checkpoint(path).document
    assert document.training is not None
    assert document.training.steps == 2


def test_every_recipe_says_what_it_is_for_and_why() -> None:
    """A head of some lines, and reasons beside its numbers."""
    assert {"resnet50", "resnet50-modern", "products", "landmarks", "vit", "demo"} <= {
        recipe.stem for recipe in RECIPES
    }
    for recipe in RECIPES:
        text = recipe.read_text()
        assert text.startswith("# "), recipe
        assert len(re.findall(r"#", text)) >= 4, recipe


def test_the_paper_s_recipe_counts_views() -> None:
    """120 of the paper's epochs, the rate a tenth after 30, 60 and 90 of them."""
    config = read(RECIPES[0].with_name("resnet50.yaml"))
    epoch = 2 * 1_281_167
    assert config.duration == f"{120 * epoch}img"
    assert config.rate_steps == tuple(f"{n * epoch}img" for n in (30, 60, 90))
    assert config.batch_size % (8 * config.num_views) == 0


def test_the_printed_settings_are_settings_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Every field of every recipe survives `--print-config` and `--config`."""
    for recipe in RECIPES:
        with pytest.raises(SystemExit):
            read(recipe, "--print-config")
        printed = tmp_path / recipe.name
        printed.write_text(capsys.readouterr().out)
        assert read(printed) == read(recipe)
        assert set(TrainConfig.model_fields) <= {
            f"{name}_" if name == "lambda" else name
            for name in re.findall(r"^(\w+):", printed.read_text(), flags=re.MULTILINE)
        }

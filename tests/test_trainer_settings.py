"""Settings of the trainer that would do nothing are refused, or said to be idle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.ablation_configurations import CONFIGURATIONS, Run
from multigrain.config import ConfigError
from multigrain.program import load_config
from trainer.engine.optimiser import OptimiserError, OptimiserSettings, Rates, build_optimiser
from trainer.settings import TrainConfig
from trainer.settings_used import idle_settings

RECIPES = sorted((Path(__file__).parents[1] / "trainer" / "recipes").glob("*.yaml"))
USUAL = {"data": "x", "out": "y"}


def read(recipe: Path, *flags: str) -> TrainConfig:
    argv = ["--config", str(recipe), "--data", "x", "--out", "y", *flags]
    return load_config(TrainConfig, prog="prog", description="", argv=argv, environ={})


def are_taken(changes: dict[str, Any]) -> bool:
    """Whether these settings are valid, and are what they were given as."""
    given = TrainConfig.from_values(USUAL | changes).model_fields_set
    return {name.removesuffix("_") for name in given} == USUAL.keys() | changes.keys()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rate_power": 2}, "--rate-power 2.0 does nothing here: .* --schedule polynomial"),
        ({"final_rate": 0.1, "schedule": "constant"}, "--final-rate .* cosine, linear or poly"),
        ({"rate_factor": 0.5}, r"--rate-factor .* leave --rate-factor out \(--rate-factor 0.1\)"),
        ({"adam_beta2": 0.9}, "--adam-beta2 .* --optimiser adam"),
        ({"mix_share": 1}, "--mix-share .* --mixup or --cutmix"),
        ({"photos_per_class": 2}, "--photos-per-class .* --sampler pk"),
        ({"freeze_until": "1ep"}, "--freeze-until 1ep .* --freeze"),
        ({"lambda": 0, "label_smoothing": 0.1}, "--label-smoothing .* --lambda above 0"),
        ({"pooling": "avg", "p": 2}, "--p 2.0 .* --pooling gem"),
        ({"pooling": "avg", "exponents": [2]}, "--exponents .* --pooling gem"),
        ({"val": "z", "val_fraction": 0.2}, "--val-fraction .* no --val"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(changes: dict[str, Any], expected: str) -> None:
    """With what it goes with, and its default for a recipe that one begins from."""
    with pytest.raises(ConfigError, match=expected):
        TrainConfig.from_values(USUAL | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate_power": 2, "schedule": "polynomial"},
        {"rate_factor": 0.5, "schedule": "exponential"},
        {"adam_beta2": 0.9, "optimiser": "timm:lamb"},
        {"mix_share": 1, "cutmix": 0.4},
        {"label_smoothing": 0.1},
        {"pooling": "avg", "exponents": []},
        {"val": "z", "val_fraction": 0},
    ],
)
def test_the_same_setting_is_taken_where_it_is_used(changes: dict[str, Any]) -> None:
    """And where it only says what is so without it."""
    assert are_taken(changes)


@pytest.mark.parametrize("changes", [{"pair_losses": "proxy-anchor"}, {"positives": "class"}])
def test_one_view_and_no_classifier_learn_from_classes(changes: dict[str, Any]) -> None:
    """Proxies and positives of a class need no second view of a photo."""
    assert are_taken({"lambda": 0, "num_views": 1} | changes)


def optimiser_of(name: str, **changes: float) -> torch.optim.Optimizer:
    usual = {"learning_rate": 0.1, "momentum": 0.9, "dampening": 0.0, "beta2": 0.999}
    constants: Any = usual | {"nesterov": False, "weight_decay": 0.0} | changes
    settings = OptimiserSettings(name=name, **constants)
    return build_optimiser(nn.Linear(2, 2), settings, decay_norms=True, rates=Rates())


def test_timm_s_optimisers_take_the_betas_that_are_given() -> None:
    """Their own at the defaults; what an optimiser does not take is refused."""
    pytest.importorskip("timm")
    assert optimiser_of("timm:lamb", beta2=0.9).defaults["betas"] == (0.9, 0.9)
    assert optimiser_of("timm:lion").defaults["betas"] == (0.9, 0.99)
    assert optimiser_of("timm:sgdw", momentum=0.5).defaults["momentum"] == 0.5
    with pytest.raises(OptimiserError, match="timm:sgdw takes no --adam-beta2"):
        optimiser_of("timm:sgdw", beta2=0.9)
    with pytest.raises(OptimiserError, match="timm:adagrad takes no --momentum"):
        optimiser_of("timm:adagrad", momentum=0.5)


@pytest.mark.parametrize(("name", "value"), [("whiten_dim", 0), ("lambda_", 1), ("exponents", ())])
def test_a_recipe_takes_a_flag_that_leaves_parts_of_it_idle(name: str, value: Any) -> None:
    """What is idle then is said, not refused."""
    flag = f"--{name.removesuffix('_').replace('_', '-')}"
    for recipe in RECIPES:
        config = read(recipe, flag, "" if value == () else str(value))
        assert getattr(config, name) == value
    small = read(RECIPES[0].with_name("cpu-small.yaml"), "--lambda", "0", "--whiten-dim", "0")
    assert idle_settings(small, lambda_=0.0) == [
        "with lambda 0 nothing uses --head, --head-scale, --head-margin",
    ]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda row: row.name)
def test_every_row_of_the_ablation_is_a_valid_run(configuration: Any) -> None:
    """Whatever one factor leaves idle in the recipe."""
    settings = Run(configuration, 0).settings()
    assert settings.keys() <= TrainConfig(data="x", out="y", **settings).model_fields_set


def test_a_value_that_a_check_refuses_is_named_once() -> None:
    """By its flag, in the check's own words."""
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_values(USUAL | {"duration": "5epochs"})
    assert str(caught.value).startswith("--duration: '5epochs' is no ")
    assert str(caught.value).count("5epochs") == 1

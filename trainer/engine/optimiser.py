"""The optimiser and its parameter groups: who decays, who learns at which share of the rate."""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multigrain.errors import MultiGrainError
from trainer.settings_engine import TIMM, EngineSettings

_TRUNK = "model.backbone."
_EXPONENT = "model.pool.p"
_BETA = "beta"
_NUM_BETAS = 2
_NUMBERED = re.compile(r"(?:[^.\d]*\.)*[^.]*\d[^.]*")


class OptimiserError(MultiGrainError):
    """An optimiser that cannot be had."""


class Rates(NamedTuple):
    """Shares of the learning rate; `layer_decay` multiplies it from each stage to the one below."""

    head: float = 1.0
    bias: float = 1.0
    beta: float = 1.0
    layer_decay: float = 1.0


class OptimiserSettings(NamedTuple):
    """An optimiser by name, sgd, adam, adamw, rmsprop or timm:NAME, and its constants."""

    name: str
    learning_rate: float
    momentum: float
    nesterov: bool
    dampening: float
    beta2: float
    weight_decay: float


def build_optimiser(
    objective: nn.Module,
    settings: OptimiserSettings,
    *,
    decay_norms: bool,
    rates: Rates,
) -> torch.optim.Optimizer:
    """Return the optimiser of everything that learns; each group carries its `rate_factor`.

    Beta and a learned p never decay: their zero means nothing. Norms and biases decay only if
    asked (the paper decays them). Raises OptimiserError for a name that does not exist.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    stages = stages_of(objective)
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            factor = _factor(name, parameter, rates, stages)
            decays = parameter.ndim > 1 or (decay_norms and name not in {_BETA, _EXPONENT})
            key = (factor, settings.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    return _OPTIMISERS[_kind(settings.name)](
        [
            {"params": parameters, "weight_decay": decay, "rate_factor": factor}
            for (factor, decay), parameters in groups.items()
        ],
        settings,
    )


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of a rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate_factor"]


def skips_on_device(optimiser: torch.optim.Optimizer) -> bool:
    """Whether a step takes `found_inf` from the device, so that skipping it waits for nothing."""
    return bool(getattr(optimiser, "_step_supports_amp_scaling", False))


def stages_of(objective: nn.Module) -> dict[str, int]:
    """Number the stage of each of the trunk's parameters, from 0 at the input.

    A stage is a name up to its first part with a number: `layer1`, `blocks.3`, `features.2`.
    What has no number belongs to the stage before it, or to the first.
    """
    stages: dict[str, int] = {}
    known: dict[str, int] = {}
    for name, _ in objective.named_parameters():
        if name.startswith(_TRUNK):
            numbered = _NUMBERED.match(name.removeprefix(_TRUNK))
            if numbered:
                known.setdefault(numbered[0], len(known))
            stages[name] = known[numbered[0]] if numbered else max(0, len(known) - 1)
    return stages


def _factor(name: str, parameter: nn.Parameter, rates: Rates, stages: dict[str, int]) -> float:
    if name == _BETA:
        return rates.beta
    if name == _EXPONENT:
        return 1.0
    factor = rates.bias if name.endswith(".bias") and parameter.ndim == 1 else 1.0
    if name in stages:
        # The head learns at the full rate, the trunk's last stage one factor below it.
        below_head = 1 + max(stages.values()) - stages[name]
        return float(factor * rates.layer_decay**below_head)
    return factor * rates.head


Groups = list[dict[str, Any]]


def _sgd(groups: Groups, settings: OptimiserSettings) -> torch.optim.Optimizer:
    optimiser = torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        dampening=settings.dampening,
        fused=_fuses(groups),
    )
    if settings.momentum:
        # Zeros, not torch's uninitialised buffers: a first step may be skipped on the device.
        for parameter in _parameters(groups):
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


def _adam(groups: Groups, settings: OptimiserSettings) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(
        groups,
        lr=settings.learning_rate,
        betas=(settings.momentum, settings.beta2),
        fused=_fuses(groups),
    )


def _rmsprop(groups: Groups, settings: OptimiserSettings) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        groups, lr=settings.learning_rate, momentum=settings.momentum, alpha=settings.beta2
    )


def _timm(groups: Groups, settings: OptimiserSettings) -> torch.optim.Optimizer:
    try:
        from timm.optim import (  # type: ignore[attr-defined]
            create_optimizer_v2,
            get_optimizer_info,
        )
    except ImportError as error:
        raise OptimiserError(
            f"--optimiser {settings.name} needs timm: pip install 'multigrain-retrieval[timm]'"
        ) from error
    name = settings.name.removeprefix(TIMM)
    try:
        betas = _timm_betas(get_optimizer_info(name.split("_")[-1].lower()), settings)
        optimiser: torch.optim.Optimizer = create_optimizer_v2(
            groups,
            opt=name,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **betas,
        )
    except (ValueError, KeyError, AssertionError) as error:
        raise OptimiserError(
            f"timm has no optimiser {name!r} ({error}): timm.optim.list_optimizers() names them"
        ) from error
    return optimiser


def _timm_betas(info: Any, settings: OptimiserSettings) -> dict[str, Any]:
    """The betas asked for; at the settings' defaults an optimiser keeps its own.

    Raises OptimiserError for a momentum or beta that the optimiser does not take.
    """
    given = {
        "momentum": settings.momentum != _default_of("momentum"),
        "adam_beta2": settings.beta2 != _default_of("adam_beta2"),
    }
    takes_betas = info.has_betas and info.num_betas == _NUM_BETAS
    taken = {"momentum": takes_betas or info.has_momentum, "adam_beta2": takes_betas}
    for name, is_given in given.items():
        if is_given and not taken[name]:
            raise OptimiserError(
                f"--optimiser {settings.name} takes no --{name.replace('_', '-')}: leave it out"
            )
    if takes_betas and (given["adam_beta2"] or (given["momentum"] and not info.has_momentum)):
        return {"betas": (settings.momentum, settings.beta2)}
    return {}


def _default_of(name: str) -> object:
    return EngineSettings.model_fields[name].default


_OPTIMISERS: dict[str, Callable[[Groups, OptimiserSettings], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adam,
    "rmsprop": _rmsprop,
    TIMM: _timm,
}


def _kind(name: str) -> str:
    kind = TIMM if name.startswith(TIMM) else name
    if kind not in _OPTIMISERS:
        raise OptimiserError(
            f"no optimiser named {name!r}: take sgd, adam, adamw, rmsprop, or timm:NAME"
        )
    return kind


def _parameters(groups: Groups) -> Iterable[Tensor]:
    return (parameter for group in groups for parameter in group["params"])


def _fuses(groups: Groups) -> bool:
    """Whether torch has fused kernels for where the parameters lie."""
    return all(parameter.device.type in {"cpu", "cuda"} for parameter in _parameters(groups))

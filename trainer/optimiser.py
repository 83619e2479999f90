"""The optimiser's parameter groups and the learning rate's course."""

import math

import torch
from torch import nn

from trainer.objective import Objective


def build_optimiser(
    objective: Objective,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    decay_norms: bool,
    beta_rate_factor: float,
) -> torch.optim.SGD:
    """Return SGD over the groups weights, norms and biases, beta, p.

    Each group carries its `rate_factor`. Beta and a learned p never decay: their zero means
    nothing. Norms and biases decay only if asked (the paper decays them).
    """
    scalars = {
        name: parameter
        for name, parameter in objective.named_parameters()
        if name in ("beta", "model.pool.p")
    }
    others = [p for name, p in objective.named_parameters() if name not in scalars]
    groups = [
        _group([p for p in others if p.ndim > 1], weight_decay, 1.0),
        _group([p for p in others if p.ndim <= 1], weight_decay if decay_norms else 0.0, 1.0),
        _group([p for name, p in scalars.items() if name == "beta"], 0.0, beta_rate_factor),
        _group([p for name, p in scalars.items() if name != "beta"], 0.0, 1.0),
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]], lr=learning_rate, momentum=momentum
    )


def _group(
    parameters: list[nn.Parameter], weight_decay: float, rate_factor: float
) -> dict[str, object]:
    return {"params": parameters, "weight_decay": weight_decay, "rate_factor": rate_factor}


def rate_at(fraction: float, *, warmup: float) -> float:
    """Return the share of the peak rate at a fraction [0, 1] of training.

    It climbs in a straight line over the first `warmup` and falls to 0 along a cosine.
    """
    if fraction < warmup:
        return fraction / warmup
    return 0.5 * (1 + math.cos(math.pi * (fraction - warmup) / (1 - warmup)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of a rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate_factor"]

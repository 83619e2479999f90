"""Build what does a step of training: optimiser, average of the weights, numerics."""

from collections.abc import Callable

import torch
from torch import nn

from trainer.engine.course import Course, steps_of
from trainer.engine.ema import WeightAverage
from trainer.engine.freezing import Freezing
from trainer.engine.guard import Guard
from trainer.engine.numerics import numerics_of
from trainer.engine.optimiser import OptimiserSettings, Rates, build_optimiser
from trainer.engine.stepper import DevicePart, Numbers, Stepper
from trainer.engine.stopwatch import stopwatch_for
from trainer.inputs.sampler import BatchPlan
from trainer.losses.objective import Objective
from trainer.settings import TrainConfig

Say = Callable[[str], None]


def build_stepper(
    config: TrainConfig,
    plan: BatchPlan,
    course: Course,
    *,
    objective: Objective,
    wrapped: nn.Module,
    device_part: DevicePart,
    freezing: Freezing | None,
    device: torch.device,
    say: Say,
) -> Stepper:
    """Build what does a step; `wrapped` is the objective, behind DDP with several processes."""
    numerics = numerics_of(config.precision, device)
    optimiser = build_optimiser(
        objective,
        OptimiserSettings(
            name=config.optimiser,
            learning_rate=course.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            dampening=config.dampening,
            beta2=config.adam_beta2,
            weight_decay=config.weight_decay,
        ),
        decay_norms=config.decay_norms,
        rates=Rates(
            head=config.head_rate_factor,
            bias=config.bias_rate_factor,
            beta=config.beta_rate_factor,
            layer_decay=config.layer_decay,
        ),
    )
    return Stepper(
        objective=objective,
        wrapped=wrapped,
        optimiser=optimiser,
        numerics=numerics,
        device_part=device_part,
        guard=Guard(most_in_row=config.max_nonfinite_steps, device=numerics.device),
        stopwatch=stopwatch_for(numerics.device),
        average=_average(config, plan, course, objective, say=say),
        freezing=freezing,
        numbers=Numbers(
            seed=config.seed,
            accumulate=config.accumulate,
            clip_norm=config.clip_norm,
            freeze_until=course.freeze_until,
            channels_last=config.channels_last,
        ),
    )


def _average(
    config: TrainConfig, plan: BatchPlan, course: Course, objective: Objective, *, say: Say
) -> WeightAverage | None:
    if config.ema_half_life is None:
        return None
    half_life = steps_of(
        config.ema_half_life,
        plan=plan,
        views_per_step=config.batch_size,
        num_steps=course.num_steps,
    )
    say(
        f"validated and published is the average of the weights, half-life {half_life:.0f} steps, "
        f"shorter in the first steps"
    )
    return WeightAverage(objective.model, half_life_steps=half_life)

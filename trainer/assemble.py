"""Build the loop of a training run from its settings."""

from collections.abc import Callable

import torch
from torch import nn

from multigrain.document import Document
from trainer.bad_photos import BadPhotos
from trainer.data import Data
from trainer.duration import parse_duration
from trainer.loop import Course, Loop
from trainer.objective import Objective
from trainer.optimiser import build_optimiser
from trainer.processes import Processes
from trainer.resume import identity_of
from trainer.runfolder import RunFolder
from trainer.sampler import BatchPlan
from trainer.settings import TrainConfig
from trainer.validate import validate

BF16_CAPABILITY = (8, 0)

Say = Callable[[str], None]


def build_loop(
    config: TrainConfig,
    data: Data,
    *,
    document: Document,
    plan: BatchPlan,
    objective: Objective,
    wrapped: nn.Module,
    processes: Processes,
    run: RunFolder,
    say: Say,
) -> Loop:
    """Put the loop together."""
    optimiser = build_optimiser(
        objective,
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        decay_norms=config.decay_norms,
        beta_rate_factor=config.beta_rate_factor,
    )

    def scores() -> dict[str, float]:
        if not data.validation.names:
            return {}
        return validate(objective.model, data.validation, document.preprocessing, say=say)

    return Loop(
        objective=objective,
        wrapped=wrapped,
        optimiser=optimiser,
        course=_course(config, plan, processes),
        processes=processes,
        run=run,
        bad_photos=BadPhotos(data.training, max_share=config.max_bad_share),
        validate=scores,
        identity=identity_of(config, data.training),
    )


def _course(config: TrainConfig, plan: BatchPlan, processes: Processes) -> Course:
    def steps(text: str, num_steps: int = 0) -> float:
        return parse_duration(text).steps(
            steps_per_epoch=plan.num_photos / plan.photos_per_step,
            views_per_step=config.batch_size,
            num_steps=num_steps,
        )

    num_steps = max(1, round(steps(config.duration)))
    every = steps(config.validate_every, num_steps)
    return Course(
        num_steps=num_steps,
        num_photos=plan.num_photos,
        photos_per_step=plan.photos_per_step,
        learning_rate=config.learning_rate,
        warmup=steps(config.warmup, num_steps) / num_steps,
        seed=config.seed,
        bf16=_uses_bf16(config.precision, processes.device),
        log_every_steps=config.log_every_steps,
        validate_every_epochs=every * plan.photos_per_step / plan.num_photos,
        checkpoint_every_seconds=60 * config.checkpoint_every_minutes,
    )


def _uses_bf16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bf16"
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY

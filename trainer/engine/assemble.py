"""Build the loop of a training run from its settings."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from multigrain.document import Document
from multigrain.model import MultiGrain
from trainer.engine.batchnorm import synchronise
from trainer.engine.best import Best
from trainer.engine.compiling import Trial, choose
from trainer.engine.course import Course, build_course, steps_of
from trainer.engine.ema import WeightAverage
from trainer.engine.freezing import Freezing, freeze
from trainer.engine.guard import Guard
from trainer.engine.journal import Journal
from trainer.engine.logbook import Logbook, board_opener
from trainer.engine.loop import Loop
from trainer.engine.numerics import Numerics, make_deterministic, numerics_of
from trainer.engine.optimiser import OptimiserSettings, Rates, build_optimiser
from trainer.engine.processes import Processes
from trainer.engine.resume import identity_of
from trainer.engine.runfolder import Retention, RunFolder
from trainer.engine.saving import StateWriter
from trainer.engine.stepper import DevicePart, Numbers, Stepper
from trainer.engine.stopwatch import stopwatch_for
from trainer.finishing.validate import SCORES, validate
from trainer.inputs.bad_photos import BadPhotos
from trainer.inputs.data import Data
from trainer.inputs.sampler import BatchPlan
from trainer.losses.objective import Objective
from trainer.settings import TrainConfig
from trainer.settings_used import idle_settings

Say = Callable[[str], None]


def prepare_model(
    config: TrainConfig, model: MultiGrain, plan: BatchPlan, processes: Processes, *, say: Say
) -> Freezing | None:
    """Set up what must be so before DDP sees the model: repeatability, batch norm, freezing."""
    on_gpu = processes.device.type == "cuda"
    if config.deterministic:
        make_deterministic(say)
    elif on_gpu:
        torch.backends.cudnn.benchmark = True  # every step has one shape
    if config.sync_bn:
        synchronise(model, on_gpu=on_gpu, say=say)
    course = build_course(config, plan)
    return freeze(
        model, config.freeze, until=course.freeze_until, num_steps=course.num_steps, say=say
    )


def build_loop(
    config: TrainConfig,
    data: Data,
    *,
    document: Document,
    plan: BatchPlan,
    objective: Objective,
    wrapped: nn.Module,
    device_part: DevicePart,
    freezing: Freezing | None,
    processes: Processes,
    run: RunFolder,
    say: Say,
    keep: Say,
) -> Loop:
    """Put the loop together; `keep` takes the lines that only the log shows."""
    course = build_course(config, plan)
    numerics = numerics_of(config.precision, processes.device)
    _say_course(config, course, numerics, say=say)
    for line in idle_settings(config, lambda_=data.lambda_):
        say(line)
    stepper = _stepper(
        config,
        course,
        numerics=numerics,
        objective=objective,
        wrapped=wrapped,
        device_part=device_part,
        average=_average(config, plan, course, objective, say=say),
        freezing=freezing,
    )
    photos = data.training

    def photos_of(step: int) -> list[str]:
        ranks = range(processes.world)
        draws = (draw for rank in ranks for draw in plan.photos_of(step, rank))
        return [photos.names[draw.photo_id] for draw in draws]

    def scores(model: MultiGrain) -> dict[str, float]:
        if not data.validation.names:
            return {}
        return validate(model, data.validation, document.preprocessing, say=say)

    board = board_opener(run, wanted=config.tensorboard, say=say)
    return Loop(
        stepper=stepper,
        course=course,
        processes=processes,
        run=run,
        writer=_writer(config, course, plan, run),
        journal=Journal(
            objective=objective,
            course=course,
            guard=stepper.guard,
            stopwatch=stepper.stopwatch,
            logbook=Logbook(run, keep=keep, board=board) if processes.is_first else None,
            photos_of=photos_of,
            device=processes.device,
        ),
        bad_photos=BadPhotos(photos, max_share=config.max_bad_share),
        best=Best(by=config.best_by, mode=config.best_mode, known=SCORES, say=say),
        validate=scores,
        choose_compile=lambda: choose(
            config.compile,
            objective.model.backbone,
            Trial(config.batch_size // processes.world // config.accumulate, config.size),
            numerics=numerics,
            processes=processes,
            say=say,
        ),
        identity=identity_of(config, photos, precision=numerics.precision),
    )


def _stepper(
    config: TrainConfig,
    course: Course,
    *,
    numerics: Numerics,
    objective: Objective,
    wrapped: nn.Module,
    device_part: DevicePart,
    average: WeightAverage | None,
    freezing: Freezing | None,
) -> Stepper:
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
        average=average,
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


def _writer(config: TrainConfig, course: Course, plan: BatchPlan, run: RunFolder) -> StateWriter:
    every = config.keep_every
    kept = Retention(
        last=config.keep_last,
        every_steps=None
        if every is None
        else max(
            1.0,
            steps_of(
                every, plan=plan, views_per_step=config.batch_size, num_steps=course.num_steps
            ),
        ),
    )
    return StateWriter(partial(run.save, kept=kept))


def _say_course(config: TrainConfig, course: Course, numerics: Numerics, *, say: Say) -> None:
    precision = str(numerics.dtype).removeprefix("torch.")
    say(
        f"{course.num_steps} steps of {course.views_per_step} views, "
        f"{course.epochs_at(course.num_steps):.4g} passes over {course.num_photos} photos, "
        f"on {numerics.device.type} in {precision}"
    )
    if config.reference_batch is not None:
        say(
            f"peak rate {course.learning_rate:.4g}: {config.learning_rate:.4g} is meant for "
            f"{config.reference_batch} views, a step here has {config.batch_size}"
        )
    if config.accumulate > 1:
        say(
            f"a step averages {config.accumulate} micro-batches; pairs and batch norm see one "
            f"micro-batch at a time"
        )

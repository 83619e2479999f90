"""Put a training run together from its settings."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from multigrain.document import Document
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.engine.batchnorm import synchronise
from trainer.engine.best import Best
from trainer.engine.build_stepper import build_stepper
from trainer.engine.compiling import Trial, choose
from trainer.engine.course import Course, build_course, steps_of
from trainer.engine.freezing import Freezing, freeze
from trainer.engine.journal import Journal
from trainer.engine.logbook import Logbook, board_opener
from trainer.engine.loop import Loop
from trainer.engine.numerics import Numerics, make_deterministic
from trainer.engine.processes import Processes
from trainer.engine.resume import identity_of
from trainer.engine.runfolder import Retention, RunFolder
from trainer.engine.saving import StateWriter
from trainer.engine.stepper import Stepper
from trainer.finishing.validate import SCORES, validate
from trainer.inputs.bad_photos import BadPhotos
from trainer.inputs.data import Data, build_device_part, read_data
from trainer.inputs.labels import PhotoSet
from trainer.inputs.sampler import BatchPlan
from trainer.losses.build_objective import build_objective, build_plan
from trainer.models.build_model import build_model
from trainer.settings import TrainConfig
from trainer.settings_used import idle_settings

Say = Callable[[str], None]


class Assembly(NamedTuple):
    """A run put together, before its first step."""

    data: Data
    document: Document
    plan: BatchPlan
    loop: Loop


def assemble(
    config: TrainConfig,
    processes: Processes,
    run: RunFolder,
    *,
    say: Say,
    keep: Say,
    make_model: Callable[..., tuple[Document, MultiGrain]] = build_model,
) -> Assembly:
    """Read the data and build all that trains on it; nothing is written yet.

    `keep` takes the lines that only the log shows; `make_model` is called as `build_model` is.
    Raises what a wrong setting or wrong data raise, of the MultiGrainError family.
    """
    data = read_data(config, say=say)
    document, model = make_model(config, data, say=say)
    plan = build_plan(config, data, processes)
    course = build_course(config, plan)
    freezing = _prepare_model(config, model, course, processes, say=say)
    objective, wrapped = build_objective(config, data, model, plan, processes)
    stepper = build_stepper(
        config,
        plan,
        course,
        objective=objective,
        wrapped=wrapped,
        device_part=build_device_part(config, processes),
        freezing=freezing,
        device=processes.device,
        say=say,
    )
    _say_course(config, course, stepper.numerics, lambda_=data.lambda_, say=say)
    book = Logbook(run, keep=keep, board=board_opener(run, wanted=config.tensorboard, say=say))
    loop = Loop(
        stepper=stepper,
        course=course,
        processes=processes,
        run=run,
        writer=_writer(config, course, plan, run),
        journal=_journal(
            stepper, course, plan, photos=data.training, processes=processes, book=book
        ),
        bad_photos=BadPhotos(data.training, max_share=config.max_bad_share),
        best=Best(by=config.best_by, mode=config.best_mode, known=SCORES, say=say),
        validate=partial(_scores, data.validation, document.preprocessing, say),
        choose_compile=partial(_choose_compile, config, stepper, processes, say),
        identity=identity_of(config, data.training, precision=stepper.numerics.precision),
    )
    return Assembly(data, document, plan, loop)


def _prepare_model(
    config: TrainConfig, model: MultiGrain, course: Course, processes: Processes, *, say: Say
) -> Freezing | None:
    """Set up what must be so before DDP sees the model: repeatability, batch norm, freezing."""
    on_gpu = processes.device.type == "cuda"
    if config.deterministic:
        make_deterministic(say)
    elif on_gpu:
        torch.backends.cudnn.benchmark = True  # every step has one shape
    if config.sync_bn:
        synchronise(model, on_gpu=on_gpu, say=say)
    return freeze(
        model, config.freeze, until=course.freeze_until, num_steps=course.num_steps, say=say
    )


def _journal(
    stepper: Stepper,
    course: Course,
    plan: BatchPlan,
    *,
    photos: PhotoSet,
    processes: Processes,
    book: Logbook,
) -> Journal:
    def photos_of(step: int) -> list[str]:
        ranks = range(processes.world)
        draws = (draw for rank in ranks for draw in plan.photos_of(step, rank))
        return [photos.names[draw.photo_id] for draw in draws]

    return Journal(
        objective=stepper.objective,
        course=course,
        guard=stepper.guard,
        stopwatch=stepper.stopwatch,
        logbook=book if processes.is_first else None,
        photos_of=photos_of,
        device=processes.device,
    )


def _scores(
    photos: PhotoSet, preprocessing: Preprocessing, say: Say, model: MultiGrain
) -> dict[str, float]:
    return validate(model, photos, preprocessing, say=say) if photos.names else {}


def _choose_compile(config: TrainConfig, stepper: Stepper, processes: Processes, say: Say) -> bool:
    return choose(
        config.compile,
        stepper.objective.model.backbone,
        Trial(config.batch_size // processes.world // config.accumulate, config.size),
        numerics=stepper.numerics,
        processes=processes,
        say=say,
    )


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


def _say_course(
    config: TrainConfig, course: Course, numerics: Numerics, *, lambda_: float, say: Say
) -> None:
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
    for line in idle_settings(config, lambda_=lambda_):
        say(line)

"""The end of a run: p*, whitening, scores of the finished model, its checkpoint, the report."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from multigrain.checkpoint import save_checkpoint
from multigrain.document import Document, TrainingSpec
from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from trainer.engine.loop import Loop
from trainer.engine.processes import Processes
from trainer.engine.runfolder import RunFolder
from trainer.finishing.exponent_choice import Choice
from trainer.finishing.exponent_grid import find_exponents
from trainer.finishing.exponent_use import set_exponent
from trainer.finishing.findings import evaluate, spectrum_of
from trainer.finishing.fit_whitening import check_bearable, fit_on, photos_wanted
from trainer.finishing.report_data import (
    REPORT_DATA,
    ReportData,
    Scores,
    Spectrum,
    write_report_data,
)
from trainer.inputs.data import Data
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import spread
from trainer.report import write_report
from trainer.settings import TrainConfig

Say = Callable[[str], None]


class FinishError(MultiGrainError):
    """A trained model that could not be finished."""


class WhiteningPlan(NamedTuple):
    """The whitening at the end of a run; `dim` None is as many as the photos bear."""

    photos: PhotoSet
    dim: int | None
    power: float
    floor: float


class FinishPlan(NamedTuple):
    """What is done with trained weights; the first of `sizes` is the one in use."""

    data: Data
    sizes: tuple[int, ...]
    exponents: tuple[float, ...]
    whitening: WhiteningPlan | None
    report: bool


class Trained(NamedTuple):
    """What training hands over: the model to publish and what is known of it."""

    model: MultiGrain
    document: Document
    training: TrainingSpec
    scores: dict[str, float]


def plan_finish(config: TrainConfig, data: Data, document: Document, *, say: Say) -> FinishPlan:
    """Return what is to be done after training.

    It is made before the first step, so that a whitening which cannot succeed costs no
    training: raises FitError for more dimensions than the embedding or the photos give.
    """
    whitening = plan_whitening(
        data.training,
        feature_dim=document.reduced_dim,
        dim=config.whiten_dim,
        most_photos=config.whiten_photos,
        power=config.whiten_power,
        floor=config.whiten_floor,
        say=say,
    )
    sizes = tuple(dict.fromkeys((document.preprocessing.size, *config.more_test_sizes)))
    has_exponent = document.pooling.p is not None and data.validation.names
    exponents = config.exponents if has_exponent else ()
    return FinishPlan(data, sizes, exponents, whitening, config.report)


def plan_whitening(
    photos: PhotoSet,
    *,
    feature_dim: int,
    dim: int | None,
    most_photos: int,
    power: float,
    floor: float,
    say: Say,
) -> WhiteningPlan | None:
    """Return the plan, or None for `dim` 0 and, without a `dim`, for photos too few to bear 32.

    Raises FitError for a whitening that cannot succeed.
    """
    if dim == 0:
        return None
    taken = photos.pick(spread(len(photos.names), most_photos))
    if dim is None and len(taken.names) < (wanted := photos_wanted(feature_dim)):
        say(
            f"no whitening: fitted on {len(taken.names)} photos, fewer than {wanted}, it would "
            f"lose neighbours; --whiten-dim asks for it all the same"
        )
        return None
    check_bearable(dim=dim, feature_dim=feature_dim, num_photos=len(taken.names))
    return WhiteningPlan(taken, dim, power, floor)


def training_of(loop: Loop, *, num_views: int) -> TrainingSpec:
    """Return what the document says of a training that is done."""
    objective = loop.objective
    beta = float(objective.beta.detach()) if objective.uses_margin else objective.margin.beta
    return TrainingSpec(
        lambda_=objective.lambda_, beta=beta, views=num_views, steps=loop.course.num_steps
    )


def finish(
    trained: Trained, plan: FinishPlan, *, processes: Processes, run: RunFolder, say: Say
) -> Path:
    """Turn trained weights into the checkpoint in use, and return its path.

    Exponents first, then the whitening at the exponent of the test size, then the scores of
    what has come out, the checkpoint, and the report. Every process helps, the first one
    writes. Raises FinishError when a stage before the checkpoint fails; the trained model is
    then in the run's folder without a whitening.
    """
    model, document, choices = (
        trained.model.eval(),
        _trained_document(trained),
        tuple[Choice, ...](),
    )
    set_exponent(model, document.pooling.p)  # a learned one below the smallest in use
    _keep(run, model, document, processes)
    try:
        if plan.exponents:
            document, choices = find_exponents(
                model,
                document,
                plan.data.validation,
                sizes=plan.sizes,
                exponents=plan.exponents,
                say=say,
            )
            _keep(run, model, document, processes)
        document, spectrum = _whitened(model, document, plan.whitening, processes, say=say)
        found = evaluate(model, document, plan.data.validation, processes=processes, say=say)
    except MultiGrainError as error:
        raise FinishError(_advice(error, run, plan)) from error
    document = document.model_copy(update={"metrics": found.metrics})
    if processes.is_first:
        fingerprint = save_checkpoint(run.model, model, document)
        run.unwhitened.unlink(missing_ok=True)
        say(f"{run.model}: fingerprint {fingerprint[:12]}")
        stages = (Scores(stage="trained", scores=trained.scores), *found.stages)
        data = ReportData(
            fingerprint=fingerprint,
            num_training=len(plan.data.training.names),
            num_validation=len(plan.data.validation.names),
            choices=choices,
            stages=tuple(stage for stage in stages if stage.scores),
            spectrum=spectrum,
            histograms=found.histograms,
            queries=found.queries if plan.report else (),
        )
        write_report_data(run.root / REPORT_DATA, data)
        if plan.report:
            say(f"{write_report(run.root)}: curves, choices, neighbours")
    processes.wait()
    return run.model


def _trained_document(trained: Trained) -> Document:
    """Return the document with what training has found."""
    exponent = trained.model.pool.exponent
    pooling = trained.document.pooling
    if exponent is not None:
        pooling = pooling.model_copy(update={"p": float(exponent.detach())})
    return trained.document.model_copy(
        update={"pooling": pooling, "training": trained.training, "metrics": trained.scores}
    )


def _keep(run: RunFolder, model: MultiGrain, document: Document, processes: Processes) -> None:
    """Write the model as far as it is: a later stage that fails must not lose the training."""
    if processes.is_first:
        save_checkpoint(run.unwhitened, model, document)


def _whitened(
    model: MultiGrain,
    document: Document,
    plan: WhiteningPlan | None,
    processes: Processes,
    *,
    say: Say,
) -> tuple[Document, Spectrum | None]:
    if plan is None:
        return document, None
    fitted = fit_on(
        model,
        document,
        plan.photos,
        dim=plan.dim,
        power=plan.power,
        floor=plan.floor,
        processes=processes,
        say=say,
    )
    return fitted.document, spectrum_of(fitted)


def _advice(error: MultiGrainError, run: RunFolder, plan: FinishPlan) -> str:
    photos = (plan.whitening.photos if plan.whitening else plan.data.training).root
    places = {"checkpoint": run.unwhitened, "photos": photos, "out": run.model}
    flags = " ".join(f"--{name} {shlex.quote(str(path))}" for name, path in places.items())
    return (
        f"the model is trained, but it could not be finished ({error}): it is kept without a "
        f"whitening; whiten it with python -m trainer.whiten {flags}, on other photos or with "
        f"another --dim"
    )

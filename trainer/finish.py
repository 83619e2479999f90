"""The last stage of a run: whiten the trained model and write its checkpoint file."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from multigrain.checkpoint import save_checkpoint
from multigrain.document import Document, PoolingSpec, TrainingSpec
from multigrain.errors import MultiGrainError
from trainer.fit_whitening import FEWEST_PHOTOS, check_bearable, whiten_on
from trainer.labels import PhotoSet
from trainer.loop import Loop
from trainer.runfolder import RunFolder

Say = Callable[[str], None]


class FinishError(MultiGrainError):
    """A trained model that could not be whitened."""


class WhiteningPlan(NamedTuple):
    """The whitening at the end of a run; `dim` None is as many as the photos bear."""

    photos: PhotoSet
    dim: int | None
    power: float
    floor: float


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
    """Return the plan, or None for `dim` 0 and for fewer than 8 photos without a `dim`.

    It is made before the first step, so that a whitening which cannot succeed costs no
    training: raises FitError for more dimensions than the trunk or the photos give.
    """
    if dim == 0:
        return None
    num_photos = len(photos.names)
    if dim is None and num_photos < FEWEST_PHOTOS:
        say(f"no whitening: {num_photos} photos are too few to fit one on")
        return None
    # Evenly over the sorted names, so that every class is among them.
    num_taken = min(num_photos, most_photos)
    taken = photos.pick([place * num_photos // num_taken for place in range(num_taken)])
    check_bearable(dim=dim, feature_dim=feature_dim, num_photos=num_taken)
    return WhiteningPlan(taken, dim, power, floor)


def write_model(
    loop: Loop,
    document: Document,
    *,
    num_views: int,
    whitening: WhiteningPlan | None,
    run: RunFolder,
    say: Say,
) -> Path:
    """Write the trained model, whitened if that is planned, and return its path.

    Every process helps with the whitening, the first one writes. Raises FinishError when the
    whitening fails; the trained model is then in the run's folder without one.
    """
    document = _trained(loop, document, num_views=num_views)
    if whitening is not None:
        document = _whitened(loop, document, whitening, run, say=say)
    if loop.processes.is_first:
        fingerprint = save_checkpoint(run.model, loop.objective.model, document)
        run.unwhitened.unlink(missing_ok=True)
        say(f"{run.model}: fingerprint {fingerprint[:12]}, scores {loop.scores}")
    loop.processes.wait()
    return run.model


def _trained(loop: Loop, document: Document, *, num_views: int) -> Document:
    """Return the document with what training has found."""
    objective = loop.objective
    beta = float(objective.beta.detach()) if objective.uses_margin else objective.margin.beta
    training = TrainingSpec(
        lambda_=objective.lambda_, beta=beta, views=num_views, steps=loop.course.num_steps
    )
    pooling = PoolingSpec(p=float(objective.model.pool.p.detach()))
    return document.model_copy(
        update={"pooling": pooling, "training": training, "metrics": loop.scores}
    )


def _whitened(
    loop: Loop, document: Document, plan: WhiteningPlan, run: RunFolder, *, say: Say
) -> Document:
    model = loop.objective.model
    if loop.processes.is_first:
        # Kept only when the whitening fails: what has been trained must not be lost with it.
        save_checkpoint(run.unwhitened, model, document)
    try:
        return whiten_on(
            model,
            document,
            plan.photos,
            dim=plan.dim,
            power=plan.power,
            floor=plan.floor,
            processes=loop.processes,
            say=say,
        )
    except MultiGrainError as error:
        places = {"checkpoint": run.unwhitened, "photos": plan.photos.root, "out": run.model}
        flags = " ".join(f"--{name} {shlex.quote(str(path))}" for name, path in places.items())
        raise FinishError(
            f"the model is trained, but its whitening failed ({error}): it is kept without one; "
            f"whiten it with python -m trainer.whiten {flags}, on other photos or with another "
            f"--dim"
        ) from error

"""The last stage of a run: whiten the trained model and write its checkpoint file."""

from collections.abc import Callable
from pathlib import Path

from multigrain.checkpoint import save_checkpoint
from multigrain.document import Document, PoolingSpec, TrainingSpec
from trainer.fit_whitening import FEWEST_PHOTOS, whiten_on
from trainer.labels import PhotoSet
from trainer.loop import Loop


def write_model(
    loop: Loop,
    document: Document,
    photos: PhotoSet,
    *,
    num_views: int,
    whiten_dim: int | None,
    whiten_photos: int,
    path: Path,
    say: Callable[[str], None],
) -> Path:
    """Write the trained model, whitened on its training photos unless `whiten_dim` is 0.

    Every process helps with the whitening, the first one writes. With fewer than 8 photos
    and no dimension asked for the whitening is left out, and said.
    """
    objective = loop.objective
    document = document.model_copy(
        update={
            "pooling": PoolingSpec(p=float(objective.model.pool.p.detach())),
            "training": TrainingSpec(
                lambda_=objective.lambda_,
                beta=float(objective.beta.detach())
                if objective.uses_margin
                else objective.margin.beta,
                views=num_views,
                steps=loop.course.num_steps,
            ),
            "metrics": loop.scores,
        }
    )
    if whiten_dim is None and len(photos.names) < FEWEST_PHOTOS:
        say(f"no whitening: {len(photos.names)} photos are too few to fit one on")
    elif whiten_dim != 0:
        # Evenly over the sorted names, so that every class is among them.
        every = -(-len(photos.names) // whiten_photos)
        paths = [photos.path(photo_id) for photo_id in range(0, len(photos.names), every)]
        document = whiten_on(
            objective.model, document, paths, dim=whiten_dim, processes=loop.processes, say=say
        )
    if loop.processes.is_first:
        fingerprint = save_checkpoint(path, objective.model, document)
        say(f"{path}: fingerprint {fingerprint[:12]}, scores {loop.scores}")
    loop.processes.wait()
    return path

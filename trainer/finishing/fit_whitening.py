"""Fit a model's whitening on photos, over all processes."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from multigrain.document import Document, WhiteningSpec
from multigrain.engine_torch import TorchEngine
from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from multigrain.progress import Progress
from multigrain.transforms import Pixels
from multigrain.whitening import Moments, principal_axes, whiten_along
from trainer.engine.processes import Processes
from trainer.finishing.exponent_use import as_in_use
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import Skipped, prepared_batches, prepared_photo
from trainer.losses.gather import own_slice

PHOTOS_PER_DIMENSION = 4
FEWEST_PHOTOS = 8
# Nine photos take an embedding from 512 dimensions to 2 and a third of its copies are lost.
FEWEST_DIMENSIONS = 32


# 16 rows at a time cost nine times as much; 1024 rows of 2048 dimensions are 8 MiB.
_ROWS_AT_ONCE = 1024


class FitError(MultiGrainError):
    """Photos that do not serve to fit a whitening."""


def safe_dim(feature_dim: int, num_photos: int) -> int:
    """Return a whitening dimension that this many photos can bear, at least 1."""
    return max(1, min(feature_dim, num_photos // PHOTOS_PER_DIMENSION))


def photos_wanted(feature_dim: int) -> int:
    """Return how many photos bear a whitening that keeps enough dimensions."""
    return PHOTOS_PER_DIMENSION * min(feature_dim, FEWEST_DIMENSIONS)


def check_bearable(*, dim: int | None, feature_dim: int, num_photos: int) -> None:
    """Raise FitError for a whitening that a trunk, or so many photos, cannot give."""
    if num_photos < FEWEST_PHOTOS:
        raise FitError(
            f"{num_photos} readable photos are too few to fit a whitening on: give at least "
            f"{FEWEST_PHOTOS}"
        )
    if dim is not None and dim > feature_dim:
        raise FitError(
            f"whitening to {dim} dimensions: the trunk has {feature_dim}, choose at most that"
        )
    if dim is not None and dim >= num_photos:
        raise FitError(
            f"whitening to {dim} dimensions needs more than {dim} photos, there are "
            f"{num_photos}: give more photos or fewer dimensions"
        )


class Fitted(NamedTuple):
    """A document with its new whitening, and the eigenvalues [C] it was chosen from."""

    document: Document
    spectrum: Tensor


def whiten_on(
    model: MultiGrain,
    document: Document,
    photos: PhotoSet,
    *,
    dim: int | None,
    power: float,
    floor: float,
    processes: Processes,
    say: Callable[[str], None],
) -> Document:
    """Fit a whitening on photos, put it into the model and return the new document.

    As `fit_on`, without the spectrum.
    """
    return fit_on(
        model,
        document,
        photos,
        dim=dim,
        power=power,
        floor=floor,
        processes=processes,
        say=say,
    ).document


def fit_on(
    model: MultiGrain,
    document: Document,
    photos: PhotoSet,
    *,
    dim: int | None,
    power: float,
    floor: float,
    processes: Processes,
    say: Callable[[str], None],
) -> Fitted:
    """Fit a whitening on photos, pooled with the exponent of the document's size.

    It is put into the model. Each process embeds a part of the photos; unreadable ones are
    skipped and said. All processes end with the same whitening; an earlier one is replaced.
    Raises FitError when fewer than 8 photos, or not more than `dim`, can be read, and for a
    `dim` above the embedding's; WhiteningError when all embeddings are equal.
    """
    num_dims = document.reduced_dim
    check_bearable(dim=dim, feature_dim=num_dims, num_photos=len(photos.names))
    model.whiten = None
    with as_in_use(model, document):
        moments = _moments_of(model.eval(), document, photos, processes=processes, say=say)
    check_bearable(dim=dim, feature_dim=num_dims, num_photos=moments.count)
    kept = dim or safe_dim(num_dims, moments.count)
    axes = principal_axes(moments)
    whiten = whiten_along(axes, dim=kept, power=power, floor=floor)
    model.whiten = whiten.to(model.pixel_mean.device)
    say(f"whitening: {num_dims} -> {kept} dimensions, fitted on {moments.count} photos")
    if dim is None and moments.count < (wanted := photos_wanted(num_dims)):
        say(
            f"so few photos whiten badly, and neighbours are lost: give {wanted} or more, or "
            f"say the dimensions to keep"
        )
    whitening = WhiteningSpec(
        in_=num_dims,
        out=kept,
        power=power,
        floor=floor,
        photos=moments.count,
        size=document.preprocessing.size,
    )
    embedding = document.embedding.model_copy(update={"dim": kept, "whitening": whitening})
    return Fitted(document.model_copy(update={"embedding": embedding}), axes.values)


def _moments_of(
    model: MultiGrain,
    document: Document,
    photos: PhotoSet,
    *,
    processes: Processes,
    say: Callable[[str], None],
) -> Moments:
    """Return the moments of the unit vectors of all photos, the same on every process."""
    own = list(own_slice(len(photos.names)))
    moments = Moments(document.reduced_dim)
    skipped: list[Skipped] = []
    progress = Progress(len(own), "photos") if processes.is_first else None

    def read(number: int) -> Pixels:
        return prepared_photo(photos, own[number], document.preprocessing)

    # Folded and channels last: on a CPU several times the speed of the model as it is trained.
    engine = TorchEngine(model, device=str(model.pixel_mean.device), precision="fp32")
    num_done, waiting = 0, list[Tensor]()
    for batch in prepared_batches(read, len(own), skipped=skipped):
        pixels = batch.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        waiting.append(torch.from_numpy(engine.infer(pixels)))
        num_done += len(waiting[-1])
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            moments.update(torch.cat(waiting))
            waiting.clear()
        if progress is not None:
            progress.update(num_done, "whitening")
    moments.update(torch.cat([torch.empty(0, document.reduced_dim), *waiting]))
    if progress is not None:
        progress.close()
    _say_skipped(
        [(photos.names[own[number]], reason) for number, reason in skipped], processes, say
    )
    total = Moments(document.reduced_dim)
    for state in processes.gather(moments.state()):
        total.merge(Moments.from_state(state))
    return total


def _say_skipped(
    skipped: list[tuple[str, str]], processes: Processes, say: Callable[[str], None]
) -> None:
    """Only the first process speaks, so it must know of all."""
    for lines in processes.gather([f"{name}: {reason}" for name, reason in skipped]):
        for line in lines:
            say(f"skipped {line}")

"""Fit a model's whitening on photos, over all processes."""

from collections.abc import Callable

import torch

from multigrain.document import Document, EmbeddingSpec, WhiteningSpec
from multigrain.engine_torch import TorchEngine
from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from multigrain.progress import Progress
from multigrain.transforms import Pixels
from multigrain.whitening import Moments, fit_whitening
from trainer.gather import own_slice
from trainer.labels import PhotoSet
from trainer.processes import Processes
from trainer.reading import Skipped, prepared_batches, prepared_photo

PHOTOS_PER_DIMENSION = 4
FEWEST_PHOTOS = 8


class FitError(MultiGrainError):
    """Photos that do not serve to fit a whitening."""


def safe_dim(feature_dim: int, num_photos: int) -> int:
    """Return a whitening dimension that this many photos can bear, at least 1."""
    return max(1, min(feature_dim, num_photos // PHOTOS_PER_DIMENSION))


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

    Each process embeds a part of the photos; unreadable ones are skipped and said. All
    processes end with the same whitening; an earlier one is replaced. Raises FitError when
    fewer than 8 photos, or not more than `dim`, can be read, and for a `dim` above the
    trunk's; WhiteningError when all embeddings are equal.
    """
    feature_dim = document.backbone.feature_dim
    check_bearable(dim=dim, feature_dim=feature_dim, num_photos=len(photos.names))
    model.whiten = None
    moments = _moments_of(model.eval(), document, photos, processes=processes, say=say)
    check_bearable(dim=dim, feature_dim=feature_dim, num_photos=moments.count)
    kept = dim or safe_dim(feature_dim, moments.count)
    whiten = fit_whitening(moments, dim=kept, power=power, floor=floor)
    model.whiten = whiten.to(model.pixel_mean.device)
    say(f"whitening: {feature_dim} -> {kept} dimensions, fitted on {moments.count} photos")
    whitening = WhiteningSpec(
        in_=feature_dim,
        out=kept,
        power=power,
        floor=floor,
        photos=moments.count,
        size=document.preprocessing.size,
    )
    embedding = EmbeddingSpec(dim=kept, whitening=whitening)
    return document.model_copy(update={"embedding": embedding})


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
    moments = Moments(document.backbone.feature_dim)
    skipped: list[Skipped] = []
    progress = Progress(len(own), "photos") if processes.is_first else None

    def read(number: int) -> Pixels:
        return prepared_photo(photos, own[number], document.preprocessing)

    # Folded and channels last: on a CPU several times the speed of the model as it is trained.
    engine = TorchEngine(model, device=str(model.pixel_mean.device), precision="fp32")
    for batch in prepared_batches(read, len(own), skipped=skipped):
        pixels = batch.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        moments.update(torch.from_numpy(engine.infer(pixels)))
        if progress is not None:
            progress.update(moments.count, "whitening")
    if progress is not None:
        progress.close()
    # Only the first process speaks, so it must know of all.
    names = [(photos.path(own[number]), reason) for number, reason in skipped]
    for lines in processes.gather([f"{name}: {reason}" for name, reason in names]):
        for line in lines:
            say(f"skipped {line}")
    total = Moments(document.backbone.feature_dim)
    for state in processes.gather(moments.state()):
        total.merge(Moments.from_state(state))
    return total

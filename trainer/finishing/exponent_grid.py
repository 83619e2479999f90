"""Try many exponents on the validation photos in one pass of the trunk.

n photos of a batch, C channels, D embedding. After MultiGrain, 3.4: a larger input wants a
larger exponent than the one trained with.
"""

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from multigrain.document import Document
from multigrain.model import MultiGrain, Output
from multigrain.pooling import GeM
from multigrain.transforms import Preprocessing
from trainer.finishing.embedded import Forward, embed_part
from trainer.finishing.exponent_choice import Choice, choose, criteria_of, tried
from trainer.finishing.validate import gathered, values_of
from trainer.inputs.labels import PhotoSet
from trainer.inputs.reading import spread

FEWEST_PHOTOS = 8
# The embeddings of every exponent are held at once: 2 GB for 10 exponents at 2048 dimensions,
# copies included.
MOST_PHOTOS = 4000


def search_exponent(
    model: MultiGrain,
    photos: PhotoSet,
    preprocessing: Preprocessing,
    *,
    exponents: Sequence[float],
    trained: float,
    say: Callable[[str], None],
) -> Choice | None:
    """Return the exponent for photos prepared so, the same on every process.

    The trained exponent is tried too. The trunk's map is kept for one batch only. At most
    4000 photos are taken, evenly; with fewer than 8, or no score, the answer is None, said.
    The model must have no whitening yet; it is left in evaluation mode.
    """
    assert model.whiten is None
    start = time.monotonic()
    tested = photos.pick(spread(len(photos.names), MOST_PHOTOS))
    grid = sorted({*exponents, trained})
    parts = embed_part(
        forward_of(model.eval(), grid),
        tested,
        preprocessing,
        device=model.pixel_mean.device,
        say=say,
    )
    values = [values_of(part, gathered(part), tested) for part in parts]
    num_photos = int(gathered(parts[0]).photo_ids.numel())
    if num_photos < FEWEST_PHOTOS or not criteria_of(values[0]):
        say(f"p stays {trained:g}: {num_photos} validation photos are too few to find p* on")
        return None
    trials = tried(grid, values)
    return Choice(
        size=preprocessing.size,
        trained=trained,
        chosen=choose(trials, trained=trained),
        num_photos=num_photos,
        seconds=time.monotonic() - start,
        trials=trials,
    )


def find_exponents(
    model: MultiGrain,
    document: Document,
    photos: PhotoSet,
    *,
    sizes: Sequence[int],
    exponents: Sequence[float],
    say: Callable[[str], None],
) -> tuple[Document, tuple[Choice, ...]]:
    """Find the exponent of each size; return the document that holds them, and the choices.

    The trained exponent stays in `pooling.p` and in the model. Only for GeM, and before a
    whitening, which is fitted at the exponent found.
    """
    trained = document.pooling.p
    assert trained is not None
    choices = []
    for size in dict.fromkeys(sizes):
        choice = search_exponent(
            model,
            photos,
            document.preprocessing.model_copy(update={"size": size}),
            exponents=exponents,
            trained=trained,
            say=say,
        )
        if choice is not None:
            say(describe(choice))
            choices.append(choice)
    found = {choice.size: choice.chosen for choice in choices}
    pooling = document.pooling.model_copy(update={"p_by_size": document.pooling.p_by_size | found})
    return document.model_copy(update={"pooling": pooling}), tuple(choices)


def forward_of(model: MultiGrain, exponents: Sequence[float]) -> Forward:
    """Return what turns pixels [n, 3, h, w] into one output for each exponent."""
    pools = [GeM(p).to(model.pixel_mean.device) for p in exponents]

    def forward(pixels: Tensor) -> list[Output]:
        features: Tensor = model.backbone(model.normalise(pixels))
        return [_output(model, pool(features)) for pool in pools]

    return forward


def _output(model: MultiGrain, pooled: Tensor) -> Output:
    sides = model.sides(model.reduced(pooled))
    logits = model.classifier(sides.head_input) if model.classifier is not None else None
    return Output(model.unit(sides.feature), logits)


def describe(choice: Choice) -> str:
    """Say one size's choice in a line."""
    best = max(choice.trials, key=lambda trial: trial.mean)
    start = next(trial for trial in choice.trials if trial.p == choice.trained)
    return (
        f"size {choice.size}: p* {choice.chosen:g}, best {best.p:g} ({best.mean:.4f}), trained "
        f"{choice.trained:g} ({start.mean:.4f}); {len(choice.trials)} exponents on "
        f"{choice.num_photos} photos in {choice.seconds:.1f} s"
    )

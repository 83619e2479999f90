"""Times of a model's parts: inference, a training step, the loss alone, loading.

N batch, C channels.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multigrain.model import MultiGrain
from multigrain.pooling import Mean
from trainer.engine.numerics import Numerics
from trainer.inputs.loading import Batch
from trainer.losses.negatives import Negatives
from trainer.losses.objective import MarginSettings, Objective

_MARGIN = {"alpha": 0.2, "beta": 1.2, "negatives": Negatives.UNIFORM, "effective_dim": 128}


class Times(NamedTuple):
    """Milliseconds: the median of the runs, and the quartiles around it."""

    median: float
    low: float
    high: float


class Loading(NamedTuple):
    """Milliseconds to load a batch alone, and the share of a training loop spent waiting for it."""

    load: Times
    stall_share: float


class _Given(nn.Module):
    """A trunk that gives what it is given [N, C, 1, 1]: what remains is the loss."""

    num_channels = 0

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, 1, 1] -> the same."""
        return features


class Step:
    """A training step without its update: forward, the whole loss, backward."""

    def __init__(self, model: MultiGrain, *, num_views: int, numerics: Numerics) -> None:
        lambda_ = 0.5 if model.classifier is not None else 0.0
        settings = MarginSettings(most_negatives=num_views - 1, seed=0, **_MARGIN)  # type: ignore[arg-type]
        self._objective = Objective(
            model.train(), lambda_=lambda_, num_views=num_views, margin=settings
        ).to(numerics.device)
        self._num_views = num_views
        self._numerics = numerics
        classifier = model.classifier
        self._num_classes = classifier.weight.shape[0] if classifier is not None else 1

    def __call__(self, pixels: Tensor, *, step: int = 0) -> None:
        """Pixels [N, 3, H, W]; labels and instances are made up."""
        rows = torch.arange(len(pixels), device=pixels.device)
        with self._numerics.autocast():
            losses = self._objective(
                pixels, rows % self._num_classes, rows // self._num_views, step
            )
        losses.total.backward()
        self._objective.zero_grad(set_to_none=True)


def time_inference(model: MultiGrain, pixels: Tensor, *, numerics: Numerics, runs: int) -> Times:
    """Time embeddings and logits of a batch, in evaluation mode."""
    model.eval()

    def infer() -> None:
        with torch.inference_mode(), numerics.autocast():
            model(pixels)

    return time_calls(infer, runs=runs, device=numerics.device)


def time_step(step: Step, pixels: Tensor, *, numerics: Numerics, runs: int) -> Times:
    """Time forward, loss and backward of a batch."""
    return time_calls(lambda: step(pixels), runs=runs, device=numerics.device)


def time_loss(
    model: MultiGrain, *, batch_size: int, num_views: int, numerics: Numerics, runs: int
) -> Times:
    """Time what stands behind the pooling, forward and backward: the loss and its classifier."""
    num_channels = model.backbone.num_channels
    given: Any = _Given()
    loss = MultiGrain(
        backbone=given,
        pool=Mean(),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        reduce=model.reduce,
        neck=model.neck,
        classifier=model.classifier,
    )
    # Features are no pixels: nothing is subtracted, whatever their number.
    loss.pixel_mean, loss.pixel_std = torch.zeros(1), torch.ones(1)
    step = Step(loss, num_views=num_views, numerics=numerics)
    features = torch.rand(batch_size, num_channels, 1, 1, device=numerics.device)
    return time_step(step, features.requires_grad_(), numerics=numerics, runs=runs)


def time_loading(
    batches: Iterable[Batch], step: Step, *, runs: int, device: torch.device
) -> Loading:
    """Time loading alone over the first batches, then waiting beside steps over as many."""
    iterator = iter(batches)
    next(iterator)  # workers start
    load = _times([_seconds(lambda: next(iterator)) for _ in range(runs)])
    waited = worked = 0.0
    for number in range(runs):
        started = time.perf_counter()
        batch = next(iterator)
        loaded = time.perf_counter()
        step(batch.pixels.to(device), step=number)
        _wait(device)
        waited += loaded - started
        worked += time.perf_counter() - loaded
    return Loading(load, waited / (waited + worked))


def time_calls(call: Callable[[], None], *, runs: int, device: torch.device) -> Times:
    """Time a call, after two calls that do not count."""

    def finished() -> None:
        call()
        _wait(device)

    for _ in range(2):
        finished()
    return _times([_seconds(finished) for _ in range(runs)])


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _times(seconds: list[float]) -> Times:
    low, median, high = (1000 * value for value in statistics.quantiles(seconds, n=4))
    return Times(median, low, high)

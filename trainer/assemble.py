"""Build the parts of a training run from its settings."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from multigrain.backbone import build_backbone
from multigrain.document import Document, plain_document
from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.augment import Augmentation
from trainer.bad_photos import BadPhotos
from trainer.labels import PhotoSet, read_photo_set, split_by_hash, with_classes_of
from trainer.loading import Batch, Steps, ViewsDataset, batch_loader
from trainer.loop import Course, Loop
from trainer.negatives import Negatives
from trainer.objective import MarginSettings, Objective
from trainer.optimiser import build_optimiser
from trainer.processes import Processes
from trainer.resume import identity_of
from trainer.runfolder import RunFolder
from trainer.sampler import BatchPlan
from trainer.seeds import seed_of
from trainer.settings import TrainConfig
from trainer.validate import validate
from trainer.weights import NONE, load_weights

MOST_WORKERS = 8
BF16_CAPABILITY = (8, 0)

Say = Callable[[str], None]


class AssembleError(MultiGrainError):
    """Settings that do not fit the photos."""


class Data(NamedTuple):
    """Photos to train on and to validate on, and the weight of their classes."""

    training: PhotoSet
    validation: PhotoSet
    lambda_: float


def read_data(config: TrainConfig, *, say: Say) -> Data:
    """Read the folder, split it, and decide on lambda.

    Raises AssembleError for a lambda above 0 without classes.
    """
    photos = read_photo_set(config.data, say=say)
    if config.val is not None:
        training = photos
        validation = with_classes_of(read_photo_set(config.val, say=say), training)
    else:
        training, validation = split_by_hash(photos, config.val_fraction)
    num_classes = len(photos.class_names or ())
    if num_classes:
        lambda_ = 0.5 if config.lambda_ is None else config.lambda_
    elif config.lambda_:
        raise AssembleError(
            f"--lambda {config.lambda_} needs classes, and {config.data} has none: "
            f"put the photos of each class into a sub-folder, or leave the flag out"
        )
    else:
        lambda_ = 0.0
        say(f"{config.data}: no classes, so lambda is 0 and training is on instances alone")
    say(
        f"{len(training.names)} photos to train on, {len(validation.names)} to validate on, "
        f"{num_classes} classes, lambda {lambda_}"
    )
    return Data(training, validation, lambda_)


def build_model(config: TrainConfig, data: Data, *, say: Say) -> tuple[Document, MultiGrain]:
    """Build the model with its initial weights, the same on every process."""
    torch.manual_seed(seed_of(config.seed, "weights"))
    document = plain_document(
        backbone_name=config.backbone,
        feature_dim=build_backbone(config.backbone).num_channels,
        preprocessing=Preprocessing(size=config.test_size or config.size, rule=config.rule),
        p=config.p,
        class_names=data.training.class_names if data.lambda_ > 0 else None,
        weights_licence=config.weights_licence,
    )
    model = MultiGrain.build(document, learnable_p=config.learn_p)
    origin = load_weights(model.backbone, config.weights, say=say)
    if config.weights == NONE:
        origin = {"weights": "trained from random weights"}
    return document.model_copy(update={"software": document.software | origin}), model


def build_plan(config: TrainConfig, data: Data, processes: Processes) -> BatchPlan:
    """Plan which photos are seen when, and by whom."""
    return BatchPlan(
        num_photos=len(data.training.names),
        batch_size=config.batch_size,
        num_views=config.num_views,
        num_processes=processes.world,
        seed=config.seed,
    )


def build_objective(
    config: TrainConfig, data: Data, model: MultiGrain, plan: BatchPlan, processes: Processes
) -> tuple[Objective, nn.Module]:
    """Build the loss around the model, and the same behind DDP with several processes."""
    margin = MarginSettings(
        alpha=config.alpha,
        beta=config.beta,
        negatives=Negatives(config.negatives),
        effective_dim=config.effective_dim,
        most_negatives=config.num_views * plan.most_occurrences - 1,
        seed=config.seed,
    )
    objective = Objective(model, lambda_=data.lambda_, num_views=config.num_views, margin=margin)
    objective.to(processes.device).to(memory_format=torch.channels_last)
    if processes.world == 1:
        return objective, objective
    return objective, _distributed(objective)


def _distributed(objective: Objective) -> nn.Module:
    """Wrap in DDP; batch-norm statistics are averaged when they are needed, not at each step."""
    parameters = inspect.signature(DistributedDataParallel).parameters
    # torch 2.15 renamed the switch; older ones know the old name alone.
    new, old = "forward_sync_buffers", "broadcast_buffers"
    switch: dict[str, Any] = {new if new in parameters else old: False}
    return DistributedDataParallel(objective, gradient_as_bucket_view=True, **switch)


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
    by_epochs = max(1, round(config.epochs * plan.num_photos / plan.photos_per_step))
    return Course(
        num_steps=config.steps or by_epochs,
        num_photos=plan.num_photos,
        photos_per_step=plan.photos_per_step,
        learning_rate=config.learning_rate,
        warmup=config.warmup,
        seed=config.seed,
        bf16=_uses_bf16(config.precision, processes.device),
        log_every_steps=config.log_every_steps,
        validate_every_epochs=config.validate_every_epochs,
        checkpoint_every_seconds=60 * config.checkpoint_every_minutes,
    )


def build_batches(
    config: TrainConfig, data: Data, plan: BatchPlan, loop: Loop, *, start: int
) -> Iterable[Batch]:
    """Load this process's batches for the steps from `start` to the end."""
    augmentation = Augmentation(size=config.size, seed=config.seed, area=(config.min_area, 1.0))
    dataset = ViewsDataset(data.training, augmentation, num_views=config.num_views)
    steps = Steps(plan, rank=loop.processes.rank, start=start, stop=loop.course.num_steps)
    on_gpu = loop.processes.device.type == "cuda"
    # On the CPU the model needs the cores; one loader still fills the gaps between steps.
    by_cores = min(MOST_WORKERS, torch.get_num_threads()) if on_gpu else 1
    num_workers = by_cores if config.num_workers is None else config.num_workers
    return batch_loader(dataset, steps, num_workers=num_workers, pin_memory=on_gpu)


def _uses_bf16(precision: str, device: torch.device) -> bool:
    if precision != "auto":
        return precision == "bf16"
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= BF16_CAPABILITY

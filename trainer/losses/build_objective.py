"""Build the batch plan and the loss that the settings describe, around the model."""

import inspect
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from multigrain.model import MultiGrain
from trainer.engine.processes import Processes
from trainer.inputs.data import Data
from trainer.inputs.sampler import BatchPlan, SamplerError
from trainer.inputs.sampler_pk import PkPlan
from trainer.losses.heads import HeadLoss, constants_of
from trainer.losses.margin import Divisor
from trainer.losses.negatives import Negatives
from trainer.losses.objective import MARGIN, MarginSettings, Objective, ObjectiveError, PairTerm
from trainer.losses.pair_losses import build_pair_loss
from trainer.seeds import seed_of
from trainer.settings import TrainConfig
from trainer.settings_loss import weighted_loss


def build_plan(config: TrainConfig, data: Data, processes: Processes) -> BatchPlan:
    """Plan which photos are seen when, and by whom."""
    if config.sampler == "repeated":
        return BatchPlan(
            num_photos=len(data.training.names),
            batch_size=config.batch_size,
            num_views=config.num_views,
            num_processes=processes.world,
            seed=config.seed,
            num_parts=config.accumulate,
        )
    if data.training.class_names is None:
        raise SamplerError("--sampler pk needs classes: give sub-folders, or --sampler repeated")
    return PkPlan(
        labels=data.training.labels,
        photos_per_class=config.photos_per_class,
        batch_size=config.batch_size,
        num_views=config.num_views,
        num_processes=processes.world,
        seed=config.seed,
        num_parts=config.accumulate,
    )


def build_objective(
    config: TrainConfig, data: Data, model: MultiGrain, plan: BatchPlan, processes: Processes
) -> tuple[Objective, nn.Module]:
    """Build the loss around the model, and the same behind DDP with several processes."""
    objective = Objective(
        model,
        lambda_=data.lambda_,
        num_views=config.num_views,
        margin=_margin(config, data, plan),
        head=HeadLoss(
            config.head,
            constants=constants_of(config.head, scale=config.head_scale, margin=config.head_margin),
            label_smoothing=config.label_smoothing,
        ),
        pair_terms=_pair_terms(config, data, model),
        positives_of_class=config.positives == "class",
    )
    objective.to(processes.device)
    if config.channels_last:
        objective.to(memory_format=torch.channels_last)
    if processes.world == 1:
        return objective, objective
    return objective, _distributed(objective, is_static=config.accumulate == 1)


def _margin(config: TrainConfig, data: Data, plan: BatchPlan) -> MarginSettings:
    if config.positives == "class" and data.training.class_names is None:
        raise ObjectiveError("--positives class needs classes: give sub-folders, or instance")
    largest = max(Counter(data.training.labels).values())
    most_photos = (
        plan.most_of_a_class(largest=largest)
        if config.positives == "class"
        else plan.most_occurrences
    )
    return MarginSettings(
        alpha=config.alpha,
        beta=config.beta,
        negatives=Negatives(config.negatives),
        effective_dim=config.effective_dim,
        most_negatives=config.num_views * most_photos - 1,
        seed=config.seed,
        divisor=Divisor(config.margin_divisor),
    )


def _pair_terms(config: TrainConfig, data: Data, model: MultiGrain) -> dict[str, PairTerm]:
    # Proxies begin at random, the same on every process.
    torch.manual_seed(seed_of(config.seed, "proxies"))
    terms = dict[str, PairTerm]()
    for name, weight in map(weighted_loss, config.pair_losses):
        loss = None
        if name != MARGIN and data.lambda_ < 1:
            loss = build_pair_loss(
                name,
                num_dims=config.reduction or model.backbone.num_channels,
                num_classes=len(data.training.class_names or ()),
            )
        terms[name] = PairTerm(weight, loss)
    return terms


def _distributed(objective: Objective, *, is_static: bool) -> nn.Module:
    """Wrap in DDP; batch-norm statistics are averaged when they are needed, not at each step."""
    parameters = inspect.signature(DistributedDataParallel).parameters
    # torch 2.15 renamed the switch; older ones know the old name alone.
    new, old = "forward_sync_buffers", "broadcast_buffers"
    switch: dict[str, Any] = {new if new in parameters else old: False}
    return DistributedDataParallel(
        objective, gradient_as_bucket_view=True, static_graph=is_static, **switch
    )

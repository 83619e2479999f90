"""Build the loss that the settings describe, around the model."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from multigrain.model import MultiGrain
from trainer.data import Data
from trainer.negatives import Negatives
from trainer.objective import MarginSettings, Objective
from trainer.processes import Processes
from trainer.sampler import BatchPlan
from trainer.settings import TrainConfig


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

"""Training runs for the benchmarks: the trainer's own parts, on noise."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multigrain.document import Document
from multigrain.model import MultiGrain
from trainer.engine.assemble import assemble
from trainer.engine.loop import Loop
from trainer.engine.processes import Processes
from trainer.engine.resume import open_folder
from trainer.inputs.data import Data
from trainer.inputs.loading import Batch
from trainer.inputs.sampler import BatchPlan
from trainer.models.build_model import build_model
from trainer.settings import TrainConfig
from trainer.speech import say_nothing


class Run(NamedTuple):
    """A run that has not begun."""

    config: TrainConfig
    data: Data
    plan: BatchPlan
    loop: Loop


class CheapTrunk(nn.Module):
    """A trunk that costs nothing: all that is left of a step is what surrounds the trunk."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.weight = nn.Parameter(torch.randn(num_channels, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [N, 3, H, W] -> map [N, C, 1, 1]."""
        rows: Tensor = pixels[:, :, 0, 0].float() @ self.weight.T
        return rows[:, :, None, None]


def build_run(
    photos: Path, out: Path, processes: Processes, *, cheap_trunk: bool = False, **settings: Any
) -> Run:
    """Put a run together as training does; with `cheap_trunk` the trunk is replaced."""
    out.mkdir(parents=True)
    config = TrainConfig(data=photos, out=out, val_fraction=0.0, whiten_dim=0, **settings)
    data, _, plan, loop = assemble(
        config,
        processes,
        open_folder(out, resuming=False),
        say=say_nothing,
        keep=say_nothing,
        make_model=_cheap_model if cheap_trunk else build_model,
    )
    return Run(config, data, plan, loop)


def _cheap_model(*args: Any, **kwargs: Any) -> tuple[Document, MultiGrain]:
    document, model = build_model(*args, **kwargs)
    model.backbone = CheapTrunk(document.backbone.feature_dim)  # type: ignore[assignment]
    return document, model


def noise_batch(run: Run, step: int, *, pin: bool = False) -> Batch:
    """A step's real photo numbers and labels; the pixels are noise."""
    num_views, size = run.config.num_views, run.config.size
    draws = run.plan.photos_of(step, run.loop.processes.rank)
    ids = torch.tensor([draw.photo_id for draw in draws]).repeat_interleave(num_views)
    labels = torch.tensor(run.data.training.labels)[ids]
    rows = torch.randint(0, 256, (len(ids), size, size, 3), dtype=torch.uint8)
    pixels = rows.permute(0, 3, 1, 2)  # as loading makes them: channels last
    return Batch(
        pixels=pixels.pin_memory() if pin else pixels,
        labels=labels.pin_memory() if pin else labels,
        photo_ids=ids.pin_memory() if pin else ids,
        seeds=torch.arange(len(ids)),
        bad=(),
    )

"""Count and time a model: parameters, multiply-adds, activations; inference, training, loading.

Times are medians of several runs, with the quartiles around them.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from multigrain.config import Config
from multigrain.program import load_config, run_main
from trainer.settings_data import LARGEST_SIDE, SMALLEST_SIDE
from trainer.speech import say

if TYPE_CHECKING:
    from multigrain.model import MultiGrain
    from trainer.engine.numerics import Numerics

PROG = "python -m trainer.timing"

_USUAL_CLASSES = 1000
_USUAL_SIZE = 224


class TimingConfig(Config):
    """Flags of the timing."""

    backbone: str | None = Field(
        default=None, description="trunk to time with random weights: torchvision's or timm:NAME"
    )
    checkpoint: Path | None = Field(default=None, description="checkpoint file to time instead")
    num_classes: int | None = Field(
        default=None,
        ge=0,
        description="classes of the linear classifier beside --backbone; 0: none, unset: 1000",
    )
    size: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="side of the photos, pixels; unset: the checkpoint's own, or 224",
    )
    batch_size: int = Field(default=12, ge=1, description="views in a batch")
    num_views: int = Field(default=3, ge=2, description="views of a photo in a batch")
    runs: int = Field(default=10, ge=2, description="timed runs of each part")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto", description="of the trunk; auto: bf16 where the hardware has it"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where it runs")
    num_threads: int | None = Field(default=None, ge=1, description="CPU threads; unset: all")
    data: tuple[Path, ...] = Field(
        default=(), description="photos to load as in training, timed too; repeatable"
    )
    num_workers: int | None = Field(
        default=None, ge=0, description="loading processes; unset: by cores"
    )
    count_only: bool = Field(default=False, description="count and time nothing")
    json_: bool = Field(default=False, description="print one JSON object")

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.backbone is None) == (self.checkpoint is None):
            raise ValueError("give --backbone or --checkpoint, one of them")
        if self.checkpoint is not None and self.num_classes is not None:
            raise ValueError("--num-classes is of --backbone: a checkpoint has its own classifier")
        if self.data and self.count_only:
            raise ValueError("--data is loaded to be timed, and --count-only times nothing")
        if self.batch_size % self.num_views:
            raise ValueError(
                f"--batch-size {self.batch_size} is no multiple of --num-views {self.num_views}"
            )
        return self


def measure(config: TimingConfig) -> dict[str, Any]:
    """Count and time; milliseconds a batch in `*_ms`, each with median, low and high quartile."""
    import torch

    from trainer.engine.numerics import numerics_of
    from trainer.engine.processes import alone
    from trainer.models.complexity import complexity_of

    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    numerics = numerics_of(config.precision, alone(config.device).device)
    model, size = _model(config)
    model = model.to(numerics.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: dict[str, Any] = {
        "model": config.backbone or str(config.checkpoint),
        "size": size,
        **complexity_of(model, size=size)._asdict(),
    }
    if config.count_only:
        return found
    return found | _times(config, model, size, numerics)


def _model(config: TimingConfig) -> "tuple[MultiGrain, int]":
    """The model and the side of its photos."""
    from multigrain.checkpoint import load_checkpoint
    from multigrain.document import ClassifierSpec, Document, EmbeddingSpec
    from multigrain.model import MultiGrain
    from trainer.models.model_parts import backbone_spec, preprocessing_of

    if config.checkpoint is not None:
        checkpoint = load_checkpoint(config.checkpoint)
        return checkpoint.model, config.size or checkpoint.document.preprocessing.size
    assert config.backbone is not None
    trunk = backbone_spec(config.backbone)
    size = config.size or _USUAL_SIZE
    num_classes = _USUAL_CLASSES if config.num_classes is None else config.num_classes
    names = tuple(str(number) for number in range(num_classes))
    document = Document(
        backbone=trunk,
        embedding=EmbeddingSpec(dim=trunk.feature_dim),
        classifier=ClassifierSpec(class_names=names) if names else None,
        preprocessing=preprocessing_of(config.backbone, size=size, rule="crop"),
    )
    return MultiGrain.build(document), size


def _times(
    config: TimingConfig, model: "MultiGrain", size: int, numerics: "Numerics"
) -> dict[str, Any]:
    import torch

    from trainer.models import timing_parts

    runs, device = config.runs, numerics.device
    shape = (config.batch_size, 3, size, size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    inference = timing_parts.time_inference(model, pixels, numerics=numerics, runs=runs)
    model.whiten = None  # the pairs of the loss are of the embedding before it
    step = timing_parts.Step(model, num_views=config.num_views, numerics=numerics)
    training = timing_parts.time_step(step, pixels, numerics=numerics, runs=runs)
    loss = timing_parts.time_loss(
        model,
        batch_size=config.batch_size,
        num_views=config.num_views,
        numerics=numerics,
        runs=runs,
    )
    found: dict[str, Any] = {
        "batch_size": config.batch_size,
        "device": str(device),
        "precision": str(numerics.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "inference_ms": inference._asdict(),
        "training_ms": training._asdict(),
        "loss_ms": loss._asdict(),
        "inference_per_second": 1000 * config.batch_size / inference.median,
        "training_per_second": 1000 * config.batch_size / training.median,
    }
    if config.data:
        loading = timing_parts.time_loading(_batches(config, size), step, runs=runs, device=device)
        found |= {"loading_ms": loading.load._asdict(), "stall_share": loading.stall_share}
    return found


def _batches(config: TimingConfig, size: int) -> Any:
    """Load batches exactly as the training program would."""
    from trainer.engine.processes import alone
    from trainer.inputs.data import build_batches, read_data
    from trainer.losses.build_objective import build_plan
    from trainer.settings import TrainConfig

    training = TrainConfig(
        data=config.data,
        out=Path(),
        size=size,
        batch_size=config.batch_size,
        num_views=config.num_views,
        num_workers=config.num_workers,
    )
    processes = alone(config.device)
    data = read_data(training, say=say)
    plan = build_plan(training, data, processes)
    # One to start, as many alone as beside steps.
    return build_batches(training, data, plan, processes, start=0, stop=1 + 2 * config.runs)


def table_of(found: dict[str, Any]) -> str:
    """Lines to read, one number each."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict):
            text = f"{value['median']:.2f}  ({value['low']:.2f} to {value['high']:.2f})"
        elif isinstance(value, float):
            text = f"{value:.2f}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        lines.append(f"{name:22}{text}")
    return "\n".join(lines)


def main() -> int:
    """Measure what the flags name and print a table, or JSON."""
    config = load_config(
        TimingConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    found = measure(config)
    print(json.dumps(found) if config.json_ else table_of(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

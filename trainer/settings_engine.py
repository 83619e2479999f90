"""Flags of the training program: steps, optimiser, numerics, checkpoints, log."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from multigrain.config import Config
from trainer.duration import DurationText, LengthText, SpanText
from trainer.engine.best import Mode
from trainer.engine.schedule import Schedule

OPTIMISERS = ("sgd", "adam", "adamw", "rmsprop")
TIMM = "timm:"


class EngineSettings(Config):
    """How long, with which optimiser, in which precision, and what is kept."""

    duration: LengthText = Field(
        default="120ep", description="length of training: 120ep, 500000img (views), 20000step"
    )
    optimiser: str = Field(default="sgd", description="sgd, adam, adamw, rmsprop, or timm:NAME")
    learning_rate: float = Field(default=0.2, gt=0, description="peak rate")
    reference_batch: int | None = Field(
        default=None,
        ge=1,
        description="batch size that the rate is meant for: it is scaled to --batch-size, linearly",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, beta1 of Adam")
    nesterov: bool = Field(default=False, description="Nesterov momentum of SGD")
    dampening: float = Field(default=0.0, ge=0, le=1, description="dampening of SGD's momentum")
    adam_beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="second beta of Adam, RMSprop's alpha; timm's keep their own unless changed",
    )
    weight_decay: float = Field(default=1e-4, ge=0, description="of weights")
    decay_norms: bool = Field(default=False, description="decay norms and biases too")
    head_rate_factor: float = Field(default=1.0, ge=0, description="the head's share of the rate")
    bias_rate_factor: float = Field(default=1.0, ge=0, description="the biases' share of the rate")
    beta_rate_factor: float = Field(default=0.01, ge=0, description="beta's share of the rate")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor of the rate from each stage to the one below"
    )

    schedule: Schedule = Field(default="cosine", description="course of the rate")
    rate_steps: tuple[DurationText, ...] = Field(
        default=(), description="when --schedule steps lowers the rate; repeatable"
    )
    rate_factor: float = Field(
        default=0.1, gt=0, le=1, description="factor of a step, or of the whole exponential course"
    )
    late_steps: bool = Field(
        default=False, description="lower the rate one pass late, as `epoch > drop` does"
    )
    rate_power: float = Field(default=1.0, gt=0, description="exponent of --schedule polynomial")
    final_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the peak rate at the end (cosine, linear, polynomial)",
    )
    warmup: DurationText = Field(default="5%", description="how long the rate climbs at first")

    ema_half_life: SpanText | None = Field(
        default=None,
        description="half-life of the weights' moving average, in img or any unit; unset: none",
    )
    accumulate: int = Field(
        default=1, ge=1, description="micro-batches whose gradients a step averages"
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest norm of the gradient; unset: no clipping"
    )
    max_nonfinite_steps: int = Field(
        default=3, ge=1, description="steps in a row with a loss that is no number, then it stops"
    )

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to train")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto",
        description="of the trunk; auto: bf16 on GPUs and CPUs that have it, fp16 on older GPUs, "
        "else fp32",
    )
    channels_last: bool = Field(default=True, description="memory layout of maps and weights")
    compile: Literal["no", "yes", "auto"] = Field(
        default="no", description="torch.compile the trunk; auto: if 30 timed steps say so"
    )
    deterministic: bool = Field(
        default=False, description="only operations that repeat to the bit on this machine"
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="threads of each process on the CPU; unset: by cores"
    )
    seed: int = Field(default=0, ge=0, description="of every random choice")

    log_every_steps: int = Field(default=20, ge=1, description="steps between log lines")
    tensorboard: bool = Field(
        default=True, description="write TensorBoard's files too, where it is installed"
    )
    validate_every: SpanText = Field(default="1ep", description="between validations")
    validate_first: bool = Field(default=False, description="validate before the first step too")

    checkpoint_every_minutes: float = Field(
        default=15.0, gt=0, description="minutes between checkpoints"
    )
    checkpoint_every: SpanText | None = Field(
        default=None, description="checkpoints at this distance too, beside those at validations"
    )
    keep_last: int = Field(default=2, ge=1, description="newest checkpoints that are kept")
    keep_every: SpanText | None = Field(
        default=None, description="keep one checkpoint in every such length for ever; unset: none"
    )
    best_by: str = Field(
        default="mean", description="score that names the best checkpoint; mean: of all scores"
    )
    best_mode: Mode = Field(
        default="auto", description="which is better; auto: the lower loss, the higher other score"
    )
    resume: Literal["no", "auto"] = Field(
        default="no", description="auto: go on from the newest complete checkpoint, if any"
    )
    resume_anyway: bool = Field(
        default=False, description="go on although settings differ from the checkpoint's"
    )
    dry_run: int = Field(
        default=0,
        ge=0,
        description="do so many steps on noise, print size, memory and time of the run, write "
        "nothing",
    )

    @field_validator("optimiser")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPTIMISERS and not name.startswith(TIMM):
            raise ValueError(
                f"{name!r} is no optimiser: take one of {', '.join(OPTIMISERS)}, or {TIMM}NAME"
            )
        return name

    @model_validator(mode="after")
    def _options_have_their_part(self) -> Self:
        """Refuse settings of a schedule, an optimiser or a resumption that is not asked for."""
        if (self.schedule == "steps") != bool(self.rate_steps):
            raise ValueError("--schedule steps and --rate-steps go together")
        if self.late_steps and not self.rate_steps:
            raise ValueError("--late-steps is for --schedule steps")
        if (self.nesterov or self.dampening) and self.optimiser != "sgd":
            raise ValueError(f"--nesterov and --dampening are for sgd, not {self.optimiser}")
        if self.nesterov and (self.dampening or not self.momentum):
            raise ValueError("--nesterov needs a --momentum and no --dampening")
        if self.resume_anyway and self.resume != "auto":
            raise ValueError("--resume-anyway needs --resume auto")
        if self.precision == "fp16" and self.device == "cpu":
            raise ValueError("--precision fp16 needs a GPU: take bf16, fp32 or auto on a CPU")
        return self

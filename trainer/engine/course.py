"""How long training takes and what happens at which step."""

from typing import NamedTuple

from trainer.duration import parse_duration
from trainer.engine.schedule import RateCourse
from trainer.inputs.sampler import BatchPlan
from trainer.settings import TrainConfig


class Course(NamedTuple):
    """Lengths in steps; `every` lengths may be fractions of a step, None is never."""

    num_steps: int
    num_photos: int
    photos_per_step: int
    views_per_step: int
    learning_rate: float
    rates: RateCourse
    freeze_until: int
    log_every_steps: int
    validate_every: float
    validate_first: bool
    checkpoint_every: float | None
    checkpoint_every_seconds: float

    def epochs_at(self, step: int) -> float:
        """Return how many passes over the photos the first `step` steps are."""
        return step * self.photos_per_step / self.num_photos

    def fraction_at(self, step: int) -> float:
        """Return how much of training lies before the middle of a step, 0 .. 1."""
        return (step + 0.5) / self.num_steps

    def logs_after(self, step: int) -> bool:
        """Whether a log line is due when `step` steps are done."""
        return step == self.num_steps or step % self.log_every_steps == 0

    def validates_after(self, step: int) -> bool:
        """Whether a validation is due when `step` steps are done."""
        if step == 0:
            return self.validate_first
        return step == self.num_steps or _passes(step, self.validate_every)

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due when `step` steps are done, whatever the clock says."""
        if step == 0:
            return False
        if self.checkpoint_every is not None and _passes(step, self.checkpoint_every):
            return True
        return self.validates_after(step)


def _passes(step: int, every: float) -> bool:
    """Whether a multiple of `every` lies in (step - 1, step]."""
    return step // every > (step - 1) // every


def steps_of(text: str, *, plan: BatchPlan, views_per_step: int, num_steps: int = 0) -> float:
    """Return a duration in steps, not rounded; `%` is of `num_steps`."""
    return parse_duration(text).steps(
        steps_per_epoch=plan.num_photos / plan.photos_per_step,
        views_per_step=views_per_step,
        num_steps=num_steps,
    )


def build_course(config: TrainConfig, plan: BatchPlan) -> Course:
    """Turn the settings' durations into steps."""

    def steps(text: str, num_steps: int = 0) -> float:
        return steps_of(text, plan=plan, views_per_step=config.batch_size, num_steps=num_steps)

    num_steps = max(1, round(steps(config.duration)))
    late = plan.num_photos / plan.photos_per_step if config.late_steps else 0.0
    drops = tuple((steps(text, num_steps) + late) / num_steps for text in config.rate_steps)
    every = config.checkpoint_every
    return Course(
        num_steps=num_steps,
        num_photos=plan.num_photos,
        photos_per_step=plan.photos_per_step,
        views_per_step=config.batch_size,
        learning_rate=peak_rate(config),
        rates=RateCourse(
            schedule=config.schedule,
            warmup=min(1.0, steps(config.warmup, num_steps) / num_steps),
            drops=drops,
            factor=config.rate_factor,
            power=config.rate_power,
            final=config.final_rate,
        ),
        freeze_until=round(steps(config.freeze_until, num_steps)),
        log_every_steps=config.log_every_steps,
        validate_every=max(1.0, steps(config.validate_every, num_steps)),
        validate_first=config.validate_first,
        checkpoint_every=None if every is None else max(1.0, steps(every, num_steps)),
        checkpoint_every_seconds=60 * config.checkpoint_every_minutes,
    )


def peak_rate(config: TrainConfig) -> float:
    """Return the peak rate, scaled from the batch it is meant for to this run's (Goyal 2017)."""
    if config.reference_batch is None:
        return config.learning_rate
    return config.learning_rate * config.batch_size / config.reference_batch

"""The training loop: steps, log lines, validations, checkpoints, and a clean stop."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn

from multigrain.progress import Progress
from trainer.bad_photos import BadPhotos
from trainer.batchnorm import average_over_processes, set_momentum
from trainer.gather import process_rank
from trainer.loading import Batch
from trainer.meter import Meter
from trainer.objective import Losses, Objective
from trainer.optimiser import rate_at, set_rate
from trainer.processes import Processes
from trainer.runfolder import RunFolder
from trainer.seeds import seed_of

STATE_FORMAT = 1


class Course(NamedTuple):
    """How long training takes and what happens when."""

    num_steps: int
    num_photos: int
    photos_per_step: int
    learning_rate: float
    warmup: float
    seed: int
    bf16: bool
    log_every_steps: int
    validate_every_epochs: float
    checkpoint_every_seconds: float

    def epochs_at(self, step: int) -> float:
        """Return how many passes over the photos the first `step` steps are."""
        return step * self.photos_per_step / self.num_photos

    def validates_after(self, step: int) -> bool:
        """Whether a validation is due when `step` steps are done."""
        passed = self.epochs_at(step) // self.validate_every_epochs
        return step == self.num_steps or (
            passed > self.epochs_at(step - 1) // self.validate_every_epochs
        )


class Loop:
    """One run's training, from any step to the end.

    `objective` owns the parameters; `wrapped` is the same behind DDP when there are several
    processes. `identity` is what a state must share with the run that goes on from it.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        wrapped: nn.Module,
        optimiser: torch.optim.Optimizer,
        course: Course,
        processes: Processes,
        run: RunFolder,
        bad_photos: BadPhotos,
        validate: Callable[[], dict[str, float]],
        identity: dict[str, Any],
    ) -> None:
        self.objective = objective
        self.wrapped = wrapped
        self.optimiser = optimiser
        self.course = course
        self.processes = processes
        self.run = run
        self.bad_photos = bad_photos
        self.validate = validate
        self.identity = identity
        self.scores: dict[str, float] = {}
        self.best = float("-inf")

    def train(self, batches: Iterable[Batch], *, start: int) -> bool:
        """Do the steps from `start` on; return False when SIGTERM stopped them before the end."""
        meter, progress = Meter(), self._progress()
        last_save = waiting_since = time.monotonic()
        with stop_on_sigterm() as stop:
            for step, batch in enumerate(batches, start):
                waited = time.monotonic() - waiting_since
                losses = self.step(step, batch)
                meter.add(losses.parts, views=len(batch.labels), waited_seconds=waited)
                done = step + 1
                stopping, saving, bad = self.processes.agree(
                    stop.requested,
                    time.monotonic() - last_save > self.course.checkpoint_every_seconds,
                    self.bad_photos.note(batch.bad),
                )
                if bad:
                    self._write_bad_photos()
                validating = self.course.validates_after(done)
                if done % self.course.log_every_steps == 0 or stopping or saving or validating:
                    # Also before a checkpoint, so that a loss that is no number is never saved.
                    self._log(done, meter.read(step=done))
                if validating and not stopping:
                    self._score(done)
                if stopping or saving or validating:
                    self._save(done)
                    last_save = time.monotonic()
                if stopping and done < self.course.num_steps:
                    return False
                if progress is not None:
                    progress.update(done, f"epoch {self.course.epochs_at(done):.1f}")
                waiting_since = time.monotonic()
        if progress is not None:
            progress.close()
        return True

    def step(self, step: int, batch: Batch) -> Losses:
        """Do one step: forward, backward, new weights."""
        self.wrapped.train()
        set_momentum(self.objective, step)
        fraction = (step + 0.5) / self.course.num_steps
        rate = self.course.learning_rate * rate_at(fraction, warmup=self.course.warmup)
        set_rate(self.optimiser, rate)
        # Dropout and the like draw from counters too: nothing random needs saving.
        torch.manual_seed(seed_of(self.course.seed, "step", step, process_rank()))
        device = self.processes.device
        pixels = batch.pixels.to(device, non_blocking=True)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        labels = batch.labels.to(device, non_blocking=True)
        photo_ids = batch.photo_ids.to(device, non_blocking=True)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.course.bf16):
            losses: Losses = self.wrapped(pixels, labels, photo_ids, step)
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return losses

    def state(self, step: int) -> dict[str, Any]:
        """Return what going on after `step` steps needs: plain types and tensors only."""
        return {
            "format": STATE_FORMAT,
            "step": step,
            "identity": self.identity,
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scores": self.scores,
            "best": self.best,
            "bad_photos": self.bad_photos.state(),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Take up a state and return the number of steps it has done."""
        self.objective.load_state_dict(state["objective"], strict=True)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scores, self.best = state["scores"], state["best"]
        self.bad_photos.restore(state["bad_photos"])
        return int(state["step"])

    def _score(self, step: int) -> None:
        average_over_processes(self.objective)
        self.scores = self.validate()
        if self.processes.is_first and self.scores:
            self.run.log({"step": step, "epoch": self.course.epochs_at(step)} | self.scores)

    def _save(self, step: int) -> None:
        average_over_processes(self.objective)
        mean = sum(self.scores.values()) / len(self.scores) if self.scores else float("-inf")
        is_best, self.best = mean > self.best, max(mean, self.best)
        if self.processes.is_first:
            self.run.save(step, self.state(step), is_best=is_best)
        self.processes.wait()

    def _log(self, step: int, record: dict[str, float]) -> None:
        if not record or not self.processes.is_first:
            return
        learned = {"p": float(self.objective.model.pool.p.detach())}
        if self.objective.uses_margin:
            learned["beta"] = float(self.objective.beta.detach())
        images = step * self.course.photos_per_step
        place = {"step": step, "epoch": self.course.epochs_at(step), "images": images}
        rate = {"learning_rate": self.optimiser.param_groups[0]["lr"]}
        self.run.log(place | record | rate | learned)

    def _write_bad_photos(self) -> None:
        text = self.bad_photos.share(self.processes)
        if self.processes.is_first:
            self.run.write("bad_images.txt", text)

    def _progress(self) -> Progress | None:
        return Progress(self.course.num_steps, "steps") if self.processes.is_first else None


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """Take the signal; the loop looks at the end of each step."""
        self.requested = True


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Turn SIGTERM into a request while the block runs."""
    stop = StopRequest()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)

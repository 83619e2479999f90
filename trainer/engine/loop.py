"""The training loop: steps, log lines, validations, checkpoints, and a clean stop."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from multigrain.model import MultiGrain
from multigrain.progress import Progress
from trainer.engine.batchnorm import average_over_processes, gather_statistics, set_statistics
from trainer.engine.best import Best
from trainer.engine.compiling import eager_when
from trainer.engine.course import Course
from trainer.engine.journal import Journal
from trainer.engine.processes import Agreement, Processes
from trainer.engine.runfolder import RunFolder
from trainer.engine.saving import StateWriter
from trainer.engine.schedule import rate_at
from trainer.engine.signals import stop_on_signals
from trainer.engine.stepper import Stepper, restore_optimiser
from trainer.inputs.bad_photos import BadPhotos
from trainer.inputs.loading import Batch
from trainer.losses.objective import Losses, Objective

STATE_FORMAT = 2


class Loop:
    """One run's training, from any step to the end.

    `identity` is what a state must share with the run that goes on from it; `choose_compile`
    decides, once in a run, whether the trunk is compiled.
    """

    def __init__(
        self,
        *,
        stepper: Stepper,
        course: Course,
        processes: Processes,
        run: RunFolder,
        writer: StateWriter,
        journal: Journal,
        bad_photos: BadPhotos,
        best: Best,
        validate: Callable[[MultiGrain], dict[str, float]],
        choose_compile: Callable[[], bool],
        identity: dict[str, Any],
    ) -> None:
        self.stepper = stepper
        self.course = course
        self.processes = processes
        self.run = run
        self.writer = writer
        self.journal = journal
        self.bad_photos = bad_photos
        self.best = best
        self.validate = validate
        self.choose_compile = choose_compile
        self.identity = identity
        self.scores: dict[str, float] = {}
        self.compiled: bool | None = None
        self._agreement = Agreement(processes)
        self._owes_scores = False
        self._last_save = 0.0

    @property
    def objective(self) -> Objective:
        """What is trained: the model and every learned number of the loss."""
        return self.stepper.objective

    @property
    def model(self) -> MultiGrain:
        """The model that is validated and published: the averaged one where there is one."""
        average = self.stepper.average
        return self.objective.model if average is None else average.model

    def train(self, batches: Iterable[Batch], *, start: int) -> bool:
        """Do the steps from `start` on; return False when a signal stopped them before the end.

        Returns, and raises, only when no checkpoint is being written any more.
        """
        self._compile()
        if self.bad_photos.state(self.processes):  # found by the life before, maybe not yet listed
            self._write_bad_photos()
        with stop_on_signals() as stop, self.writer:
            if self._owes_scores or (start == 0 and self.course.validates_after(0)):
                self._score(start)
                if start > 0:
                    self.save(start)
            progress = self._progress()
            self._last_save = waiting_since = time.monotonic()
            for step, batch in enumerate(batches, start):
                self.journal.waited(time.monotonic() - waiting_since)
                losses = self.step(step, batch)
                done = step + 1
                self.journal.note(losses, step=done, skipped=self.stepper.skipped)
                if step == start:  # by now the optimiser has its own state too
                    self._reserve(done)
                if self._end_step(done, batch, stop_requested=stop.requested):
                    return False
                if progress is not None:
                    progress.update(done, self.journal.note_of(done))
                waiting_since = time.monotonic()
            self._finish(progress)
            # All is saved; the end that follows is long, and can be begun by the next life.
            (stopping,) = self.processes.agree(stop.requested)
        return not stopping

    def _end_step(self, done: int, batch: Batch, *, stop_requested: bool) -> bool:
        """Do what is due when `done` steps are done; return whether training stops here."""
        overdue = self._overdue()
        if overdue:
            self._last_save = time.monotonic()
        stopping, saving, bad, failed = self._agreement.exchange(
            stop_requested, overdue, self.bad_photos.note(batch.bad), self.writer.failed
        )
        if bad:
            self._write_bad_photos()
        if failed:
            self.writer.wait()  # raises on the process that writes
            raise ConnectionError("the first process cannot write its checkpoints")
        # A validation is long, and may fail: what is done is saved before it. Whoever asks to
        # stop will not wait for it: the next life begins with it.
        self._owes_scores = self.course.validates_after(done)
        if stopping or saving or self.course.saves_after(done):
            self.save(done)
        if self._owes_scores and not stopping:
            self._score(done)
            self.save(done)
        if stopping:
            self._agreement.last()
            self.writer.wait()
        return stopping

    def step(self, step: int, batch: Batch) -> Losses:
        """Do one step: forward, backward, new weights."""
        rate = self.course.learning_rate * rate_at(self.course.fraction_at(step), self.course.rates)
        with eager_when(bool(self.compiled) and self.stepper.momenta.is_early(step)):
            return self.stepper(step, batch, rate=rate)

    def save(self, step: int) -> None:
        """Begin to write the state after `step` steps."""
        with self.journal.paused():
            state = self.state(step)
            if self.processes.is_first:
                self.writer.save(step, state, best_step=self.best.step)
        self._last_save = time.monotonic()

    def state(self, step: int) -> dict[str, Any]:
        """Return what going on after `step` steps needs: plain types and tensors only.

        Every process calls it, the first one's is written.
        """
        average = self.stepper.average
        return {
            "format": STATE_FORMAT,
            "step": step,
            "identity": self.identity,
            "objective": self.objective.state_dict(),
            "average": None if average is None else average.model.state_dict(),
            "statistics": [gather_statistics(model) for model in self._models()],
            "optimiser": self.stepper.optimiser.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "guard": self.stepper.guard.state(),
            "journal": self.journal.state(),
            "scores": self.scores,
            "owes_scores": self._owes_scores,
            "best": self.best.state(),
            "bad_photos": self.bad_photos.state(self.processes),
            "compiled": self.compiled,
        }

    def restore(self, state: Mapping[str, Any]) -> int:
        """Take up a state and return the number of steps it has done."""
        average = self.stepper.average
        self.objective.load_state_dict(state["objective"], strict=True)
        if average is not None:
            average.model.load_state_dict(
                state["average"] or self.objective.model.state_dict(), strict=True
            )
        for model, rows in zip(self._models(), state["statistics"], strict=False):
            set_statistics(model, rows)
        same = state["identity"] == self.identity
        restore_optimiser(self.stepper.optimiser, state["optimiser"], same_settings=same)
        self.stepper.scaler.load_state_dict(state["scaler"])
        self.stepper.guard.restore(state["guard"])
        self.journal.restore(state["journal"])
        self.scores, self._owes_scores = state["scores"], state["owes_scores"]
        self.best.restore(state["best"])
        self.bad_photos.restore(state["bad_photos"])
        if state["identity"].get("compile") == self.identity.get("compile"):
            self.compiled = state["compiled"]
        return int(state["step"])

    def _reserve(self, step: int) -> None:
        state = self.state(step)
        if self.processes.is_first:
            self.writer.reserve(state)

    def _compile(self) -> None:
        if self.compiled is None:
            self.compiled = self.choose_compile()
        if self.compiled:
            self.objective.model.backbone.compile()

    def _overdue(self) -> bool:
        seconds = time.monotonic() - self._last_save
        return self.processes.is_first and seconds > self.course.checkpoint_every_seconds

    def _score(self, step: int) -> None:
        with self.journal.paused(), eager_when(bool(self.compiled)):
            self._average_statistics()
            self.scores = self.validate(self.model)
        self.stepper.evaluate()
        self._owes_scores = False
        if self.scores:
            self.best.note(step, self.scores)
            self.journal.write_scores(step, self.scores)

    def _models(self) -> list[nn.Module]:
        average = self.stepper.average
        return [self.objective] if average is None else [self.objective, average.model]

    def _average_statistics(self) -> None:
        for model in self._models():
            average_over_processes(model)

    def _write_bad_photos(self) -> None:
        text = self.bad_photos.share(self.processes)
        if self.processes.is_first:
            self.run.write("bad_images.txt", text)
        self.bad_photos.check()

    def _finish(self, progress: Progress | None) -> None:
        """Settle what was still under way when the last step was done."""
        if any(self._agreement.last()[2:3]):  # bad photos of the last step
            self._write_bad_photos()
        self.journal.settle()
        self.writer.wait()
        self.journal.close()
        if progress is not None:
            progress.close()

    def _progress(self) -> Progress | None:
        return Progress(self.course.num_steps, "steps") if self.processes.is_first else None

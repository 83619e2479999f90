"""Which checkpoint scored best, by a score of the user's choice."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from multigrain.errors import MultiGrainError

Mode = Literal["auto", "max", "min"]
MEAN = "mean"
_LOWER_IS_BETTER = ("loss", "error", "entropy")


class BestError(MultiGrainError):
    """A score that no validation gives."""


class Best:
    """The best score so far and its step, None before the first validation that has it.

    Raises BestError for a name that is not among those of `known` scores.
    """

    def __init__(
        self, *, by: str, mode: Mode, known: Sequence[str], say: Callable[[str], None]
    ) -> None:
        if by not in {MEAN, *known}:
            raise BestError(f"--best-by {by} is no score: take {MEAN} or one of {', '.join(known)}")
        self.by = by
        self._say = say
        lower = mode == "min" or (mode == "auto" and any(part in by for part in _LOWER_IS_BETTER))
        self._sign = -1.0 if lower else 1.0
        self.step: int | None = None
        self.value: float | None = None

    def note(self, step: int, scores: Mapping[str, float]) -> None:
        """Take in a validation's scores; a tie leaves the older one the best.

        One without the score, for want of such photos, and the one before the first step, of which
        there is no checkpoint, are said and name no best one.
        """
        if step == 0:
            self._say("the scores before the first step are of no checkpoint: none is called best")
            return
        if self.by != MEAN and self.by not in scores:
            self._say(
                f"the validation photos allow no {self.by}, only {', '.join(sorted(scores))}: "
                f"no checkpoint of step {step} is called best"
            )
            return
        value = sum(scores.values()) / len(scores) if self.by == MEAN else scores[self.by]
        if self.value is None or self._sign * value > self._sign * self.value:
            self.step, self.value = step, value

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, so that a worse model never replaces the best."""
        return {"by": self.by, "step": self.step, "value": self.value}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up an interrupted run's best, unless it was chosen by another score."""
        if state["by"] == self.by:
            self.step, self.value = state["step"], state["value"]

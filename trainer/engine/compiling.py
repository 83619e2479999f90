"""Whether the trunk is compiled: asked for, or decided by timing it both ways."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.engine.numerics import Numerics
from trainer.engine.processes import Processes

Say = Callable[[str], None]
Compile = Callable[[nn.Module], Any]

_TIMED_STEPS = 15  # of each kind, thirty in all
_UNTIMED_STEPS = 2  # the first ones compile, fill caches, and choose convolutions


class Trial(NamedTuple):
    """Views [B, 3, S, S] of one step of one process."""

    num_views: int
    size: int


def choose(
    setting: str,
    trunk: nn.Module,
    trial: Trial,
    *,
    numerics: Numerics,
    processes: Processes,
    say: Say,
    compiler: Compile = torch.compile,
) -> bool:
    """Return whether the trunk is to be compiled, the same on all processes.

    `setting` is no, yes or auto. `auto` times thirty synthetic steps of a copy of the trunk, half
    of them compiled. A compiler that fails is said, and means no.
    """
    if setting == "no":
        return False
    trained = copy.deepcopy(trunk).train()
    pixels = torch.zeros(trial.num_views, 3, trial.size, trial.size, device=numerics.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last).normal_()
    compiled_seconds, reason = float("inf"), ""
    try:
        compiled_seconds = _seconds(compiler(trained), trained, pixels, numerics)
    except Exception as error:  # noqa: BLE001 - a compiler fails in ways of its own; eager always works
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    (failed,) = processes.agree(bool(reason))
    if failed:
        say(f"the trunk is not compiled, the compiler fails: {reason or 'on another process'}")
        return False
    if setting == "yes":
        return True
    seconds = _seconds(trained, trained, pixels, numerics)
    # The slowest process is what a step waits for.
    times = processes.gather((seconds, compiled_seconds))
    eager, compiled = (max(column) for column in zip(*times, strict=True))
    wins = bool(compiled < eager)
    say(
        f"a step of the trunk takes {1000 * eager:.0f} ms eager, {1000 * compiled:.0f} ms "
        f"compiled: {'compiled' if wins else 'eager'} it is"
    )
    return wins


@contextmanager
def eager_when(wanted: bool) -> Iterator[None]:  # noqa: FBT001 - reads as a sentence
    """Run compiled modules as they are written while the block runs, if wanted.

    Photos of many shapes would each be compiled for, and so would each of the first steps, whose
    batch norm changes its momentum.
    """
    if not wanted:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _seconds(
    function: Callable[[Tensor], Tensor], trunk: nn.Module, pixels: Tensor, numerics: Numerics
) -> float:
    """Mean seconds of a forward and backward pass, after those that are not timed."""
    started = 0.0
    for number in range(_UNTIMED_STEPS + _TIMED_STEPS):
        if number == _UNTIMED_STEPS:
            _finish(numerics)
            started = time.perf_counter()
        with numerics.autocast():
            features = function(pixels)
        features.float().mean().backward()  # type: ignore[no-untyped-call]
        trunk.zero_grad(set_to_none=True)
    _finish(numerics)
    return (time.perf_counter() - started) / _TIMED_STEPS


def _finish(numerics: Numerics) -> None:
    if numerics.device.type == "cuda":
        torch.cuda.synchronize(numerics.device)

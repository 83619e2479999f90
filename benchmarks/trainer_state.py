"""What a background checkpoint holds the training thread up for, and memory over many steps."""

import os
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks.report import Target
from benchmarks.trainer_run import build_run, noise_batch
from trainer.engine.processes import alone
from trainer.inputs.data import build_batches

NUM_SAVES = 6
NUM_STEPS = 500
SETTLED_STEP = 100  # by then every buffer has been allocated
MAX_BLOCKED_PER_100_MB = 0.050
MAX_GROWTH = 0.02
_MB = 1e6


class Saving(NamedTuple):
    """A state's size in MB, and seconds in which the training thread waited, a value a save."""

    megabytes: float
    blocked: list[float]
    first: float
    writing: list[float]

    @property
    def per_100_mb(self) -> float:
        """Seconds of waiting for each 100 MB of state, median."""
        return median(self.blocked) * 100 / self.megabytes


class Memory(NamedTuple):
    """Resident bytes after a step, at some steps of a run."""

    steps: list[int]
    resident: list[int]

    @property
    def growth(self) -> float:
        """Largest resident size after SETTLED_STEP over that at it, less one."""
        settled = self.resident[self.steps.index(SETTLED_STEP)]
        return max(self.resident[self.steps.index(SETTLED_STEP) :]) / settled - 1


def measure_saving(photos: Path, folder: Path) -> Saving:
    """Save a ResNet-50's state (weights, momentum, average) again and again, steps between."""
    run = build_run(
        photos, folder / "saving", alone(), backbone="resnet50", size=64, batch_size=12,
        duration="1000step", ema_half_life="1000img", learning_rate=0.01, tensorboard=False,
    )  # fmt: skip
    writer, blocked, writing = run.loop.writer, list[float](), list[float]()
    for step in range(NUM_SAVES):
        run.loop.step(step, noise_batch(run, step))
        start = time.perf_counter()
        run.loop.save(step + 1)
        blocked.append(time.perf_counter() - start)
        writer.wait()  # so that the next save waits for its own copy only
        writing.append(time.perf_counter() - start)
    megabytes = size_of(run.loop.state(NUM_SAVES)) / _MB
    return Saving(megabytes, blocked[1:], blocked[0], writing[1:])


def measure_memory(photos: Path, folder: Path) -> Memory:
    """Train a small trunk on photos, with checkpoints and log lines, and look at the memory."""
    run = build_run(
        photos, folder / "memory", alone(), backbone="shufflenet_v2_x0_5", size=64, batch_size=24,
        duration=f"{NUM_STEPS}step", checkpoint_every="50step", log_every_steps=10,
        validate_every="100000step", learning_rate=0.01, tensorboard=False, num_workers=0,
    )  # fmt: skip
    steps, resident = list[int](), list[int]()
    batches = build_batches(run.config, run.data, run.plan, alone(), start=0, stop=NUM_STEPS)

    def watched() -> Any:
        for step, batch in enumerate(batches):
            if step % (SETTLED_STEP // 2) == 0 and step:
                steps.append(step)
                resident.append(resident_bytes())
            yield batch
        steps.append(NUM_STEPS)
        resident.append(resident_bytes())

    run.loop.train(watched(), start=0)
    return Memory(steps, resident)


def size_of(value: Any) -> int:
    """Bytes of all tensors of a state."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(size_of(part) for part in value.values())
    return sum(size_of(part) for part in value) if isinstance(value, list | tuple) else 0


def resident_bytes() -> int:
    """Memory of this process that is really there."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def table(saving: Saving, memory: Memory) -> str:
    """Markdown of what was measured."""
    sizes = ", ".join(
        f"{size / _MB:.0f} after {step}"
        for step, size in zip(memory.steps, memory.resident, strict=True)
    )
    rows = [
        f"| state (ResNet-50, SGD, EMA) | {saving.megabytes:.0f} MB |",
        (
            "| training thread held up, a save (least - most), ms "
            f"| {1e3 * median(saving.blocked):.0f} "
            f"({1e3 * min(saving.blocked):.0f} - {1e3 * max(saving.blocked):.0f}); "
            f"the first {1e3 * saving.first:.0f} |"
        ),
        f"| written, with fsync and checksum | {median(saving.writing):.2f} s |",
        f"| resident memory, MB, steps | {sizes} |",
    ]
    return "\n".join(["| | |", "|---|---|", *rows])


def targets(saving: Saving, memory: Memory) -> list[Target]:
    """The training thread goes on, and memory stays."""
    return [
        Target(
            "s held up by a background checkpoint, for each 100 MB",
            saving.per_100_mb,
            "<=",
            MAX_BLOCKED_PER_100_MB,
        ),
        Target(
            f"growth of memory, steps {SETTLED_STEP} to {NUM_STEPS}",
            memory.growth,
            "<=",
            MAX_GROWTH,
        ),
    ]

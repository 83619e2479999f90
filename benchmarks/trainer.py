"""The trainer beside what one would use instead: steps, loss, loading, scores, checkpoints.

    python -m benchmarks.trainer --data FOLDER [--full]

FOLDER holds `classes/` with `train/`, one sub-folder of photos a class. Each part prints a table;
the targets are judged at the end. Exits with 1 when one is missed. `--full` does the whole
protocol: more rounds and larger sets.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import (
    loading,
    trainer_gpu,
    trainer_loss,
    trainer_scores,
    trainer_state,
    trainer_step,
)
from benchmarks.report import Target, judge, machine_facts
from multigrain.cpus import num_cpus
from trainer.scenes import draw_collection


def main() -> int:
    """Measure every part, print its table, and judge."""
    args = read_args()
    torch.set_num_threads(num_cpus())
    print(machine_facts(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        photos = draw_photos(Path(folder))
        targets = [
            *measure_loss(),
            *measure_step(photos, Path(folder), full=args.full),
            *measure_state(photos, Path(folder)),
            *measure_loading(args.data / "classes" / "train", full=args.full),
            *measure_scores(full=args.full),
            *measure_gpu(photos, Path(folder)),
        ]
    return judge(targets)


def read_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with classes/train")
    parser.add_argument("--full", action="store_true", help="more rounds, larger sets")
    return parser.parse_args()


def draw_photos(folder: Path) -> Path:
    """Small photos of a few classes, for the parts in which pixels do not matter."""
    return draw_collection(
        folder / "photos",
        num_classes=8,
        instances_per_class=8,
        photos_per_instance=2,
        size=64,
        seed=0,
    )


def measure_loss() -> list[Target]:
    """Sampler and loss beside a numpy loop."""
    heading("Sampler and loss")
    shapes = trainer_loss.measure()
    print(trainer_loss.table(shapes), flush=True)
    return trainer_loss.targets(shapes)


def measure_step(photos: Path, folder: Path, *, full: bool) -> list[Target]:
    """Our share of a step."""
    heading("A step")
    cost = trainer_step.measure(photos, folder, full=full)
    print(trainer_step.table(cost), flush=True)
    return trainer_step.targets(cost)


def measure_state(photos: Path, folder: Path) -> list[Target]:
    """Checkpoints in the background, memory over many steps."""
    heading("Checkpoints and memory")
    saving = trainer_state.measure_saving(photos, folder)
    memory = trainer_state.measure_memory(photos, folder)
    print(trainer_state.table(saving, memory), flush=True)
    return trainer_state.targets(saving, memory)


def measure_loading(photos: Path, *, full: bool) -> list[Target]:
    """The ladder of loading, on these photos and on 12-megapixel ones."""
    heading("Loading")
    return loading.ladder(photos, quick=not full)


def measure_scores(*, full: bool) -> list[Target]:
    """Evaluation and whitening beside libraries."""
    heading("Evaluation and whitening")
    compared = trainer_scores.measure(full=full)
    print(trainer_scores.table(compared), flush=True)
    return trainer_scores.targets(compared)


def measure_gpu(photos: Path, folder: Path) -> list[Target]:
    """Training on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return []
    heading("GPU")
    speed = trainer_gpu.measure(photos, folder)
    print(trainer_gpu.table(speed), flush=True)
    return trainer_gpu.targets(speed)


def heading(text: str) -> None:
    """Say what comes, and when."""
    print(f"\n## {text} ({time.strftime('%H:%M:%S')})", flush=True)


if __name__ == "__main__":
    sys.exit(main())

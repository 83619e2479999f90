"""Train a MultiGrain embedding on a folder of photos.

    torchrun --nproc-per-node N trainer/train.py --data FOLDER --out RUN
    python trainer/train.py --data FOLDER --out RUN

Ends with RUN/model.safetensors, whitened, which the index builder takes, and RUN/report.html.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from multigrain.program import load_config, run_main
from trainer.settings import TrainConfig

if TYPE_CHECKING:
    from multigrain.expectations import Expected
    from trainer.engine.processes import Processes

PROG = "trainer/train.py"
EXIT_LEFT = 1


def train(config: TrainConfig, processes: "Processes") -> Path | None:
    """Train, whiten and write the checkpoint; return its path, None when stopped by a signal."""
    from trainer.engine.assemble import assemble
    from trainer.engine.compiling import eager_when
    from trainer.engine.dry_run import dry_run
    from trainer.engine.environment import describe_environment
    from trainer.engine.logbook import TrainLog
    from trainer.engine.resume import open_folder, resume
    from trainer.finishing.finish import Trained, finish, plan_finish, training_of
    from trainer.inputs.data import build_batches
    from trainer.speech import say, say_nothing

    tell = TrainLog(say if processes.is_first else say_nothing)
    run = open_folder(config.out, resuming=config.resume == "auto" or config.dry_run > 0)
    data, document, plan, loop = assemble(config, processes, run, say=tell, keep=tell.keep)
    ending = plan_finish(config, data, document, say=tell)
    if config.dry_run:
        dry_run(loop, data, plan, num_steps=config.dry_run, size=config.size, say=tell)
        return None
    start = resume(loop, run, settings=config.to_yaml(), anyway=config.resume_anyway, say=tell)
    if processes.is_first:
        tell.open(run.log)
        run.write("env.json", describe_environment(os.environ, processes))
    batches = build_batches(config, data, plan, processes, start=start, stop=loop.course.num_steps)
    if not loop.train(batches, start=start):
        tell(f"stopped by a signal and saved: go on with --resume auto --out {config.out}")
        return None
    trained = Trained(
        loop.model, document, training_of(loop, num_views=config.num_views), loop.scores
    )
    with eager_when(bool(loop.compiled)):  # photos in use have many shapes
        return finish(trained, ending, processes=processes, run=run, say=tell)


def main() -> int:
    """Read the flags, join the other processes, train, and print the checkpoint's path."""
    config = load_config(
        TrainConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    return run_among(config, os.environ)


def run_among(config: TrainConfig, environ: Mapping[str, str]) -> int:
    """Train among the processes that the environment tells of; return the exit status."""
    from multigrain.expectations import read_expectations
    from trainer.engine.processes import joined_processes, reported

    expected = read_expectations(config.expect)

    def among() -> int:
        with joined_processes(
            environ, device=config.device, num_threads=config.num_threads
        ) as processes:
            path = train(config, processes)
            if path is None or not processes.is_first:
                return 0
            print(path)
            return judge(path, expected)

    return reported(among, environ)


def judge(checkpoint: Path, expected: "Expected") -> int:
    """Say which scores of the checkpoint are not as expected; return the exit status."""
    from multigrain.checkpoint import read_document
    from multigrain.expectations import left_values, resolve

    scores = read_document(checkpoint).metrics
    left = left_values(resolve(expected, scores), scores)
    for line in left:
        print(f"{PROG}: {line}", file=sys.stderr)
    return EXIT_LEFT if left else 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

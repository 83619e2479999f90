"""A training run put together as `train` does it, ready to be stopped anywhere."""

from collections.abc import Iterator

from trainer.engine.assemble import assemble
from trainer.engine.loop import Loop
from trainer.engine.processes import alone
from trainer.engine.resume import open_folder, resume
from trainer.inputs.data import build_batches
from trainer.inputs.loading import Batch
from trainer.settings import TrainConfig
from trainer.speech import say_nothing


def parts_of(config: TrainConfig) -> tuple[Loop, Iterator[Batch]]:
    """Put a run together as `train` does, ready to be stopped anywhere."""
    processes = alone()
    run = open_folder(config.out, resuming=config.resume == "auto")
    data, _, plan, loop = assemble(config, processes, run, say=say_nothing, keep=say_nothing)
    start = resume(loop, run, settings=config.to_yaml(), say=say_nothing)
    return loop, iter(
        build_batches(config, data, plan, processes, start=start, stop=loop.course.num_steps)
    )

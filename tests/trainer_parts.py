"""A training run put together as `train` does it, ready to be stopped anywhere."""

from collections.abc import Iterator

from trainer.engine.assemble import build_loop, prepare_model
from trainer.engine.loop import Loop
from trainer.engine.processes import alone
from trainer.engine.resume import open_folder, resume
from trainer.inputs.data import build_batches, build_device_part, read_data
from trainer.inputs.loading import Batch
from trainer.losses.build_objective import build_objective, build_plan
from trainer.models.build_model import build_model
from trainer.settings import TrainConfig
from trainer.speech import say_nothing


def parts_of(config: TrainConfig) -> tuple[Loop, Iterator[Batch]]:
    """Put a run together as `train` does, ready to be stopped anywhere."""
    processes = alone()
    run = open_folder(config.out, resuming=config.resume == "auto")
    data = read_data(config, say=say_nothing)
    document, model = build_model(config, data, say=say_nothing)
    plan = build_plan(config, data, processes)
    freezing = prepare_model(config, model, plan, processes, say=say_nothing)
    objective, wrapped = build_objective(config, data, model, plan, processes)
    loop = build_loop(
        config,
        data,
        document=document,
        plan=plan,
        objective=objective,
        wrapped=wrapped,
        device_part=build_device_part(config, processes),
        freezing=freezing,
        processes=processes,
        run=run,
        say=say_nothing,
        keep=say_nothing,
    )
    start = resume(loop, run, settings=config.to_yaml(), say=say_nothing)
    return loop, iter(
        build_batches(config, data, plan, processes, start=start, stop=loop.course.num_steps)
    )

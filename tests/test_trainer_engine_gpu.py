"""On a GPU: no step of a running training waits for the device."""

from pathlib import Path

import pytest
import torch
from trainer_fixtures import draw_small

from trainer.engine.assemble import assemble
from trainer.engine.processes import alone
from trainer.engine.resume import open_folder
from trainer.inputs.data import build_batches
from trainer.settings import TrainConfig
from trainer.speech import say_nothing

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_no_step_waits_for_the_device(tmp_path: Path, optimiser: str) -> None:
    """With clipping, average and margin loss, log lines included; torch raises at a wait."""
    photos = draw_small(tmp_path / "photos")
    config = TrainConfig(
        data=photos, out=tmp_path / "run", backbone="resnet18", size=64, batch_size=12,
        duration="16step", learning_rate=0.01, num_workers=0, log_every_steps=2,
        validate_every="50ep", tensorboard=False, clip_norm=1.0, ema_half_life="5step",
        optimiser=optimiser,
    )  # fmt: skip
    processes = alone("cuda")
    run = open_folder(config.out, resuming=False)
    data, _, plan, loop = assemble(config, processes, run, say=say_nothing, keep=say_nothing)
    run.root.mkdir()
    batches = list(build_batches(config, data, plan, processes, start=0, stop=16))
    try:
        for step, batch in enumerate(batches):
            if step == 4:  # by now everything has been allocated and compiled
                torch.cuda.set_sync_debug_mode("error")
            losses = loop.step(step, batch)
            loop.journal.note(losses, step=step + 1, skipped=loop.stepper.skipped)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    loop.journal.settle()
    assert len(run.metrics.read_text().splitlines()) == 8

"""Never lose work: killed at any instant, a run ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_fixtures import draw_small
from trainer_parts import parts_of

from trainer.engine.loop import Loop
from trainer.engine.processes import alone
from trainer.engine.runfolder import DamagedStateError, Retention, RunFolder, RunFolderError
from trainer.engine.saving import HostCopies, StateWriter
from trainer.engine.signals import stop_on_signals
from trainer.inputs.loading import Batch
from trainer.settings import TrainConfig
from trainer.train import train

LIVES = Path(__file__).with_name("trainer_lives.py")
TIMES = ("seconds", "views_per_second", "memory_megabytes", "bottleneck")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_small(tmp_path_factory.mktemp("photos") / "drawn")


def settings(data: Path, out: Path, **changes: Any) -> TrainConfig:
    usual: dict[str, Any] = {
        "backbone": "squeezenet1_1",
        "weights": "none",
        "size": 32,
        "batch_size": 6,
        "duration": "40step",
        "learning_rate": 0.01,
        "num_workers": 0,
        "num_threads": 1,
        "log_every_steps": 3,
        "validate_every": "13step",
        "checkpoint_every": "1step",
        "ema_half_life": "5step",
        "whiten_dim": 0,
        "exponents": (),
        "report": False,
        "tensorboard": False,
        "resume": "auto",
    }
    return TrainConfig(data=data, out=out, **(usual | changes))


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not name.endswith(TIMES)}


def metrics_of(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


def final_state(out: Path) -> dict[str, Any]:
    run = RunFolder(out)
    newest = run.newest()
    assert newest is not None
    state = run.load(newest)
    del state["journal"]["seconds"], state["journal"]["waited"]
    return state


def assert_equal(one: Any, other: Any, place: str = "state") -> None:
    """Every tensor to the bit, everything else by value."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            assert_equal(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{place}.{number}")
    else:
        assert one == other, place


@pytest.mark.parametrize("num_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_instant_a_run_ends_as_if_nothing_had_happened(
    photos: Path, tmp_path: Path, num_kills: int
) -> None:
    """Weights, average, optimiser, scores and log, after kills at random instants."""
    straight = settings(photos, tmp_path / "straight", duration=f"{7 * num_kills}step")
    assert train(straight, alone()) is not None
    killed = straight.model_copy(update={"out": tmp_path / "killed"})
    file = tmp_path / "run.yaml"
    file.write_text(killed.to_yaml())
    done = subprocess.run(
        [sys.executable, LIVES, file, str(num_kills), "1", "1.2"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert int(done.stdout.split()[-1]) == num_kills, done.stderr
    assert_equal(final_state(straight.out), final_state(killed.out))
    assert metrics_of(straight.out) == metrics_of(killed.out)
    for name in ("last", "best"):
        pointers = [out / "checkpoints" / name for out in (straight.out, killed.out)]
        assert pointers[0].read_text() == pointers[1].read_text()


def stop_after(loop: Loop, batches: Iterator[Batch], num_steps: int) -> None:
    """Train until SIGTERM comes while a step is computed."""

    def until() -> Iterator[Batch]:
        for number, batch in enumerate(batches, start=1):
            if number == num_steps:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    assert not loop.train(until(), start=0)


@pytest.mark.parametrize("stopped_after", [2, 4])
def test_a_stop_puts_a_validation_off_until_the_next_life(
    photos: Path, tmp_path: Path, stopped_after: int
) -> None:
    """In the middle and at the very end, log and scores are those of a run left alone."""
    usual: dict[str, Any] = {"duration": "4step", "validate_every": "2step"}
    straight = settings(photos, tmp_path / "straight", **usual)
    assert train(straight, alone()) is not None
    config = settings(photos, tmp_path / "stopped", **usual)
    loop, batches = parts_of(config)
    stop_after(loop, batches, stopped_after)
    assert loop.state(stopped_after)["owes_scores"]
    assert train(config, alone()) is not None
    assert metrics_of(straight.out) == metrics_of(config.out)
    assert [record["step"] for record in metrics_of(config.out)] == [2, 3, 4, 4]
    assert RunFolder(config.out).newest() is not None


def test_what_is_done_is_saved_before_a_validation(photos: Path, tmp_path: Path) -> None:
    """One that fails loses no step, and the next life begins with it."""
    config = settings(photos, tmp_path / "run", duration="2step", validate_every="2step")
    config = config.model_copy(update={"checkpoint_every": None})
    loop, batches = parts_of(config)
    right = loop.validate

    def fail(_model: Any) -> dict[str, float]:
        raise MemoryError

    loop.validate = fail
    with pytest.raises(MemoryError):
        loop.train(batches, start=0)
    newest = loop.run.newest()
    assert newest is not None
    assert [path.name for path in sorted(newest.iterdir())] == ["COMPLETE.json", "unscored.pt"]
    again, rest = parts_of(config)

    def stopped(model: Any) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return right(model)

    again.validate = stopped
    assert not again.train(rest, start=2)  # the end is left to the next life
    assert [path.name for path in sorted(newest.iterdir())] == ["COMPLETE.json", "state.pt"]
    state = again.run.load(newest)
    assert state["scores"] == again.scores != {}
    assert state["best"]["step"] == 2
    assert (again.run.states / "best").read_text() == f"{newest.name}\n"
    last, _ = parts_of(config)
    last.validate = fail
    assert last.train(iter(()), start=2)


@pytest.mark.parametrize("when", ["at once", "late"])
def test_an_interrupted_log_interval_prints_the_same_numbers(
    photos: Path, tmp_path: Path, when: str
) -> None:
    """Stopped in the middle of an interval, also when a record is still on its way."""
    usual: dict[str, Any] = {"duration": "8step", "validate_every": "50step"}
    straight, batches = parts_of(settings(photos, tmp_path / "straight", **usual))
    straight.journal.late = when == "late"
    assert straight.train(batches, start=0)
    first, batches = parts_of(settings(photos, tmp_path / "stopped", **usual))
    first.journal.late = when == "late"
    stop_after(first, batches, 4)
    second, rest = parts_of(settings(photos, tmp_path / "stopped", **usual))
    second.journal.late = when == "late"
    assert second.train(rest, start=4)
    assert metrics_of(straight.run.root) == metrics_of(second.run.root)
    assert [record["step"] for record in metrics_of(straight.run.root)] == [3, 6, 8, 8]


def test_a_damaged_newest_state_is_said_and_the_one_before_it_taken(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run ends as if the damage had not happened; with no whole state it is refused."""
    config = settings(photos, tmp_path / "run", duration="4step", validate_every="50step")
    assert train(config, alone()) is not None
    before = final_state(config.out)
    run = RunFolder(config.out)
    newest = run.newest()
    assert newest is not None
    (newest / "state.pt").write_bytes(b"torn")
    capsys.readouterr()
    assert train(config, alone()) is not None
    said = capsys.readouterr().err
    assert "step-000000004/state.pt is damaged" in said
    assert "going on after step 3 of 4" in said
    assert_equal(before, final_state(config.out))
    for folder in run.complete():
        (folder / "COMPLETE.json").write_text("{}")
    with pytest.raises(RunFolderError, match="is whole: remove"):
        train(config, alone())


def test_other_settings_are_refused_or_accepted_with_their_difference(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changed, added and removed ones; --resume-anyway goes on and says the same."""
    config = settings(photos, tmp_path / "run", duration="2step")
    loop, batches = parts_of(config)
    loop.identity |= {"old": 1}
    del loop.identity["alpha"]
    assert loop.train(batches, start=0)
    changed = config.model_copy(update={"learning_rate": 0.02, "duration": "3step"})
    with pytest.raises(RunFolderError, match="--resume-anyway") as refused:
        train(changed, alone())
    differences = (
        "--alpha is new, 0.2; --duration was '2step', is '3step'; "
        "--learning-rate was 0.01, is 0.02; old was 1, is gone"
    )
    assert differences in str(refused.value)
    assert train(changed.model_copy(update={"resume_anyway": True}), alone()) is not None
    assert f"settings differ from the checkpoint's: {differences}" in capsys.readouterr().err
    assert [record["step"] for record in metrics_of(config.out)][-2:] == [3, 3]
    other = config.model_copy(update={"backbone": "shufflenet_v2_x0_5", "resume_anyway": True})
    with pytest.raises(RunFolderError, match="does not fit"):
        train(other, alone())


def test_resumed_anyway_a_run_takes_the_new_settings_of_its_optimiser(
    photos: Path, tmp_path: Path
) -> None:
    """Momentum and decay of this run, buffers of the state; compiling is decided anew if asked."""
    config = settings(photos, tmp_path / "run", duration="2step")
    loop, batches = parts_of(config)
    assert loop.train(batches, start=0)
    newest = loop.run.newest()
    assert newest is not None
    state = loop.run.load(newest)
    changes = {"momentum": 0.5, "weight_decay": 0.25, "out": tmp_path / "other"}
    other, _ = parts_of(config.model_copy(update=changes))
    other.restore(state)
    groups = other.stepper.optimiser.param_groups
    assert {group["momentum"] for group in groups} == {0.5}
    assert max(group["weight_decay"] for group in groups) == 0.25
    assert_equal(state["optimiser"]["state"], other.stepper.optimiser.state_dict()["state"])
    assert other.compiled is False
    asked, _ = parts_of(config.model_copy(update={"compile": "yes", "out": tmp_path / "asked"}))
    asked.restore(state)
    assert asked.compiled is None


def test_a_failed_background_write_stops_the_run_and_keeps_the_older_state(
    photos: Path, tmp_path: Path
) -> None:
    """The error is raised at a step's end; the state before it is whole."""
    loop, batches = parts_of(settings(photos, tmp_path / "run", duration="30step"))
    save = loop.run.save

    def fail_after_the_second(step: int, state: Any, **changes: Any) -> Path:
        if step > 2:
            raise OSError(28, "No space left on device")
        return save(step, state, **changes)

    loop.writer = StateWriter(fail_after_the_second)
    with pytest.raises(OSError, match="No space left"):
        loop.train(batches, start=0)
    newest = loop.run.newest()
    assert newest is not None
    assert loop.run.load(newest)["step"] == 2


def test_one_write_is_under_way_at_most_and_the_end_waits_for_it() -> None:
    """What is written is what was when it was saved, not what became of it."""
    written: list[tuple[int, float]] = []
    gate = threading.Event()

    def write(step: int, state: Any, best_step: int | None) -> None:
        assert best_step is None
        gate.wait(10)
        written.append((step, float(state["w"])))

    weight = torch.zeros(())
    with StateWriter(write) as writer:
        writer.save(1, {"w": weight}, best_step=None)
        weight += 1
        assert written == []
        gate.set()
        writer.save(2, {"w": weight}, best_step=None)
        weight += 1
    assert written == [(1, 0.0), (2, 1.0)]


def test_a_copy_keeps_layout_types_and_nesting_and_its_room() -> None:
    """Channels-last weights stay so; the second copy takes no new memory."""
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    state = {"a": {"w": weight, "n": 3}, "b": [weight[0], "x", None], "c": (torch.ones(()),)}
    copies = HostCopies()
    first = copies.take(state)
    assert_equal(state, first)
    assert first["a"]["w"].is_contiguous(memory_format=torch.channels_last)
    place = first["a"]["w"].data_ptr()
    assert place != weight.data_ptr()
    assert copies.take(state)["a"]["w"].data_ptr() == place


def test_saving_holds_training_up_for_one_copy() -> None:
    """Once there is room a state costs what its bytes do: nothing is allocated or written."""
    state = {"w": torch.zeros(25, 1_000_000), "v": [torch.zeros(1000)] * 20}
    copies, room = HostCopies(), torch.zeros(25, 1_000_000)
    copies.reserve(state)

    def seconds(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    pairs = [
        (seconds(lambda: copies.take(state)), seconds(lambda: room.copy_(state["w"])))
        for _ in range(9)
    ]
    taking, copying = (min(times) for times in zip(*pairs, strict=True))
    assert taking < 2 * copying


def test_states_are_kept_by_age_by_distance_and_by_score(tmp_path: Path) -> None:
    """The last ones, the first of every ten steps, and the best."""
    run = RunFolder(tmp_path)
    for step in range(4, 40, 4):
        kept = Retention(last=1, every_steps=10.0)
        run.save(step, {"step": step}, best_step=8 if step >= 8 else None, kept=kept)
    steps = [int(folder.name.removeprefix("step-")) for folder in run.complete()]
    assert steps == [8, 12, 20, 32, 36]
    assert (run.states / "best").read_text() == "step-000000008\n"
    (run.states / "step-000000036" / "state.pt").write_bytes(b"")
    with pytest.raises(DamagedStateError):
        run.load(run.states / "step-000000036")


def test_sigint_stops_like_sigterm_and_a_second_one_at_once() -> None:
    """The first is a request; the handlers of before come back."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:  # noqa: PT012 - two signals
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before

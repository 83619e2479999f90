"""What a run leaves written: log, metrics, curves, environment; a dry run leaves nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_fixtures import draw_small

from trainer.engine.environment import describe_environment
from trainer.engine.logbook import Logbook, TrainLog, line_of
from trainer.engine.processes import alone
from trainer.engine.runfolder import RunFolder
from trainer.settings import TrainConfig
from trainer.train import train


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_small(tmp_path_factory.mktemp("photos") / "drawn")


def settings(data: Path, out: Path, **changes: Any) -> TrainConfig:
    usual: dict[str, Any] = {
        "backbone": "squeezenet1_1",
        "size": 32,
        "batch_size": 6,
        "duration": "5step",
        "learning_rate": 0.01,
        "num_workers": 0,
        "num_threads": 1,
        "log_every_steps": 2,
        "validate_every": "100%",
        "whiten_dim": 0,
        "exponents": (),
        "report": False,
        "learn_p": True,
    }
    return TrainConfig(data=data, out=out, **(usual | changes))


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert train(settings(photos, out, validate_first=True), alone()) is not None
    return out


def test_a_record_tells_place_losses_times_and_what_limits(run: Path) -> None:
    """One a log interval, the last one shorter; validations at the start and at the end."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [0, 2, 4, 5, 5]
    assert "copy_recall_at_1" in records[0]
    record = records[1]
    assert record["images"] == 12  # views, as `img` counts them
    assert record["epoch"] == pytest.approx(2 * 2 / 16)
    names = {
        "loss", "cross_entropy", "margin", "active_share", "mean_positive_distance",
        "mean_negative_distance", "fallback_share", "gradient_norm", "skipped_steps", "beta", "p",
        "learning_rate", "views_per_second", "step_seconds", "data_wait_seconds",
        "forward_seconds", "backward_seconds", "optimiser_seconds", "memory_megabytes",
        "bottleneck",
    }  # fmt: skip
    assert names <= record.keys()
    assert record["bottleneck"] in {"data", "device"}
    parts = ("data_wait", "forward", "backward", "optimiser")
    assert sum(record[f"{part}_seconds"] for part in parts) <= record["step_seconds"]
    assert 0.5 * (record["cross_entropy"] + record["margin"]) == pytest.approx(record["loss"])


def test_what_was_said_stands_in_the_log_from_the_first_line_on(run: Path) -> None:
    """Also what came before the folder was open, and a line for each record."""
    text = (run / "train.log").read_text()
    assert "16 photos to train on" in text
    assert "5 steps of 6 views" in text
    assert "bottleneck d" in text
    assert "fingerprint" in text


def test_the_environment_is_an_allow_list(run: Path) -> None:
    """Versions and machine, and never a variable that may hold a secret."""
    facts = json.loads((run / "env.json").read_text())
    assert facts["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert facts["device"] == {"type": "cpu"}
    environ = {"WORLD_SIZE": "1", "PASSWORD": "hush", "WANDB_API_KEY": "hush"}
    text = describe_environment(environ, alone())
    assert "hush" not in text
    assert json.loads(text)["environment"] == {"WORLD_SIZE": "1"}


def test_tensorboard_s_files_hold_the_curves(run: Path) -> None:
    """The same numbers under the same names, where TensorBoard is installed."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(run / "tensorboard"))
    curves.Reload()
    assert [point.step for point in curves.Scalars("loss")] == [2, 4, 5]
    assert "copy_recall_at_1" in curves.Tags()["scalars"]


def test_what_is_no_number_becomes_null_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    """metrics.jsonl stays JSON; a resumed run keeps the lines that its state counts."""
    run = RunFolder(tmp_path)
    book = Logbook(run, keep=lambda _line: None, board=lambda _step: None)
    book.start(0, step=0)
    for step in (1, 2, 3):
        book.write({"step": step, "epoch": 0.1, "loss": float("nan")})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "lo')
    book.start(2, step=2)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert records == [{"step": step, "epoch": 0.1, "loss": None} for step in (1, 2)]
    assert book.num_lines == 2


def test_a_line_for_people_names_the_scores_or_the_bottleneck() -> None:
    """Four digits are enough to read."""
    place = {"step": 7, "epoch": 1.234}
    assert line_of(place | {"top1": 0.51239}) == "step 7 epoch 1.23 top1 0.5124"
    record = place | {"loss": 2.0, "p": 3.0, "bottleneck": "data"}
    assert line_of(record) == "step 7 epoch 1.23 loss 2 bottleneck data"


def test_lines_wait_until_the_folder_is_open(tmp_path: Path) -> None:
    """Nothing is written for a run that is refused."""
    said: list[str] = []
    log = TrainLog(said.append)
    log("one")
    log.keep("two")
    log.open(tmp_path / "train.log")
    log("caf\udce9")
    assert said == ["one", "caf\udce9"]
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split()[2] for line in lines] == ["one", "two", "caf\\udce9"]


def test_a_dry_run_says_the_size_of_a_run_and_writes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batch, steps, views of an epoch, memory, time; also over a folder that holds a run."""
    assert train(settings(photos, tmp_path / "run", dry_run=2), alone()) is None
    said = capsys.readouterr().err
    assert "6 views a step (2 photos) on 1 processes" in said
    assert "an epoch is 8.0 steps, 48 views; 5 steps in all" in said
    assert "GiB at most" in said
    assert "views/s" in said
    assert not (tmp_path / "run").exists()

"""Training as a whole: from drawn photos to a checkpoint, interrupted and taken up again."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from trainer_fixtures import draw_flat, draw_small
from trainer_parts import parts_of

from multigrain.checkpoint import load_checkpoint
from multigrain.config import ConfigError
from multigrain.program import load_config
from multigrain.transforms import Preprocessing
from trainer.engine.guard import DivergedError
from trainer.engine.processes import alone
from trainer.engine.runfolder import RunFolder, RunFolderError
from trainer.finishing.finish import FinishError
from trainer.finishing.fit_whitening import FitError
from trainer.inputs.data import DataError
from trainer.inputs.loading import Batch
from trainer.settings import LARGEST_SIDE, SMALLEST_SIDE, TrainConfig
from trainer.train import judge, run_among, train
from trainer.whiten import WhitenConfig, whiten

TRAIN = Path(__file__).parents[1] / "trainer" / "train.py"
PARTS_OF_TRAINING = ("inputs", "losses", "engine", "models", "finishing")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_small(tmp_path_factory.mktemp("photos") / "drawn")


def settings(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(
        data=data,
        out=out,
        **(
            {
                "backbone": "shufflenet_v2_x0_5",  # small, with batch norm
                "size": 32,
                "batch_size": 6,
                "duration": "4step",
                "learning_rate": 0.01,
                "num_workers": 0,
                "num_threads": 1,
                "log_every_steps": 1,
                "validate_every": "50ep",
                "whiten_dim": 0,
                "exponents": (),
                "report": False,
                "tensorboard": False,
            }
            | changes
        ),
    )


def records_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_two_steps_end_with_a_whitened_checkpoint(photos: Path, tmp_path: Path) -> None:
    """The checkpoint opens without the trainer, knows its classes, and embeds to unit rows."""
    path = train(
        settings(photos, tmp_path / "run", duration="2step", learn_p=True, whiten_dim=2), alone()
    )
    assert path == tmp_path / "run" / "model.safetensors"
    model, document, _ = load_checkpoint(path)
    output = model(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(2))
    assert output.logits is not None
    assert output.logits.shape == (2, 3)
    assert document.classifier is not None
    assert document.classifier.class_names == ("00-house", "01-cup", "02-fish")
    assert document.embedding.whitening is not None
    assert document.embedding.dim == 2
    assert document.training is not None
    assert document.training.steps == 2
    assert document.pooling.p == pytest.approx(float(model.pool.p))
    assert set(document.metrics) == {"top1", "copy_recall_at_1"}
    steps = [record["step"] for record in records_of(tmp_path / "run")]
    assert steps == [1, 2, 2]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    photos: Path, tmp_path: Path
) -> None:
    """Weights, beta, batch-norm statistics and momentum after four steps, stopped after two."""
    straight, straight_batches = parts_of(settings(photos, tmp_path / "straight"))
    assert straight.train(straight_batches, start=0)

    first, batches = parts_of(settings(photos, tmp_path / "stopped"))
    assert not first.train(_sigterm_after(batches, 2), start=0)
    second, rest = parts_of(settings(photos, tmp_path / "stopped", resume="auto"))
    assert second.train(rest, start=2)

    one, other = straight.state(4), second.state(4)
    assert one["scores"] == other["scores"]
    for name, tensor in one["objective"].items():
        assert torch.equal(tensor, other["objective"][name]), name
    for number, momentum in one["optimiser"]["state"].items():
        buffer = other["optimiser"]["state"][number]["momentum_buffer"]
        assert torch.equal(momentum["momentum_buffer"], buffer)
    assert [record["step"] for record in records_of(tmp_path / "stopped")] == [1, 2, 3, 4, 4]


def _sigterm_after(batches: Iterator[Batch], num_steps: int) -> Iterator[Batch]:
    for number, batch in enumerate(batches, start=1):
        if number == num_steps:
            os.kill(os.getpid(), signal.SIGTERM)
        yield batch


def test_a_run_is_not_overwritten_or_continued_with_other_settings(
    photos: Path, tmp_path: Path
) -> None:
    """The message names the way out, or the setting that differs."""
    loop, _ = parts_of(settings(photos, tmp_path / "run"))
    loop.run.save(1, loop.state(1))
    with pytest.raises(RunFolderError, match="--resume auto"):
        parts_of(settings(photos, tmp_path / "run"))
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(RunFolderError, match=r"--learning-rate was 0\.01, is 0\.02"):
        parts_of(settings(photos, tmp_path / "run", learning_rate=0.02, resume="auto"))
    auto = loop.identity["precision"]  # what it is on this machine
    other = "fp32" if auto == "bf16" else "bf16"
    with pytest.raises(RunFolderError, match=f"--precision was '{auto}', is '{other}'"):
        parts_of(settings(photos, tmp_path / "run", precision=other, resume="auto"))
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="no folder"):
        parts_of(settings(photos, tmp_path / "file"))


def test_a_refused_resume_says_how_to_begin_again(tmp_path: Path) -> None:
    """Photos that changed are named by their number, and the folder to remove by its path."""
    flat, out = draw_flat(tmp_path / "flat", num_photos=9), tmp_path / "run"
    loop, _ = parts_of(settings(flat, out, val_fraction=0.0))
    loop.run.save(1, loop.state(1))
    (flat / "photo-000.jpg").unlink()
    with pytest.raises(RunFolderError) as refused:
        parts_of(settings(flat, out, val_fraction=0.0, resume="auto"))
    message = str(refused.value)
    assert "photos was '9 photos, " in message
    assert "is '8 photos, " in message
    assert message.endswith(f"give another --out, or remove {out} to begin again")


def test_a_flat_folder_trains_on_instances_alone(tmp_path: Path) -> None:
    """Lambda is 0 and there is no classifier; a lambda asked for is an error."""
    flat = draw_flat(tmp_path / "flat", num_photos=9)
    (flat / "broken.jpg").write_bytes(b"no photo")
    path = train(settings(flat, tmp_path / "run", val_fraction=0.0), alone())
    assert path is not None
    document = load_checkpoint(path).document
    assert document.classifier is None
    assert document.training is not None
    assert document.training.lambda_ == 0
    listed = (tmp_path / "run" / "bad_images.txt").read_text()
    assert listed.startswith("broken.jpg\timage_undecodable")
    with pytest.raises(DataError, match="needs classes"):
        train(settings(flat, tmp_path / "other", lambda_=0.5), alone())


@pytest.mark.parametrize("changes", [{"num_views": 1}, {"lambda_": 1.0}])
def test_without_the_margin_term_nothing_is_left_over(
    photos: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """One view a photo, or lambda 1: cross-entropy alone, and no beta."""
    loop, batches = parts_of(settings(photos, tmp_path / "run", **changes))
    losses = loop.step(0, next(batches))
    assert set(losses.parts) == {"cross_entropy", "gradient_norm", "loss"}
    assert all(parameter.grad is not None for parameter in loop.objective.parameters())


def test_a_loss_that_is_no_number_stops_the_run_unsaved(photos: Path, tmp_path: Path) -> None:
    """The message names the steps; no state with broken weights is written."""
    config = settings(photos, tmp_path / "run", learning_rate=1e30, log_every_steps=100)
    with pytest.raises(DivergedError, match=r"steps 2 to 4: .*00-house/"):
        train(config, alone())
    assert RunFolder(tmp_path / "run").newest() is None


def test_the_last_two_states_and_the_best_are_kept(tmp_path: Path) -> None:
    """A state without its marker is never the newest; damaged bytes are refused."""
    run = RunFolder(tmp_path)
    for step in (1, 2, 3, 4):
        run.save(step, {"step": step}, best_step=1)
    names = {path.name for path in run.states.iterdir()}
    assert names == {"step-000000001", "step-000000003", "step-000000004", "last", "best"}
    newest = run.newest()
    assert newest is not None
    assert run.load(newest) == {"step": 4}
    (newest / "state.pt").write_bytes(b"torn")
    with pytest.raises(RunFolderError, match="damaged"):
        run.load(newest)
    (newest / "state.pt").unlink()
    with pytest.raises(RunFolderError, match="damaged"):
        run.load(newest)
    (newest / "COMPLETE.json").unlink()
    assert run.newest() == run.states / "step-000000003"


def test_help_answers_from_another_folder_without_torch(tmp_path: Path) -> None:
    """The flags are read before torch is imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", TRAIN, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--lambda" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pydantic" in modules
    assert not modules & {"torch", "torchvision", "numpy"}


def computed_by(*arguments: str, cwd: Path) -> float:
    """Processor seconds of a Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_computes_little_more_than_reading_settings_does(tmp_path: Path) -> None:
    """Half a second; beside what it stands on, as a busy machine's seconds are longer."""
    runs = range(3)
    bare = [computed_by("-c", "import pydantic, yaml", cwd=tmp_path) for _ in runs]
    helped = [computed_by(str(TRAIN), "--help", cwd=tmp_path) for _ in runs]
    assert min(helped) < 5 * min(bare)


def test_every_setting_is_read_by_some_part() -> None:
    """No flag is there for show."""
    rooms = (TRAIN.parent / room for room in PARTS_OF_TRAINING)
    sources = "".join(path.read_text() for room in rooms for path in sorted(room.rglob("*.py")))
    read = set(re.findall(r"\bconfig\.(\w+)", sources + TRAIN.read_text()))
    assert [name for name in TrainConfig.model_fields if name not in read] == []


def test_sigterm_saves_and_two_processes_finish_the_run(photos: Path, tmp_path: Path) -> None:
    """`python train.py` exits 0 when terminated; `torchrun` goes on with two processes."""
    config = settings(
        photos, tmp_path / "run", duration="16step", batch_size=12, whiten_dim=2, resume="auto"
    )
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    command = [TRAIN, "--config", tmp_path / "run.yaml"]
    with subprocess.Popen([sys.executable, *command], cwd=tmp_path) as stopped:
        while not (tmp_path / "run" / "metrics.jsonl").exists() and stopped.poll() is None:
            time.sleep(0.01)
        stopped.send_signal(signal.SIGTERM)
    assert stopped.returncode == 0
    newest = RunFolder(tmp_path / "run").newest()
    assert newest is not None
    assert newest.name != "step-000000016"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "--standalone", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "run" / "model.safetensors")]
    assert "going on after step" in done.stderr
    steps = [record["step"] for record in records_of(tmp_path / "run")]
    assert steps == [*range(1, 17), 16]
    assert load_checkpoint(tmp_path / "run" / "model.safetensors").document.embedding.whitening


def test_run_among_reports_success(photos: Path, tmp_path: Path, capsys: Any) -> None:
    """The path of the checkpoint is the program's answer."""
    assert run_among(settings(photos, tmp_path / "run", duration="1step"), {}) == 0
    path = capsys.readouterr().out.strip()
    assert path == str(tmp_path / "run" / "model.safetensors")
    assert load_checkpoint(Path(path)).document.embedding.whitening is None
    score = load_checkpoint(Path(path)).document.metrics["top1"]
    for low, status in ((0.0, 0), (1.5, 1)):
        assert judge(Path(path), {"top1": (low, 2.0)}) == status
        line = f"top1 is {score:.4f}, expected within [1.5, 2]"
        assert (line in capsys.readouterr().err) == bool(status)
    with pytest.raises(ConfigError, match="did you mean top1"):
        judge(Path(path), {"top11": (0.0, 1.0)})


def test_a_recipe_says_which_scores_are_expected(photos: Path, tmp_path: Path, capsys: Any) -> None:
    """One outside its interval ends the training with 1, behind the checkpoint's path."""
    config = settings(photos, tmp_path / "run", duration="1step", expect={"top1": (1.5, 2.0)})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(config.to_yaml())
    read = load_config(
        TrainConfig, prog="", description="", argv=["--config", str(recipe)], environ={}
    )
    assert run_among(read, {}) == 1
    said = capsys.readouterr()
    assert Path(said.out.strip()).is_file()
    assert "expected within [1.5, 2]" in said.err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"whiten_dim": 600}, "the trunk has 512, choose at most that"),
        ({"whiten_dim": 9}, "needs more than 9 photos, there are 9"),
        ({"whiten_dim": 8, "whiten_photos": 8}, "needs more than 8 photos, there are 8"),
        ({"whiten_dim": 4, "whiten_photos": 7}, "7 readable photos are too few"),
    ],
)
def test_a_whitening_that_cannot_succeed_is_refused_before_the_first_step(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """More dimensions than the trunk or the photos give; nothing is written."""
    flat = draw_flat(tmp_path / "flat", num_photos=9)
    config = settings(flat, tmp_path / "run", backbone="squeezenet1_1", val_fraction=0.0, **changes)
    with pytest.raises(FitError, match=reason):
        train(config, alone())
    assert not (tmp_path / "run").exists()


def test_a_finished_run_survives_a_failed_whitening(tmp_path: Path) -> None:
    """The model is kept without one, `trainer.whiten` and the same run with another --dim end it.

    Two of nine photos cannot be read, which shows only when they are.
    """
    flat, out = draw_flat(tmp_path / "flat", num_photos=9), tmp_path / "run"
    for number in (3, 6):
        (flat / f"photo-{number:03d}.jpg").write_bytes(b"no photo")
    changes: dict[str, Any] = {"duration": "1step", "val_fraction": 0.0, "max_bad_share": 1.0}
    with pytest.raises(FinishError, match="7 readable photos") as failed:
        train(settings(flat, out, whiten_dim=4, **changes), alone())
    kept = out / "unwhitened.safetensors"
    assert f"trainer.whiten --checkpoint {kept} --photos {flat} --out {out}" in str(failed.value)
    assert not (out / "model.safetensors").exists()
    assert load_checkpoint(kept).document.embedding.whitening is None
    others = draw_flat(tmp_path / "others", num_photos=12)
    by_hand = whiten(WhitenConfig(checkpoint=kept, photos=[others], out=out / "by-hand"))
    assert load_checkpoint(by_hand).document.embedding.dim == 3
    (flat / "photo-003.jpg").write_bytes((flat / "photo-000.jpg").read_bytes())
    again = settings(flat, out, whiten_dim=4, whiten_power=0.25, resume="auto", **changes)
    path = train(again, alone())
    assert path == out / "model.safetensors"
    whitening = load_checkpoint(path).document.embedding.whitening
    assert whitening is not None
    assert (whitening.out, whitening.power, whitening.photos) == (4, 0.25, 8)
    assert not kept.exists()


def test_photos_whose_names_are_not_utf8_are_trained_validated_and_listed(tmp_path: Path) -> None:
    """An unreadable one is written to bad_images.txt with its odd byte spelled out."""
    flat = draw_flat(tmp_path / "flat", num_photos=9)
    for number, path in enumerate(sorted(flat.iterdir())):
        path.rename(flat / f"caf\udce9-{number}.jpg")
    (flat / "caf\udce9.jpg").write_bytes(b"no photo")
    changes: dict[str, Any] = {"duration": "5step", "val": flat, "max_bad_share": 1.0}
    path = train(settings(flat, tmp_path / "run", **changes), alone())
    assert path is not None
    assert "copy_recall_at_1" in load_checkpoint(path).document.metrics
    text = (tmp_path / "run" / "bad_images.txt").read_text(encoding="utf-8")
    assert text.startswith("caf\\udce9.jpg\timage_undecodable")
    again = settings(flat, tmp_path / "run", resume="auto", **changes)
    assert train(again, alone()) == path


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_setting_that_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    """Every setting that takes a number with a point."""
    fields = TrainConfig.model_fields.items()
    floats = [name for name, field in fields if field.annotation in (float, float | None)]
    assert "learning_rate" in floats
    for name in floats:
        with pytest.raises(ConfigError, match=r"finite number|less than"):
            TrainConfig.from_values(
                {"data": tmp_path, "out": tmp_path, name.removesuffix("_"): value}
            )


def test_the_side_of_the_input_is_one_that_every_stage_takes(tmp_path: Path) -> None:
    """The flags' bounds are those of the preprocessing that a checkpoint records."""
    for side in (SMALLEST_SIDE, LARGEST_SIDE):
        assert Preprocessing(size=side).size == side
    for side in (SMALLEST_SIDE - 1, LARGEST_SIDE + 1):
        with pytest.raises(ValidationError):
            Preprocessing(size=side)
        for name in ("size", "test_size"):
            with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: "):
                TrainConfig.from_values({"data": tmp_path, "out": tmp_path, name: side})

"""One run of the ablation: train, judge, and keep the result as a file."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.ablation_configurations import WEIGHTS, WEIGHTS_LICENCE, Run
from benchmarks.ablation_judge import (
    FEW_WHITENINGS,
    WHITENINGS,
    EvaluationPhotos,
    Scores,
    TaskScores,
    score_checkpoint,
)
from multigrain.files import atomic_write_text
from trainer.engine.processes import alone
from trainer.pretrained import PretrainedConfig, make_pretrained
from trainer.settings import TrainConfig
from trainer.train import train


class Result(NamedTuple):
    """What a run gave: scores, the loss's last parts, and the processor time it took."""

    configuration: str
    seed: int
    scores: Scores
    last_log: dict[str, float]
    cpu_seconds: float


def measure(run: Run, photos: EvaluationPhotos, out: Path, *, num_threads: int) -> Result:
    """Train as the run says, on one process, and score the checkpoint it writes."""
    folder = out / "runs" / run.name
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    torch.set_num_threads(num_threads)
    start = time.process_time()
    if run.configuration.is_trained:
        checkpoint = _trained(run, photos.data, folder, num_threads=num_threads)
    else:
        checkpoint = _untrained(run, photos.data, folder)
    whitenings = WHITENINGS if run.configuration.tries_whitenings else FEW_WHITENINGS
    scores = score_checkpoint(
        checkpoint, photos, whitenings, num_threads=num_threads, cache_dir=folder
    )
    last_log = _last_log(checkpoint.parent / "metrics.jsonl")
    shutil.rmtree(folder)
    seconds = time.process_time() - start
    return Result(run.configuration.name, run.seed, scores, last_log, seconds)


def write_result(result: Result, run: Run, out: Path) -> None:
    """Keep a result; the file is there whole or not at all."""
    path = _result_path(run, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = result._asdict() | {"settings": run.settings()}
    atomic_write_text(path, json.dumps(record, indent=1))


def read_result(run: Run, out: Path) -> Result | None:
    """Return a run's result, None when it was not done, or with another recipe."""
    path = _result_path(run, out)
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    del record["settings"]
    scores = {
        whitening: {task: TaskScores(*values) for task, values in of_task.items()}
        for whitening, of_task in record.pop("scores").items()
    }
    return Result(scores=scores, **record)


def _result_path(run: Run, out: Path) -> Path:
    return out / "results" / f"{run.name}-{run.digest()}.json"


def _trained(run: Run, data: Path, folder: Path, *, num_threads: int) -> Path:
    paths: dict[str, Any] = {
        "data": [str(data / "classes/train")],
        "weights": str(data / WEIGHTS),
        "weights_licence": WEIGHTS_LICENCE,
        "out": str(folder / "run"),
        "num_threads": num_threads,
        "num_workers": 0,  # one thread in all
        "device": "cpu",
        "report": False,
    }
    path = train(TrainConfig.from_values(run.settings() | paths), alone("cpu"))
    if path is None:
        raise KeyboardInterrupt  # SIGTERM: this run is lost, those before it are kept
    return path


def _untrained(run: Run, data: Path, folder: Path) -> Path:
    settings = run.settings()
    config = PretrainedConfig(
        backbone=settings["backbone"],
        weights=str(data / WEIGHTS),
        weights_licence=WEIGHTS_LICENCE,
        size=settings["test_size"],
        p=settings.get("p", 3.0),
        out=folder / "model.safetensors",
    )
    return make_pretrained(config)


def _last_log(path: Path) -> dict[str, float]:
    """Return the last line of the metrics that has a loss in it, {} without training."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text().splitlines()]
    logged = [record for record in records if "learning_rate" in record]
    return logged[-1] if logged else {}

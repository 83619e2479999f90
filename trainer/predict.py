"""Name the classes of photos, by the classifier of a checkpoint.

python -m trainer.predict --checkpoint r50.safetensors --photos FOLDER --out classes.csv
"""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from multigrain.config import Config, ConfigError
from multigrain.program import load_config, run_main
from trainer.out_file import check_out_file
from trainer.speech import say

if TYPE_CHECKING:
    from multigrain.transforms import Pixels

PROG = "python -m trainer.predict"
COLUMNS = ("path", "rank", "class", "probability")


class PredictConfig(Config):
    """Flags of the prediction."""

    checkpoint: Path = Field(description="checkpoint file with a classifier")
    photos: Path = Field(description="a photo, a folder of photos, or a CSV or JSONL list of them")
    out: Path | None = Field(
        default=None, description="file to write, .csv or .jsonl; unset: CSV to the terminal"
    )
    top: int = Field(default=5, ge=1, description="classes to name of each photo, likeliest first")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the photos are classified"
    )

    @model_validator(mode="after")
    def _out_is_a_table(self) -> Self:
        if self.out is not None and self.out.suffix not in (".csv", ".jsonl"):
            raise ValueError(f"--out {self.out}: name a file .csv or .jsonl")
        return self


class Likely(NamedTuple):
    """A class of a photo, and its probability among the classes of the checkpoint."""

    name: str
    probability: float


class Prediction(NamedTuple):
    """A photo and its likeliest classes, the likeliest first."""

    path: Path
    classes: list[Likely]


def predict(config: PredictConfig) -> list[Prediction]:
    """The photos' likeliest classes, in the order of the photos.

    A photo that cannot be read is left out and named. Raises ConfigError for a checkpoint
    without a classifier, and MetricError for logits that are not finite.
    """
    import torch

    from multigrain.checkpoint import load_checkpoint
    from multigrain.metrics import MetricError
    from multigrain.prepared import read_prepared
    from trainer.engine.processes import alone
    from trainer.inputs.reading import Skipped, prepared_batches

    model, document, _ = load_checkpoint(config.checkpoint)
    if document.classifier is None:
        raise ConfigError(f"{config.checkpoint} has no classifier: it knows no class")
    names, device = document.classifier.class_names, alone(config.device).device
    paths, skipped = _paths(config.photos), list[Skipped]()
    model.to(device).eval()

    def read(number: int) -> "Pixels":
        return read_prepared(paths[number], document.preprocessing).pixels

    found = dict[int, Prediction]()
    with torch.inference_mode():
        for batch in prepared_batches(read, len(paths), skipped=skipped):
            logits = model(batch.pixels.to(device)).logits
            if not bool(torch.isfinite(logits).all()):
                raise MetricError("a logit is not finite: the model is broken")
            best = logits.softmax(dim=1).topk(min(config.top, len(names)))
            for number, values, classes in zip(
                batch.numbers, best.values.tolist(), best.indices.tolist(), strict=True
            ):
                likely = [Likely(names[one], p) for one, p in zip(classes, values, strict=True)]
                found[number] = Prediction(paths[number], likely)
    for number, reason in skipped:
        say(f"{paths[number]} is left out: {reason}")
    return [found[number] for number in sorted(found)]


def _paths(photos: Path) -> list[Path]:
    from multigrain.photo_list import is_photo_list
    from trainer.inputs.photos import paths_of

    return [photos] if photos.is_file() and not is_photo_list(photos) else paths_of(photos)


def as_csv(predictions: Sequence[Prediction]) -> str:
    """A line for each class of each photo."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for path, classes in predictions:
        for rank, (name, probability) in enumerate(classes, start=1):
            writer.writerow([path, rank, name, f"{probability:.6f}"])
    return text.getvalue()


def as_jsonl(predictions: Sequence[Prediction]) -> str:
    """A line for each photo."""
    lines = [
        {
            "path": str(path),
            "classes": [{"class": name, "probability": round(p, 6)} for name, p in classes],
        }
        for path, classes in predictions
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def main() -> int:
    """Write or print the classes; exit status 1 when no photo could be read."""
    config = load_config(
        PredictConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    from multigrain.files import atomic_write_text

    if config.out is not None:
        check_out_file(config.out)
    predictions = predict(config)
    if config.out is None:
        print(as_csv(predictions), end="")
    else:
        write = as_jsonl if config.out.suffix == ".jsonl" else as_csv
        atomic_write_text(config.out, write(predictions))
        print(config.out)
    return 0 if predictions else 1


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

"""A tiny test set of drawn photos as its user would list them, and what scores it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from multigrain.views import edited_view
from trainer.settings_evaluate import EvaluateConfig

NUM_INSTANCES, NUM_DISTRACTORS = 6, 4


def save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=90)
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def draw_test_set(folder: Path, draw: Callable[[int], Image.Image]) -> Path:
    """Photos of instances, each with two edited copies, and distractors; returns the manifest."""
    rows: list[dict[str, Any]] = []
    for number in range(NUM_INSTANCES + NUM_DISTRACTORS):
        image = draw(number)
        views = [image, *(edited_view(image, kind=kind, seed=1) for kind in ("crop", "text"))]
        for place, view in enumerate(views[: 3 if number < NUM_INSTANCES else 1]):
            path = save(view, folder / f"{number}-{place}.jpg")
            row = {"path": path.name, "role": "query" if place == 0 else "gallery"}
            if number < NUM_INSTANCES:
                rows.append(row | {"instance": f"thing-{number}"})
            else:
                rows.append(row | {"role": "distractor"})
    return write_rows(folder / "list.jsonl", rows)


def settings(checkpoint: Path, data: Path, out: Path, /, **changes: Any) -> EvaluateConfig:
    values = {"checkpoint": checkpoint, "protocol": ["manifest"], "data": [data], "out": out}
    return EvaluateConfig(**(values | {"engine": "torch", "device": "cpu"} | changes))

"""The folder of a run: settings, metrics, unreadable photos, and the states to go on from.

config.yaml  metrics.jsonl  bad_images.txt  model.safetensors
unwhitened.safetensors, only if the whitening failed
checkpoints/step-000012000/{state.pt, COMPLETE.json}  checkpoints/{last, best}
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from multigrain.errors import MultiGrainError
from multigrain.files import atomic_write_text, sha256_of, write_via_temporary

KEPT_STATES = 2
_STATE_NAME = re.compile(r"step-(\d{9,})")


class RunFolderError(MultiGrainError):
    """A run's folder that cannot be used as asked."""


class RunFolder:
    """Paths and files of one run; only the first process writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.states = root / "checkpoints"
        self.model = root / "model.safetensors"
        self.unwhitened = root / "unwhitened.safetensors"

    def newest(self) -> Path | None:
        """Return the folder of the newest complete state, None when there is none."""
        folders = [folder for folder in self._folders() if (folder / "COMPLETE.json").exists()]
        return folders[-1] if folders else None

    def save(self, step: int, state: Mapping[str, Any], *, is_best: bool) -> Path:
        """Write a state whole, point `last` (and `best`) at it, and drop what is not kept.

        Kept are the last two states and the best. A state without its COMPLETE.json, as a
        killed process leaves it, is never read and is dropped here too.
        """
        folder = self.states / f"step-{step:09d}"
        if not (folder / "COMPLETE.json").exists():
            with write_via_temporary(folder / "state.pt") as temporary:
                torch.save(dict(state), temporary)
            facts = {"step": step, "sha256": sha256_of(folder / "state.pt")}
            atomic_write_text(folder / "COMPLETE.json", json.dumps(facts) + "\n")
        atomic_write_text(self.states / "last", folder.name + "\n")
        if is_best:
            atomic_write_text(self.states / "best", folder.name + "\n")
        self._drop_old()
        return folder

    def load(self, folder: Path) -> dict[str, Any]:
        """Return a state; raises RunFolderError when its bytes are not those written."""
        facts = json.loads((folder / "COMPLETE.json").read_text())
        file = folder / "state.pt"
        if not file.is_file() or sha256_of(file) != facts["sha256"]:
            raise RunFolderError(f"{folder}/state.pt is damaged: remove {folder} and start again")
        state: dict[str, Any] = torch.load(
            folder / "state.pt", map_location="cpu", weights_only=True
        )
        return state

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        with (self.root / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(dict(record)) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that are about to be done again."""
        path = self.root / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            atomic_write_text(path, "".join(line for line in lines if _step_of(line) <= step))

    def write(self, name: str, text: str) -> None:
        """Write a text file of the run, whole."""
        atomic_write_text(self.root / name, text)

    def _folders(self) -> list[Path]:
        if not self.states.is_dir():
            return []
        return sorted(path for path in self.states.iterdir() if _STATE_NAME.fullmatch(path.name))

    def _drop_old(self) -> None:
        complete = [path for path in self._folders() if (path / "COMPLETE.json").exists()]
        best = self.states / "best"
        kept = {path.name for path in complete[-KEPT_STATES:]}
        kept |= {best.read_text().strip()} if best.exists() else set()
        for path in self._folders():
            if path.name not in kept:
                # The marker first: a half-removed state must not look complete.
                (path / "COMPLETE.json").unlink(missing_ok=True)
                shutil.rmtree(path)


def _step_of(line: str) -> float:
    """Return the step of a metrics line; a line torn by a kill counts as never done."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

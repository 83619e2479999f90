"""The folder of a run: settings, log, metrics, unreadable photos, and the states to go on from.

config.yaml  env.json  train.log  metrics.jsonl  bad_images.txt  tensorboard/
model.safetensors  report.html
unwhitened.safetensors, only if the whitening failed
checkpoints/step-000012000/{state.pt or unscored.pt, COMPLETE.json}  checkpoints/{last, best}
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from multigrain.errors import MultiGrainError
from multigrain.files import (
    atomic_write_bytes,
    atomic_write_text,
    fsync_file,
    sha256_of,
    write_via_temporary,
)

_COMPLETE = "COMPLETE.json"
_STATE, _UNSCORED = "state.pt", "unscored.pt"
_STATE_NAME = re.compile(r"step-(\d{9,})")


class RunFolderError(MultiGrainError):
    """A run's folder that cannot be used as asked."""


class DamagedStateError(RunFolderError):
    """A state whose bytes are not those written."""


class Retention(NamedTuple):
    """Which states are kept beside the best: the newest, and the first in every such length."""

    last: int = 2
    every_steps: float | None = None


class RunFolder:
    """Paths and files of one run; only the first process writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.states = root / "checkpoints"
        self.metrics = root / "metrics.jsonl"
        self.log = root / "train.log"
        self.model = root / "model.safetensors"
        self.unwhitened = root / "unwhitened.safetensors"

    def newest(self) -> Path | None:
        """Return the folder of the newest complete state, None when there is none."""
        complete = self.complete()
        return complete[-1] if complete else None

    def complete(self) -> list[Path]:
        """Return the folders of complete states, oldest first."""
        return [folder for folder in self._folders() if (folder / _COMPLETE).exists()]

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        best_step: int | None = None,
        kept: Retention = Retention(),  # noqa: B008 - immutable
    ) -> Path:
        """Write a state whole, point `last` and `best` at states, and drop what is not kept.

        A state without its COMPLETE.json, as a killed process leaves it, is never read and is
        dropped here too. One that still owes its scores is a file of its own, which the state
        with them replaces: at every instant one of the two is whole.
        """
        folder = self.states / f"step-{step:09d}"
        name = _UNSCORED if state.get("owes_scores") else _STATE
        if _file_of(folder) != name:
            with write_via_temporary(folder / name) as temporary:
                torch.save(dict(state), temporary)
            facts = {"step": step, "file": name, "sha256": sha256_of(folder / name)}
            if self.metrics.exists():
                fsync_file(self.metrics)  # the lines that the state counts on
            atomic_write_text(folder / _COMPLETE, json.dumps(facts) + "\n")
        if name == _STATE:
            (folder / _UNSCORED).unlink(missing_ok=True)
        atomic_write_text(self.states / "last", folder.name + "\n")
        best = "" if best_step is None else f"step-{best_step:09d}"
        if best and (self.states / best / _COMPLETE).exists():
            atomic_write_text(self.states / "best", best + "\n")
        self._drop_old(kept)
        return folder

    def load(self, folder: Path) -> dict[str, Any]:
        """Return a state; raises DamagedStateError when its bytes are not those written."""
        try:
            facts = json.loads((folder / _COMPLETE).read_text())
            file, expected = folder / facts.get("file", _STATE), facts["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedStateError(f"{folder}/{_COMPLETE} is damaged") from error
        if not file.is_file() or sha256_of(file) != expected:
            raise DamagedStateError(f"{file} is damaged: its bytes are not those written")
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    def forget_after(self, step: int) -> None:
        """Drop the states of later steps: damaged ones, in the way of those to come."""
        for folder in self.complete():
            if _step_of(folder) > step:
                (folder / _COMPLETE).unlink()

    def keep_metrics(self, num_lines: int) -> None:
        """Drop the lines of metrics.jsonl that a state does not count: they will come again."""
        if self.metrics.exists():
            lines = self.metrics.read_bytes().splitlines(keepends=True)
            atomic_write_bytes(self.metrics, b"".join(lines[:num_lines]))

    def write(self, name: str, text: str) -> None:
        """Write a text file of the run, whole."""
        atomic_write_text(self.root / name, text)

    def _folders(self) -> list[Path]:
        if not self.states.is_dir():
            return []
        return sorted(path for path in self.states.iterdir() if _STATE_NAME.fullmatch(path.name))

    def _drop_old(self, kept: Retention) -> None:
        complete = self.complete()
        names = {path.name for path in complete[-kept.last :]} | {self._best()}
        if kept.every_steps is not None:
            firsts: dict[int, str] = {}
            for path in complete:
                firsts.setdefault(int(_step_of(path) // kept.every_steps), path.name)
            names |= {name for number, name in firsts.items() if number > 0}
        for path in self._folders():
            if path.name not in names:
                # The marker first: a half-removed state must not look complete.
                (path / _COMPLETE).unlink(missing_ok=True)
                shutil.rmtree(path)

    def _best(self) -> str:
        best = self.states / "best"
        return best.read_text().strip() if best.exists() else ""


def _file_of(folder: Path) -> str:
    """Name the file that makes a state complete; "" when it is not."""
    try:
        return str(json.loads((folder / _COMPLETE).read_text()).get("file", _STATE))
    except (OSError, ValueError, AttributeError):
        return ""


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))

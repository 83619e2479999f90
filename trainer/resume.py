"""Start a run's folder, or go on where a run was interrupted."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.labels import PhotoSet
from trainer.runfolder import RunFolder, RunFolderError
from trainer.settings import FREE_ON_RESUME, TrainConfig

if TYPE_CHECKING:
    from trainer.loop import Loop


def open_folder(root: Path, *, resuming: bool) -> RunFolder:
    """Return the run's folder; raises RunFolderError when it holds a run not to be resumed.

    Nothing is written yet.
    """
    if root.exists() and not root.is_dir():
        raise RunFolderError(f"--out {root} is no folder: give another --out")
    run = RunFolder(root)
    newest = run.newest()
    if newest is not None and not resuming:
        raise RunFolderError(
            f"{root} holds a run ({newest.name}): go on with --resume auto, or give another --out"
        )
    return run


def resume(loop: "Loop", run: RunFolder, *, settings: str, say: Callable[[str], None]) -> int:
    """Take up the newest complete state, if there is one; return the step to start from.

    `settings` become the folder's config.yaml, but only those of a run that goes on: raises
    RunFolderError, with the folder as it was, when the state belongs to other settings or
    other photos.
    """
    newest = run.newest()
    step = 0 if newest is None else _take_up(loop, run, newest)
    if loop.processes.is_first:
        run.write("config.yaml", settings)
        run.forget_after(step)  # metrics of steps that no state holds
    if newest is not None:
        say(f"going on after step {step} of {loop.course.num_steps} ({newest})")
    return step


def _take_up(loop: "Loop", run: RunFolder, newest: Path) -> int:
    state = run.load(newest)
    differences = _differences(state["identity"], loop.identity)
    if differences:
        raise RunFolderError(
            f"{newest} belongs to another run: {'; '.join(differences)}: give another --out, or "
            f"remove {run.root} to begin again"
        )
    return loop.restore(state)


def identity_of(config: TrainConfig, photos: PhotoSet) -> dict[str, Any]:
    """Return what two runs must share to compute the same: settings and photos."""
    settings = config.model_dump(mode="json", exclude=set(FREE_ON_RESUME))
    return settings | {"photos": f"{len(photos.names)} photos, {photos.digest()[:16]}"}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted((before.keys() | now.keys()) - FREE_ON_RESUME)
        if before.get(name) != now.get(name)
    ]

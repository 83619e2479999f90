"""Start a run's folder, or go on where a run was interrupted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.engine.runfolder import DamagedStateError, RunFolder, RunFolderError
from trainer.inputs.labels import PhotoSet
from trainer.settings import FREE_ON_RESUME, TrainConfig

if TYPE_CHECKING:
    from trainer.engine.loop import Loop

Say = Callable[[str], None]


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


def resume(loop: "Loop", run: RunFolder, *, settings: str, say: Say, anyway: bool = False) -> int:
    """Take up the newest complete state, if there is one; return the step to start from.

    `settings` become the folder's config.yaml, but only those of a run that goes on: raises
    RunFolderError, with the folder as it was, when the state belongs to other settings or
    other photos. `anyway` goes on all the same, where the state fits the model, and says so.
    """
    found = _newest_whole(run, say=say)
    _check_all_see_the_same(loop, None if found is None else found[0].name)
    step = num_lines = 0
    if found is not None:
        folder, state = found
        _check(state, loop, folder, run, anyway=anyway, say=say)
        step, num_lines = _restore(loop, state, folder), state["journal"]["num_lines"]
        say(f"going on after step {step} of {loop.course.num_steps} ({folder})")
    if loop.processes.is_first:
        run.write("config.yaml", settings)
        run.forget_after(step)
    loop.journal.start(num_lines=num_lines, step=step)
    return step


def _newest_whole(run: RunFolder, *, say: Say) -> tuple[Path, dict[str, Any]] | None:
    """The newest state whose bytes are those written; what is passed over is said."""
    for folder in reversed(run.complete()):
        try:
            return folder, run.load(folder)
        except DamagedStateError as error:
            say(f"{error}; going back to the checkpoint before it")
    if run.complete():
        raise RunFolderError(
            f"no checkpoint of {run.root} is whole: remove {run.root} to begin again"
        )
    return None


def _check_all_see_the_same(loop: "Loop", name: str | None) -> None:
    names = loop.processes.gather(name or "none")
    if len(set(names)) > 1:
        raise RunFolderError(
            f"the processes see different newest checkpoints ({', '.join(sorted(set(names)))}): "
            f"--out must lie on a file system that all machines share"
        )


def _check(
    state: Mapping[str, Any],
    loop: "Loop",
    folder: Path,
    run: RunFolder,
    *,
    anyway: bool,
    say: Say,
) -> None:
    differences = _differences(state["identity"], loop.identity)
    if not differences:
        return
    what = "; ".join(differences)
    if not anyway:
        raise RunFolderError(
            f"{folder} belongs to another run: {what}: go on with --resume-anyway, give another "
            f"--out, or remove {run.root} to begin again"
        )
    say(f"going on although settings differ from the checkpoint's: {what}")


def _restore(loop: "Loop", state: Mapping[str, Any], folder: Path) -> int:
    try:
        return loop.restore(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunFolderError(
            f"{folder} does not fit this run's model or optimiser ({error}): give the settings it "
            f"was written with, or another --out"
        ) from error


def identity_of(config: TrainConfig, photos: PhotoSet, *, precision: str) -> dict[str, Any]:
    """Return what two runs must share to compute the same: settings and photos.

    `precision` is the one in use: `auto` is another on another device.
    """
    settings = config.model_dump(mode="json", exclude=set(FREE_ON_RESUME))
    return settings | {
        "precision": precision,
        "photos": f"{len(photos.names)} photos, {photos.digest()[:16]}",
    }


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what was added, removed and changed, in the order of the names."""
    said = []
    for name in sorted((before.keys() | now.keys()) - FREE_ON_RESUME):
        shown = _shown(name)
        if name not in before:
            said.append(f"{shown} is new, {now[name]!r}")
        elif name not in now:
            said.append(f"{shown} was {before[name]!r}, is gone")
        elif before[name] != now[name]:
            said.append(f"{shown} was {before[name]!r}, is {now[name]!r}")
    return said


def _shown(name: str) -> str:
    """A setting as its flag, anything else as it is."""
    field = TrainConfig.model_fields.get(name)
    return name if field is None else f"--{(field.alias or name).replace('_', '-')}"

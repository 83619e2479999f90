"""Start a run's folder, or go on where a run was interrupted."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.labels import PhotoSet
from trainer.processes import Processes
from trainer.runfolder import RunFolder, RunFolderError
from trainer.settings import FREE_ON_RESUME, TrainConfig

if TYPE_CHECKING:
    from trainer.loop import Loop


def prepare_folder(config: TrainConfig, processes: Processes) -> RunFolder:
    """Return the run's folder; raises RunFolderError when it holds a run not to be resumed."""
    run = RunFolder(config.out)
    newest = run.newest()
    processes.wait()  # everybody has looked before anybody writes
    if newest is not None and config.resume == "no":
        raise RunFolderError(
            f"{config.out} holds a run ({newest.name}): go on with --resume auto, or give "
            f"another --out"
        )
    if processes.is_first:
        run.write("config.yaml", config.to_yaml())
    return run


def resume(loop: "Loop", run: RunFolder, *, say: Callable[[str], None]) -> int:
    """Take up the newest complete state, if there is one; return the step to start from.

    Raises RunFolderError when the state belongs to other settings or other photos.
    """
    newest = run.newest()
    if newest is None:
        if loop.processes.is_first:
            run.forget_after(0)  # of a run that ended before its first state
        return 0
    state = run.load(newest)
    differences = _differences(state["identity"], loop.identity)
    if differences:
        raise RunFolderError(
            f"{newest} belongs to another run: {'; '.join(differences)}: repeat the old "
            f"settings, or give another --out"
        )
    step = loop.restore(state)
    if loop.processes.is_first:
        run.forget_after(step)
    say(f"going on after step {step} of {loop.course.num_steps} ({newest})")
    return step


def identity_of(config: TrainConfig, photos: PhotoSet) -> dict[str, Any]:
    """Return what two runs must share to compute the same: settings and photos."""
    settings = config.model_dump(mode="json", exclude=set(FREE_ON_RESUME))
    return settings | {"photos": photos.digest()}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]

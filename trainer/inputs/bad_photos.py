"""Keep account of training photos that cannot be read, over all processes."""

from collections.abc import Iterable

from multigrain.errors import MultiGrainError
from trainer.engine.processes import Processes
from trainer.inputs.labels import PhotoSet
from trainer.inputs.loading import BadPhoto


class BadPhotosError(MultiGrainError):
    """More unreadable photos than a run accepts."""


class BadPhotos:
    """The unreadable photos found so far: each once, the same on every process."""

    def __init__(self, photos: PhotoSet, *, max_share: float) -> None:
        self._photos = photos
        # One is always allowed: in a small folder it alone is more than any sensible share.
        self._most = max(1, int(max_share * len(photos.names)))
        self._known: dict[int, str] = {}
        self._new: dict[int, str] = {}

    def state(self, processes: Processes) -> list[tuple[int, str]]:
        """Return what is known to any process, for a checkpoint; every process calls it."""
        known = dict(self._known)
        for found in processes.gather(self._new):
            known |= found
        return sorted(known.items())

    def restore(self, state: Iterable[tuple[int, str]]) -> None:
        """Take up what an interrupted run knew."""
        self._known = dict(state)

    def note(self, bad: Iterable[BadPhoto]) -> bool:
        """Remember what this process found; return whether any of it is new."""
        found = {photo.photo_id: photo.reason for photo in bad}
        self._new |= {key: found[key] for key in found.keys() - self._known.keys()}
        return bool(self._new)

    def share(self, processes: Processes) -> str:
        """Exchange the new ones and return the text of bad_images.txt."""
        for found in processes.gather(self._new):
            self._known |= found
        self._new = {}
        text = "".join(f"{line}\n" for line in self._lines())
        # A photo's name need not be UTF-8; the list is.
        return text.encode(errors="backslashreplace").decode()

    def check(self) -> None:
        """Raise BadPhotosError, on every process, when there are too many.

        Apart from `share`: the list is written first, for whoever has to mend the photos.
        """
        lines = self._lines()
        if len(lines) > self._most:
            raise BadPhotosError(
                f"{len(lines)} of {len(self._photos.names)} photos cannot be read, more than "
                f"--max-bad-share allows ({self._most}); the first: {lines[0]}; all are in "
                f"bad_images.txt"
            )

    def _lines(self) -> list[str]:
        return [f"{self._photos.names[key]}\t{self._known[key]}" for key in sorted(self._known)]

"""Which generations there are: CURRENT names the live one, manifests stand for the others."""

import logging
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import Manifest, parse_manifest
from index.steps import Steps
from index.store import write_whole

_MANIFEST_NAME = re.compile(r"[0-9]{6,12}\.json")
_logger = logging.getLogger(__name__)


class Pointer(NamedTuple):
    """A generation and its manifest's hash; the hash is empty where CURRENT does not give it."""

    generation: str
    sha256: str

    @property
    def line(self) -> bytes:
        """What CURRENT holds."""
        return f"{self.generation}.json {self.sha256}\n".encode()


def read_current(layout: Layout) -> Pointer | None:
    """What CURRENT names; None where it is missing or cannot be understood."""
    try:
        return parse_pointer(layout.current.read_bytes())
    except OSError:
        return None


def parse_pointer(data: bytes) -> Pointer | None:
    """The bytes of a CURRENT; None where they cannot be understood."""
    try:
        words = data.decode().split()
    except UnicodeDecodeError:
        return None
    if len(words) != 2 or not _MANIFEST_NAME.fullmatch(words[0]):  # noqa: PLR2004 - file and hash
        return None
    return Pointer(words[0].removesuffix(".json"), words[1])


def generations(layout: Layout) -> list[str]:
    """The generations whose manifest is there, oldest first."""
    if not layout.manifests.is_dir():
        return []
    found = layout.manifests.iterdir()
    return sorted(path.stem for path in found if _MANIFEST_NAME.fullmatch(path.name))


def pointers(layout: Layout) -> list[Pointer]:
    """CURRENT's generation first, then every other, newest first."""
    current = read_current(layout)
    others = [Pointer(name, "") for name in reversed(generations(layout))]
    if current is None:
        return others
    return [current] + [other for other in others if other.generation != current.generation]


def whole_manifests(layout: Layout) -> Iterator[Manifest]:
    """The manifests that can be trusted, CURRENT's first; a damaged one costs a warning.

    Raises IndexFolderError for one that is as it was written and cannot be understood: the
    folder is of another version then, not damaged.
    """
    for pointer in pointers(layout):
        path = layout.manifest(pointer.generation)
        try:
            data = path.read_bytes()
            _require_hash(data, pointer, name=str(path))
        except (OSError, IndexFolderError) as error:
            _logger.warning("generation %s is passed over: %s", pointer.generation, error)
            continue
        try:
            yield parse_manifest(data, name=str(path))
        except IndexFolderError as error:
            if pointer.sha256:
                raise
            _logger.warning("generation %s is passed over: %s", pointer.generation, error)


def current_manifest(layout: Layout) -> Manifest | None:
    """The live manifest; where it or CURRENT is lost or damaged, the newest whole one."""
    return next(whole_manifests(layout), None)


def live_manifest(layout: Layout) -> Manifest:
    """The same, of a folder that must have one; raises IndexFolderError."""
    manifest = current_manifest(layout)
    if manifest is None:
        raise IndexFolderError(f"{layout.root}: no index here; make one with python -m index.build")
    return manifest


def checked_manifest(data: bytes, pointer: Pointer, *, name: str) -> Manifest:
    """A manifest's bytes, compared with the hash that names them; raises IndexFolderError."""
    _require_hash(data, pointer, name=name)
    return parse_manifest(data, name=name)


def _require_hash(data: bytes, pointer: Pointer, *, name: str) -> None:
    if pointer.sha256 and sha256(data).hexdigest() != pointer.sha256:
        raise IndexFolderError(f"{name}: damaged, its hash is not the one in CURRENT")


def write_manifest(layout: Layout, manifest: Manifest, *, steps: Steps) -> Pointer:
    """Write the manifest file; it is live only after `write_current`.

    Raises IndexFolderError where the generation has one already: a manifest never changes.
    """
    path, data = layout.manifest(manifest.generation), manifest.to_bytes()
    if path.exists():
        raise IndexFolderError(f"{path}: exists already, and a published generation never changes")
    write_whole(path, data, steps=steps)
    return Pointer(manifest.generation, sha256(data).hexdigest())


def write_current(layout: Layout, pointer: Pointer, *, steps: Steps) -> None:
    """Make a generation the live one."""
    write_whole(layout.current, pointer.line, steps=steps)

"""A finished generation is sent to an object store: its files first, CURRENT last."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from index.changes.segment import Segment, segment_numbers
from index.current import Pointer, checked_manifest, parse_pointer, read_current
from index.errors import IndexFolderError
from index.layout import Layout
from index.lock import open_shared
from index.manifest import FilePart, Manifest, parse_manifest
from index.replica.files import is_whole, require_complete, shard_documents, shard_files
from multigrain.ahead import in_order
from multigrain.locations import Url
from multigrain.object_store import ObjectMissingError, ObjectStore, ObjectStoreError

# Files travel side by side: each begins with a round trip or two.
_NUM_THREADS = 4
# Their names are hashes; the others are named by the generation, and another index has one, too.
_NAMED_BY_HASH = ("shards", "codebooks", "models")
_FOLDERS = (*_NAMED_BY_HASH, "catalogs", "tombstones")
_logger = logging.getLogger(__name__)


class Pushed(NamedTuple):
    """What a push did: files sent, their bytes, files that were there, files that left."""

    generation: str
    num_sent: int
    num_bytes: int
    num_there: int
    num_removed: int


class _Generation(NamedTuple):
    """A generation of the folder, which stays while it is sent: its manifest as it is written."""

    pointer: Pointer
    data: bytes
    manifest: Manifest


def push(root: Path, url: Url) -> Pushed:
    """Send the live generation of an index folder; only files that are not there are sent.

    Readers see the generation before until CURRENT is written, last. That one stays for those who
    are fetching it, older ones leave. One push at a time. Raises IndexFolderError for an index
    that is not whole, or where another one lies; ObjectStoreError.
    """
    layout = Layout(root.absolute())
    with _held_generation(layout) as generation:
        store = ObjectStore(url)
        before = _live_there(store)
        _require_successor(generation.pointer, before, name=url)
        files = _files(layout, generation.manifest)
        there = {name: size for folder in _FOLDERS for name, size in store.sizes(folder).items()}
        # First, so that what a killed push leaves is known to the next one.
        store.write(f"manifests/{generation.pointer.generation}.json", generation.data)
        is_published = generation.pointer == before
        missing = [
            part
            for part in files
            if there.get(part.file) != part.size
            or not (is_published or part.file.startswith(_NAMED_BY_HASH))
        ]
        _send(layout, store, missing)
        store.write("CURRENT", generation.pointer.line)
        kept = {generation.pointer.generation, before.generation if before else ""}
        num_removed = _retire(store, there, kept=kept)
    num_bytes = sum(part.size for part in missing)
    return Pushed(
        generation.pointer.generation,
        len(missing),
        num_bytes,
        len(files) - len(missing),
        num_removed,
    )


def has_pending_changes(root: Path) -> bool:
    """Whether something was added or deleted that no generation of the folder holds."""
    layout = Layout(root.absolute())
    with _held_generation(layout) as generation:
        folded = generation.manifest.adds.folded
        numbers = [number for number in segment_numbers(layout) if number > folded]
        return any(Segment(layout, number).read().changes for number in numbers)


def num_uploads(root: Path) -> int:
    """How many photos' bytes lie in the folder's uploads/, which no generation names."""
    return sum(not path.name.startswith(".") for path in Layout(root).uploads.glob("*"))


@contextmanager
def _held_generation(layout: Layout) -> Iterator[_Generation]:
    """The generation that CURRENT names, kept by its builder meanwhile."""
    pointer = read_current(layout)
    if pointer is None:
        raise IndexFolderError(f"{layout.root}: no index here; make one with python -m index.build")
    path = layout.manifest(pointer.generation)
    try:
        held = open_shared(path)
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be read ({error.strerror})") from error
    with held:
        data = held.read()
        manifest = checked_manifest(data, pointer, name=str(path))
        require_complete(manifest, name=str(path))
        yield _Generation(pointer, data, manifest)


def _live_there(store: ObjectStore) -> Pointer | None:
    try:
        data = store.read("CURRENT")
    except ObjectMissingError:
        return None
    pointer = parse_pointer(data)
    if pointer is None:
        raise IndexFolderError(
            f"{store.url}/CURRENT: not the name and hash of a manifest; remove it if an index "
            "may be sent there"
        )
    return pointer


def _require_successor(ours: Pointer, there: Pointer | None, *, name: str) -> None:
    """Refuse to put an index over another one, or over a later state of itself."""
    if there is None or there == ours or int(there.generation) < int(ours.generation):
        return
    raise IndexFolderError(
        f"{name}: holds generation {there.generation}, the folder's is {ours.generation}: another "
        "index, or a later state of this one; send to another address"
    )


def _files(layout: Layout, manifest: Manifest) -> list[FilePart]:
    """All files of a generation; raises IndexFolderError."""
    documents = shard_documents(layout, manifest)
    return [*manifest.files, *documents, *shard_files(layout, manifest)]


def _send(layout: Layout, store: ObjectStore, parts: list[FilePart]) -> None:
    def send(part: FilePart) -> None:
        path = layout.root / part.file
        if not is_whole(path, part=part, deep=True):
            raise IndexFolderError(
                f"{path}: missing or damaged; see python -m index.verify --index {layout.root}"
            )
        store.upload(path, part.file)

    for _ in in_order(send, parts, num_threads=_NUM_THREADS, window=2 * _NUM_THREADS):
        pass


def _retire(store: ObjectStore, there: Mapping[str, int], *, kept: set[str]) -> int:
    """Remove generations but those kept; only what a manifest names is ever removed.

    Gives the number of files.
    """
    stems = {name: Path(name).stem for name in store.sizes("manifests")}
    old = sorted(name for name, stem in stems.items() if stem not in kept)
    try:
        needed = {
            one for name, stem in stems.items() if stem in kept for one in _named(store, name)
        }
        doomed = {one for name in old for one in _named(store, name)} - needed
    except (IndexFolderError, ObjectStoreError) as error:
        _logger.warning("old files are kept: %s", error)
        return 0
    files = [name for name in there if "/".join(name.split("/")[:2]) in doomed]
    # The manifests last: they name what is left where this ends too early.
    for name in files + old:
        store.remove(name)
    return len(files + old)


def _named(store: ObjectStore, name: str) -> set[str]:
    """What a generation needs, as the first two parts of the names of its files."""
    manifest = parse_manifest(store.read(name), name=f"{store.url}/{name}")
    files = {"/".join(part.file.split("/")[:2]) for part in manifest.files}
    return files | {f"shards/{part.folder}" for part in manifest.shards}

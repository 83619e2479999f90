"""A copy of an index that lies in an object store: its live generation, fetched and checked."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256
from pathlib import Path

from index.codebook.footprint import human_bytes
from index.current import Pointer, checked_manifest, parse_pointer, read_current, write_current
from index.errors import IndexFolderError
from index.layout import Layout
from index.lock import copy_lock
from index.manifest import FilePart, Manifest
from index.replica.files import (
    is_document,
    is_whole,
    require_complete,
    shard_files,
)
from index.retire import retire_but
from index.steps import no_steps
from index.store import write_whole
from multigrain.ahead import in_order
from multigrain.files import atomic_write_text, write_via_temporary
from multigrain.locations import Url
from multigrain.object_store import ObjectMissingError, ObjectStore

# Files travel side by side: each begins with a round trip or two.
_NUM_THREADS = 4
# What is fetched may be retired meanwhile, when an index is published again and again.
_MAX_LOOKS = 3
_logger = logging.getLogger(__name__)


class _DamagedError(IndexFolderError):
    """What was fetched is not what the manifest names."""


class IndexCopy:
    """A folder in which the live generation of an index elsewhere is kept, to be read from.

    Every file is compared with the manifest's checksum before it gets its name. Any number of
    processes may share the folder.
    """

    def __init__(self, url: Url, folder: Path) -> None:
        self.url, self._layout = url, Layout(folder.absolute())

    @property
    def root(self) -> Path:
        """The folder, an index folder to its readers."""
        return self._layout.root

    @property
    def has_generation(self) -> bool:
        """Whether one was fetched before."""
        return read_current(self._layout) is not None

    def update(self, *, deep: bool = False) -> None:
        """Fetch what is missing of the live generation, then let CURRENT name it.

        With `deep` the bytes of files that are there are compared too, and damaged ones fetched
        again. All but this generation, the one before and those being read leave the folder.
        Raises ObjectStoreError, and IndexFolderError for an index that is not whole.
        """
        self._layout.create()
        with copy_lock(self._layout.lock):
            if not self._layout.origin.exists():
                atomic_write_text(self._layout.origin, f"{self.url}\n")
            for leftover in self.root.rglob(".*.tmp"):
                leftover.unlink()
            store, before = ObjectStore(self.url), read_current(self._layout)
            pointer = self._fetched(store, before, deep=deep)
            if pointer != before:
                write_current(self._layout, pointer, steps=no_steps)
                kept = {pointer.generation, before.generation if before else None}
                retire_but(self._layout, kept, steps=no_steps)

    def _fetched(self, store: ObjectStore, before: Pointer | None, *, deep: bool) -> Pointer:
        """The generation that is live there, after all its files are here."""
        pointer = _live_there(store)
        for _ in range(_MAX_LOOKS):
            try:
                manifest = self._fetch_manifest(store, pointer)
                self._fetch(store, manifest, is_new=pointer != before, deep=deep)
            except ObjectMissingError as error:
                missed, pointer = pointer, _live_there(store)
                if missed == pointer:
                    raise IndexFolderError(f"{error}, and CURRENT needs it: push again") from error
            else:
                return pointer
        raise IndexFolderError(f"{self.url}: published anew faster than it can be fetched")

    def _fetch(self, store: ObjectStore, manifest: Manifest, *, is_new: bool, deep: bool) -> None:
        for shard in manifest.shards:
            path = self._layout.shard_document(shard.folder)
            if not is_document(path, part=shard):
                self._take(store, path, partial(is_document, part=shard))
        shards = list(shard_files(self._layout, manifest))
        # Only the names of shards tell what their bytes are.
        missing = [one for one in manifest.files if not self._has(one, deep=deep or is_new)]
        missing += [one for one in shards if not self._has(one, deep=deep)]
        if missing:
            _logger.info(
                "%s: generation %s: fetching %d files, %s",
                self.url,
                manifest.generation,
                len(missing),
                human_bytes(sum(part.size for part in missing)),
            )
        self._take_all(store, missing)

    def _has(self, part: FilePart, *, deep: bool) -> bool:
        return is_whole(self._layout.root / part.file, part=part, deep=deep)

    def _fetch_manifest(self, store: ObjectStore, pointer: Pointer) -> Manifest:
        path = self._layout.manifest(pointer.generation)
        name = f"{self.url}/manifests/{path.name}"
        data = path.read_bytes() if path.is_file() else b""
        # Written only when it differs: readers hold the file they have opened.
        if sha256(data).hexdigest() != pointer.sha256:
            data = store.read(f"manifests/{path.name}")
            manifest = checked_manifest(data, pointer, name=name)
            write_whole(path, data)
        else:
            manifest = checked_manifest(data, pointer, name=name)
        require_complete(manifest, name=name)
        return manifest

    def _take_all(self, store: ObjectStore, parts: Iterable[FilePart]) -> None:
        def take(part: FilePart) -> None:
            path = self._layout.root / part.file
            self._take(store, path, partial(is_whole, part=part, deep=True))

        for _ in in_order(take, parts, num_threads=_NUM_THREADS, window=2 * _NUM_THREADS):
            pass

    def _take(self, store: ObjectStore, path: Path, is_right: Callable[[Path], bool]) -> None:
        try:
            self._download(store, path, is_right)
        except _DamagedError:  # a transfer may be cut without an error
            self._download(store, path, is_right)

    def _download(self, store: ObjectStore, path: Path, is_right: Callable[[Path], bool]) -> None:
        name = path.relative_to(self._layout.root).as_posix()
        if ".." in path.parts:  # whoever may write there may not write here
            raise IndexFolderError(f"{self.url}: its manifest names {name}, outside of the index")
        with write_via_temporary(path) as temporary:
            store.download(name, temporary)
            if not is_right(temporary):
                raise _DamagedError(
                    f"{self.url}/{name}: damaged, not the file its manifest names; remove it "
                    "there, and push the index again"
                )


def _live_there(store: ObjectStore) -> Pointer:
    try:
        data = store.read("CURRENT")
    except ObjectMissingError as error:
        raise IndexFolderError(
            f"{store.url}: no index here; send one with python -m index.push"
        ) from error
    pointer = parse_pointer(data)
    if pointer is None:
        raise IndexFolderError(f"{store.url}/CURRENT: not the name and hash of a manifest")
    return pointer

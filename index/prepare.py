"""Before a build: the folder is made or recovered, and takes only its own checkpoint."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from index.catalog_engine import journal_errors
from index.catalog_journal import Journal
from index.current import (
    Pointer,
    current_manifest,
    generations,
    read_current,
    whole_manifests,
)
from index.encode import first_free_id
from index.errors import IndexFolderError, OtherCheckpointError
from index.layout import Layout
from index.manifest import Manifest
from index.steps import Steps, no_steps
from index.store import remove_temporaries, require_size
from multigrain.files import sha256_of, write_via_temporary

_logger = logging.getLogger(__name__)


def take_checkpoint(layout: Layout, checkpoint: Path, *, fingerprint: str, steps: Steps) -> None:
    """Copy the checkpoint in; raises OtherCheckpointError when the folder has another one."""
    remove_temporaries(layout)
    target = layout.checkpoint(fingerprint)
    # Also where someone removed the file to have another one taken: the rows are still its own.
    parent = current_manifest(layout)
    known = {path.stem for path in layout.models.glob("*.safetensors")}
    known |= {parent.model.fingerprint} if parent else set()
    others = sorted(known - {fingerprint})
    if others:
        raise OtherCheckpointError(
            f"{layout.root} was built with checkpoint {others[0][:12]}, "
            f"{checkpoint} is {fingerprint[:12]}; give a new --out"
        )
    if not target.exists():
        steps("write checkpoint")
        with write_via_temporary(target) as temporary:
            shutil.copyfile(checkpoint, temporary)
        steps("checkpoint written")


@contextmanager
def open_journal(layout: Layout, *, steps: Steps) -> Iterator[Journal]:
    """The builder's journal; one that is lost or behind is made again from a published catalog.

    Raises IndexFolderError when it is damaged, or neither it nor a catalog can be used.
    """
    with journal_errors(layout.journal):
        if not _is_level(layout):
            _restore(layout)
        journal = Journal(layout.journal, steps=steps)
        try:
            _forget_unpublished(layout, journal)
            yield journal
        finally:
            journal.close()


def _is_level(layout: Layout) -> bool:
    """Whether the journal saw what is published; an older copy put back would give ids again."""
    pointer, names = read_current(layout), generations(layout)
    if not layout.journal.exists():
        return pointer is None and not names
    with closing(Journal(layout.journal, steps=no_steps)) as journal:
        if pointer is None:
            return journal.knows(names)
        # False too when the last builder died between CURRENT and its own record of it: the
        # catalog it published is its journal then.
        seen = journal.published_hash(pointer.generation)
        return seen is not None and seen in (pointer.sha256, _manifest_hash(layout, pointer))


def _manifest_hash(layout: Layout, pointer: Pointer) -> str | None:
    path = layout.manifest(pointer.generation)
    return sha256_of(path) if path.is_file() else None


def _restore(layout: Layout) -> None:
    """Make build.sqlite from the newest generation whose catalog is whole.

    A damaged generation behind it keeps its number and its ids for itself.
    """
    live = next((one for one in whole_manifests(layout) if _has_catalog(layout, one)), None)
    if live is None:
        raise IndexFolderError(
            f"{layout.root}: build.sqlite is lost or older than the published generations, and "
            "none of those has a whole manifest and catalog; build into a new --out"
        )
    # A log left beside a lost database would be played into the new one.
    for suffix in ("-wal", "-shm"):
        layout.journal.with_name(layout.journal.name + suffix).unlink(missing_ok=True)
    with write_via_temporary(layout.journal) as temporary:
        shutil.copyfile(layout.root / live.catalog.file, temporary)
    pointer = read_current(layout) or Pointer(live.generation, "")
    latest = max(live.generation, pointer.generation, *generations(layout), key=int)
    next_id = live.counts.next_id
    if latest != live.generation:
        next_id = max(next_id, first_free_id(layout))
    with closing(Journal(layout.journal, steps=no_steps)) as journal:
        journal.take_up(
            {live.generation, pointer.generation, latest}, pointer.sha256, next_id=next_id
        )


def _has_catalog(layout: Layout, manifest: Manifest) -> bool:
    path = layout.root / manifest.catalog.file
    try:
        require_size(path, manifest.catalog.size)
    except IndexFolderError as error:
        _logger.warning("generation %s is passed over: %s", manifest.generation, error)
        return False
    if sha256_of(path) == manifest.catalog.sha256:
        return True
    _logger.warning(
        "generation %s is passed over: %s: damaged, its hash is not the manifest's",
        manifest.generation,
        path,
    )
    return False


def _forget_unpublished(layout: Layout, journal: Journal) -> None:
    """Remove the manifest of a generation that CURRENT never named."""
    name = journal.open_generation()
    if name is not None:
        layout.manifest(name).unlink(missing_ok=True)

"""Before a build: the folder is made or recovered, and takes only its own checkpoint."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.catalog_journal import Journal
from index.errors import OtherCheckpointError
from index.layout import Layout
from index.manifest import current_manifest, read_current
from index.steps import Steps
from index.store import remove_temporaries
from multigrain.files import write_via_temporary


def take_checkpoint(layout: Layout, checkpoint: Path, *, fingerprint: str, steps: Steps) -> None:
    """Copy the checkpoint in; raises OtherCheckpointError when the folder has another one."""
    remove_temporaries(layout)
    target = layout.checkpoint(fingerprint)
    others = [path for path in layout.models.glob("*.safetensors") if path != target]
    if others:
        raise OtherCheckpointError(
            f"{layout.root} was built with checkpoint {others[0].stem[:12]}, "
            f"{checkpoint} is {fingerprint[:12]}; give a new --out"
        )
    if not target.exists():
        steps("write checkpoint")
        with write_via_temporary(target) as temporary:
            shutil.copyfile(checkpoint, temporary)
        steps("checkpoint written")


@contextmanager
def open_journal(layout: Layout, *, steps: Steps) -> Iterator[Journal]:
    """The builder's journal; one that was lost is made again from the live catalog."""
    if not layout.journal.exists() and (live := current_manifest(layout)):
        with write_via_temporary(layout.journal) as temporary:
            shutil.copyfile(layout.root / live.catalog.file, temporary)
    journal = Journal(layout.journal, steps=steps)
    try:
        pointer = read_current(layout)
        if pointer and journal.open_generation() == pointer.generation:
            # The last builder died between CURRENT and its own record of it.
            journal.close_generation(pointer.generation, pointer.sha256)
        yield journal
    finally:
        journal.close()

"""Which ids of a published generation are live."""

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import Manifest
from index.store import require_size, unpack_live
from multigrain.files import sha256_of


def live_flags(layout: Layout, manifest: Manifest) -> NDArray[np.bool_]:
    """The live flag of each id [next_id]; raises IndexFolderError for a damaged bitmap."""
    bitmap = layout.root / manifest.tombstones.file
    require_size(bitmap, manifest.tombstones.size)
    if sha256_of(bitmap) != manifest.tombstones.sha256:
        raise IndexFolderError(f"{bitmap}: damaged, its hash is not the manifest's")
    return unpack_live(np.fromfile(bitmap, dtype=np.uint8), num_ids=manifest.counts.next_id)

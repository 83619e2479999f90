"""An index folder in the hands of its one builder: locked, recovered, its journal open."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from index.backend import PUBLISHED_FOR, Backend
from index.catalog_journal import Journal
from index.catalog_opening import require_same_kind
from index.catalog_publishing import CatalogServer
from index.catalog_url import database_url
from index.collection.reading import PhotoEmbedder
from index.current import current_manifest, live_manifest
from index.faiss_gpu import FaissDevice
from index.layout import Layout
from index.lock import builder_lock, require_original
from index.manifest import Manifest, ModelPart
from index.milvus_loading import MilvusServer
from index.prepare import open_journal, take_checkpoint
from index.steps import Steps, no_steps
from index.store import remove_temporaries


class Workshop(NamedTuple):
    """What every stage of a build needs: the folder, its journal, its model.

    `parent` is the live generation, `started` the time in UTC that new records carry,
    `device` where training and the assignment of rows run, `faiss_device` where codes are made,
    `server` the database that readers find the catalog in, None where that is its file, `milvus`
    where the rows are searched, None where that is the folder's own lists.
    """

    layout: Layout
    journal: Journal
    parent: Manifest | None
    model: ModelPart
    started: str
    steps: Steps
    device: str = "cpu"
    faiss_device: FaissDevice | None = None
    server: CatalogServer | None = None
    milvus: MilvusServer | None = None


@contextmanager
def open_workshop(
    out: Path,
    *,
    checkpoint: Path,
    embedder: PhotoEmbedder,
    steps: Steps = no_steps,
    catalog: SecretStr | None = None,
    backend: Backend = PUBLISHED_FOR,
) -> Iterator[Workshop]:
    """Make or open an index folder for building with a checkpoint's model.

    `catalog` is the address of the database to publish the catalog to, or sqlite, `backend` who
    searches; without them those of the live generation.

    Raises BuilderBusyError while another process builds, OtherCheckpointError where the folder
    belongs to another checkpoint, IndexFolderError where its journal cannot be used.
    """
    layout = Layout(Path(out).absolute())
    require_original(layout)
    layout.create()
    with builder_lock(layout.lock):
        take_checkpoint(layout, checkpoint, fingerprint=embedder.fingerprint, steps=steps)
        with open_journal(layout, steps=steps) as journal:
            parent = current_manifest(layout)
            device = str(embedder.device)
            with (
                _opened_server(layout, parent, catalog) as server,
                _opened_milvus(layout, parent, backend) as milvus,
            ):
                yield Workshop(
                    layout,
                    journal,
                    parent,
                    _model_part(embedder),
                    _now(),
                    steps,
                    device,
                    FaissDevice(device),
                    server,
                    milvus,
                )


@contextmanager
def reopen_workshop(
    root: Path,
    *,
    steps: Steps = no_steps,
    catalog: SecretStr | None = None,
    backend: Backend = PUBLISHED_FOR,
) -> Iterator[Workshop]:
    """Open a published index folder for stages that embed no photo; raises as `open_workshop`."""
    layout = Layout(Path(root).absolute())
    parent = live_manifest(layout)
    require_original(layout)
    with builder_lock(layout.lock):
        remove_temporaries(layout)
        with open_journal(layout, steps=steps) as journal:
            # Read again under the lock: a builder may have published in between.
            parent = current_manifest(layout) or parent
            require_same_kind(layout, parent, catalog)
            with (
                _opened_server(layout, parent, catalog) as server,
                _opened_milvus(layout, parent, backend) as milvus,
            ):
                model, now = parent.model, _now()
                yield Workshop(
                    layout, journal, parent, model, now, steps, server=server, milvus=milvus
                )


@contextmanager
def _opened_server(
    layout: Layout, parent: Manifest | None, catalog: SecretStr | None
) -> Iterator[CatalogServer | None]:
    """The database, asked before any work is done for it."""
    recorded = parent.database.url if parent and parent.database else None
    url = database_url(catalog, recorded=recorded)
    if url is None:
        yield None
        return
    with closing(CatalogServer(url, folder=layout.root)) as server:
        server.check()
        yield server


@contextmanager
def _opened_milvus(
    layout: Layout, parent: Manifest | None, backend: Backend
) -> Iterator[MilvusServer | None]:
    """The Milvus, asked before any work is done for it."""
    uri = backend.milvus_uri(parent.milvus if parent else None, index=str(layout.root))
    if uri is None:
        yield None
        return
    with closing(MilvusServer(uri, folder=layout.root)) as milvus:
        yield milvus


def _model_part(embedder: PhotoEmbedder) -> ModelPart:
    return ModelPart(
        fingerprint=embedder.fingerprint,
        D=embedder.dim,
        preprocessing=embedder.preprocessing.model_dump(mode="json"),
        engine=embedder.engine,
        precision=embedder.precision,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

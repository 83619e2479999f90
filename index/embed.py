"""Stage B: pending photos become staged rows and contents, durable in steps.

Photos are embedded in blocks of their scan order, which an interrupted build meets again.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from index.catalog_journal import Journal
from index.codebook.memory import PeakMemory, Taken
from index.collection.known import KnownContents
from index.collection.reading import PhotoEmbedder
from index.embedding.blocks import AnyCrew, BlockEmbedder, Work, blocks_of
from index.embedding.ledger import DURABLE_ROWS, Ledger
from index.embedding.model_rows import BATCHES_PER_BLOCK, batch_size_on
from index.embedding.own_threads import OwnThreads
from index.errors import WorkerError
from index.layout import Layout
from index.staging import staging_behind
from index.steps import Steps
from multigrain.engine import DeviceMemoryError
from multigrain.locations import Url
from multigrain.object_store import ObjectStoreError

if TYPE_CHECKING:
    from multigrain.progress import Progress


class EmbedReport(NamedTuple):
    """What one run did: contents embedded, photos whose bytes had a row, photos that failed.

    `limit` is what the rest waited for, `bad` counts all bad photos of the index by code, `memory`
    is what this process took.
    """

    num_new: int
    num_known: int
    num_bad: int
    num_bytes: int
    seconds: float
    limit: str
    bad: dict[str, int]
    memory: Taken | None = None

    @property
    def num_photos(self) -> int:
        """Photos that were read."""
        return self.num_new + self.num_known + self.num_bad

    @property
    def rate(self) -> float:
        """Photos a second."""
        return self.num_photos / self.seconds if self.seconds else 0.0


def embed_pending(
    layout: Layout,
    journal: Journal,
    embedder: PhotoEmbedder,
    bases: Mapping[int, Path | Url],
    *,
    shard_rows: int,
    decode_threads: int,
    verify_content: bool,
    progress: "Progress",
    steps: Steps,
    crew: AnyCrew | None = None,
) -> EmbedReport:
    """Embed every pending photo of the collections in `bases` (number -> folder).

    With `verify_content` every photo is read and hashed, and embedded when its bytes are new. The
    processes of a `crew` share the work, each with its own threads. Raises WorkerError when one
    of them fails, DeviceMemoryError, ObjectStoreError; blocks that are done are durable then.
    """
    known = KnownContents(journal.hashes(), journal.content_id)
    blocks = blocks_of(
        journal.pending(list(bases), every=verify_content),
        BATCHES_PER_BLOCK * batch_size_on(embedder.device),
        every=verify_content,
    )
    with (
        staging_behind(
            layout,
            journal.staged(),
            next_id=journal.next_id(),
            dim=embedder.dim,
            shard_rows=shard_rows,
            steps=steps,
        ) as writer,
        _hands(embedder, bases, known, crew, num_threads=decode_threads) as hands,
        PeakMemory() as memory,
    ):
        ledger = Ledger(journal, writer, known, durable_rows=DURABLE_ROWS)
        try:
            for block in hands.embedded(blocks, ledger.claim):
                if ledger.num_photos == 0:
                    memory.start_here()  # the model has taken its own by now
                ledger.settle(block)
                ledger.commit_when_due()
                progress.update(ledger.num_photos, _note(ledger, hands))
        except (DeviceMemoryError, ObjectStoreError, WorkerError):
            ledger.commit()
            raise
        ledger.commit()
        return _report(ledger, hands, memory)


def _hands(
    embedder: PhotoEmbedder,
    bases: Mapping[int, Path | Url],
    known: KnownContents,
    crew: AnyCrew | None,
    *,
    num_threads: int,
) -> AbstractContextManager[BlockEmbedder]:
    """Who reads and embeds: this process, or all of them."""
    if crew is not None:
        return crew.at_work(Work(embedder, bases, known.heads))
    own = OwnThreads(embedder, bases, content_id=known.id_of, num_threads=num_threads)
    return nullcontext(own)


def _note(ledger: Ledger, hands: BlockEmbedder) -> str:
    return f"({hands.limit()} limits), {ledger.num_known} known, {ledger.num_bad} bad"


def _report(ledger: Ledger, hands: BlockEmbedder, memory: PeakMemory) -> EmbedReport:
    return EmbedReport(
        num_new=ledger.num_new,
        num_known=ledger.num_known,
        num_bad=ledger.num_bad,
        num_bytes=hands.num_bytes,
        seconds=hands.seconds,
        limit=hands.limit(),
        bad={},
        memory=memory.taken,
    )

"""Adds and deletes of one service, and those of others when it looks."""

import logging
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from index.changes.writer import AddedPhoto, ChangeWriter, NewPhoto, says_more
from index.errors import IndexFolderError, NotWriterError
from service.batching.queries import Embedding
from service.serving.engine import Engine

logger = logging.getLogger(__name__)

# Opening a folder takes milliseconds, but for ever on a mount that is dead.
_CLOSE_SECONDS = 2.0


class Changes:
    """Writes changes to the index folder and takes in those of other services.

    Of several services on one folder the first that is asked for a change writes them all, until
    it ends. All methods may be called from any thread.
    """

    def __init__(self, root: Path, engine: Engine) -> None:
        self._root, self._engine = root, engine
        self._lock = Lock()
        self._writer: ChangeWriter | None = None
        self._over = Event()

    def watch(self, every_seconds: float) -> None:
        """From now on take in what others have added and deleted."""
        Thread(target=self._watch, args=(every_seconds,), name="changes", daemon=True).start()

    def find(self, photo: bytes) -> int | None:
        """The id of bytes that are live already."""
        digest = sha256(photo).hexdigest()
        with self._engine.generations.lease() as searcher:
            return searcher.present.id_of(digest)

    def add_known(self, photo: bytes, metadata: dict[str, Any]) -> int | None:
        """The id of bytes that are live already, which have these attributes from now on.

        Raises as `add`, unless nothing changes by it.
        """
        digest = sha256(photo).hexdigest()
        with self._engine.generations.lease() as searcher:
            known = searcher.present.id_of(digest)
            if known is None or not says_more(searcher, known, metadata):
                return known
            known = self._take_writer().add_known(searcher, photo, metadata)
        self.refresh()
        return known

    def add(self, photo: NewPhoto, embedding: Embedding) -> AddedPhoto:
        """Add a photo: durable, and found from now on.

        Raises NotWriterError, ChangesRefusedError.
        """
        writer = self._take_writer()
        with self._engine.generations.lease() as searcher:
            added = writer.add(searcher, photo, embedding)
        self.refresh()
        return added

    def delete(self, image_id: int) -> bool:
        """Take a photo out for good; False where there is none. Raises as `add`."""
        writer = self._take_writer()
        with self._engine.generations.lease() as searcher:
            was_there = writer.delete(searcher, image_id)
        self.refresh()
        return was_there

    def refresh(self) -> None:
        """Take in every change there is; the generation may have been replaced meanwhile."""
        with self._engine.generations.lease() as searcher:
            searcher.refresh()

    def close(self) -> None:
        """Let another service write; nothing is written after.

        A folder that does not answer is given up: the end of the process frees its lock.
        """
        self._over.set()
        if not self._lock.acquire(timeout=_CLOSE_SECONDS):
            logger.warning("the index folder does not answer: its changes are not closed")
            return
        try:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        finally:
            self._lock.release()

    def _take_writer(self) -> ChangeWriter:
        with self._lock:
            if self._over.is_set():
                raise NotWriterError("this service has ended")
            if self._writer is None:
                self._writer = ChangeWriter(self._root)
            return self._writer

    def _watch(self, every_seconds: float) -> None:
        while not self._over.wait(every_seconds):
            try:
                self.refresh()
            except IndexFolderError as error:
                logger.warning("what others have added is not taken in: %s", error)
            except Exception:  # the thread goes on: nobody would see that it had ended
                logger.exception("what others have added is not taken in")

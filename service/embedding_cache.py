"""Embeddings of photos that were seen before, by the hash of their bytes."""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from service.queries import Embedding, PhotoFacts


class Known(NamedTuple):
    """A photo's facts and embedding."""

    facts: PhotoFacts
    embedding: Embedding


class EmbeddingCache:
    """Remembers the photos seen last, at most `max_entries`; 0 remembers none.

    An entry belongs to the model that made it. All methods may be called from any thread.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = Lock()
        self._entries: OrderedDict[tuple[str, str], Known] = OrderedDict()
        self.num_hits = 0
        self.num_misses = 0

    def get(self, fingerprint: str, sha256: str) -> Known | None:
        """What is known of the photo with this hash to the model of this fingerprint."""
        with self._lock:
            known = self._entries.get((fingerprint, sha256))
            if known is None:
                self.num_misses += 1
                return None
            self.num_hits += 1
            self._entries.move_to_end((fingerprint, sha256))
            return known

    def put(self, fingerprint: str, known: Known) -> None:
        """Remember a photo, and forget the one asked for longest ago where there is no room."""
        with self._lock:
            self._entries[fingerprint, known.facts.sha256] = known
            self._entries.move_to_end((fingerprint, known.facts.sha256))
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

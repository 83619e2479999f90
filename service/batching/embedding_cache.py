"""Embeddings of photos that were seen before, by the hash of their bytes."""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from multigrain.augmented import Augment
from service.batching.queries import Embedding, PhotoFacts


class Known(NamedTuple):
    """A photo's facts and embedding, and what else of it was looked at."""

    facts: PhotoFacts
    embedding: Embedding
    augment: Augment = Augment.NONE


class EmbeddingCache:
    """Remembers the photos seen last, at most `max_entries`; 0 remembers none.

    An entry belongs to the model that made it. All methods may be called from any thread.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._lock = Lock()
        self._entries: OrderedDict[tuple[str, str, Augment], Known] = OrderedDict()
        self.num_hits = 0
        self.num_misses = 0

    def get(self, fingerprint: str, sha256: str, augment: Augment = Augment.NONE) -> Known | None:
        """What is known of the photo with this hash to the model of this fingerprint."""
        key = (fingerprint, sha256, augment)
        with self._lock:
            known = self._entries.get(key)
            if known is None:
                self.num_misses += 1
                return None
            self.num_hits += 1
            self._entries.move_to_end(key)
            return known

    def put(self, fingerprint: str, known: Known) -> None:
        """Remember a photo, and forget the one asked for longest ago where there is no room."""
        key = (fingerprint, known.facts.sha256, known.augment)
        with self._lock:
            self._entries[key] = known
            self._entries.move_to_end(key)
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

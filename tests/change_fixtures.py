"""Adds and deletes beside an index of drawn photos."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from index_fixtures import photo_bytes
from stub_embedder import StubEmbedder

from index.changes.writer import AddedPhoto, ChangeWriter, NewPhoto
from index.searcher import Searcher
from index.searching.neighbours import Neighbour
from index.steps import Steps, no_steps

EMBEDDER = StubEmbedder()


class Changing:
    """A searcher and the writer whose changes it finds."""

    def __init__(self, searcher: Searcher, writer: ChangeWriter) -> None:
        self.searcher, self.writer = searcher, writer

    def add(self, seed: int, **metadata: Any) -> AddedPhoto:
        """Add the drawn photo of a seed."""
        data = photo_bytes(seed)
        prepared = EMBEDDER.read(data)
        (row,) = EMBEDDER.embed_pixels([prepared.pixels])
        return self.writer.add(self.searcher, NewPhoto(data, prepared, metadata), row)

    def delete(self, content_id: int) -> bool:
        """Delete by id."""
        return self.writer.delete(self.searcher, content_id)


@contextmanager
def changing(out: Path, *, steps: Steps = no_steps) -> Iterator[Changing]:
    """Open an index folder for searches and changes."""
    with closing(Searcher.open(out)) as searcher, closing(ChangeWriter(out, steps=steps)) as writer:
        yield Changing(searcher, writer)


def hits(searcher: Searcher, seed: int, k: int = 100) -> list[Neighbour]:
    """The neighbours of a drawn photo."""
    (found,) = searcher.search(EMBEDDER.embed_pixels([EMBEDDER.read(photo_bytes(seed)).pixels]), k)
    return found


def found_ids(out: Path) -> dict[int, int]:
    """Every live id and the seed of the drawn photo whose bytes it has."""
    with closing(Searcher.open(out)) as searcher:
        found = hits(searcher, 0)
        assert len(found) == searcher.num_live
        assert sorted(one.id for one in found) == searcher.matching([]).tolist()
        return {one.id: seed_of(searcher.read_photo(one.id)) for one in sorted(found)}


def seed_of(data: bytes | None) -> int:
    """Which drawn photo these bytes are."""
    assert data is not None
    return _seeds()[data]


@cache
def _seeds() -> dict[bytes, int]:
    return {photo_bytes(seed): seed for seed in range(99)}

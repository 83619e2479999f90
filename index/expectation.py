"""What a build will make of its rows: the faiss string it goes by, its bytes and its memory."""

from collections.abc import Sequence

from index.codebook.asked import asked_now
from index.codebook.footprint import Expected, building_bytes, choose_factory, footprint
from index.collection.sources import Source
from index.embedding.footprint import embedding_bytes
from index.embedding.model_rows import batch_size_on
from index.encode import row_ranges
from index.manifest import AskedPart
from index.milvus_index import milvus_index
from index.workshop import Workshop
from multigrain.transforms import Preprocessing


def asked_of(
    shop: Workshop, *, factory: str | None, ram: int | None, num_live: int | None = None
) -> AskedPart:
    """What a build of the live rows goes by: its own `factory` and `ram`, else those before."""
    num_live = len(shop.journal.live_ids()) if num_live is None else num_live
    return asked_now(shop.parent, num_live=num_live, dim=shop.model.D, factory=factory, ram=ram)


def factory_of(shop: Workshop, *, factory: str | None, ram: int | None, num_live: int) -> str:
    """The faiss string of a codebook for the live rows; raises IndexFolderError."""
    ranges = row_ranges(shop.layout, shop.journal)
    asked = asked_of(shop, factory=factory, ram=ram, num_live=num_live)
    chosen = choose_factory(
        num_live=num_live,
        num_rows=sum(part.n for part in ranges),
        num_shards=len(ranges),
        dim=shop.model.D,
        ram=asked.ram,
        factory=asked.factory,
    )
    if shop.milvus:
        milvus_index(chosen)  # refuses codes that Milvus has not before anything is trained
    return chosen


def expectation(
    shop: Workshop,
    sources: Sequence[Source],
    *,
    factory: str | None,
    ram: int | None,
    shard_rows: int,
    decode_threads: int,
) -> Expected:
    """What the build will make of the scanned photos, each taken for a content of its own.

    Raises IndexFolderError where that would not fit `ram`.
    """
    created, dim = shop.started, shop.model.D
    numbers = {shop.journal.collection_id(source.root, created=created) for source in sources}
    num_pending = shop.journal.num_pending(sorted(numbers))
    num_rows = num_pending + sum(part.n for part in row_ranges(shop.layout, shop.journal))
    num_shards = -(-num_rows // shard_rows)
    num_live = num_pending + len(shop.journal.live_ids())
    asked = asked_of(shop, factory=factory, ram=ram, num_live=num_live)
    chosen = choose_factory(
        num_live=num_live,
        num_rows=num_rows,
        num_shards=num_shards,
        dim=dim,
        ram=asked.ram,
        factory=asked.factory,
    )
    part = footprint(chosen, num_rows=num_rows, dim=dim, num_shards=num_shards)
    building = building_bytes(chosen, num_rows=num_rows, dim=dim, shard_rows=shard_rows)
    embedding = embedding_bytes(
        Preprocessing.model_validate(shop.model.preprocessing),
        num_photos=num_pending,
        num_known=num_rows - num_pending,
        batch_size=batch_size_on(shop.device),
        num_threads=decode_threads,
    )
    return Expected(num_rows, chosen, part.disk, part.serving, embedding, building)

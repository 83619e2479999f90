"""What a build would make and cost, worked out without writing anything."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from index.catalog_plan import Difference, compare
from index.catalog_scan import FoundPhoto
from index.codebook.asked import asked_now
from index.codebook.footprint import (
    Footprint,
    building_bytes,
    choose_factory,
    footprint,
    human_bytes,
)
from index.codebook.work import comparisons
from index.collection.reading import PhotoEmbedder
from index.collection.sources import Source, open_source, scan
from index.collection.vanished import vanished_text
from index.current import current_manifest
from index.embedding.footprint import embedding_bytes
from index.embedding.model_rows import batch_size_on
from index.errors import OtherCheckpointError
from index.faiss_train import list_shape
from index.layout import Layout
from index.manifest import Manifest
from index.rates import embed_rate, index_rates
from index.store import require_size
from multigrain.cpus import num_cpus
from multigrain.locations import Url, joined
from multigrain.progress import duration

_NUM_TIMED_PHOTOS = 8


class Plan(NamedTuple):
    """What a build would find, make and take; seconds are None where nothing could be measured.

    `vanished` names the collections whose photos are gone all at once.
    """

    photos: Difference
    vanished: list[str]
    num_rows: int
    dim: int
    factory: str
    parts: Footprint
    embedding: int
    building: int
    scan_seconds: float
    embed_seconds: float | None
    train_seconds: float
    encode_seconds: float

    def text(self) -> str:
        """Several lines for people."""
        found, parts = self.photos, self.parts
        files = f"store {human_bytes(parts.store)}, lists {human_bytes(parts.lists)}"
        files += f", codebook {human_bytes(parts.codebook)}, catalog {human_bytes(parts.catalog)}"
        embed = "unknown" if self.embed_seconds is None else duration(self.embed_seconds)
        times = f"scan {duration(self.scan_seconds)}, embed {embed}"
        times += f", train {duration(self.train_seconds)}, encode {duration(self.encode_seconds)}"
        memory = f"serving {human_bytes(parts.serving)}"
        memory += f", embedding {human_bytes(self.embedding)}"
        memory += f", building {human_bytes(self.building)} beside the model"
        return "\n".join(
            [
                f"photos {found.num_found}, new {found.num_new}, gone {found.num_gone}",
                *(f"{one} A build refuses them without --allow-vanished" for one in self.vanished),
                f"rows at most {self.num_rows} of {self.dim} values, factory {self.factory}",
                f"disk {human_bytes(parts.disk)}: {files}",
                f"memory: {memory}",
                f"time: {times}",
                "nothing was written",
            ]
        )


def plan_build(
    photos: Sequence[Path | Url],
    out: Path,
    embedder: PhotoEmbedder,
    *,
    factory: str | None = None,
    ram: int | None = None,
    shard_rows: int,
    decode_threads: int | None = None,
) -> Plan:
    """Scan the collections, measure this machine for a second or two, and work out the rest.

    Every new photo is taken for a new content, so rows are an upper bound. Raises
    IndexFolderError as a build would.
    """
    layout = Layout(Path(out).absolute())
    parent, dim = current_manifest(layout), embedder.dim
    if parent:
        _require_model(parent, embedder, root=layout.root)
    start = time.monotonic()
    found, vanished, sampled = _scan(layout, parent, photos)
    scan_seconds = time.monotonic() - start
    num_rows = found.num_new + (parent.counts.rows if parent else 0)
    num_live = found.num_new + (parent.counts.live if parent else 0) - found.num_gone
    num_shards = -(-num_rows // shard_rows)
    asked = asked_now(parent, num_live=max(num_live, 0), dim=dim, factory=factory, ram=ram)
    chosen = choose_factory(
        num_live=max(num_live, 0),
        num_rows=num_rows,
        num_shards=num_shards,
        dim=dim,
        ram=asked.ram,
        factory=asked.factory,
    )
    is_trained = parent is not None and parent.factory == chosen
    rate = embed_rate(embedder, sampled, num_threads=decode_threads or num_cpus())
    num_encoded = found.num_new if is_trained else num_rows
    train, encode = _seconds(
        chosen, num_trained=0 if is_trained else num_live, num_encoded=num_encoded, model=embedder
    )
    return Plan(
        photos=found,
        vanished=vanished,
        num_rows=num_rows,
        dim=dim,
        factory=chosen,
        parts=footprint(chosen, num_rows=num_rows, dim=dim, num_shards=num_shards),
        embedding=embedding_bytes(
            embedder.preprocessing,
            num_photos=found.num_new,
            num_known=num_rows - found.num_new,
            batch_size=batch_size_on(embedder.device),
            num_threads=decode_threads or num_cpus(),
        ),
        building=building_bytes(chosen, num_rows=num_rows, dim=dim, shard_rows=shard_rows),
        scan_seconds=scan_seconds,
        embed_seconds=found.num_new / rate if rate else None,
        train_seconds=train,
        encode_seconds=encode,
    )


def _require_model(parent: Manifest, embedder: PhotoEmbedder, *, root: Path) -> None:
    """Refuse another model than the folder's; raises OtherCheckpointError."""
    if parent.model.fingerprint != embedder.fingerprint:
        raise OtherCheckpointError(
            f"{root} was built with checkpoint {parent.model.fingerprint[:12]}, this one is "
            f"{embedder.fingerprint[:12]}; give a new --out"
        )


def _scan(
    layout: Layout, parent: Manifest | None, photos: Sequence[Path | Url]
) -> tuple[Difference, list[str], list[Path | Url]]:
    """What all collections hold against the live generation, those that vanished, a few photos."""
    catalog = layout.root / parent.catalog.file if parent else None
    if parent and catalog:
        require_size(catalog, parent.catalog.size)
    sources = {source.root: source for source in map(open_source, photos)}
    parts = {
        root: compare(catalog, root, scan(source, skip=layout.root))
        for root, source in sources.items()
    }
    texts = (
        vanished_text(root, one.num_before, one.difference.num_found) for root, one in parts.items()
    )
    totals = zip(*(one.difference for one in parts.values()), strict=True)
    sampled = list(islice(_readable(sources.values(), layout), _NUM_TIMED_PHOTOS))
    return Difference(*map(sum, totals)), [text for text in texts if text], sampled


def _readable(sources: Iterable[Source], layout: Layout) -> Iterator[Path | Url]:
    for source in sources:
        found: Iterator[FoundPhoto] = scan(source, skip=layout.root)
        yield from (joined(source.base, one.path) for one in found if one.error is None)


def _seconds(
    factory: str, *, num_trained: int, num_encoded: int, model: PhotoEmbedder
) -> tuple[float, float]:
    """Training and encoding, from what this machine does with a few random rows."""
    shape = list_shape(factory, dim=model.dim)
    if not shape.nlist or not num_encoded:
        return 0.0, 0.0
    rates = index_rates(
        factory.rpartition(",")[2],
        dim=model.dim,
        device=str(model.device),
        num_threads=num_cpus(),
    )
    work = comparisons(
        factory,
        num_trained=num_trained,
        num_encoded=num_encoded,
        dim=model.dim,
        is_on_gpu=str(model.device).startswith("cuda"),
    )
    train, assign = (part / rates.comparisons for part in work)
    return train, assign + num_encoded / rates.rows

"""What collections of any size take, by arithmetic: the tables of docs/scale.md.

    python -m benchmarks.scale_model

Every constant was measured here or is cited beside it; docs/scale.md has the formulas. n photos, D
values of an embedding.
"""

from typing import NamedTuple

from index.codebook.factory import factory_strings, start_nprobe, start_rerank
from index.codebook.footprint import building_bytes, footprint
from index.codebook.work import comparisons
from index.faiss_train import list_shape

DIM = 512
SIZES = (10**6, 10**8, 10**9, 10**10)

# docs/performance.md, index.build: photos of 1 megapixel, JPEG, decoded alone on 2 cores.
PHOTO_BYTES = 0.32e6
DECODED_A_CORE = 160.5 / 2
# The same table: ResNet-50 at 224 px, fp32, the model alone on 2 cores without bf16 units.
EMBEDDED_A_CORE = 17.2 / 2
# The reference of the index, section 8: a GPU of the H200 class; not measured here.
EMBEDDED_A_GPU = 7_000
# docs/performance.md, a million rows: 204 s to read, hash, decide and commit files of 8 bytes, so
# what one process takes at most for deciding alone.
DECIDED = 1e6 / 204
# docs/performance.md: scan of photos into the catalog.
SCANNED = 59_943
# docs/performance.md, a million rows: 262,144 of them, 4,096 lists, 10 rounds in 175 s of a core.
COMPARISONS_A_CORE = 262_144 * 4096 * 10 / 175
# The reference of the index, section 10.6, with the comparisons of 2,048 lists in it.
ENCODED_A_CORE = 104_000
# The reference of the index, section 8: 10 MB of codes in 3 ms.
SCANNED_BYTES = 3.3e9
# docs/performance.md: 4,096 centroids for each of 32 queries, as one product: 0.10 ms a query.
CENTROIDS_A_SECOND = 4096 / 0.10e-3
# The same place: a row read from a cold NVMe disk.
COLD_READ = 100e-6
# Assumed prices, of no provider: change them here.
DOLLARS_A_CORE_HOUR, DOLLARS_A_GPU_HOUR, DOLLARS_A_TERABYTE_MONTH = 0.04, 3.0, 80.0


class Choice(NamedTuple):
    """The faiss string for a size, and rows of a shard."""

    factory: str
    shard_rows: int


class Needs(NamedTuple):
    """Bytes, hours of a core or a GPU, seconds of a query, and dollars."""

    num_photos: int
    choice: Choice
    photos: float
    disk: float
    serving: float
    mapped: float
    building: float
    scan_hours: float
    decode_hours: float
    embed_core_hours: float
    embed_gpu_hours: float
    decide_hours: float
    train_hours: float
    add_hours: float
    query_seconds: float
    cold_seconds: float
    dollars: float


def choice(num_photos: int) -> Choice:
    """The table's richest string below 1e8 photos; from there the least code, and more lists."""
    if num_photos < 10**8:
        return Choice(factory_strings(num_rows=num_photos, dim=DIM)[0], 10**6)
    if num_photos < 10**9:
        return Choice(factory_strings(num_rows=num_photos, dim=DIM)[-1], 10**7)
    if num_photos < 10**10:
        return Choice("IVF262144_HNSW32,RaBitQ", 5 * 10**7)
    return Choice("IVF1048576_HNSW32,RaBitQ", 10**9)


def needs(num_photos: int) -> Needs:
    """All of it, for so many photos that differ."""
    chosen = choice(num_photos)
    num_shards = -(-num_photos // chosen.shard_rows)
    parts = footprint(chosen.factory, num_rows=num_photos, dim=DIM, num_shards=num_shards)
    work = comparisons(
        chosen.factory,
        num_trained=num_photos,
        num_encoded=num_photos,
        dim=DIM,
        is_on_gpu=False,
    )
    decode, gpu = num_photos / DECODED_A_CORE, num_photos / EMBEDDED_A_GPU
    train = work.train / COMPARISONS_A_CORE
    add = work.assign / COMPARISONS_A_CORE + num_photos / ENCODED_A_CORE
    core_hours = (decode + num_photos / DECIDED + train + add) / 3600
    query = _query_seconds(num_photos, chosen.factory)
    return Needs(
        num_photos,
        chosen,
        photos=num_photos * PHOTO_BYTES,
        disk=parts.disk,
        serving=parts.serving,
        mapped=parts.serving - parts.lists,
        building=building_bytes(
            chosen.factory, num_rows=num_photos, dim=DIM, shard_rows=chosen.shard_rows
        ),
        scan_hours=num_photos / SCANNED / 3600,
        decode_hours=decode / 3600,
        embed_core_hours=num_photos / EMBEDDED_A_CORE / 3600,
        embed_gpu_hours=gpu / 3600,
        decide_hours=num_photos / DECIDED / 3600,
        train_hours=train / 3600,
        add_hours=add / 3600,
        query_seconds=query,
        cold_seconds=query + start_rerank(10) * COLD_READ,
        dollars=core_hours * DOLLARS_A_CORE_HOUR + gpu / 3600 * DOLLARS_A_GPU_HOUR,
    )


def _query_seconds(num_photos: int, factory: str) -> float:
    """One core: the nearest centroids, then the codes of their lists."""
    shape = list_shape(factory, dim=DIM)
    nprobe = start_nprobe(shape.nlist)
    compared = 2 * nprobe * shape.num_links if shape.num_links else shape.nlist
    scanned = nprobe * num_photos / shape.nlist * shape.row_bytes
    return compared / CENTROIDS_A_SECOND + scanned / SCANNED_BYTES


def size_table() -> list[str]:
    """Bytes, as lines of a table."""
    lines = ["| photos | string | rows a shard | photos at 0.32 MB | disk | memory, lists in it |"]
    lines[0] += " memory, lists mapped | memory of a build |"
    lines.append("|---|---|---|---|---|---|---|---|")
    for one in map(needs, SIZES):
        sizes = (one.photos, one.disk, one.serving, one.mapped, one.building)
        cells = [f"{one.num_photos:.0e}".replace("e+", "e").replace("e0", "e"), one.choice.factory]
        cells += [f"{one.choice.shard_rows:,}", *map(_bytes, sizes)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def time_table() -> list[str]:
    """Hours, seconds and dollars, as lines of a table."""
    lines = ["| photos | scan | decode | embed, cores | embed, GPUs | decide | train | add |"]
    lines[0] += " a query, warm; cold | decode, embed on GPUs, decide, train, add |"
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for one in map(needs, SIZES):
        hours = (one.scan_hours, one.decode_hours, one.embed_core_hours, one.embed_gpu_hours)
        hours += (one.decide_hours, one.train_hours, one.add_hours)
        cells = [f"{one.num_photos:.0e}".replace("e+", "e").replace("e0", "e")]
        cells += [f"{hour:,.3g} h" if hour < 1000 else f"{hour:,.0f} h" for hour in hours]
        cells.append(f"{one.query_seconds * 1e3:.1f} ms; {one.cold_seconds * 1e3:.1f} ms")
        cells.append(f"{one.dollars:,.2f} $" if one.dollars < 100 else f"{one.dollars:,.0f} $")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _bytes(number: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if number >= size:
            return f"{number / size:,.3g} {unit}"
    return f"{number / 1e6:,.3g} MB"


if __name__ == "__main__":
    print("\n".join([*size_table(), "", *time_table()]))

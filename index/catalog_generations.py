"""The part of the builder's journal that knows shards and generations."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Integer, cast, delete, func, insert, select, update

from index.catalog import collection, content, generation, photo, progress, shard, tombstone
from index.catalog_engine import copy_catalog, open_journal_engine
from index.staging import StagedShard
from index.steps import Steps


class ShardRecord(NamedTuple):
    """An encoded shard: ids first_id .. first_id + n - 1."""

    folder: str
    first_id: int
    n: int
    codebook: str


class GenerationJournal:
    """Staged and encoded shards, and the generation being built."""

    def __init__(self, path: Path, *, steps: Steps) -> None:
        self._root = path.absolute().parent
        self._engine = open_journal_engine(path)
        self._connection = self._engine.connect()
        self._steps = steps

    def close(self) -> None:
        """Fold the write-ahead log into the file and close every connection."""
        self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._engine.dispose()

    def staged(self) -> list[StagedShard]:
        """The unfinished shards, by first id."""
        with self._connection.begin():
            rows = self._connection.execute(select(progress).order_by(progress.c.staging))
            return [StagedShard(int(name), num_rows) for name, num_rows in rows]

    def _stage(self, staged: Sequence[StagedShard]) -> None:
        """Record how many rows of unfinished shards are durable."""
        if staged:
            self._connection.exec_driver_sql(
                "INSERT OR REPLACE INTO progress (staging, durable_rows) VALUES (?, ?)",
                [(part.name, part.num_rows) for part in staged],
            )

    def _synchronous(self, level: str) -> None:
        self._connection.exec_driver_sql(f"PRAGMA synchronous={level}")
        self._connection.commit()

    def shards(self) -> list[ShardRecord]:
        """Every encoded shard, by first id; a row range may appear under several codebooks."""
        with self._connection.begin():
            rows = self._connection.execute(select(shard).order_by(shard.c.first_id))
            return [ShardRecord(*row) for row in rows]

    def add_shard(self, record: ShardRecord) -> None:
        """Record an encoded shard; the staged rows it was made from are finished with it."""
        self._steps("commit shard")
        name = StagedShard(record.first_id, record.n).name
        with self._connection.begin():
            self._connection.execute(
                insert(shard).prefix_with("OR IGNORE").values(record._asdict())
            )
            self._connection.execute(delete(progress).where(progress.c.staging == name))
            self._open_generation()
        self._steps("shard committed")

    def keep_shards_of(self, codebook: str) -> None:
        """Forget shards of other codebooks, after their rows have shards of this one."""
        with self._connection.begin():
            self._connection.execute(delete(shard).where(shard.c.codebook != codebook))

    def replace_shards(
        self,
        old: Sequence[ShardRecord],
        new: Sequence[ShardRecord],
        *,
        dropped: Sequence[ShardRecord] = (),
    ) -> None:
        """Put new shards in the place of old ones, and forget dropped ones, all or nothing.

        The contents of a dropped shard are forgotten with their rows: bytes that come back get a
        new id. No id is given out twice.
        """
        self._steps("commit shards")
        next_id = self.next_id()
        with self._connection.begin():
            gone = [record.folder for record in (*old, *dropped)]
            self._connection.execute(delete(shard).where(shard.c.folder.in_(gone)))
            for record in new:
                self._connection.execute(
                    insert(shard).prefix_with("OR IGNORE").values(record._asdict())
                )
            for record in dropped:
                self._forget_contents(record)
            if dropped:
                self._reserve(next_id)
            self._open_generation()
        self._steps("shards committed")

    def restage(self, record: ShardRecord, *, lost_ids: Sequence[int] = ()) -> None:
        """Take a shard for staged rows again; contents whose rows are lost are forgotten."""
        self._steps("commit restaged")
        with self._connection.begin():
            self._connection.execute(delete(shard).where(shard.c.first_id == record.first_id))
            values = {"staging": StagedShard(record.first_id, 0).name, "durable_rows": record.n}
            self._connection.execute(insert(progress).prefix_with("OR REPLACE").values(values))
            for lost in lost_ids:
                self._forget_contents(record._replace(first_id=lost, n=1))
            self._open_generation()
        self._steps("restaged committed")

    def _forget_contents(self, record: ShardRecord) -> None:
        ids = (record.first_id, record.first_id + record.n - 1)
        # A removed one is not forgotten, or the next build would embed its bytes again.
        removed = select(tombstone.c.id)
        linked, known = photo.c.content_id, content.c.id
        self._connection.execute(
            update(photo)
            .where(linked.between(*ids), linked.not_in(removed))
            .values(content_id=None)
        )
        self._connection.execute(delete(content).where(known.between(*ids), known.not_in(removed)))

    def _reserve(self, next_id: int) -> None:
        """Keep every id below `next_id` back, though no row tells of it."""
        reserved = StagedShard(next_id, 0)
        self._connection.execute(
            insert(progress).prefix_with("OR IGNORE").values(staging=reserved.name, durable_rows=0)
        )

    def open_generation(self) -> str | None:
        """The generation being built; None when nothing differs from the last published."""
        with self._connection.begin():
            chosen = select(generation.c.name).where(generation.c.manifest_sha256.is_(None))
            name = self._connection.execute(chosen).scalar_one_or_none()
            return None if name is None else str(name)

    def start_generation(self) -> str:
        """The generation being built, begun where none is."""
        with self._connection.begin():
            self._open_generation()
        name = self.open_generation()
        assert name is not None
        return name

    def _open_generation(self) -> None:
        self._connection.exec_driver_sql(
            "INSERT INTO generation (name, manifest_sha256)"
            " SELECT printf('%06d', coalesce(max(CAST(name AS INTEGER)), 0) + 1), NULL"
            " FROM generation HAVING coalesce(sum(manifest_sha256 IS NULL), 0) = 0"
        )

    def close_generation(self, name: str, manifest_sha256: str) -> None:
        """Record that a generation was published."""
        self._steps("commit generation")
        with self._connection.begin():
            self._connection.execute(
                insert(generation)
                .prefix_with("OR REPLACE")
                .values(name=name, manifest_sha256=manifest_sha256)
            )
        self._steps("generation committed")

    def published_hash(self, name: str) -> str | None:
        """The manifest's hash of a generation this journal saw published."""
        with self._connection.begin():
            chosen = select(generation.c.manifest_sha256).where(generation.c.name == name)
            found = self._connection.execute(chosen).scalar_one_or_none()
            return None if found is None else str(found)

    def knows(self, names: Sequence[str]) -> bool:
        """Whether every generation was published or begun by this journal."""
        with self._connection.begin():
            known = set(self._connection.execute(select(generation.c.name)).scalars())
            return known.issuperset(names)

    def take_up(self, names: AbstractSet[str], manifest_sha256: str, *, next_id: int) -> None:
        """Go on from a published catalog: behind the named generations, and behind their ids."""
        has_gap = next_id > self.next_id()
        with self._connection.begin():
            write = insert(generation).prefix_with("OR REPLACE")
            for name in names:
                values = {"name": name, "manifest_sha256": manifest_sha256}
                self._connection.execute(write.values(values))
            if has_gap:
                self._reserve(next_id)

    def next_id(self) -> int:
        """The first id never given out; a staged shard without rows keeps its first id back."""
        behind_rows = select(func.max(content.c.id) + 1).scalar_subquery()
        behind_shards = select(func.max(shard.c.first_id + shard.c.n)).scalar_subquery()
        behind_staged = select(
            func.max(cast(progress.c.staging, Integer) + progress.c.durable_rows)
        ).scalar_subquery()
        with self._connection.begin():
            all_three = select(
                func.coalesce(behind_rows, 0),
                func.coalesce(behind_shards, 0),
                func.coalesce(behind_staged, 0),
            )
            return int(max(self._connection.execute(all_three).one()))

    def begun(self) -> str:
        """When the index folder's first collection was named; empty before."""
        with self._connection.begin():
            first = select(func.coalesce(func.min(collection.c.created), ""))
            return str(self._connection.execute(first).scalar_one())

    def write_catalog(self, target: Path) -> None:
        """Write an immutable copy of the journal for readers."""
        copy_catalog(self._engine, target)

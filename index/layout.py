"""The index folder's file names."""

from pathlib import Path
from typing import NamedTuple


class Layout(NamedTuple):
    """Every path below an index folder."""

    root: Path

    @property
    def current(self) -> Path:
        """One line: the live manifest's file name and its sha256."""
        return self.root / "CURRENT"

    @property
    def manifests(self) -> Path:
        """Immutable manifests, one a generation."""
        return self.root / "manifests"

    @property
    def models(self) -> Path:
        """Checkpoints copied in, named by fingerprint."""
        return self.root / "models"

    @property
    def codebooks(self) -> Path:
        """Trained, empty faiss indexes."""
        return self.root / "codebooks"

    @property
    def shards(self) -> Path:
        """Immutable shards, named by the hash of their SHARD.json."""
        return self.root / "shards"

    @property
    def tombstones(self) -> Path:
        """Live bitmaps, one a generation."""
        return self.root / "tombstones"

    @property
    def catalogs(self) -> Path:
        """Immutable catalogs, one a generation."""
        return self.root / "catalogs"

    @property
    def staging(self) -> Path:
        """Unfinished shards."""
        return self.root / "staging"

    @property
    def journal(self) -> Path:
        """The builder's own database."""
        return self.root / "build.sqlite"

    @property
    def tuned(self) -> Path:
        """What the last tuning measured, until a generation carries it."""
        return self.root / "tuned.json"

    @property
    def quarantine(self) -> Path:
        """Photos that failed, a JSON line each."""
        return self.root / "quarantine.jsonl"

    @property
    def added(self) -> Path:
        """The list of photos that were added one by one, a collection like any other."""
        return self.root / "added.jsonl"

    @property
    def origin(self) -> Path:
        """The address of the index that a folder is a copy of."""
        return self.root / "ORIGIN"

    @property
    def lock(self) -> Path:
        """The builder's flock."""
        return self.root / "LOCK"

    @property
    def adds(self) -> Path:
        """Segments of the journal: adds and deletes that no build has folded in yet."""
        return self.root / "adds"

    @property
    def adds_lock(self) -> Path:
        """Held for each change of the journal."""
        return self.adds / "LOCK"

    @property
    def adds_writer(self) -> Path:
        """Held by the one process whose adds and deletes are taken."""
        return self.adds / "WRITER"

    @property
    def uploads(self) -> Path:
        """Bytes that were added through a service, named by their sha256."""
        return self.root / "uploads"

    def manifest(self, generation: str) -> Path:
        """The manifest of a generation."""
        return self.manifests / f"{generation}.json"

    def catalog(self, generation: str) -> Path:
        """The catalog of a generation."""
        return self.catalogs / f"{generation}.sqlite"

    def live_bitmap(self, generation: str) -> Path:
        """The live bitmap of a generation."""
        return self.tombstones / f"{generation}.bits"

    def checkpoint(self, fingerprint: str) -> Path:
        """The checkpoint with this fingerprint."""
        return self.models / f"{fingerprint}.safetensors"

    def trained(self, codebook: str) -> Path:
        """The empty, trained faiss index of a codebook."""
        return self.codebooks / codebook / "trained.faiss"

    def rotation(self, codebook: str) -> Path:
        """The rotation in front of a codebook; only RaBitQ's have one."""
        return self.codebooks / codebook / "rotation.f32"

    def train_report(self, codebook: str) -> Path:
        """How a codebook was trained."""
        return self.codebooks / codebook / "train.json"

    def staged(self, name: str) -> Path:
        """The rows of an unfinished shard."""
        return self.staging / f"{name}.f16"

    def embeddings(self, folder: str) -> Path:
        """The rows of a shard."""
        return self.shards / folder / "emb.f16"

    def lists(self, folder: str) -> Path:
        """The faiss lists of a shard."""
        return self.shards / folder / "ivf.faiss"

    def coded_rows(self, folder: str) -> Path:
        """A bit for each row of a shard whose lists do not hold all of them."""
        return self.shards / folder / "coded.bits"

    def shard_document(self, folder: str) -> Path:
        """The description of a shard."""
        return self.shards / folder / "SHARD.json"

    def segment(self, number: int) -> Path:
        """The lines of a journal segment."""
        return self.adds / f"{number:06d}.jsonl"

    def segment_rows(self, number: int) -> Path:
        """The rows of a journal segment."""
        return self.adds / f"{number:06d}.f16"

    def upload(self, sha256: str) -> Path:
        """The bytes of an added photo."""
        return self.uploads / sha256

    @property
    def folders(self) -> tuple[Path, ...]:
        """The sub-folders a builder writes to."""
        return (
            self.manifests,
            self.models,
            self.codebooks,
            self.shards,
            self.tombstones,
            self.catalogs,
            self.staging,
            self.adds,
        )

    def create(self) -> None:
        """Make the folder and its sub-folders where they are missing."""
        for folder in (self.root, *self.folders, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

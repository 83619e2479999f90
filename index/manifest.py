"""The manifest of a generation: everything a reader needs, with checksums."""

import base64
import json
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index.errors import IndexFolderError
from index.store import EMBEDDING_DTYPE
from multigrain.calibration import Calibration

FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPart(_Part):
    """What made the embeddings."""

    fingerprint: str
    D: int
    preprocessing: dict[str, Any]
    engine: str
    precision: str


class ShardPart(_Part):
    """A shard: folder name, ids first_id .. first_id + n - 1, sha256 of its SHARD.json.

    `codes` is given where the lists hold fewer rows than n.
    """

    folder: str
    first_id: int
    n: int
    sha256: str
    codes: int | None = None

    @property
    def num_codes(self) -> int:
        """How many rows the lists hold."""
        return self.n if self.codes is None else self.codes


class FilePart(_Part):
    """A file relative to the index folder."""

    file: str
    sha256: str
    size: int


class DatabasePart(_Part):
    """Where readers find the catalog instead: a database, without secrets, and a schema in it."""

    url: str
    namespace: str


class MilvusPart(_Part):
    """Where the live rows are searched instead: a Milvus, without secrets, and a collection in it.

    `index` is its type there, `rows` how many rows the collection holds.
    """

    uri: str
    collection: str
    index: str
    rows: int


class CountsPart(_Part):
    """Rows (contents), those live and dead, live photo files, quarantined ones, the next id."""

    rows: int
    live: int
    dead: int
    photos: int
    quarantined: int
    next_id: int


class AddsPart(_Part):
    """The last journal segment folded in; 0: none."""

    folded: int = 0


class AskedPart(_Part):
    """The string or the memory in bytes that builds were asked for; null where none was."""

    factory: str | None = None
    ram: int | None = None


class CurvePoint(_Part):
    """A measured search: lists, candidates re-scored, recall@10, microseconds a query.

    `recall_lower` is the lower end of the recall's 95 % interval; the time is one thread's.
    """

    nprobe: int
    rerank: int
    recall: float
    recall_lower: float
    microseconds: float


class SearchPart(_Part):
    """The tuned search; nprobe is null where the factory's start values serve.

    `target` is the recall asked for, null while nothing was tuned. `sampled_rows` is how many
    rows the truth was computed over, null for all. `tuned_live` and `tuned_next_id` tell which
    rows were there when it was tuned.
    """

    nprobe: int | None = None
    rerank: int | None = None
    recall: float | None = None
    recall_lower: float | None = None
    curve: list[CurvePoint] = []
    target: float | None = None
    num_queries: int = 0
    sampled_rows: int | None = None
    tuned_live: int = 0
    tuned_next_id: int = 0


CalibrationSource = Literal["labels", "copies"]


class CalibrationPart(_Part):
    """The probability that two photos show the same thing: logistic in their cosine.

    Fitted to so many pairs of a labelled list, or of edited copies and what they found. `error`
    is how far probabilities and shares of same pairs lie apart, on pairs that were not fitted;
    null where there were too few of them. `generation` is the one it was first published with,
    of so many `live` photos; null and 0 where that was not noted down.
    """

    slope: float = Field(gt=0)
    intercept: float
    source: CalibrationSource
    num_same: int
    num_other: int
    error: float | None = None
    generation: str | None = None
    live: int = 0

    def is_same_fit(self, other: "CalibrationPart | None") -> bool:
        """Whether the other one says the same, whenever it was published."""
        if other is None:
            return False
        first_published = {"generation": other.generation, "live": other.live}
        return self.model_copy(update=first_published) == other

    @property
    def curve(self) -> Calibration:
        """From cosines to probabilities."""
        return Calibration(self.slope, self.intercept)


class CanaryPart(_Part):
    """A stored row, base64 of its fp16 bytes, and the ids its search gave at publish."""

    id: int
    embedding: str
    ids: list[int]

    def vector(self) -> NDArray[np.float32]:
        """The stored row, fp32 [D]."""
        data = base64.b64decode(self.embedding)
        return np.frombuffer(data, dtype=EMBEDDING_DTYPE).astype(np.float32)


def canary(row_id: int, row: NDArray[np.float16], ids: list[int]) -> CanaryPart:
    """A canary of a stored row, fp16 [D]."""
    text = base64.b64encode(row.astype(EMBEDDING_DTYPE).tobytes()).decode()
    return CanaryPart(id=row_id, embedding=text, ids=ids)


class Manifest(_Part):
    """One generation: everything a reader needs, with checksums."""

    format: int = FORMAT
    generation: str
    parent: str | None
    created: str
    writer: str
    model: ModelPart
    codebook: str
    factory: str
    shards: list[ShardPart]
    codebook_files: list[FilePart] = []
    tombstones: FilePart
    catalog: FilePart
    database: DatabasePart | None = None
    milvus: MilvusPart | None = None
    checkpoint: FilePart | None = None
    counts: CountsPart
    adds: AddsPart = AddsPart()
    asked: AskedPart = AskedPart()
    search: SearchPart = SearchPart()
    calibration: CalibrationPart | None = None
    canaries: list[CanaryPart] = []

    @property
    def files(self) -> list[FilePart]:
        """The files it names with their checksums: all but those of the shards."""
        held = [self.checkpoint] if self.checkpoint else []
        return [self.tombstones, self.catalog, *self.codebook_files, *held]

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces."""
        return canonical_json(self.model_dump(mode="json"))


def canonical_json(document: dict[str, Any]) -> bytes:
    """The one spelling of a document: sorted keys, no spaces, UTF-8, a final newline."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


def parse_manifest(data: bytes, *, name: str) -> Manifest:
    """Read a manifest's bytes; raises IndexFolderError naming the file."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise IndexFolderError(f"{name}: not a manifest ({error.error_count()} faults)") from error
    if manifest.format != FORMAT:
        raise IndexFolderError(f"{name}: format {manifest.format} is unknown, {FORMAT} is read")
    return manifest

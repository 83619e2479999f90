"""The catalog's tables, those of the builder's journal and of a generation's immutable copy."""

import posixpath
from pathlib import Path

from sqlalchemy import (
    Column,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
)

from index.catalog_dialects import Document, Number, Text
from multigrain.locations import Url, is_url

tables = MetaData()

# A folder's root ends in "/", a list's root is the list file: dirname(root) is then the folder
# both kinds of relative paths start from.
collection = Table(
    "collection",
    tables,
    Column("collection_id", Number, primary_key=True),
    Column("root", Text, nullable=False, unique=True),
    Column("created", Text, nullable=False),
)
# A removed content that was added again has another id; the old row's hash then has the old id
# behind it, so that ids are never given twice and hashes stay unique.
content = Table(
    "content",
    tables,
    Column("id", Number, primary_key=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("bytes", Number, nullable=False),
    Column("width", Number, nullable=False),
    Column("height", Number, nullable=False),
    Column("format", Text, nullable=False),
    Column("taken_at", Text),  # the camera's clock, YYYY-MM-DDTHH:MM:SS
    Column("camera", Text),
)
# `error` is a code, or a code, a space and the sha256 of the bytes that failed; `seen` and
# `deleted` are numbers of scans, never times: the last that found it changed, the one that missed
# it.
photo = Table(
    "photo",
    tables,
    Column("photo_id", Number, primary_key=True),
    Column("collection_id", Number, nullable=False),
    Column("path", Text, nullable=False),
    Column("dev", Number, nullable=False),
    Column("ino", Number, nullable=False),
    Column("size", Number, nullable=False),
    Column("mtime_ns", Number, nullable=False),
    Column("content_id", Number),
    Column("error", Text),
    Column("seen", Number, nullable=False),
    Column("deleted", Number),
    Column("attributes", Document),
    Column("label", Text),
    UniqueConstraint("collection_id", "path"),
)
# Contents that were removed: while a hash stands here, its photos are linked to a dead id.
tombstone = Table(
    "tombstone",
    tables,
    Column("sha256", LargeBinary, primary_key=True),
    Column("id", Number, nullable=False),
)
shard = Table(
    "shard",
    tables,
    Column("folder", Text, primary_key=True),
    Column("first_id", Number, nullable=False),
    Column("n", Number, nullable=False),
    Column("codebook", Text, nullable=False),
)
progress = Table(
    "progress",
    tables,
    Column("staging", Text, primary_key=True),
    Column("durable_rows", Number, nullable=False),
)
# A row without a hash is the generation being built: something differs from the last published.
generation = Table(
    "generation",
    tables,
    Column("name", Text, primary_key=True),
    Column("manifest_sha256", Text),
)
# Segments of the journal of adds and deletes whose records stand in the tables above.
folded = Table("folded", tables, Column("segment", Number, primary_key=True))
# Where the segments' ids begin: their first lines say so too, and may be damaged.
segment = Table(
    "segment",
    tables,
    Column("number", Number, primary_key=True),
    Column("first_id", Number, nullable=False),
)

# What readers ask: a generation's database holds these, its file the journal's own too.
PUBLISHED = (collection, content, photo, tombstone)

# The collection of added bytes lies in the index folder and moves with it.
UPLOADS_ROOT = "uploads/"


def photo_file(root: str, path: str, *, index: Path) -> Path | Url:
    """The file a photo's row stands for in an index folder; an absolute path stays itself.

    An address where the collection lies in an object store.
    """
    if is_url(root):
        return Url(f"{posixpath.dirname(root)}/{path}")
    return Path(index, posixpath.dirname(root), path)

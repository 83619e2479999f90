"""The tables of a published catalog; what readers look up by is indexed behind the rows."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the four tables."""
    text = sa.Text(collation="C")
    op.create_table(
        "collection",
        sa.Column("collection_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("root", text, nullable=False),
        sa.Column("created", text, nullable=False),
    )
    op.create_table(
        "content",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("width", sa.BigInteger, nullable=False),
        sa.Column("height", sa.BigInteger, nullable=False),
        sa.Column("format", text, nullable=False),
        sa.Column("taken_at", text),
        sa.Column("camera", text),
    )
    op.create_table(
        "photo",
        sa.Column("photo_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("collection_id", sa.BigInteger, nullable=False),
        sa.Column("path", text, nullable=False),
        sa.Column("dev", sa.BigInteger, nullable=False),
        sa.Column("ino", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("content_id", sa.BigInteger),
        sa.Column("error", text),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.BigInteger),
        sa.Column("attributes", text),
        sa.Column("label", text),
    )
    op.create_table(
        "tombstone",
        sa.Column("sha256", sa.LargeBinary, primary_key=True),
        sa.Column("id", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Published tables are dropped with their generation, never taken back to an older form."""
    raise NotImplementedError

"""`python -m index.export`: the live embeddings and their paths, for other programs."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, SecretStr

from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.locations import Location
from multigrain.program import load_config, run_main

PROG = "index.export"


class ExportConfig(Config):
    """Which index, and where to."""

    index: Location = Field(description="index folder, or its URL, such as s3://bucket/photos")
    cache_dir: Path | None = Field(
        default=None, description="where an index of a URL is kept; none: the user's cache"
    )
    catalog: SecretStr | None = catalog_field()
    out: Path = Field(
        description="file to write: .npy (a .jsonl with the paths beside) or .parquet"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the live rows of an index to a file; gives the exit status."""
    config = load_config(
        ExportConfig,
        prog=PROG,
        description="Write the live embeddings of an index, with their ids and paths.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _export(config), prog=PROG)


def _export(config: ExportConfig) -> int:
    # Here, so that --help does not wait for it.
    from index.export_rows import export_index
    from index.replica.source import IndexSource

    root = IndexSource(config.index, cache_dir=config.cache_dir).ready()
    num_rows = export_index(root, config.out, catalog=config.catalog)
    print(f"wrote {num_rows} rows to {config.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

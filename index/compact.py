"""`python -m index.compact`: few shards, and lists without dead rows, as a new generation."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, SecretStr

from index.backend import Backend, milvus_uri_field
from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.program import load_config, run_main

PROG = "index.compact"


class CompactConfig(Config):
    """What is to be compacted."""

    index: Path = Field(description="index folder")
    catalog: SecretStr | None = catalog_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    shard_rows: int = Field(default=1_000_000, ge=1, description="rows of a shard")
    force: bool = Field(
        default=False, description="merge and clean every shard, not only those the rules name"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages merge to publish alone; gives the exit status."""
    config = load_config(
        CompactConfig,
        prog=PROG,
        description="Merge small shards and take dead rows out of the lists.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _compact(config), prog=PROG)


def _compact(config: CompactConfig) -> int:
    # Here, so that --help does not wait for faiss.
    from index.faiss_module import load_faiss
    from index.merge import merge_shards
    from index.stages import publish_generation, trained_codebook
    from index.workshop import reopen_workshop

    load_faiss()
    backend = Backend(uri=config.milvus_uri)
    with reopen_workshop(config.index, catalog=config.catalog, backend=backend) as shop:
        assert shop.parent is not None
        codebook = trained_codebook(shop, factory=shop.parent.factory)
        num_gone = merge_shards(shop, codebook, shard_rows=config.shard_rows, force=config.force)
        manifest = publish_generation(shop, codebook)
    print(f"shards replaced or dropped {num_gone}, now {len(manifest.shards)}")
    if manifest.generation == shop.parent.generation:
        print(f"nothing changed: generation {manifest.generation} stays")
    else:
        print(f"published generation {manifest.generation} in {config.index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

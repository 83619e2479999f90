"""`python -m index.add`: put single photos into an index, beside its collections."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, SecretStr

from index.backend import Backend, milvus_uri_field
from index.bare_words import with_flag
from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.program import load_config, run_main

PROG = "index.add"


class AddConfig(Config):
    """What is to be added."""

    index: Path = Field(description="index folder")
    catalog: SecretStr | None = catalog_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    photos: list[Path] = Field(
        min_length=1, description="photo to add; may be given without the flag; repeatable"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


def main(argv: Sequence[str] | None = None) -> int:
    """Add photos and publish the index with them; gives the exit status."""
    words = sys.argv[1:] if argv is None else argv
    config = load_config(
        AddConfig,
        prog=PROG,
        description="Put single photos into an index, also those that were removed from it.",
        argv=with_flag("--photos", words),
        environ=os.environ,
    )
    return run_main(lambda: _add(config), prog=PROG)


def _add(config: AddConfig) -> int:
    # Here, so that --help does not wait for torch.
    from index.changes.addition import add_photos
    from index.current import live_manifest
    from index.layout import Layout
    from multigrain.embedder import Embedder

    layout = Layout(config.index)
    checkpoint = layout.checkpoint(live_manifest(layout).model.fingerprint)
    report = add_photos(
        config.index,
        config.photos,
        Embedder.open(checkpoint, device=config.device),
        catalog=config.catalog,
        backend=Backend(uri=config.milvus_uri),
    )
    print(
        f"new {report.num_new}, {report.num_live} live, bad {report.num_bad}; "
        f"generation {report.generation} in {config.index}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

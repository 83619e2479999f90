"""`python -m index.recover`: make a lost catalog again from the shards and the photos."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from multigrain.config import Config
from multigrain.locations import Location
from multigrain.program import load_config, run_main

PROG = "index.recover"


class RecoverConfig(Config):
    """Which index, and where its photos are."""

    index: Path = Field(description="index folder")
    photos: list[Location] = Field(
        min_length=1, description="folder, URL or list the index was built from; repeatable"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


def main(argv: Sequence[str] | None = None) -> int:
    """Make build.sqlite again; gives the exit status."""
    config = load_config(
        RecoverConfig,
        prog=PROG,
        description="Make the builder's lost database again, so that rows and ids stay.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _recover(config), prog=PROG)


def _recover(config: RecoverConfig) -> int:
    # Here, so that --help does not wait for torch.
    from index.current import live_manifest
    from index.layout import Layout
    from index.upkeep.recovery import recover_index
    from multigrain.cpus import num_cpus
    from multigrain.embedder import Embedder

    layout = Layout(config.index)
    checkpoint = layout.checkpoint(live_manifest(layout).model.fingerprint)
    embedder = Embedder.open(checkpoint, device=config.device)
    report = recover_index(config.index, config.photos, embedder, decode_threads=num_cpus())
    if report.from_catalog:
        print(f"made again from a catalog: {report.num_found} live contents")
    else:
        print(
            f"rows {report.num_rows}, found again {report.num_found}, "
            f"photos without a row {report.num_unknown}"
        )
    print("now run index.build with the same --photos")
    return 0


if __name__ == "__main__":
    sys.exit(main())

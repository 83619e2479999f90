"""`python -m index.stats`: what an index folder holds."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr

from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.locations import Location
from multigrain.program import load_config, run_main

PROG = "index.stats"


class StatsConfig(Config):
    """Which index, and in which form."""

    index: Location = Field(description="index folder, or its URL, such as s3://bucket/photos")
    cache_dir: Path | None = Field(
        default=None, description="where an index of a URL is kept; none: the user's cache"
    )
    catalog: SecretStr | None = catalog_field()
    output: Literal["text", "json"] = Field(default="text", description="form of the answer")


def main(argv: Sequence[str] | None = None) -> int:
    """Print what an index holds; gives the exit status."""
    config = load_config(
        StatsConfig,
        prog=PROG,
        description="Print what the live generation of an index folder holds.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _print(config), prog=PROG)


def _print(config: StatsConfig) -> int:
    from index.replica.source import IndexSource

    source = IndexSource(config.index, cache_dir=config.cache_dir)
    stats = source.open(partial(read_stats, catalog=config.catalog))
    if config.output == "json":
        print(json.dumps(stats, indent=2))
    else:
        print("\n".join(f"{name:12} {_shown(value)}" for name, value in stats.items()))
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else "none" if value is None else str(value)


def read_stats(root: Path, *, catalog: SecretStr | None = None) -> dict[str, Any]:
    """Counts, sizes in bytes, codebook and tuning of the live generation, by name.

    `pending` counts what was added and deleted since, which no build has taken in. Raises
    IndexFolderError where there is no generation or its catalog cannot be read.
    """
    # Here, so that --help does not wait for them.
    from index.catalog_opening import open_catalog
    from index.changes.follower import Follower
    from index.current import live_manifest
    from index.layout import Layout
    from index.searching.live import live_flags

    layout = Layout(Path(root))
    manifest = live_manifest(layout)
    with closing(open_catalog(layout, manifest, catalog=catalog)) as reader:
        bad, num_removed = reader.num_bad(), reader.num_removed()
        recent = Follower(layout, manifest, reader).refresh()
    num_hidden = int(live_flags(layout, manifest)[list(recent.hidden)].sum())
    counts, tuned = manifest.counts, manifest.search
    folders = [layout.shards / part.folder for part in manifest.shards]
    return {
        "generation": manifest.generation,
        "created": manifest.created,
        "photos": counts.photos,
        "contents": counts.rows,
        "live": counts.live,
        "dead": counts.dead,
        "removed": num_removed,
        "pending": {"added": len(recent.ids), "deleted": num_hidden},
        "bad": bad,
        "shards": len(manifest.shards),
        "factory": manifest.factory,
        "milvus": manifest.milvus and manifest.milvus.collection,
        "codebook": manifest.codebook,
        "checkpoint": manifest.model.fingerprint,
        "dimension": manifest.model.D,
        "recall": tuned.recall,
        "recall_lower": tuned.recall_lower,
        "nprobe": tuned.nprobe,
        "rerank": tuned.rerank,
        "calibrated": manifest.calibration
        and manifest.calibration.model_dump(include={"source", "generation", "live"}),
        "bytes": {
            "embeddings": _size(folder / "emb.f16" for folder in folders),
            "lists": _size(folder / "ivf.faiss" for folder in folders),
            "codebook": _size((layout.codebooks / manifest.codebook).iterdir()),
            "catalog": manifest.catalog.size,
            "journal": _size([layout.journal]),
            "adds": _size(layout.adds.glob("*")),
            "uploads": _size(layout.uploads.glob("*")),
        },
    }


def _size(files: Any) -> int:
    return sum(path.stat().st_size for path in files if path.is_file())


if __name__ == "__main__":
    sys.exit(main())

"""Build a cache of resized photos, which training reads faster than the photos themselves.

    python -m trainer.cache --data FOLDER --out CACHE --side 320
    torchrun trainer/train.py --data CACHE ...

Stopped at any moment, the same command goes on; on a finished cache it repairs damaged parts.
"""

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from multigrain.config import Config
from multigrain.program import load_config, run_main
from trainer.settings_data import SMALLEST_SIDE

PROG = "python -m trainer.cache"
LARGEST_SIDE = 4096


class CacheConfig(Config):
    """Flags of the cache."""

    data: tuple[Path, ...] = Field(
        min_length=1, description="photos, as training takes them; repeatable"
    )
    out: Path = Field(description="folder of the cache")
    side: int = Field(
        default=320,
        ge=SMALLEST_SIDE,
        le=LARGEST_SIDE,
        description="shorter side of a kept photo, pixels; smaller photos stay as they are",
    )
    format: Literal["jpeg", "raw"] = Field(
        default="jpeg", description="JPEG, or raw pixels: ten times as large, nothing to decode"
    )
    quality: int = Field(default=90, ge=1, le=95, description="of JPEG")
    num_threads: int | None = Field(default=None, ge=1, description="unset: by cores")


def main() -> int:
    """Build the cache that the flags describe and print its folder."""
    config = load_config(
        CacheConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    from multigrain.cpus import num_cpus
    from trainer.inputs.cache_builder import CacheSettings, build_cache
    from trainer.inputs.labels import read_joined
    from trainer.speech import say

    joined = read_joined(config.data, say=say)
    settings = CacheSettings(config.format, config.side, config.quality)
    threads = config.num_threads or num_cpus()
    print(build_cache(joined, config.out, settings, num_threads=threads, say=say))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

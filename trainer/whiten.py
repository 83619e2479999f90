"""Fit a whitening on photos and write a whitened checkpoint."""

import os
import sys
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from multigrain.config import Config, load_config, run_main
from trainer.out_file import check_out_file
from trainer.photos import paths_of
from trainer.settings_finish import WHITEN_FLOOR, WHITEN_POWER
from trainer.speech import say

PROG = "python -m trainer.whiten"


class WhitenConfig(Config):
    """Flags of the whitening."""

    model_config = ConfigDict(allow_inf_nan=False)

    checkpoint: Path = Field(description="checkpoint file to whiten")
    photos: list[Path] = Field(
        description="folder of photos, or CSV/JSONL list with a `path` column; repeatable"
    )
    out: Path = Field(description="checkpoint file to write")
    dim: int | None = Field(
        default=None, ge=1, description="dimensions to keep; unset: at most a quarter of the photos"
    )
    power: float = Field(
        default=WHITEN_POWER,
        ge=0,
        le=1,
        description="1: full whitening, 0: centre and rotate only",
    )
    floor: float = Field(
        default=WHITEN_FLOOR,
        ge=0,
        le=1,
        description="smallest eigenvalue, as a share of the largest",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where the photos are embedded"
    )


def whiten(config: WhitenConfig) -> Path:
    """Write the whitened checkpoint and return its path."""
    from multigrain.checkpoint import load_checkpoint, save_checkpoint
    from trainer.fit_whitening import whiten_on
    from trainer.labels import PhotoSet
    from trainer.processes import alone

    check_out_file(config.out)
    checkpoint = load_checkpoint(config.checkpoint)
    processes = alone(config.device)
    checkpoint.model.to(processes.device)
    paths = [path for source in config.photos for path in paths_of(source)]
    document = whiten_on(
        checkpoint.model,
        checkpoint.document,
        PhotoSet.of_paths(paths),
        dim=config.dim,
        power=config.power,
        floor=config.floor,
        processes=processes,
        say=say,
    )
    save_checkpoint(config.out, checkpoint.model, document)
    return config.out


def main() -> int:
    """Whiten the checkpoint that the flags name and print the new one's path."""
    config = load_config(
        WhitenConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    print(whiten(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

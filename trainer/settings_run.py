"""Flags of the training program: where the run is written."""

from pathlib import Path

from pydantic import Field

from multigrain.config import Config


class RunSettings(Config):
    """The run's folder."""

    out: Path = Field(description="folder of the run")

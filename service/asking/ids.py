"""Ids in paths: 64-bit, from 0."""

from typing import Annotated

from fastapi import Path

MAX_ID = 2**63 - 1

ImageId = Annotated[int, Path(ge=0, le=MAX_ID, description="the `id` of a hit")]

"""The setting of every program that asks a published catalog."""

from typing import Any

from pydantic import Field


def catalog_field() -> Any:
    """The address of the database a catalog was put into."""
    return Field(
        default=None,
        description="database of the catalog, with its password, where index.build --catalog "
        "has put it into one; unset: as the index names it, without a password",
    )

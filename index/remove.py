"""`python -m index.remove`: take photos out of an index, for good."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from index.backend import Backend, milvus_uri_field
from index.catalog_setting import catalog_field
from multigrain.config import Config
from multigrain.program import load_config, run_main

PROG = "index.remove"


class RemoveConfig(Config):
    """What is to be removed."""

    index: Path = Field(description="index folder")
    catalog: SecretStr | None = catalog_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    id_: list[int] = Field(
        default=[], description="id of a photo, as a search gives it; repeatable"
    )
    path: list[Path] = Field(
        default=[], description="where a photo stands, as a search names it or a file; repeatable"
    )
    photo: list[Path] = Field(default=[], description="file with the same bytes; repeatable")

    @model_validator(mode="after")
    def _something_is_named(self) -> "RemoveConfig":
        if not (self.id_ or self.path or self.photo):
            raise ValueError("name what to remove: --id, --path or --photo")
        return self


def main(argv: Sequence[str] | None = None) -> int:
    """Remove photos and publish the index without them; gives the exit status."""
    config = load_config(
        RemoveConfig,
        prog=PROG,
        description="Take photos out of an index; no build brings them back, index.add does.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _remove(config), prog=PROG)


def _remove(config: RemoveConfig) -> int:
    # Here, so that --help does not wait for faiss.
    from index.changes.removal import remove_photos

    report = remove_photos(
        config.index,
        ids=config.id_,
        paths=config.path,
        photos=config.photo,
        catalog=config.catalog,
        backend=Backend(uri=config.milvus_uri),
    )
    print(
        f"removed {report.num_removed}, {report.num_live} live; "
        f"generation {report.generation} in {config.index}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

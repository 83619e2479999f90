"""`python -m index.push`: send the live generation of an index folder to an object store."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from multigrain.config import Config
from multigrain.locations import Location
from multigrain.program import load_config, run_main

PROG = "index.push"


class PushConfig(Config):
    """What is sent where."""

    index: Path = Field(description="index folder")
    to: Location = Field(description="where readers find it, such as s3://bucket/photos")


def main(argv: Sequence[str] | None = None) -> int:
    """Send what is not there yet, and say how much that was; gives the exit status."""
    config = load_config(
        PushConfig,
        prog=PROG,
        description="Send the live generation of an index folder to an object store.",
        argv=sys.argv[1:] if argv is None else argv,
        environ=os.environ,
    )
    return run_main(lambda: _push(config), prog=PROG)


def _push(config: PushConfig) -> int:
    # Here, so that --help does not wait for them.
    from index.codebook.footprint import human_bytes
    from index.errors import IndexFolderError
    from index.replica.push import has_pending_changes, num_uploads, push

    if isinstance(config.to, Path):
        raise IndexFolderError(f"--to {config.to}: give a URL, such as s3://bucket/photos")
    if has_pending_changes(config.index):
        print(
            f"{PROG}: what was added or deleted since the last build is not sent: "
            "run index.build first",
            file=sys.stderr,
        )
    if num_added := num_uploads(config.index):
        print(
            f"{PROG}: {num_added} photos were added through a service; readers there find them, "
            "without thumbnails, for their bytes stay in uploads/",
            file=sys.stderr,
        )
    done = push(config.index, config.to)
    print(
        f"generation {done.generation}: {done.num_sent} files sent, {human_bytes(done.num_bytes)}; "
        f"{done.num_there} were there, {done.num_removed} removed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

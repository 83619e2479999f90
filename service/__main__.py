"""`python -m service`: answer "which photos look like this one?" over HTTP."""

import os
import sys

from multigrain.program import load_config, run_main
from service.settings import Settings

PROG = "python -m service"


def main() -> int:
    """Read the settings, then serve until a signal comes."""
    settings = load_config(
        Settings,
        prog=PROG,
        description="Answer which photos of an index look like a given one, over HTTP.",
        argv=sys.argv[1:],
        environ=os.environ,
    )
    from service.server import serve

    serve(settings)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, prog=PROG))

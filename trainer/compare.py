"""Compare two evaluations of the same test sets, query by query.

python -m trainer.compare --first results/a --second results/b
"""

import os
import sys
from pathlib import Path

from pydantic import Field

from multigrain.config import Config
from multigrain.program import load_config, run_main

PROG = "python -m trainer.compare"


class CompareConfig(Config):
    """Flags of the comparison."""

    first: Path = Field(description="--out folder of an evaluation")
    second: Path = Field(description="--out folder of another model's")
    seed: int = Field(default=0, ge=0, description="of the bootstrap's draws")


def main() -> int:
    """Print a table of differences, and which of them are noise."""
    config = load_config(
        CompareConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    from trainer.evaluation.comparison import compare, markdown

    print(markdown(compare(config.first, config.second, seed=config.seed)))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

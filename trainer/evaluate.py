"""Score a checkpoint on test sets: exact search, metrics named in full, bootstrap intervals.

python -m trainer.evaluate --checkpoint F --protocol manifest --data gallery.csv --out DIR
python -m trainer.evaluate --features F --protocol manifest --data gallery.csv --out DIR
torchrun --nproc-per-node 8 -m trainer.evaluate ...
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from multigrain.program import load_config, run_main
from trainer.settings_evaluate import EvaluateConfig

if TYPE_CHECKING:
    from multigrain.expectations import Expected
    from trainer.evaluation.results import Result

PROG = "python -m trainer.evaluate"
EXIT_LEFT = 1


def main() -> int:
    """Print the table of scores; exit status 1 when one is not as expected."""
    config = load_config(
        EvaluateConfig, prog=PROG, description=__doc__ or "", argv=sys.argv[1:], environ=os.environ
    )
    from multigrain.expectations import read_beside, read_expectations
    from trainer.engine.processes import joined_processes, reported
    from trainer.evaluation.run import evaluate

    expected, beside = read_expectations(config.expect), read_beside(config.data)

    def among() -> int:
        with joined_processes(os.environ, device=config.device, num_threads=None) as processes:
            results = evaluate(config, processes)
            return judge(results, expected, beside) if processes.is_first else 0

    return reported(among, os.environ)


def judge(results: list["Result"], expected: "Expected", beside: "Mapping[Path, Expected]") -> int:
    """Print the scores, and those that are not as expected; return the exit status.

    What is expected `beside` a list is of its own scores alone.
    """
    from multigrain.expectations import left_intervals, resolve
    from trainer.evaluation.results import markdown

    print(markdown(results))
    scores = {name: score for result in results for name, score in result.full_names().items()}
    left = left_intervals(resolve(expected, scores), scores)
    for result in results:
        own = result.full_names()
        left += left_intervals(resolve(beside.get(result.data, {}), own), own)
    for line in left:
        print(f"{PROG}: {line}", file=sys.stderr)
    return EXIT_LEFT if left else 0


if __name__ == "__main__":
    raise SystemExit(run_main(main, prog=PROG))

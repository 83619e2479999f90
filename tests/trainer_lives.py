"""A training that is killed again and again: torch is imported once, each life is a fork.

    python trainer_lives.py RUN.yaml NUM_KILLS SEED MOST_SECONDS

Prints the number of lives that were killed before one came to the end.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import yaml

from trainer.engine.processes import alone
from trainer.settings import TrainConfig
from trainer.train import train


def live(config: TrainConfig) -> int:
    """Start a life; return its process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if train(config, alone()) is not None else 3
        finally:
            os._exit(status)
    return child


def main() -> int:
    file, num_kills, seed, most_seconds = sys.argv[1:]
    config = TrainConfig.from_values(yaml.safe_load(Path(file).read_text()))
    rng = random.Random(int(seed))  # noqa: S311 - no secret
    # Everything is imported and warm before the first fork.
    warm = {"out": config.out.with_name("warm"), "duration": "1step"}
    train(config.model_copy(update=warm), alone())
    killed = 0
    while killed < int(num_kills):
        child = live(config)
        time.sleep(rng.uniform(0, float(most_seconds)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    else:
        _, status = os.waitpid(live(config), 0)
    print(killed)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    raise SystemExit(main())

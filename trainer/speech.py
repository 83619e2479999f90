"""What the programs tell their user beside the answer."""

import sys


def say(line: str) -> None:
    """Print one line to stderr at once."""
    print(line, file=sys.stderr, flush=True)


def say_nothing(_line: str) -> None:
    """Leave the speaking to the first process."""

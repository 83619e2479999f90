"""Words without a flag on a command line: they are given the flag they stand for."""

from collections.abc import Sequence

# Flags that take no value, so that the word behind them is one of its own.
_SWITCHES = ("--help", "--print-config", "-h")


def with_flag(flag: str, argv: Sequence[str], *, switches: Sequence[str] = ()) -> list[str]:
    """The words with `flag` before each that is neither a flag nor a flag's value."""
    spelled, is_value = list[str](), False
    for word in argv:
        if word.startswith("-") or is_value:
            spelled.append(word)
        else:
            spelled += [flag, word]
        is_flag = word.startswith("--") and not is_value
        is_value = is_flag and "=" not in word and word not in (*_SWITCHES, *switches)
    return spelled

"""Where a build can die: the store and the catalog call `steps` around each durable action."""

from collections.abc import Callable

# Called with the action's name before and after it; a test kills or raises at the n-th call.
Steps = Callable[[str], None]


def no_steps(_action: str) -> None:
    """Do nothing: the build's own steps."""

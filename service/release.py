"""Which release this is."""

from importlib.metadata import version

_DISTRIBUTION = "multigrain-retrieval"


def release() -> str:
    """The installed version of the distribution, read from its files."""
    return version(_DISTRIBUTION)

"""The test sets and photos that an evaluation is asked to score."""

from pathlib import Path

from multigrain.config import ConfigError, did_you_mean
from trainer.inputs.photos import paths_of
from trainer.protocols.registry import PROTOCOLS
from trainer.protocols.test_set import PairSet, Picture, QuerySet, Request
from trainer.settings_evaluate import EvaluateConfig

# Name, protocol, data and what was read there.
Given = tuple[str, str, Path, QuerySet | PairSet]
# Options that say nothing of a list of pairs.
_OF_QUERIES = (
    "query_expansion",
    "gallery_expansion",
    "k_reciprocal",
    "background",
    "sizes",
    "exponents",
)


def read_test_sets(config: EvaluateConfig) -> list[Given]:
    """Name, protocol, data and test set of each; the second of a protocol is named NAME-2."""
    unknown = [name for name in config.protocol if name not in PROTOCOLS]
    if unknown:
        hint = did_you_mean(unknown[0], list(PROTOCOLS))
        raise ConfigError(f"no protocol {unknown[0]!r}{hint}: choose of {', '.join(PROTOCOLS)}")
    found, times = [], dict[str, int]()
    for protocol, data in zip(config.protocol, config.data, strict=True):
        times[protocol] = times.get(protocol, 0) + 1
        name = protocol if times[protocol] == 1 else f"{protocol}-{times[protocol]}"
        test_set = PROTOCOLS[protocol](Request(data, config.upright))
        found.append((name, protocol, data, test_set))
    idle = [name for name in _OF_QUERIES if getattr(config, name)]
    if idle and all(isinstance(test_set, PairSet) for *_, test_set in found):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise ConfigError(f"{flags}: not for pairs, of which alone the test sets are made")
    return found


def read_background(config: EvaluateConfig) -> list[Picture]:
    """The pictures of the background; raises ConfigError for a folder or list without any."""
    if config.background is None:
        return []
    if not config.background.exists():
        raise ConfigError(f"--background {config.background}: no such folder or list")
    found = [Picture(path) for path in paths_of(config.background)]
    if not found:
        raise ConfigError(f"--background {config.background}: there is no photo in it")
    return found

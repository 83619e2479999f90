"""`python -m service.client COMMAND`: the service from the shell."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from index.bare_words import with_flag
from multigrain.config import Config, ConfigError, did_you_mean
from multigrain.config_flags import EXIT_USAGE
from multigrain.program import load_config, run_main
from service.client.answers import SearchAnswer
from service.client.commands import (
    AddCommand,
    DeleteCommand,
    EmbedCommand,
    HealthCommand,
    SearchCommand,
    SimilarCommand,
    json_object,
)
from service.client.errors import ServiceError

PROG = "service.client"
# The service said no, or could not be asked; a wrong command line is 2, as everywhere.
EXIT_REFUSED = 1
_LONG_FORMS = {"--json": ["--output", "json"]}


def _search(command: SearchCommand) -> int:
    with command.connect() as client:
        _print_hits(client.search(command.photo, **command.parameters()), command.output)
    return 0


def _similar(command: SimilarCommand) -> int:
    with command.connect() as client:
        _print_hits(client.similar(command.id, **command.parameters()), command.output)
    return 0


def _embed(command: EmbedCommand) -> int:
    with command.connect() as client:
        numbers = client.embed(command.photo).tolist()
    print(json.dumps(numbers) if command.output == "json" else "\n".join(map(str, numbers)))
    return 0


def _add(command: AddCommand) -> int:
    with command.connect() as client:
        added = client.add(command.photo, json_object(command.metadata))
    is_json = command.output == "json"
    print(json.dumps(added._asdict()) if is_json else added.id)
    return 0


def _delete(command: DeleteCommand) -> int:
    with command.connect() as client:
        client.delete(command.id)
    return 0


def _health(command: HealthCommand) -> int:
    with command.connect() as client:
        health = client.wait_ready(command.wait) if command.wait else client.health()
    if command.output == "json":
        print(health.model_dump_json(indent=2))
    else:
        print(f"{health.status}  generation {health.generation}  up {health.uptime_s:g} s")
    return 0 if health.is_ready else EXIT_REFUSED


def _print_hits(answer: SearchAnswer, output: str) -> None:
    if output == "json":
        print(json.dumps([hit.model_dump() for hit in answer.results], indent=2))
        return
    for hit in answer.results:
        collapsed = "" if answer.dedup_cosine is None else f"  +{hit.collapsed}"
        print(f"{hit.rank:4d}  {hit.score:.4f}{collapsed}  {hit.uri}")


class _Command(NamedTuple):
    """A command: its settings, its work, its help, and the flag of a word that has none."""

    settings: type[Config]
    work: Callable[[Any], int]
    summary: str
    bare: str | None = None


_COMMANDS: Mapping[str, _Command] = {
    "search": _Command(SearchCommand, _search, "Print the neighbours of a photo.", "--photo"),
    "similar": _Command(SimilarCommand, _similar, "Print the neighbours of a hit.", "--id"),
    "embed": _Command(EmbedCommand, _embed, "Print the embedding of a photo.", "--photo"),
    "add": _Command(AddCommand, _add, "Add a photo; prints its id.", "--photo"),
    "delete": _Command(DeleteCommand, _delete, "Take a photo out for good.", "--id"),
    "health": _Command(HealthCommand, _health, "Tell whether searches are answered."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; gives the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    return run_main(lambda: _main(words), prog=PROG)


def _main(words: Sequence[str]) -> int:
    if not words or words[0] in {"-h", "--help"}:
        print(_help())
        return EXIT_USAGE if not words else 0
    name, *rest = words
    if name not in _COMMANDS:
        raise ConfigError(f"unknown command {name!r}{did_you_mean(name, list(_COMMANDS))}")
    command = _COMMANDS[name]
    config = load_config(
        command.settings,
        prog=f"{PROG} {name}",
        description=command.summary,
        argv=_with_flags(rest, command.bare),
        environ=os.environ,
    )
    try:
        return command.work(config)
    except ServiceError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return EXIT_REFUSED


def _help() -> str:
    lines = [f"usage: {PROG} COMMAND ...; COMMAND --help lists its flags", ""]
    return "\n".join(lines + [f"  {name:8} {each.summary}" for name, each in _COMMANDS.items()])


def _with_flags(words: Sequence[str], bare: str | None) -> list[str]:
    """Spell out the short forms: a word without a flag, and --json."""
    flagged = list(words) if bare is None else with_flag(bare, words, switches=tuple(_LONG_FORMS))
    if bare is not None and flagged.count(bare) > 1:
        raise ConfigError(f"{bare} is given {flagged.count(bare)} times: one at a time")
    return [part for word in flagged for part in _LONG_FORMS.get(word, [word])]


if __name__ == "__main__":
    sys.exit(main())

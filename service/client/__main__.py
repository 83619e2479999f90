"""`python -m service.client COMMAND`: the service from the shell."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, SecretStr

from index.bare_words import with_flag
from index.searching.alike import Dedup
from multigrain.config import Config, ConfigError, did_you_mean
from multigrain.config_flags import EXIT_USAGE
from multigrain.program import load_config, run_main
from service.client.answers import SearchAnswer
from service.client.client import DEFAULT_URL, Client, SearchParameters
from service.client.errors import ServiceError

PROG = "service.client"
# The service said no, or could not be asked; a wrong command line is 2, as everywhere.
EXIT_REFUSED = 1
_LONG_FORMS = {"--json": ["--output", "json"]}


class _Connection(Config):
    """What every command takes."""

    url: str = Field(DEFAULT_URL, description="address of the service")
    api_key: SecretStr | None = Field(
        None, description="key; better in the environment, where other users cannot see it"
    )
    output: Literal["text", "json"] = Field(
        "text", description="form of the answer; --json is short for --output json"
    )

    def connect(self) -> Client:
        key = None if self.api_key is None else self.api_key.get_secret_value()
        return Client(self.url, api_key=key)


class _Search(_Connection):
    """What every search is asked."""

    limit: int = Field(10, ge=1, description="neighbours to print")
    min_score: float | None = Field(None, ge=-1, le=1, description="smallest cosine to print")
    recall: float | None = Field(
        None, gt=0, le=1, description="recall@10 to search with instead of the tuned one"
    )
    min_probability: float | None = Field(
        None, ge=0, le=1, description="leave out neighbours that show the same thing with less"
    )
    rerank: Literal["none", "aqe", "kreciprocal"] = Field(
        "none", description="another order than that of the cosines"
    )
    dedup: Dedup = Field(
        default=False,
        description="collapse near-duplicates: true, or the cosine from which two photos are some",
    )
    filter: str | None = Field(
        None,
        description="conditions that the photos found must meet, as JSON: "
        '{"must": [{"field": "label", "eq": "cat"}]}',
    )

    def parameters(self) -> SearchParameters:
        """What was given, as the client takes it; raises ConfigError."""
        # Of the later ones only what was asked for: an older service knows none of them.
        parameters: SearchParameters = {"limit": self.limit}
        if self.rerank != "none":
            parameters["rerank"] = self.rerank
        if self.dedup is not False:
            parameters["dedup"] = self.dedup
        if self.min_score is not None:
            parameters["min_score"] = self.min_score
        if self.min_probability is not None:
            parameters["min_probability"] = self.min_probability
        if self.recall is not None:
            parameters["recall"] = self.recall
        if self.filter is not None:
            parameters["filter"] = _json(self.filter)
        return parameters


class SearchCommand(_Search):
    """A search with a photo."""

    photo: Path = Field(description="photo to search with; may be given without the flag")
    augment: Literal["none", "flip", "multiscale", "flip_multiscale"] = Field(
        "none", description="what else to search with at once: mirror image, other sizes, or both"
    )

    def parameters(self) -> SearchParameters:
        """What was given, as the client takes it; raises ConfigError."""
        parameters = super().parameters()
        if self.augment != "none":
            parameters["augment"] = self.augment
        return parameters


class SimilarCommand(_Search):
    """A search with a photo of the index."""

    id: str = Field(description="id of a hit; may be given without the flag")


class EmbedCommand(_Connection):
    """What is to be embedded."""

    photo: Path = Field(description="photo to embed; may be given without the flag")


class AddCommand(_Connection):
    """What is to be added."""

    photo: Path = Field(description="photo to add; may be given without the flag")
    metadata: str = Field("{}", description="attributes of the photo, as a JSON object")


class DeleteCommand(_Connection):
    """What is to be deleted."""

    id: str = Field(description="id of the photo; may be given without the flag")


class HealthCommand(_Connection):
    """What is asked of the health."""

    wait: float = Field(0.0, ge=0, description="seconds to wait until searches are answered")


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
        added = client.add(command.photo, _json(command.metadata))
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


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{text!r} is no JSON object")
    return value


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

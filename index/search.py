"""`python -m index.search`: the neighbours of a photo, from the shell."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from index.bare_words import with_flag
from multigrain.config import Config, ConfigError
from multigrain.program import load_config, run_main

if TYPE_CHECKING:
    from index.searcher import Neighbour, Searcher

PROG = "index.search"
_LONG_FORMS = {"--json": ["--output", "json"]}


class SearchConfig(Config):
    """What a search is asked."""

    index: Path = Field(description="index folder")
    photo: Path = Field(description="photo to search with; may be given without the flag")
    limit: int = Field(default=10, ge=1, description="neighbours to print")
    where: list[str] = Field(
        default=[],
        description="condition that the photos found must meet, like label=cat or "
        "'taken_at>=2019,width>1000'; repeatable",
    )
    recall: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="recall@10 to search with instead of the tuned one: a point of the curve",
    )
    mapped: bool = Field(
        default=False, description="read the lists from their files as needed, not into memory"
    )
    output: Literal["text", "json"] = Field(
        default="text", description="form of the answer; --json is short for --output json"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a photo's neighbours: rank, cosine, uri; gives the exit status."""
    words = sys.argv[1:] if argv is None else argv
    return run_main(lambda: _search(_config(words)), prog=PROG)


def _config(argv: Sequence[str]) -> SearchConfig:
    return load_config(
        SearchConfig,
        prog=PROG,
        description="Print the neighbours of a photo.",
        argv=_with_flags(argv),
        environ=os.environ,
    )


def _with_flags(argv: Sequence[str]) -> list[str]:
    """Spell out the two short forms, a bare photo and --json; raises ConfigError for two photos."""
    switches = ("--json", "--mapped", "--no-mapped")
    words = with_flag("--photo", argv, switches=switches)
    spelled = [part for word in words for part in _LONG_FORMS.get(word, [word])]
    num_photos = sum(word == "--photo" or word.startswith("--photo=") for word in spelled)
    if num_photos > 1:
        raise ConfigError(f"{num_photos} photos given: search with one photo at a time")
    return spelled


def _search(config: SearchConfig) -> int:
    # Here, so that --help does not wait for torch.
    from index.searcher import Searcher
    from index.searching.where import parse_filters
    from multigrain.embedder import Embedder

    filters = parse_filters(config.where)
    searcher = Searcher.open(config.index, mapped=config.mapped)
    try:
        allowed = searcher.matching(filters) if filters else None
        embedder = Embedder.open(searcher.checkpoint_path, device=config.device)
        searcher.require_model(embedder)
        (neighbours,) = searcher.search(
            embedder.embed([config.photo]), config.limit, recall=config.recall, allowed=allowed
        )
        print(_answer(neighbours, searcher, config.output))
    finally:
        searcher.close()
    return 0


def _answer(neighbours: "list[Neighbour]", searcher: "Searcher", output: str) -> str:
    ranked = list(enumerate(neighbours, start=1))
    if output == "text":
        return "\n".join(f"{rank:4d}  {hit.score:.4f}  {hit.uri}" for rank, hit in ranked)
    return json.dumps(
        [
            {"rank": rank, "score": hit.score, "uri": hit.uri, "id": str(hit.id)}
            | {"file": str(searcher.photo_path(hit.id)), "metadata": hit.metadata}
            for rank, hit in ranked
        ],
        indent=2,
    )


if __name__ == "__main__":
    sys.exit(main())

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
    rerank: Literal["none", "aqe", "kreciprocal"] = Field(
        default="none",
        description="another order than that of the cosines: search again with the query moved "
        "towards its nearest, or compare whose neighbours two photos are",
    )
    augment: Literal["none", "flip"] = Field(
        default="none", description="flip: search with the photo and its mirror image at once"
    )
    min_probability: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="leave out neighbours that show the same thing with less; see index.calibrate",
    )
    mapped: bool = Field(
        default=False, description="read the lists from their files as needed, not into memory"
    )
    search_device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:[0-9]+)?)$",
        description="where the lists are searched: cpu, or cuda or cuda:N with faiss-gpu",
    )
    output: Literal["text", "json"] = Field(
        default="text", description="form of the answer; --json is short for --output json"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a photo's neighbours: rank, cosine, probability, uri; gives the exit status."""
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
    from index.searching.reranking import Rerank
    from index.searching.where import parse_filters
    from multigrain.augmented import embed_augmented
    from multigrain.embedder import Embedder

    filters = parse_filters(config.where)
    searcher = Searcher.open(config.index, mapped=config.mapped, device=config.search_device)
    try:
        if config.min_probability is not None:
            searcher.require_calibration()
        allowed = searcher.matching(filters) if filters else None
        embedder = Embedder.open(searcher.checkpoint_path, device=config.device)
        searcher.require_model(embedder)
        query = embed_augmented(embedder, [config.photo], flip=config.augment == "flip")
        (neighbours,) = searcher.search(
            query,
            config.limit,
            recall=config.recall,
            allowed=allowed,
            rerank=Rerank(config.rerank),
        )
        probable = [hit for hit in neighbours if _is_probable(hit, config.min_probability)]
        print(_answer(probable, searcher, config.output))
    finally:
        searcher.close()
    return 0


def _is_probable(hit: "Neighbour", least: float | None) -> bool:
    return least is None or (hit.same_probability is not None and hit.same_probability >= least)


def _answer(neighbours: "list[Neighbour]", searcher: "Searcher", output: str) -> str:
    ranked = list(enumerate(neighbours, start=1))
    if output == "text":
        return "\n".join(f"{rank:4d}  {_scores(hit)}  {hit.uri}" for rank, hit in ranked)
    return json.dumps(
        [
            {"rank": rank, "score": hit.score, "uri": hit.uri, "id": str(hit.id)}
            | {"same_probability": hit.same_probability}
            | {"file": str(searcher.photo_path(hit.id)), "metadata": hit.metadata}
            for rank, hit in ranked
        ],
        indent=2,
    )


def _scores(hit: "Neighbour") -> str:
    """The cosine and, where the index is calibrated, what it means."""
    known = hit.same_probability
    return f"{hit.score:.4f}" if known is None else f"{hit.score:.4f}  {known:.3f}"


if __name__ == "__main__":
    sys.exit(main())

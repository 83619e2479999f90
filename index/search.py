"""`python -m index.search`: the neighbours of a photo, from the shell."""

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, SecretStr

from index.backend import Backend, BackendName, backend_field, milvus_uri_field
from index.bare_words import with_flag
from index.catalog_setting import catalog_field
from index.searching.alike import DUPLICATE_COSINE, DUPLICATE_PROBABILITY, NUM_COMPARED, Dedup
from multigrain.config import Config, ConfigError
from multigrain.locations import Location
from multigrain.program import load_config, run_main

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from index.searcher import Searcher
    from index.searching.neighbours import Neighbour

PROG = "index.search"
COLUMNS = ("rank", "score", "uri", "id", "same_probability", "file")
_LONG_FORMS = {"--json": ["--output", "json"]}


class SearchConfig(Config):
    """What a search is asked."""

    index: Location = Field(description="index folder, or its URL, such as s3://bucket/photos")
    cache_dir: Path | None = Field(
        default=None, description="where an index of a URL is kept; none: the user's cache"
    )
    catalog: SecretStr | None = catalog_field()
    backend: BackendName | None = backend_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
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
    augment: Literal["none", "flip", "multiscale", "flip_multiscale"] = Field(
        default="none",
        description="what else to search with at once: the photo's mirror image, the photo at "
        "half and twice the area, or both",
    )
    min_probability: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="leave out neighbours that show the same thing with less; see index.calibrate",
    )
    dedup: Dedup = Field(
        default=False,
        description="collapse neighbours whose cosine to a better one is at least this; true: at "
        f"which both show the same thing with a probability of {DUPLICATE_PROBABILITY}, or "
        f"{DUPLICATE_COSINE} where the index is not calibrated",
    )
    mapped: bool = Field(
        default=False, description="read the lists from their files as needed, not into memory"
    )
    search_device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:[0-9]+)?)$",
        description="where the lists are searched: cpu, or cuda or cuda:N with faiss-gpu",
    )
    output: Literal["text", "json", "jsonl", "csv"] = Field(
        default="text", description="form of the answer; --json is short for --output json"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")


class _Hit(NamedTuple):
    """A neighbour, and how many near-duplicates it stands for: None where all are shown."""

    neighbour: "Neighbour"
    num_collapsed: int | None


def main(argv: Sequence[str] | None = None) -> int:
    """Print a photo's neighbours: rank, cosine, probability, duplicates, uri.

    Gives the exit status.
    """
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
    from index.replica.source import IndexSource
    from index.searcher import Searcher
    from index.searching.where import parse_filters
    from multigrain.augmented import Augment, embed_augmented
    from multigrain.embedder import Embedder

    filters = parse_filters(config.where)
    source = IndexSource(config.index, cache_dir=config.cache_dir)
    opener = partial(
        Searcher.open,
        mapped=config.mapped,
        device=config.search_device,
        catalog=config.catalog,
        backend=Backend(config.backend, config.milvus_uri),
    )
    searcher = source.open(opener)
    try:
        if config.min_probability is not None:
            searcher.require_calibration()
        allowed = searcher.matching(filters) if filters else None
        embedder = Embedder.open(searcher.checkpoint_path, device=config.device)
        searcher.require_model(embedder)
        query = embed_augmented(embedder, [config.photo], Augment(config.augment))
        hits = _hits(searcher, query, config, allowed)
        print(_answer(hits, searcher, config.output))
    finally:
        searcher.close()
    return 0


def _hits(
    searcher: "Searcher",
    query: "NDArray[np.float32]",
    config: SearchConfig,
    allowed: "NDArray[np.int64] | None",
) -> list[_Hit]:
    """What is found with the query fp32 [1, D], without what is improbable or there already."""
    from index.searching.alike import collapse, dedup_cosine
    from index.searching.reranking import Rerank

    cosine = dedup_cosine(config.dedup, searcher.calibration)
    is_all = cosine is None and config.min_probability is None
    (found,) = searcher.rank(
        query,
        config.limit if is_all else max(config.limit, NUM_COMPARED),
        recall=config.recall,
        allowed=allowed,
        rerank=Rerank(config.rerank),
    )
    if config.min_probability is not None:
        probabilities = searcher.require_calibration().probabilities(found.scores)
        found = found.part(probabilities >= config.min_probability)
    counts: list[int] | list[None] = [None] * config.limit
    if cosine is not None:
        rows = searcher.embeddings(found.ids.tolist())
        kept = collapse(rows, cosine, at_most=config.limit)
        found, counts = found.part(kept.places), kept.num_collapsed.tolist()
    (neighbours,) = searcher.neighbours([found.part(slice(config.limit))])
    return [_Hit(*pair) for pair in zip(neighbours, counts, strict=False)]


def _answer(hits: list[_Hit], searcher: "Searcher", output: str) -> str:
    ranked = list(enumerate(hits, start=1))
    if output == "text":
        return "\n".join(f"{rank:4d}  {_facts(hit)}  {hit.neighbour.uri}" for rank, hit in ranked)
    documents = [{"rank": rank} | _document(hit, searcher) for rank, hit in ranked]
    if output == "csv":
        return _csv(documents)
    if output == "jsonl":
        return "\n".join(json.dumps(one) for one in documents)
    return json.dumps(documents, indent=2)


def _csv(documents: list[dict[str, Any]]) -> str:
    """A line for each neighbour, its metadata as JSON; without any the names of the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, "collapsed", "metadata"], lineterminator="\n")
    writer.writeheader()
    for one in documents:
        writer.writerow(one | {"metadata": json.dumps(one["metadata"])})
    return text.getvalue().rstrip("\n")


def _facts(hit: _Hit) -> str:
    """The cosine; where known what it means; where asked the number of near-duplicates."""
    facts = [f"{hit.neighbour.score:.4f}"]
    if hit.neighbour.same_probability is not None:
        facts.append(f"{hit.neighbour.same_probability:.3f}")
    if hit.num_collapsed is not None:
        facts.append(f"+{hit.num_collapsed}")
    return "  ".join(facts)


def _document(hit: _Hit, searcher: "Searcher") -> dict[str, Any]:
    one = hit.neighbour
    collapsed = {} if hit.num_collapsed is None else {"collapsed": hit.num_collapsed}
    return {
        "score": one.score,
        "uri": one.uri,
        "id": str(one.id),
        "same_probability": one.same_probability,
        **collapsed,
        "file": str(searcher.photo_path(one.id)),
        "metadata": one.metadata,
    }


if __name__ == "__main__":
    sys.exit(main())

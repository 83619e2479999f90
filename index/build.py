"""`python -m index.build`: make or update an index folder from photo collections."""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ByteSize, Field, SecretStr, model_validator

from index.backend import Backend, BackendName, backend_field, milvus_uri_field
from index.embedding.place import Place, place_in
from multigrain.config import Config
from multigrain.locations import Location
from multigrain.program import EXIT_INTERRUPTED, load_config, run_main

if TYPE_CHECKING:
    from index.builder import BuildOptions
    from index.collection.reading import PhotoEmbedder
    from index.embedding.blocks import AnyCrew
    from index.embedding.crew import Crew
    from index.embedding.messages import ModelName
    from multigrain.embedder import Embedder

PROG = "index.build"
EXIT_TOO_MANY_BAD = 3
# Those of index/stages.py, which loads faiss and SQLAlchemy.
STAGES = Literal["scan", "embed", "train", "encode", "merge", "tune", "publish"]


class BuildConfig(Config):
    """What a build is asked to do."""

    photos: list[Location] = Field(
        min_length=1,
        description="folder, its URL in an object store, or CSV/JSONL list with a `path` column; "
        "repeatable",
    )
    checkpoint: Location = Field(description="checkpoint file of the model, or its URL")
    out: Path = Field(description="index folder to make or update")
    catalog: SecretStr | None = Field(
        default=None,
        description="database that readers find the catalog in, "
        "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, or sqlite for the index's own file; "
        "unset: as before, sqlite at first",
    )
    backend: BackendName | None = backend_field()
    milvus_uri: SecretStr | None = milvus_uri_field()
    verify_content: bool = Field(
        default=False, description="hash every file, whatever its size and times say"
    )
    allow_vanished: bool = Field(
        default=False,
        description="go on where a collection shows none of its photos, or lost most of them",
    )
    rows_from: list[Location] = Field(
        default=[],
        description="index of the same checkpoint, or its URL, whose rows are taken for photos of "
        "the same bytes instead of embedding them; repeatable",
    )
    factory: str | None = Field(
        default=None, description="faiss string instead of the one the collection's size asks for"
    )
    ram: ByteSize | None = Field(
        default=None,
        description="memory for serving, as 3GiB or 500MB; the richest string that fits is taken",
    )
    target_recall: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="recall@10 that searches are tuned to, by the lower end of its 95 %% interval",
    )
    shard_rows: int = Field(default=1_000_000, ge=1, description="rows of a shard")
    plan: bool = Field(
        default=False, description="say what a build would make, take and cost; write nothing"
    )
    max_bad: int | None = Field(
        default=None, ge=0, description="exit with 3 when more photos than this are quarantined"
    )
    from_: STAGES = Field(default="scan", description="first stage to run: scan, embed, train, ...")
    until: STAGES = Field(default="publish", description="last stage to run")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    decode_threads: int | None = Field(
        default=None,
        ge=1,
        description="threads of a process that decode photos; none: one a core, of a URL at least "
        "16",
    )
    engine: Literal["local", "ray"] = Field(
        default="local", description="who reads and embeds: this machine, or a cluster of Ray's"
    )
    ray_address: str | None = Field(
        default=None,
        description="the cluster, as HOST:PORT or auto; none: RAY_ADDRESS, else one started here",
    )
    worker_timeout_seconds: float = Field(
        default=600,
        gt=0,
        description="of several processes, how long one may be silent before the build gives up",
    )

    @model_validator(mode="after")
    def _ray_is_asked_for(self) -> Self:
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError("ray_address: needs --engine ray")
        return self


def main(argv: Sequence[str] | None = None) -> int:
    """Build or update an index folder; gives the exit status.

    Of several processes that torchrun started the first builds, and the others embed for it.
    """
    place = place_in(os.environ)
    with _silent_unless_first(place):
        config = load_config(
            BuildConfig,
            prog=PROG,
            description="Embed every photo of the collections and publish a searchable index.",
            argv=sys.argv[1:] if argv is None else argv,
            environ=os.environ,
        )
    if config.engine == "ray":
        return run_main(lambda: _build_on_ray(config, place), prog=PROG)
    if place is None:
        return run_main(lambda: _build(config, None), prog=PROG)
    return run_main(lambda: _build_together(config, place), prog=PROG)


@contextmanager
def _silent_unless_first(place: Place | None) -> Iterator[None]:
    """Help, settings and wrong flags are printed by one of several processes."""
    if place is None or place.is_first:
        yield
    else:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield


def _build_together(config: BuildConfig, place: Place) -> int:
    from index.collection.sources import num_readers
    from index.embedding.crew import Crew
    from index.embedding.helper import help_build

    num_cores = place.num_threads
    num_threads = config.decode_threads or num_readers(config.photos, num_cores=num_cores)
    seconds = config.worker_timeout_seconds
    if place.is_first:
        with Crew(place, num_threads=num_threads, timeout_seconds=seconds) as crew:
            status = run_main(lambda: _build(config, crew), prog=PROG)
            crew.end_with(status)
            return status

    def opened(model: "ModelName") -> "Embedder":
        return _embedder(config, place, model)

    try:
        return help_build(place, opened, num_threads=num_threads, timeout_seconds=seconds)
    except KeyboardInterrupt:  # the first process says so
        return EXIT_INTERRUPTED


def _build_on_ray(config: BuildConfig, place: Place | None) -> int:
    from index.embedding.ray_session import ray_session
    from index.errors import WorkerError

    if place is not None:
        raise WorkerError("--engine ray starts its own processes: leave torchrun out")
    with ray_session(config.ray_address):
        return _build(config, None)


def _embedder(config: BuildConfig, place: Place | None, model: "ModelName | None") -> "Embedder":
    """The model: in one of several processes on its own device, the first one's engine."""
    from multigrain.embedder import Embedder
    from multigrain.fetched import local_file

    if place is None:
        return Embedder.open(local_file(config.checkpoint), device=config.device)
    import torch

    torch.set_num_threads(place.num_threads)
    return Embedder.open(
        local_file(config.checkpoint),
        device=place.device(config.device, torch.cuda.device_count()),
        engine=model.engine if model else "auto",
        precision=model.precision if model else "auto",
        num_threads=place.num_threads,
    )


def _build(config: BuildConfig, together: "Crew | None") -> int:
    # Here, so that --help does not wait for torch.
    from index.builder import build_index
    from index.errors import IndexFolderError
    from index.faiss_module import load_faiss
    from index.layout import Layout
    from index.summary import summary
    from multigrain.fetched import local_file

    load_faiss()
    embedder = _embedder(config, together.place if together else None, None)
    if config.device == "auto" and embedder.device == "cpu":
        print(f"{PROG}: no GPU is visible: the CPU does the work", file=sys.stderr)
    if config.plan:
        print(_plan(config, embedder))
        return 0
    checkpoint = local_file(config.checkpoint)
    options = _options(config, _crew(config, embedder, together))
    try:
        report = build_index(config.photos, checkpoint, config.out, embedder, options)
    except OSError as error:  # a full disk, a folder that may not be written
        raise IndexFolderError(
            f"{error.filename or config.out}: {error.strerror or error}; "
            "mend it, then run again to continue"
        ) from error
    print(summary(report, Layout(config.out), until=config.until))
    if config.max_bad is not None and report.num_bad > config.max_bad:
        print(f"{PROG}: {report.num_bad} bad photos, --max-bad {config.max_bad}", file=sys.stderr)
        return EXIT_TOO_MANY_BAD
    return 0


def _crew(config: BuildConfig, embedder: "Embedder", together: "Crew | None") -> "AnyCrew | None":
    """Who shares the work: the processes of torchrun, a cluster of Ray's, or nobody."""
    if together:
        together.introduce(embedder)
        return together
    if config.engine != "ray":
        return None
    from index.embedding.ray_model import crew_on_ray

    seconds = config.worker_timeout_seconds
    return crew_on_ray(config.checkpoint, embedder, timeout_seconds=seconds)


def _options(config: BuildConfig, crew: "AnyCrew | None") -> "BuildOptions":
    from index.builder import BuildOptions
    from index.replica.source import IndexSource
    from index.stages import Stage

    return BuildOptions(
        factory=config.factory,
        ram=config.ram,
        target_recall=config.target_recall,
        shard_rows=config.shard_rows,
        decode_threads=config.decode_threads,
        verify_content=config.verify_content,
        allow_vanished=config.allow_vanished,
        rows_from=[IndexSource(place).ready() for place in config.rows_from],
        first=Stage(config.from_),
        last=Stage(config.until),
        announce=lambda line: print(f"{PROG}: {line}", file=sys.stderr),
        crew=crew,
        catalog=config.catalog,
        backend=Backend(config.backend, config.milvus_uri),
    )


def _plan(config: BuildConfig, embedder: "PhotoEmbedder") -> str:
    from index.plan import plan_build

    plan = plan_build(
        config.photos,
        config.out,
        embedder,
        factory=config.factory,
        ram=config.ram,
        shard_rows=config.shard_rows,
        decode_threads=config.decode_threads,
    )
    return plan.text()


if __name__ == "__main__":
    sys.exit(main())

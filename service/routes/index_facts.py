"""GET /index: what is searched, and how."""

import hashlib

from fastapi import APIRouter, Request, Response

from index.codebook.factory import start_nprobe
from index.manifest import canonical_json
from index.searcher import Searcher
from service.asking.parameters import refuse_parameters
from service.routes.problems import READY, problems
from service.schemas.index_facts import BuiltWith, Fingerprints, IndexCounts, IndexFacts
from service.serving.engine import Engine
from service.serving.runtime import Runtime

router = APIRouter()


@router.get("/index", responses=problems(*READY))
async def index_facts(request: Request, response: Response) -> IndexFacts:
    """The generation that answers, its size, its kind, and what embeds photos for it."""
    runtime: Runtime = request.state.runtime
    refuse_parameters(request.query_params.multi_items())
    facts = read_facts(runtime.ready().engine)
    response.headers["X-Index-Generation"] = facts.generation
    return facts


def read_facts(engine: Engine) -> IndexFacts:
    """Facts of the generation that answers now; nothing is read from a file."""
    with engine.generations.lease() as searcher:
        return _facts(searcher, engine)


def _facts(searcher: Searcher, engine: Engine) -> IndexFacts:
    manifest, embedder = searcher.manifest, engine.embedder
    preprocessing = hashlib.sha256(canonical_json(manifest.model.preprocessing)).hexdigest()
    nprobe = manifest.search.nprobe or start_nprobe(searcher.nlist)
    return IndexFacts(
        generation=searcher.generation,
        built_at=manifest.created,
        counts=_counts(searcher),
        dim=searcher.dim,
        metric="cosine",
        type=manifest.factory,
        nlist=searcher.nlist,
        nprobe=nprobe if searcher.nlist else None,
        recall=manifest.search.recall,
        model=engine.model_name,
        engine=embedder.engine,
        precision=embedder.precision,
        built_with=BuiltWith(engine=manifest.model.engine, precision=manifest.model.precision),
        fingerprints=Fingerprints(model=searcher.fingerprint, preprocessing=preprocessing),
    )


def _counts(searcher: Searcher) -> IndexCounts:
    present, built = searcher.present, searcher.manifest.counts
    return IndexCounts(
        vectors=present.num_live,
        adds=len(present.recent.ids),
        tombstones=built.rows - present.ranker.num_live,
    )

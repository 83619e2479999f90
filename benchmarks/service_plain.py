"""What most would write: a FastAPI handler that runs one fp32 forward pass of torch a request.

python -m benchmarks.service_plain --index ROOT --port 8001
"""

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

from index.searcher import Searcher
from multigrain.embedder import Embedder

NUM_NEIGHBOURS = 10


def create_app(index: Path) -> FastAPI:
    """One model, one handler on Starlette's threads."""
    searcher = Searcher.open(index)
    embedder = Embedder.open(searcher.checkpoint_path, engine="torch", precision="fp32")
    app = FastAPI()

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/search")
    def search(image: UploadFile) -> list[dict[str, Any]]:
        rows = embedder.embed_pixels([embedder.read(image.file.read()).pixels])
        (found,) = searcher.search(rows, NUM_NEIGHBOURS)
        return [hit._asdict() for hit in found]

    return app


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    uvicorn.run(create_app(given.index), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()

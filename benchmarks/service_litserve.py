"""LitServe with the service's own model, decoding and index: batches of eight, as it makes them.

    PYTHONPATH=DIR python -m benchmarks.service_litserve --index ROOT --cache DIR --port 8002

DIR holds litserve, pyzmq and psutil; the rest is shared with the service. LitServe decodes the
photos of a batch on a pool of threads of ours: by itself it decodes one after the other.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import litserve
from fastapi import UploadFile

from index.searcher import Searcher
from index.searching.neighbours import Neighbour
from multigrain.cpus import num_cpus
from multigrain.embedder import Embedder

BATCH_SIZE = 8
BATCH_TIMEOUT_SECONDS = 0.004
TIMEOUT_SECONDS = 60
NUM_NEIGHBOURS = 10


class SearchAPI(litserve.LitAPI):  # type: ignore[misc] # its environment is not that of mypy
    """A photo in, neighbours out."""

    def __init__(self, index: Path, cache: Path) -> None:
        super().__init__(
            max_batch_size=BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_SECONDS, api_path="/search"
        )
        self._index, self._cache = index, cache

    def setup(self, device: str) -> None:
        """Open the parts, in the worker's process."""
        del device
        self._searcher = Searcher.open(self._index)
        self._embedder = Embedder.open(self._searcher.checkpoint_path, cache_dir=self._cache)
        self._embedder.warm({1, BATCH_SIZE})
        self._decoders = ThreadPoolExecutor(num_cpus())

    def decode_request(self, request: UploadFile) -> bytes:
        """The photo's bytes."""
        photo: bytes = request.file.read()
        return photo

    def batch(self, inputs: list[bytes]) -> list[Any]:
        """Decode the photos of a batch."""
        return list(self._decoders.map(self._embedder.read, inputs))

    def predict(self, x: list[Any]) -> list[list[Neighbour]]:
        """Embed and search a batch."""
        rows = self._embedder.embed_pixels([one.pixels for one in x], BATCH_SIZE)
        return self._searcher.search(rows, NUM_NEIGHBOURS)

    def unbatch(self, output: list[list[Neighbour]]) -> list[list[Neighbour]]:
        """One answer a photo."""
        return output

    def encode_response(self, output: list[Neighbour]) -> list[dict[str, Any]]:
        """Hits as JSON."""
        return [hit._asdict() for hit in output]


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    server = litserve.LitServer(
        SearchAPI(given.index, given.cache), accelerator="cpu", timeout=TIMEOUT_SECONDS
    )
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()

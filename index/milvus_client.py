"""A connection to Milvus, and its errors as an index's user sees them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from index.errors import BackendAwayError, IndexFolderError
from index.milvus_address import MilvusAddress

ID = "id"
EMBEDDING = "embedding"
# The rows are unit vectors, but for fp16's rounding.
METRIC = "COSINE"
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0


@contextmanager
def milvus_errors(
    address: MilvusAddress, *, doing: str, kind: type[IndexFolderError] = IndexFolderError
) -> Iterator[None]:
    """Turn Milvus's errors into one of ours, naming the address and what to do."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise kind(_message(address, doing, error.message)) from error
    except RpcError as error:
        raise kind(_message(address, doing, str(error))) from error


def _message(address: MilvusAddress, doing: str, said: str) -> str:
    first = said.strip().partition("\n")[0] or "no answer"
    if "auth" in first.lower():
        remedy = "give USER:PASSWORD@ in --milvus-uri or MULTIGRAIN_MILVUS_URI"
    elif address.file is not None:
        remedy = "one process at a time opens a file of Milvus Lite; end the other, then run again"
    else:
        remedy = "start it, or give its address as --milvus-uri or in MULTIGRAIN_MILVUS_URI"
    return f"milvus {address.uri}: {doing}: {first}; {remedy}"


def open_client(address: MilvusAddress) -> Any:
    """Connect; raises IndexFolderError without pymilvus, BackendAwayError without an answer.

    By a connection of its own: one that is shared, and lost, would be tried for minutes.
    """
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise IndexFolderError(
            "Milvus needs pymilvus: install multigrain-retrieval[milvus]"
        ) from None
    # It logs a traceback for whatever it raises.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    if address.file is not None:
        address.file.parent.mkdir(parents=True, exist_ok=True)
    with milvus_errors(address, doing="connecting", kind=BackendAwayError):
        return MilvusClient(
            address.uri, token=address.token, timeout=_CONNECT_SECONDS, dedicated=True
        )


def num_rows_of(client: Any, collection: str) -> int:
    """How many rows a loaded collection holds, whatever was written last."""
    found = client.query(
        collection,
        filter="",
        output_fields=["count(*)"],
        consistency_level="Strong",
        timeout=_ANSWER_SECONDS,
    )
    return int(found[0]["count(*)"])


def is_there(client: Any, collection: str) -> bool:
    """Whether a collection, or an alias of one, is there."""
    return bool(client.has_collection(collection, timeout=_ANSWER_SECONDS))

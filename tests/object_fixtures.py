"""A real S3 server on this machine, for who reads from object stores and writes to them."""

from collections.abc import Iterator

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from multigrain.locations import Url


@pytest.fixture(scope="module")
def s3() -> Iterator[S3FileSystem]:
    """A server with the bucket `bucket`; the environment leads its clients there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()  # those of another server
        files = S3FileSystem(use_listings_cache=False)
        files.mkdir("bucket")
        yield files
        files.rm("bucket", recursive=True)  # servers of one process have one memory
    server.stop()
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def memory() -> Iterator[Url]:
    """An address in this process's memory, where nothing lies."""
    yield Url("memory://tests/photos")
    files = MemoryFileSystem()
    if files.exists("/tests/photos"):
        files.rm("/tests/photos", recursive=True)

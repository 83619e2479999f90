"""Who proposes candidates: faiss in the index's own lists, or a Milvus that has the rows."""

from typing import Any, Literal, NamedTuple

from pydantic import Field, SecretStr

from index.errors import IndexFolderError
from index.manifest import Manifest, MilvusPart

BackendName = Literal["faiss", "milvus"]


class Backend(NamedTuple):
    """What was asked for: without a name, what the index was published for.

    `uri` is Milvus's address with its secrets; without it the manifest's, which has none.
    """

    name: BackendName | None = None
    uri: SecretStr | None = None

    def milvus_uri(self, recorded: MilvusPart | None, *, index: str) -> str | None:
        """The address of the Milvus that is meant; None: faiss. Raises IndexFolderError."""
        is_milvus = self.name == "milvus" or (self.name is None and recorded is not None)
        if not is_milvus:
            if self.uri is not None:
                raise IndexFolderError(
                    f"{index}: not searched on Milvus, so leave out --milvus-uri and "
                    "MULTIGRAIN_MILVUS_URI, or give --backend milvus to index.build"
                )
            return None
        if self.uri is not None:
            return self.uri.get_secret_value()
        if recorded is None:
            raise IndexFolderError(
                "--backend milvus: give its address as --milvus-uri or in MULTIGRAIN_MILVUS_URI"
            )
        return recorded.uri

    def milvus_of(self, manifest: Manifest, *, index: str) -> tuple[str, MilvusPart] | None:
        """Address and collection a generation is read from; None: faiss. Raises the same."""
        if self.name == "milvus" and manifest.milvus is None:
            raise IndexFolderError(
                f"{index}: generation {manifest.generation} is in no Milvus; run index.build "
                "--backend milvus --milvus-uri URI, or search with --backend faiss"
            )
        uri = self.milvus_uri(manifest.milvus, index=index)
        return None if uri is None or manifest.milvus is None else (uri, manifest.milvus)


PUBLISHED_FOR = Backend()
FAISS = Backend("faiss")


def backend_field() -> Any:
    """Who searches."""
    return Field(
        default=None,
        description="who finds candidates: faiss in the index's own lists, or milvus, which "
        "index.build --backend milvus has given the rows; unset: as the index was built",
    )


def milvus_uri_field() -> Any:
    """Where Milvus is."""
    return Field(
        default=None,
        description="Milvus, as http://USER:PASSWORD@HOST:19530, or a file NAME.db for Milvus "
        "Lite; unset: as the index names it, without a password",
    )

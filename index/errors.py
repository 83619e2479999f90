"""What can be wrong with an index folder, as its user sees it."""

from multigrain.errors import MultiGrainError


class IndexFolderError(MultiGrainError):
    """An index folder cannot be opened, searched or built; the message names the file."""


class FaissMissingError(IndexFolderError):
    """faiss is not installed, so nothing can be indexed or searched."""

    def __init__(self) -> None:
        super().__init__(
            "faiss is not installed: install multigrain-retrieval[cpu] or multigrain-retrieval[gpu]"
        )


class BackendAwayError(IndexFolderError):
    """Milvus or a catalog's database gives no answer: no generation of a folder opens there."""


class DiskFullError(IndexFolderError):
    """No space is left for the folder; the message says how many bytes are needed and free."""


class BuilderBusyError(IndexFolderError):
    """Another builder holds the folder's LOCK."""


class OtherCheckpointError(IndexFolderError):
    """The folder was built with another checkpoint: embeddings of two models never mix."""


class RecallNotReachedError(IndexFolderError):
    """A recall was asked for that no measured search of this generation reaches."""


class NotCalibratedError(IndexFolderError):
    """A probability was asked for, and nobody has calibrated the index."""


class ChangesRefusedError(IndexFolderError):
    """Adds and deletes are not taken: the folder is read-only, or made before there were any."""


class OnlyReadError(ChangesRefusedError):
    """The folder is a copy of an index in an object store, which nobody changes here."""


class NotWriterError(IndexFolderError):
    """Another process is the one whose adds and deletes are taken."""


class WorkerError(IndexFolderError):
    """A process that embeds for a build failed, ended or hangs; the message says which."""

"""What a process does that is not the first of its build: joins it, and embeds until it ends."""

from collections.abc import Callable
from multiprocessing.connection import Connection

from index.collection.reading import PhotoEmbedder
from index.embedding.meeting import join
from index.embedding.messages import End, Failed, Joined, ModelName
from index.embedding.place import Place
from index.embedding.worker import EXIT_ALONE, Worker
from multigrain.errors import MultiGrainError


def help_build(
    place: Place,
    open_embedder: Callable[[ModelName], PhotoEmbedder],
    *,
    num_threads: int,
    timeout_seconds: float,
) -> int:
    """Embed for the first process; gives the build's exit status, 1 where that vanished.

    Says nothing: what goes wrong here is told to the first process. Raises WorkerError where that
    is not found.
    """
    connection = join(place, timeout_seconds=timeout_seconds)
    try:
        model = connection.recv()
        if isinstance(model, End):
            return model.status
        embedder = open_embedder(model)
    except (EOFError, OSError):
        return EXIT_ALONE
    except MultiGrainError as error:
        connection.send(Failed(str(error)))
        return _status_in_the_end(connection)
    connection.send(Joined(ModelName.of(embedder), num_threads))
    return Worker(connection, embedder, num_threads=num_threads).serve()


def _status_in_the_end(connection: Connection) -> int:
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return EXIT_ALONE
        if isinstance(message, End):
            return message.status

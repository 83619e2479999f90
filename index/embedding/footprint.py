"""What embedding takes in memory, by arithmetic."""

from index.embedding.ledger import DURABLE_ROWS
from index.embedding.model_rows import BATCHES_PER_BLOCK
from multigrain.transforms import Preprocessing

# A JPEG is decoded at less than 3 times the side that the model is given.
_DECODED_OVER_PIXELS = 9
# A content, its hash, and its photo, as objects, until they are committed.
_OUTCOME_BYTES = 700
# The head of a known content's hash, thrice while new ones are taken in.
_KNOWN_BYTES = 3 * 8


def embedding_bytes(
    preprocessing: Preprocessing,
    *,
    num_photos: int,
    num_known: int,
    batch_size: int,
    num_threads: int,
) -> int:
    """The most memory that reading and embedding take beside the model and what a process has.

    The pixels of a block, of those read ahead of it and of a batch; a photo being decoded by each
    thread, as a JPEG; what is settled and not yet durable; and the heads of known hashes.
    """
    pixels = max(height * width for height, width in preprocessing.shapes()) * 3
    num_held = 2 * BATCHES_PER_BLOCK * batch_size + 2 * num_threads + batch_size
    held = min(num_photos, num_held) * pixels
    decoding = min(num_photos, num_threads) * pixels * _DECODED_OVER_PIXELS
    return (
        held + decoding + min(num_photos, DURABLE_ROWS) * _OUTCOME_BYTES + num_known * _KNOWN_BYTES
    )

"""How much computing an index takes, by arithmetic: comparisons of a row with a centroid."""

from typing import NamedTuple

from index.codebook.kmeans import NUM_ITERATIONS, TWO_LEVELS_FROM
from index.faiss_train import TRAIN_ROWS_PER_LIST, list_shape

# A graph over the centroids finds a row's list in the time of about so many comparisons.
_GRAPH_COMPARISONS = 16_384


class Comparisons(NamedTuple):
    """Comparisons that training a codebook takes, and that giving each row its list takes."""

    train: float
    assign: float


def comparisons(
    factory: str, *, num_trained: int, num_encoded: int, dim: int, is_on_gpu: bool
) -> Comparisons:
    """For so many rows of D values; raises IndexFolderError for a string not served."""
    shape = list_shape(factory, dim=dim)
    num_sampled = min(num_trained, TRAIN_ROWS_PER_LIST * shape.nlist)
    is_two_level = shape.nlist >= TWO_LEVELS_FROM and not is_on_gpu
    per_row = 2 * shape.nlist**0.5 if is_two_level else shape.nlist
    is_graph = shape.num_links and not is_on_gpu
    return Comparisons(
        num_sampled * per_row * NUM_ITERATIONS,
        num_encoded * (_GRAPH_COMPARISONS if is_graph else shape.nlist),
    )

"""Training a codebook: spherical k-means and the codec, into an empty faiss index.

Letters: D embedding, n sampled rows.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.faiss_module import load_faiss, write_faiss

# faiss trains more kinds than it searches by preassigned lists and a bitmap of live rows (LSQ, RQ);
# others need a transform of the query, or values that are no unit vector's (SQ8_direct).
_SERVED = re.compile(
    r"Flat|IVF[1-9][0-9]{0,7}(_HNSW[1-9][0-9]{0,3})?,"
    r"(Flat|SQ(4|6|8|fp16|bf16)|PQ[0-9]{1,4}(x[0-9]{1,2})?(np|fs)?|RaBitQ)"
)
_ITERATIONS = 10
_HNSW_EF_CONSTRUCTION = 200
TRAIN_ROWS_PER_LIST = 64


class Training(NamedTuple):
    """What training gave: number of lists (0: Flat) and how uneven they are (1: even)."""

    nlist: int
    imbalance: float


def num_lists(factory: str, *, dim: int) -> int:
    """The lists of a faiss string, 0 for Flat; raises IndexFolderError for one not served."""
    index = _create(factory, dim=dim)
    ivf = _as_ivf(index)
    return int(ivf.nlist) if ivf is not None else 0


def train_codebook(
    factory: str, sample: NDArray[np.float32], path: Path, *, seed: int, num_threads: int
) -> Training:
    """Train an inner-product index on sampled unit rows [n, D] and write it, empty, to `path`.

    The same rows, seed and threads give the same bytes. Raises IndexFolderError when faiss
    refuses, for example because there are fewer rows than lists.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(num_threads)
    index = _create(factory, dim=sample.shape[1])
    ivf = _as_ivf(index)
    if ivf is not None:
        _prepare(ivf, seed=seed)
        try:
            ivf.train(np.ascontiguousarray(sample, dtype=np.float32))
        except RuntimeError as error:
            raise IndexFolderError(
                f"{factory} cannot be trained on {len(sample)} rows: {error}"
            ) from error
    write_faiss(index, path)
    if ivf is None:
        return Training(0, 1.0)
    return Training(int(ivf.nlist), _imbalance(ivf, sample))


def _create(factory: str, *, dim: int) -> Any:
    faiss = load_faiss()
    if not _SERVED.fullmatch(factory):
        raise IndexFolderError(
            f"factory {factory!r} is not served: use Flat, or IVF<lists>[_HNSW<links>],<code> with "
            "a code of Flat, SQ4, SQ6, SQ8, SQfp16, SQbf16, PQ<m>, PQ<m>np, PQ<m>x4fs or RaBitQ"
        )
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise IndexFolderError(
            f"factory {factory!r}: faiss does not know it for {dim} dimensions"
        ) from error
    return index


def _as_ivf(index: Any) -> Any | None:
    return index if isinstance(index, load_faiss().IndexIVF) else None


def _prepare(ivf: Any, *, seed: int) -> None:
    faiss = load_faiss()
    ivf.cp.spherical = True
    ivf.cp.seed = seed
    ivf.cp.niter = _ITERATIONS
    if isinstance(ivf.quantizer, faiss.IndexHNSW):
        ivf.quantizer.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION


def _imbalance(ivf: Any, sample: NDArray[np.float32]) -> float:
    _, lists = ivf.quantizer.search(sample, 1)
    sizes = np.bincount(lists[:, 0], minlength=ivf.nlist).astype(np.float64)
    return float(ivf.nlist * (sizes**2).sum() / sizes.sum() ** 2)

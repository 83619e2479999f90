"""Training a codebook: spherical k-means and the codec, into an empty faiss index.

Letters: D embedding, n sampled rows.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.codebook.kmeans import TWO_LEVELS_FROM, Clusters, spherical_kmeans, two_level_kmeans
from index.codebook.rotation import Rotation
from index.errors import IndexFolderError
from index.faiss_gpu import FaissDevice
from index.faiss_module import coarse_of, load_faiss, write_faiss
from index.searching.half import as_fp32
from index.store import Rows16

# faiss trains more kinds than it searches by preassigned lists and a bitmap of live rows (LSQ, RQ);
# others need a transform of the query, or values that are no unit vector's (SQ8_direct). faiss
# dies of a graph of one link.
_SERVED = re.compile(
    r"Flat|IVF[1-9][0-9]{0,7}(_HNSW([2-9]|[1-9][0-9]{1,3}))?,"
    r"(Flat|SQ(4|6|8|fp16|bf16)|PQ[0-9]{1,4}(x[0-9]{1,2})?(np|fs)?|RaBitQ)"
)
# The codes that need no training still ask for rows.
_LEAST_CODEC_ROWS = 1_000
_ID_BYTES = 8
_HNSW_EF_CONSTRUCTION = 200
_LEAST_EF_SEARCH = 64
TRAIN_ROWS_PER_LIST = 64


class Training(NamedTuple):
    """What training gave: number of lists (0: Flat) and how uneven they are (1: even)."""

    nlist: int
    imbalance: float


class ListShape(NamedTuple):
    """What a faiss string costs: lists (0: Flat), bytes a row with its id, links a centroid.

    `codec_rows` of the sample, at most, train the code.
    """

    nlist: int
    row_bytes: int
    num_links: int
    codec_rows: int


def list_shape(factory: str, *, dim: int) -> ListShape:
    """The shape of a faiss string's lists; raises IndexFolderError for one not served."""
    index = _create(factory, dim=dim)
    ivf = _as_ivf(index)
    if ivf is None:
        return ListShape(0, int(index.code_size), 0, 0)
    hnsw = getattr(coarse_of(ivf), "hnsw", None)
    num_links = int(hnsw.nb_neighbors(0)) if hnsw is not None else 0
    row_bytes = int(ivf.code_size) + _ID_BYTES
    return ListShape(int(ivf.nlist), row_bytes, num_links, _num_codec_rows(ivf))


def num_lists(factory: str, *, dim: int) -> int:
    """The lists of a faiss string, 0 for Flat; raises IndexFolderError for one not served."""
    return list_shape(factory, dim=dim).nlist


def train_codebook(
    factory: str,
    sample: Rows16,
    path: Path,
    *,
    rotation: Rotation,
    seed: int,
    num_threads: int,
    device: str = "cpu",
    faiss_device: FaissDevice | None = None,
    two_levels_from: int = TWO_LEVELS_FROM,
) -> Training:
    """Train an inner-product index on sampled unit rows fp16 [n, D] and write it, empty, to `path`.

    The centroids come from spherical k-means, in two levels from so many lists on where `device`
    is no GPU; the code is trained by faiss on some of the rows, rotated, on `faiss_device` where
    that is one. The same rows, seed, devices and threads give the same bytes. Raises
    IndexFolderError when faiss refuses, or there are fewer rows than lists.
    """
    faiss = load_faiss()
    faiss.omp_set_num_threads(num_threads)
    index = _create(factory, dim=sample.shape[1])
    ivf = _as_ivf(index)
    training = Training(0, 1.0)
    if ivf is not None:
        try:
            clusters = _cluster(
                sample, ivf.nlist, seed=seed, device=device, two_levels_from=two_levels_from
            )
            _take_centroids(ivf, rotation.apply(clusters.centroids))
            rows = rotation.apply(_codec_rows(ivf, sample, seed=seed))
            index = _with_code(ivf, rows, faiss_device)
        except (RuntimeError, ValueError) as error:
            raise IndexFolderError(
                f"{factory} cannot be trained on {len(sample)} rows: {error}"
            ) from error
        training = Training(int(ivf.nlist), imbalance(clusters.sizes))
    write_faiss(index, path)
    return training


def imbalance(sizes: NDArray[np.int64]) -> float:
    """How uneven lists are, 1 for even: what a search reads, over what even lists would cost."""
    squares, total = float((sizes.astype(np.float64) ** 2).sum()), float(sizes.sum())
    return len(sizes) * squares / total**2 if total else 1.0


def _cluster(
    sample: Rows16, num_lists: int, *, seed: int, device: str, two_levels_from: int
) -> Clusters:
    is_two_level = num_lists >= two_levels_from and not device.startswith("cuda")
    train = two_level_kmeans if is_two_level else spherical_kmeans
    return train(sample, num_lists, seed=seed, device=device)


def _take_centroids(ivf: Any, centroids: NDArray[np.float32]) -> None:
    """Fill the coarse quantizer, which faiss then takes for trained."""
    faiss, coarse = load_faiss(), coarse_of(ivf)
    if isinstance(coarse, faiss.IndexHNSW):
        coarse.hnsw.efConstruction = _HNSW_EF_CONSTRUCTION
        coarse.hnsw.efSearch = _LEAST_EF_SEARCH  # of rows being added; a search says its own
    # On one thread: several link a graph by chance.
    num_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    coarse.add(centroids)
    faiss.omp_set_num_threads(num_threads)


def _with_code(ivf: Any, rows: NDArray[np.float32], faiss_device: FaissDevice | None) -> Any:
    """The index with its code trained on rows fp32 [n, D]; it keeps its centroids."""

    def train(device: FaissDevice) -> Any:
        on_gpu = device.copied_in(ivf)
        on_gpu.train(rows)
        trained = device.copied_out(on_gpu)
        centroids = [coarse_of(one).reconstruct_n(0, ivf.nlist) for one in (ivf, trained)]
        if not np.array_equal(*centroids):
            raise RuntimeError("faiss-gpu made centroids of its own")
        return trained

    trained = faiss_device.on_gpu(train) if faiss_device else None
    if trained is None:
        ivf.train(rows)
        return ivf
    return trained


def _codec_rows(ivf: Any, sample: Rows16, *, seed: int) -> NDArray[np.float32]:
    """As many random rows, fp32, as faiss would take of the sample to train the code on."""
    num_rows = min(len(sample), _num_codec_rows(ivf))
    chosen = np.random.default_rng(seed).choice(len(sample), num_rows, replace=False)
    return as_fp32(sample[np.sort(chosen)])


def _num_codec_rows(ivf: Any) -> int:
    """The most rows faiss learns a code from; it asks for them too where nothing is to be learnt.

    Values of 16 bits stay what they are, but every row would be compared with every centroid.
    """
    faiss = load_faiss()
    if isinstance(ivf, faiss.IndexIVFScalarQuantizer) and ivf.sq.qtype in (
        faiss.ScalarQuantizer.QT_fp16,
        faiss.ScalarQuantizer.QT_bf16,
    ):
        return _LEAST_CODEC_ROWS
    return max(int(ivf.train_encoder_num_vectors()), _LEAST_CODEC_ROWS)


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

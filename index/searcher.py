"""One generation of an index folder, opened for searching."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from index.backend import FAISS, Backend
from index.catalog_opening import open_catalog
from index.catalog_reader import Content
from index.changes.follower import Follower
from index.changes.segment import Segment
from index.errors import IndexFolderError, NotCalibratedError
from index.faiss_gpu import FaissDevice
from index.layout import Layout
from index.manifest import Manifest
from index.milvus_lists import MilvusLists
from index.searching.canaries import CanaryEmbedder, check_embeddings, replay
from index.searching.neighbours import Neighbour, known_neighbours
from index.searching.opening import check_files, open_current, open_newest
from index.searching.present import Present
from index.searching.ranker import Ranker
from index.searching.reranking import Rerank, reranked
from index.searching.scoring import Ranked
from index.searching.where import Filter
from index.tuning.curve import search_depth
from index.upkeep.check import check_generation
from multigrain.calibration import Calibration
from multigrain.locations import Url


class SearcherOptions(TypedDict, total=False):
    """How a generation is opened; answers are the same.

    `mapped` leaves the lists in their files, whose pages the system reads when a search needs
    them. On a `device` of "cuda" or "cuda:N" faiss-gpu searches the lists; without it, or for
    codes it does not know, the CPU does, after one line. `catalog` is the address, with its
    password, of the database a catalog was put into, and a `backend` of milvus finds candidates
    in the collection that the rows were put into.
    """

    mapped: bool
    device: str
    catalog: SecretStr | None
    backend: Backend


class Searcher:
    """Searches one generation and what changed since; safe under concurrent callers."""

    def __init__(
        self,
        layout: Layout,
        manifest: Manifest,
        held: BinaryIO,
        *,
        mapped: bool = False,
        device: str = "cpu",
        catalog: SecretStr | None = None,
        backend: Backend = FAISS,
    ) -> None:
        self._layout, self._held = layout, held
        self.manifest = manifest
        self.generation = manifest.generation
        self.dim = manifest.model.D
        self.fingerprint = manifest.model.fingerprint
        self.checkpoint_path = layout.checkpoint(self.fingerprint)
        live = check_files(layout, manifest)
        with ExitStack() as opened:
            lists = _milvus_lists(layout, manifest, backend, live, device=device)
            if lists is not None:
                opened.callback(lists.close)
            self._ranker = Ranker(
                layout,
                codebook=manifest.codebook,
                shards=manifest.shards,
                live=live,
                dim=self.dim,
                mapped=mapped,
                lists=lists,
            )
            replay(manifest, self._ranker)
            self._ranker.search_on(FaissDevice(device))
            self._catalog = open_catalog(layout, manifest, catalog=catalog)
            opened.callback(self._catalog.close)
            self._catalog.check()
            self._follower = Follower(layout, manifest, self._catalog)
            recent = self._follower.refresh()
            self._opened = opened.pop_all()
        self._refreshing = threading.Lock()
        self._present = Present(self._ranker.without(recent.hidden), self._catalog, recent)

    @classmethod
    def open(cls, root: Path, **options: Unpack[SearcherOptions]) -> Self:
        """Open the generation CURRENT names, or, with a warning, the newest one that opens.

        Raises IndexFolderError naming the damaged file when none opens.
        """
        return open_newest(Layout(Path(root)), partial(cls, **options))

    @classmethod
    def open_current(cls, root: Path, **options: Unpack[SearcherOptions]) -> Self:
        """Open the generation CURRENT names and no other; raises IndexFolderError."""
        return open_current(Layout(Path(root)), partial(cls, **options))

    def refresh(self) -> bool:
        """Take in what was added and deleted since the last call; whether there was anything.

        A search under way goes on with what it began with. Raises IndexFolderError where the
        journal cannot be read.
        """
        with self._refreshing:
            recent, before = self._follower.refresh(), self._present
            if recent is before.recent:
                return False
            gone = recent.hidden.behind(len(before.recent.hidden))
            self._present = Present(before.ranker.without(gone), self._catalog, recent)
            return True

    def open_segment(self) -> Segment | None:
        """Where the next change belongs; None where no build has made the folder ready for any."""
        with self._refreshing:
            return self._follower.open_segment

    @property
    def present(self) -> Present:
        """What can be found now; it stays as it is while changes come in."""
        return self._present

    @property
    def num_live(self) -> int:
        """How many contents can be found."""
        return self._present.num_live

    @property
    def num_added(self) -> int:
        """How many of them were added since the generation was built."""
        return len(self._present.recent.ids)

    @property
    def calibration(self) -> Calibration | None:
        """From cosines to probabilities; None where nobody calibrated the index."""
        part = self.manifest.calibration
        return None if part is None else part.curve

    @property
    def nlist(self) -> int:
        """The number of lists; 0 where every search compares every row."""
        return self._ranker.nlist

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        nprobe: int | None = None,
        recall: float | None = None,
        exact: bool = False,
        allowed: NDArray[np.int64] | None = None,
        rerank: Rerank = Rerank.NONE,
    ) -> list[list[Neighbour]]:
        """The k nearest contents of each query, fp32 [Q, D]: `rank`, then `neighbours`."""
        ranked = self.rank(
            queries, k, nprobe=nprobe, recall=recall, exact=exact, allowed=allowed, rerank=rerank
        )
        return self.neighbours(ranked)

    def rank(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        nprobe: int | None = None,
        recall: float | None = None,
        exact: bool = False,
        allowed: NDArray[np.int64] | None = None,
        rerank: Rerank = Rerank.NONE,
    ) -> list[Ranked]:
        """Ids and exact cosines of the k nearest contents of each query fp32 [Q, D], best first.

        Ties are ordered by id; fewer than k when fewer exist. The search is the tuned one, or
        with `recall` the fastest measured one that reaches it; `nprobe` lists are searched
        whatever was measured, and `exact` compares every row. `allowed` holds the ids that may be
        found, int64 [n], ascending; dead and unknown ones are left out. `rerank` orders what is
        found otherwise than by cosine. Raises IndexFolderError for a wrong shape, a number out
        of range, or a query that is zero or not finite; RecallNotReachedError.
        """
        depth, present = search_depth(self.manifest, recall), self._present
        search = partial(
            present.search,
            nprobe=depth.nprobe if nprobe is None else nprobe,
            rerank=depth.rerank,
            exact=exact,
            allowed=allowed,
        )
        return reranked(
            rerank, np.asarray(queries), k, search=search, embeddings=present.embeddings
        )

    def neighbours(self, ranked: Sequence[Ranked]) -> list[list[Neighbour]]:
        """What is known of ranked contents, also of those deleted since; one query for all."""
        return known_neighbours(ranked, self._present, self.calibration)

    def embedding(self, id: int) -> NDArray[np.float32] | None:  # noqa: A002 - the index's word for a row
        """The stored embedding of a content, unit fp32 [D]; None for an unknown or dead id."""
        return self.embeddings([id])[0] if self._present.is_live(id) else None

    def embeddings(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The stored embeddings of live contents, unit fp32 [n, D], in the order of the ids."""
        return self._present.embeddings(ids)

    def contents(self, ids: Sequence[int]) -> list[Content]:
        """What is known of live contents, by id; unknown and dead ids are left out."""
        return self._present.contents(ids)

    def scroll(self, *, after: int, limit: int, filters: Sequence[Filter] = ()) -> list[int]:
        """Ids in their order, `limit` at most, of those above `after` that `matching` gives.

        Raises IndexFolderError for a filter that cannot be asked of this index.
        """
        return self._present.scroll(after=after, limit=limit, filters=filters)

    def require_columns(self, filters: Sequence[Filter]) -> None:
        """Refuse filters that cannot be asked of this index; raises IndexFolderError."""
        self._catalog.require_columns(filters)

    def matching(self, filters: Sequence[Filter]) -> NDArray[np.int64]:
        """The contents with a live photo that meets every filter: ids int64 [n], ascending.

        Raises IndexFolderError for a filter that cannot be asked of this index.
        """
        return self._present.matching(filters)

    def require_recall(self, recall: float) -> None:
        """Refuse a recall no measured search reaches; raises RecallNotReachedError naming those."""
        search_depth(self.manifest, recall)

    def require_calibration(self) -> Calibration:
        """The curve by which probabilities are told; raises NotCalibratedError without one."""
        if self.calibration is None:
            raise NotCalibratedError(
                f"{self._layout.root}: not calibrated, so no probability is known; run "
                "python -m index.calibrate"
            )
        return self.calibration

    def photo_path(self, id: int) -> Path | Url | None:  # noqa: A002 - the index's word for a row
        """The first live photo file of a content, absolute; None for an unknown or dead id.

        An address where it lies in an object store, which is not asked whether it is there.
        """
        entry = self._present.entries([id]).get(id)
        if entry is None:
            return None
        return next((one for one in entry.files if _may_be_there(one)), entry.files[0])

    def read_photo(self, id: int) -> bytes | None:  # noqa: A002 - the index's word for a row
        """The bytes of a content, from the first live file that still holds them; else None.

        A file that was changed, or swapped for another photo, is not the one that was indexed.
        """
        return self._present.read_photo(id)

    def require_model(self, embedder: CanaryEmbedder) -> None:
        """Refuse a model that did not make the rows; raises IndexFolderError."""
        if embedder.fingerprint != self.fingerprint:
            raise IndexFolderError(
                f"{self._layout.root}: built with checkpoint {self.fingerprint[:12]}, "
                f"not {embedder.fingerprint[:12]}; give the one it was built with"
            )

    def check_files(self) -> None:
        """Compare every byte with its checksum; raises IndexFolderError naming the file."""
        fault = next(check_generation(self._layout, self.manifest), None)
        if fault is not None:
            raise IndexFolderError(f"{fault.file}: {fault.what}")

    def check_canaries(self, embedder: CanaryEmbedder) -> None:
        """Embed the canaries' photos again and compare; raises IndexFolderError.

        On the engine and precision that built the index the vectors must agree to 0.9999,
        elsewhere their neighbours must overlap. Photos that changed since are passed over.
        """
        self.require_model(embedder)
        check_embeddings(self.manifest, self._ranker, self._catalog, embedder)

    def close(self) -> None:
        """Let the builder remove this generation; no search may follow."""
        self._opened.close()
        self._held.close()


def _milvus_lists(
    layout: Layout,
    manifest: Manifest,
    backend: Backend,
    live: NDArray[np.bool_],
    *,
    device: str,
) -> MilvusLists | None:
    """The collection that is searched instead of the shards' lists."""
    found = backend.milvus_of(manifest, index=str(layout.root))
    if found is None:
        return None
    if device != "cpu":
        raise IndexFolderError(
            f"{layout.root}: --search-device {device} is for the index's own lists; leave it out, "
            "or search with --backend faiss"
        )
    uri, part = found
    return MilvusLists(uri, part, factory=manifest.factory, loaded=np.flatnonzero(live))


def _may_be_there(file: Path | Url) -> bool:
    return not isinstance(file, Path) or file.is_file()

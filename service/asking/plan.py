"""How a query is searched, checked against the index it will be searched in."""

from typing import NamedTuple

from index.errors import IndexFolderError, RecallNotReachedError
from index.searcher import Searcher
from index.searching.reranking import Rerank
from index.searching.where import Filter
from service.asking.filter import filter_problem, parse_filter
from service.asking.search_options import Asked
from service.errors import Fault, validation_problem


class Plan(NamedTuple):
    """The depth of a search, None for the tuned one, what is searched in, and in which order.

    Queries of equal plans are searched together.
    """

    nprobe: int | None = None
    recall: float | None = None
    exact: bool = False
    filters: tuple[Filter, ...] = ()
    rerank: Rerank = Rerank.NONE


class DepthLimits(NamedTuple):
    """The largest nprobe, and the largest collection that is compared whole."""

    max_nprobe: int
    exact_max_photos: int


def plan_of(asked: Asked, searcher: Searcher, limits: DepthLimits) -> Plan:
    """The plan of a search; raises ProblemError for what this index cannot be asked."""
    options = asked.options
    filters = parse_filter(options.filter) if options.filter is not None else ()
    try:
        searcher.require_columns(filters)
    except IndexFolderError as error:
        raise filter_problem(str(error)) from error
    checks = (
        _nprobe_fault(asked, searcher, limits.max_nprobe),
        _recall_fault(asked, searcher),
        _exact_fault(asked, searcher, limits.exact_max_photos),
        _probability_fault(asked, searcher),
    )
    if faults := [fault for fault in checks if fault is not None]:
        raise validation_problem(faults)
    return Plan(options.nprobe, options.recall, options.exact, filters, options.rerank)


def _nprobe_fault(asked: Asked, searcher: Searcher, max_nprobe: int) -> Fault | None:
    most = min(searcher.nlist, max_nprobe)
    if asked.options.nprobe is None or asked.options.nprobe <= most:
        return None
    if searcher.nlist == 0:
        return asked.fault("nprobe", "this index has no lists: every search compares every photo")
    return asked.fault("nprobe", f"at most {most}: the index has {searcher.nlist} lists")


def _recall_fault(asked: Asked, searcher: Searcher) -> Fault | None:
    if asked.options.recall is None:
        return None
    try:
        searcher.require_recall(asked.options.recall)
    except RecallNotReachedError as error:
        return asked.fault("recall", str(error))
    return None


def _exact_fault(asked: Asked, searcher: Searcher, max_photos: int) -> Fault | None:
    if not asked.options.exact or searcher.num_live <= max_photos:
        return None
    msg = f"the index has {searcher.num_live} photos, an exact search is for up to {max_photos}"
    return asked.fault("exact", msg)


def _probability_fault(asked: Asked, searcher: Searcher) -> Fault | None:
    if asked.options.min_probability is None or searcher.calibration is not None:
        return None
    msg = "no probability is known: this index was not calibrated (python -m index.calibrate)"
    return asked.fault("min_probability", msg)

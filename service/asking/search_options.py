"""The parameters of a search: where they stand, what each may be, and which go together."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, WithJsonSchema

from index.searching.alike import DUPLICATE_COSINE, DUPLICATE_PROBABILITY, NUM_COMPARED, Dedup
from index.searching.reranking import Rerank
from multigrain.augmented import Augment
from service.asking.options import FILTER_DESCRIPTION, MAX_WINDOW, TimedOptions
from service.asking.parameters import merged
from service.errors import Fault, validation_problem


class Include(StrEnum):
    """A part of the answer that a client may ask for or leave out."""

    METADATA = "metadata"
    THUMBNAIL_URL = "thumbnail_url"
    EMBEDDING = "embedding"
    QUERY_EMBEDDING = "query_embedding"


_NAMES = "|".join(Include)


def _check_names(text: str) -> str:
    names = text.split(",") if text else []
    unknown = [name for name in names if name not in set(Include)]
    if unknown or len(set(names)) < len(names):
        raise ValueError(f"give each of {', '.join(Include)} at most once, joined by commas")
    return text


_IncludeList = Annotated[
    str,
    AfterValidator(_check_names),
    WithJsonSchema({"type": "string", "pattern": f"^(({_NAMES})(,({_NAMES}))*)?$"}),
]


class SearchOptions(TimedOptions):
    """Parameters of a search, in the query string or as form fields."""

    limit: int = Field(
        10,
        ge=1,
        le=MAX_WINDOW,
        description="how many hits to return; the service's max_limit (100) may allow fewer",
    )
    offset: int = Field(
        0, ge=0, lt=MAX_WINDOW, description=f"hits to pass over; limit + offset <= {MAX_WINDOW}"
    )
    min_score: float | None = Field(
        None, ge=-1, le=1, allow_inf_nan=False, description="smallest cosine of a hit"
    )
    min_probability: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="smallest same_probability of a hit; only where the index is calibrated",
    )
    nprobe: int | None = Field(
        None, ge=1, description="lists to search instead of the tuned number; not with recall"
    )
    recall: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the ten nearest photos to find, of those the index was measured at; "
        "default: the one it was tuned to",
    )
    exact: bool = Field(
        default=False,
        description="compare every photo, where the collection is small enough for it",
    )
    rerank: Rerank = Field(
        Rerank.NONE,
        description="order of the hits: by cosine; aqe: by cosine to the query moved towards its "
        "nearest photos; kreciprocal: of the 200 nearest, those first that share their own "
        "nearest with the query. score stays the cosine to the query",
    )
    augment: Augment = Field(
        Augment.NONE,
        description="what else to search with at once: a photo's mirror image, the photo at half "
        "and twice the area, or both; needs a photo",
    )
    filter: str | None = Field(None, description=FILTER_DESCRIPTION)
    include: _IncludeList = Field(
        f"{Include.METADATA},{Include.THUMBNAIL_URL}",
        description="parts of the answer, joined by commas",
    )
    dedup: Dedup = Field(
        default=False,
        description="collapse hits whose cosine to a better hit is at least this; true: at which "
        f"both show the same thing with a probability of {DUPLICATE_PROBABILITY}, or "
        f"{DUPLICATE_COSINE} where the index is not calibrated. Of the {NUM_COMPARED} nearest",
    )

    @property
    def included(self) -> frozenset[str]:
        """The names of the parts asked for."""
        return frozenset(self.include.split(","))


class Asked(NamedTuple):
    """The parameters of one search, and which of them were form fields."""

    options: SearchOptions
    in_form: frozenset[str] = frozenset()

    def fault(self, name: str, msg: str) -> Fault:
        """What is wrong with a parameter, at the place where it was sent."""
        return Fault(f"{'form' if name in self.in_form else 'query'}.{name}", msg)


def merge_options(in_query: SearchOptions, fields: Sequence[tuple[str, str]]) -> Asked:
    """The parameters of a search, from the query string and the form."""
    return Asked(*merged(in_query, fields))


def check_together(asked: Asked, *, max_limit: int, has_photo: bool = True) -> None:
    """Refuse parameters that contradict each other, or that settings or request do not allow."""
    options = asked.options
    faults = list[Fault]()
    if options.limit > max_limit:
        faults.append(asked.fault("limit", f"at most {max_limit} here"))
    if options.limit + options.offset > MAX_WINDOW:
        msg = f"limit + offset is {options.limit + options.offset}, at most {MAX_WINDOW}"
        faults.append(asked.fault("offset", msg))
    depths = {"exact": options.exact or None, "nprobe": options.nprobe, "recall": options.recall}
    given = [name for name, value in depths.items() if value is not None]
    if len(given) > 1:
        msg = f"{' and '.join(given)} each say how deep to search: give one of them"
        faults.append(asked.fault(given[-1], msg))
    if options.augment != Augment.NONE and not has_photo:
        faults.append(asked.fault("augment", "an embedding has no other looks: send the photo"))
    if faults:
        raise validation_problem(faults)

"""The parameters of a search: where they stand, what each may be, and which go together."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from index.searching.reranking import Rerank
from multigrain.augmented import Augment
from service.errors import Fault, faults_of, validation_problem
from service.ids import MAX_ID

Options = TypeVar("Options", bound=BaseModel)

# Hits beyond this rank are not searched for; paging that deep is an export.
MAX_WINDOW = 1000
DEFAULT_DEDUP_COSINE = 0.98
FILTER_DESCRIPTION = (
    "conditions that the photos found meet, as JSON of at most 4 KB: "
    '{"must": [{"field": "label", "eq": "cat"}], "must_not": [{"field": "width", "lt": 500}]}'
)


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


def _dedup_cosine(given: Any) -> Any:
    """`true` and `false` as the cosines they stand for."""
    return {"true": DEFAULT_DEDUP_COSINE, "false": None}.get(given, given)


_IncludeList = Annotated[
    str,
    AfterValidator(_check_names),
    WithJsonSchema({"type": "string", "pattern": f"^(({_NAMES})(,({_NAMES}))*)?$"}),
]
_DedupCosine = Annotated[
    Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None,
    BeforeValidator(_dedup_cosine),
    WithJsonSchema(
        {"anyOf": [{"type": "boolean"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}
    ),
]


class TimedOptions(BaseModel):
    """What every request that waits for a batch may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_ms: int | None = Field(
        None,
        ge=10,
        le=30_000,
        description="time from the complete body to the answer; default: the service's setting",
    )


class EmbedOptions(TimedOptions):
    """Parameters of POST /embed, in the query string or as form fields."""

    encoding_format: Literal["float", "base64"] = Field(
        "float", description="numbers, or base64 of their little-endian float32 bytes"
    )


class ScrollOptions(BaseModel):
    """Parameters of GET /images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(100, ge=1, le=MAX_WINDOW, description="how many photos to return")
    cursor: int | None = Field(
        None,
        ge=0,
        le=MAX_ID,
        description="the next_cursor of the page before; none: the first page",
    )
    filter: str | None = Field(None, description=FILTER_DESCRIPTION)


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
        description="flip: search with a photo and its mirror image at once; needs a photo",
    )
    filter: str | None = Field(None, description=FILTER_DESCRIPTION)
    include: _IncludeList = Field(
        f"{Include.METADATA},{Include.THUMBNAIL_URL}",
        description="parts of the answer, joined by commas",
    )
    dedup: _DedupCosine = Field(
        None,
        description="collapse hits whose cosine to a better hit is at least this; "
        f"true: {DEFAULT_DEDUP_COSINE}",
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


def refuse_repeats(pairs: Sequence[tuple[str, str]], place: str) -> None:
    """Refuse a parameter sent twice, of which frameworks silently keep one."""
    repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if repeated:
        raise validation_problem([Fault(f"{place}.{name}", "sent twice") for name in repeated])


def refuse_parameters(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse every parameter of a route that takes none."""
    if pairs:
        raise validation_problem([Fault(f"query.{name}", "unknown") for name, _ in pairs])


def merge_options(in_query: SearchOptions, fields: Sequence[tuple[str, str]]) -> Asked:
    """The parameters of a search, from the query string and the form."""
    return Asked(*merged(in_query, fields))


def merged(in_query: Options, fields: Sequence[tuple[str, str]]) -> tuple[Options, frozenset[str]]:
    """Add the form's parameters to the query string's, and name them; one in both is refused."""
    refuse_repeats(fields, "form")
    try:
        in_form = type(in_query).model_validate(dict(fields))
    except ValidationError as error:
        raise validation_problem(faults_of(error.errors(), "form")) from error
    twice = in_query.model_fields_set & in_form.model_fields_set
    if twice:
        msg = "sent in the query string and in the form"
        raise validation_problem([Fault(f"form.{name}", msg) for name in sorted(twice)])
    both = in_query.model_copy(update=in_form.model_dump(exclude_unset=True))
    return both, frozenset(in_form.model_fields_set)


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
        faults.append(asked.fault("augment", "an embedding has no mirror image: send the photo"))
    if faults:
        raise validation_problem(faults)

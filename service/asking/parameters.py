"""Parameters as they arrive, in a query string or a form: unknown, repeated, in both."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import Fault, faults_of, validation_problem

Options = TypeVar("Options", bound=BaseModel)


def refuse_repeats(pairs: Sequence[tuple[str, str]], place: str) -> None:
    """Refuse a parameter sent twice, of which frameworks silently keep one."""
    repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if repeated:
        raise validation_problem([Fault(f"{place}.{name}", "sent twice") for name in repeated])


def read_query(kind: type[Options], pairs: Sequence[tuple[str, str]]) -> Options:
    """The parameters of a query string; raises ProblemError."""
    refuse_repeats(pairs, "query")
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        raise validation_problem(faults_of(error.errors(), "query")) from error


def refuse_parameters(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse every parameter of a route that takes none."""
    if pairs:
        raise validation_problem([Fault(f"query.{name}", "unknown") for name, _ in pairs])


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

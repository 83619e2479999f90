"""The JSON of an error."""

from pydantic import BaseModel


class Fault(BaseModel):
    """One invalid parameter: where it stands, `query.limit`, and what is wrong with it."""

    loc: str
    msg: str


class Problem(BaseModel):
    """An error (RFC 9457) with a stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[Fault] = []

"""What a report shows that cannot be computed again from a run's folder: report.json."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from multigrain.errors import MultiGrainError
from multigrain.files import atomic_write_text
from trainer.finishing.exponent_choice import Choice

REPORT_DATA = "report.json"


class ReportError(MultiGrainError):
    """A run's folder that no report can be made from."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scores(_Part):
    """Scores of the validation photos at one stage of the run's end."""

    stage: str
    scores: dict[str, float]


class Spectrum(_Part):
    """A whitening: how it was fitted, and eigenvalues as shares of the largest, by rank."""

    num_dims: int
    kept: int
    power: float
    floor: float
    photos: int
    size: int
    ranks: tuple[int, ...]  # from 1
    shares: tuple[float, ...]


class Histogram(_Part):
    """Counts of distances in equal bins of 0..2, of pairs that belong together and others."""

    of: str
    together: tuple[int, ...]
    apart: tuple[int, ...]


class Shown(_Part):
    """A photo in the report: its name, class, a JPEG data URI, and how it was found."""

    name: str
    label: str | None
    picture: str
    distance: float | None = None
    right: bool | None = None


class Query(_Part):
    """A validation photo, or an edited copy of one, and its nearest photos."""

    by: str
    query: Shown
    neighbours: tuple[Shown, ...]


class ReportData(_Part):
    """The content of report.json."""

    format: int = 1
    fingerprint: str
    num_training: int
    num_validation: int
    choices: tuple[Choice, ...] = ()
    stages: tuple[Scores, ...] = ()
    spectrum: Spectrum | None = None
    histograms: tuple[Histogram, ...] = ()
    queries: tuple[Query, ...] = ()


def write_report_data(path: Path, data: ReportData) -> None:
    """Write report.json, whole."""
    atomic_write_text(path, data.model_dump_json(indent=1) + "\n")


def read_report_data(path: Path) -> ReportData | None:
    """Return what a finished run has left, None for one that is not finished."""
    if not path.exists():
        return None
    try:
        return ReportData.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ReportError(f"{path} is damaged, or of another version: {error}") from error

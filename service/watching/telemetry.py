"""What is told to OpenTelemetry: requests by FastAPI itself, the stages of a search by us."""

import time
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from multigrain.errors import MultiGrainError

_PROBES = frozenset({"/health", "/livez", "/readyz", "/metrics"})


class ExporterMissingError(MultiGrainError):
    """Telemetry is wanted and cannot be sent."""


def telemetry_config(*, wanted: bool) -> TelemetryConfig:
    """FastAPI's setting: all or nothing, sent to where OTEL_EXPORTER_OTLP_ENDPOINT says.

    Raises ExporterMissingError where it is wanted and the extra is not installed.
    """
    if wanted and find_spec("opentelemetry.exporter") is None:
        raise ExporterMissingError(
            "--telemetry needs OpenTelemetry: install multigrain-retrieval[otel]"
        )
    return {
        "tracing": wanted,
        "metrics": wanted,
        "logs": wanted,
        "auto_configure": wanted,
        "exclude": _is_probe,
    }


def trace_stages(stages: Mapping[str, float]) -> None:
    """Add a span for each stage of a search that has just ended, in milliseconds, to the request's.

    Stages of a batch are those of all its requests.
    """
    tracer = trace.get_tracer("multigrain.service")
    at = time.time_ns() - _nanoseconds(stages["total"])
    for stage, milliseconds in stages.items():
        if stage != "total" and milliseconds:
            span = tracer.start_span(stage, start_time=at)
            at += _nanoseconds(milliseconds)
            span.end(at)


def _nanoseconds(milliseconds: float) -> int:
    return int(milliseconds * 1e6)


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in _PROBES

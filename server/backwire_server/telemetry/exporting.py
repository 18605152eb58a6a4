"""Sends spans to where OpenTelemetry's environment variables say."""

import os
import threading
from importlib.metadata import entry_points

from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from backwire_server.config import version
from backwire_server.config_values import ConfigError

NAME = "backwire"
"""The name of the service unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES have one."""

_GROUP = "opentelemetry_traces_exporter"
_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


class Exporting:
    """Exports the spans of a process until `close`.

    Attributes:
        provider: What makes the spans.
    """

    def __init__(self) -> None:
        """Sets it up by the variables OTEL_*; raises ConfigError for an exporter that there is not."""
        self.provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for exporter in _exporters():
            self.provider.add_span_processor(BatchSpanProcessor(exporter))

    def close(self, seconds: float) -> None:
        """Exports what has ended so far, as far as so many seconds suffice, and no more after that."""
        last = threading.Thread(target=self.provider.shutdown, name="backwire-last-spans", daemon=True)
        last.start()
        last.join(seconds)


def _resource() -> Resource:
    found = Resource.create({SERVICE_VERSION: version()})
    named = not str(found.attributes[SERVICE_NAME]).startswith("unknown_service")
    return found if named else found.merge(Resource({SERVICE_NAME: NAME}))


def _exporters() -> list[SpanExporter]:
    names = os.environ.get(OTEL_TRACES_EXPORTER, "").split(",")
    wanted = {name.strip() or "otlp" for name in names} - {"none"}
    return [_exporter(name) for name in sorted(wanted)]


def _exporter(name: str) -> SpanExporter:
    entry = name
    if name == "otlp":
        protocol = os.environ.get(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL) or os.environ.get(OTEL_EXPORTER_OTLP_PROTOCOL)
        entry = _PROTOCOLS.get(protocol or "grpc", f"otlp by {protocol}")
    try:
        [found] = entry_points(group=_GROUP, name=entry)
        exporter: SpanExporter = found.load()()
    except (ImportError, ValueError) as error:
        known = ", ".join(sorted({each.name for each in entry_points(group=_GROUP)}))
        raise ConfigError(
            f"{OTEL_TRACES_EXPORTER}={name} names no exporter that can be used ({error}); those installed are {known}, "
            "and `otlp` and `none` may be said, too"
        ) from None
    return exporter

"""When traces are made, what the variables may ask for, and which contexts a message can bring."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing

import bridge
from bridge.record import Record
from bridge.telemetry.spans import asked, open_traces
from bridge.telemetry.traces import contexts

URL = "http://127.0.0.1:4318"
TRACE, PARENT = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, ""),
        ({"OTEL_SERVICE_NAME": "orders"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "None ", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ""),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, ""),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
    ],
)
def test_what_asks_for_traces(environ: dict[str, str], variable: str) -> None:
    assert asked(environ) == variable


@pytest.mark.parametrize(
    ("environ", "detail"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "there are: console, otlp_proto_http"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon"}, "known are: http/protobuf, grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_PYTHON_ID_GENERATOR": "dice"}, "'dice'"),
    ],
)
def test_what_cannot_be_is_one_line(environ: dict[str, str], detail: str) -> None:
    with structlog.testing.capture_logs() as lines:
        assert open_traces(environ) is None
    (line,) = lines
    assert (line["event"], line["log_level"], line["asked_by"]) == (
        "traces_unavailable", "warning", "OTEL_TRACES_EXPORTER"
    )  # fmt: skip
    assert detail in line["detail"]


@pytest.mark.parametrize(
    ("traceparent", "trace", "found"),
    [
        ("", "", []),
        ("", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0", []),
        ("", f"Root=1-5759e988-bd862e3fe1be46a994272793;Parent={PARENT};Sampled=1;Lineage=0a1b2c3d:2", [True]),
        ("", f"Parent={PARENT};Root=1-5759e988-bd862e3fe1be46a994272793", [False]),
        ("", f"Root=1-5759e988-bd862e3fe1be46a99427279;Parent={PARENT}", []),
        ("", f"Root=1-00000000-{'0' * 24};Parent={PARENT}", []),
        ("", "Root=;;;=;Parent", []),
        (f"00-{TRACE}-{PARENT}-01", "", [True]),
        (f"00-{TRACE}-{PARENT}-00", "", [False]),
        (f"00-{TRACE}-{PARENT}-01", f"Root=1-5759e988-bd862e3fe1be46a994272793;Parent={PARENT};Sampled=1", [True]),
        (f"00-{TRACE}-{PARENT}", "", []),
        ("00-\u0666-x-01", "", []),
    ],
)
def test_contexts_of_a_message(traceparent: str, trace: str, found: list[bool]) -> None:
    record = Record(id="1", json=b"{}", arrived_at=0.0, trace=trace, traceparent=traceparent)
    got = list(contexts(record))
    assert [context.trace_flags.sampled for context in got] == found
    assert all((f"{it.trace_id:032x}", f"{it.span_id:016x}") == (TRACE, PARENT) for it in got)


def test_two_contexts_of_one_message_are_two_links() -> None:
    other = f"Root=1-{'b' * 8}-{'b' * 24};Parent={PARENT};Sampled=1"
    record = Record(id="1", json=b"{}", arrived_at=0.0, trace=other, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert [f"{it.trace_id:032x}" for it in contexts(record)] == [TRACE, "b" * 32]


def test_only_the_border_knows_opentelemetry() -> None:
    root = Path(bridge.__file__).parent
    knowing = [file.relative_to(root) for file in root.rglob("*.py") if "opentelemetry" in file.read_text()]
    assert knowing == [Path("telemetry/traces.py")]

"""Traces of the real daemon, as a collector gets them (design: OpenTelemetry, optional extra)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.api.lambda_client import client
from tests.e2e.conftest import NewSite
from tests.e2e.faulty import FaultyQueue, FaultyServer
from tests.e2e.harness import Bridge, Site
from tests.e2e.streams import Stream
from tests.otlp import Receiver, Span, receiver
from tests.servers import ACCOUNT, REGION, Server

CONTENT = "what-stands-in-a-message"
TRACE, PARENT = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
XRAY = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={PARENT};Sampled=1"
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
FAST = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


class Stage(NamedTuple):
    site: Site
    bridge: Bridge
    collector: Receiver


def add(site: Site, name: str, handler: str, **options: Any) -> None:
    site.function(name, Handler=f"traced.{handler}", **options)
    site.config["functions"][name]["Environment"]["Variables"]["NOTES"] = str(notes_of(site))


def notes_of(site: Site) -> Path:
    return site.folder / "notes"


def notes(site: Site) -> list[dict[str, Any]]:
    """What the handlers noted so far."""
    file = notes_of(site)
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, ministack_server: Server, collector: Receiver) -> Iterator[Stage]:
    """One daemon for all tests that need no other."""
    site = Site(tmp_path_factory.mktemp("traces"), ministack_server)
    site.config["aws"]["account_id"] = ACCOUNT
    site.config["api"] = {"listen": "127.0.0.1:0"}
    add(site, "worker", "handler")
    add(site, "streamer", "stream")
    add(site, "single", "single", EventInvokeConfig={"MaximumRetryAttempts": 0})
    env = {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_RESOURCE_ATTRIBUTES": "deployment=tests"}
    with site.running(env=env) as bridge:
        yield Stage(site, bridge, collector)


def root(trace: dict[str, str]) -> str:
    """The trace id that a handler was told, as OpenTelemetry writes it."""
    return trace["Root"].removeprefix("1-").replace("-", "")


def of_mapping(collector: Receiver, mapping: str, operation: str, count: int) -> list[Span]:
    """Waits for so many of its spans."""

    def its(spans: list[Span]) -> list[Span]:
        return [span for span in spans if span.attributes.get("bridge.mapping") == mapping]

    return its(collector.until(lambda spans: len(its(spans)) >= count, operation))


def test_a_batch_of_a_queue(stage: Stage) -> None:
    site, bridge, collector = stage
    queue = site.queue(visibility=30)
    mapping = site.mapping(queue, "worker", partial=True, MaximumBatchingWindowInSeconds=1)
    traceparent = {"DataType": "String", "StringValue": f"00-{'a' * 32}-{'b' * 16}-01"}
    header = {"DataType": "String", "StringValue": XRAY}
    messages: list[dict[str, Any]] = [
        {"MessageBody": f"{CONTENT} 0", "MessageAttributes": {"traceparent": traceparent}},
        {"MessageBody": f"{CONTENT} 1", "MessageSystemAttributes": {"AWSTraceHeader": header}},
        {"MessageBody": f"{CONTENT} 2 fails", "MessageAttributes": {"traceparent": header}},
    ]
    ids = [queue.api.send_message(QueueUrl=queue.url, **message)["MessageId"] for message in messages]
    bridge.reload()
    (process, *_) = of_mapping(collector, mapping, "process", 1)
    (receive,) = of_mapping(collector, mapping, "receive", 1)
    (settle,) = of_mapping(collector, mapping, "settle", 1)
    (note,) = [note for note in notes(site) if note["request"] == process.attributes["faas.invocation_id"]]
    assert (receive.kind, process.kind, settle.kind) == ("CLIENT", "CONSUMER", "CLIENT")
    assert receive.name == f"receive {queue.name}"
    assert process.name == f"process {queue.name}"
    about = {
        "messaging.system": "aws_sqs",
        "messaging.destination.name": queue.name,
        "messaging.batch.message_count": 3,
        "bridge.mapping": mapping,
    }
    assert settle.attributes["messaging.batch.message_count"] == 2, "what failed is not deleted"
    for span in (receive, process):
        assert about.items() <= span.attributes.items()
    for span in (receive, process, settle):
        assert span.attributes["messaging.operation.name"] == span.attributes["messaging.operation.type"]
        assert span.schema == SCHEMA
    assert (
        process.attributes.items()
        >= {
            "faas.trigger": "pubsub",
            "faas.name": "worker",
            "faas.version": "$LATEST",
            "aws.lambda.invoked_arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:worker",
            "bridge.attempt": 1,
            "error.type": "partial",
            "bridge.failed_message_count": 1,
        }.items()
    )
    came = {("a" * 32, "b" * 16, ids[0]), (TRACE, PARENT, ids[1])}  # what is no context gives no link
    assert {(link.trace, link.span, link.attributes["messaging.message.id"]) for link in receive.links} == came
    first, *others = process.links
    assert (first.trace, first.span) == (receive.trace, receive.id)
    assert {(link.trace, link.span, link.attributes["messaging.message.id"]) for link in others} == came
    assert (settle.trace, settle.parent) == (process.trace, process.id)
    assert process.parent == receive.parent == ""
    assert (root(note["trace"]), note["trace"]["Parent"], note["trace"]["Sampled"]) == (process.trace, process.id, "1")
    assert receive.ended <= process.began <= process.ended <= settle.began < settle.ended
    assert not settle.failed
    assert process.failed
    assert not receive.failed
    assert process.resource.items() >= {"service.name": "bridge", "deployment": "tests"}.items()


def test_a_batch_that_fails_and_is_not_told_of(stage: Stage) -> None:
    site, bridge, collector = stage
    queue = site.queue(visibility=30)
    mapping = site.mapping(queue, "worker")
    (sent,) = queue.send(f"{CONTENT} raises")
    bridge.reload()
    (process, *_) = of_mapping(collector, mapping, "process", 1)
    assert process.failed
    assert process.attributes["error.type"] == "LookupError"
    assert process.attributes["messaging.message.id"] == sent
    assert not any(b"of the handler's own" in raw for raw in collector.raw)


def test_a_batch_of_a_stream(stage: Stage) -> None:
    site, bridge, collector = stage
    stream = Stream(ministack(site))
    numbers = stream.put(f"{CONTENT} a", f"{CONTENT} b", key="k")
    (poison,) = stream.put(f"{CONTENT} raises", key="k")
    mapping = site.mapping(stream.arn, "streamer", StartingPosition="TRIM_HORIZON", BatchSize=2, MaximumRetryAttempts=1)
    bridge.reload()
    well, *bad = of_mapping(collector, mapping, "process", 3)[:3]
    settles = of_mapping(collector, mapping, "settle", 2)
    told = [note for note in notes(site) if note["ids"] == numbers]
    assert [root(note["trace"]) for note in told] == [well.trace]
    assert (
        well.attributes.items()
        >= {
            "messaging.system": "aws.kinesis",
            "messaging.destination.name": stream.name,
            "messaging.destination.partition.id": stream.shards()[0],
            "messaging.batch.message_count": 2,
            "faas.trigger": "pubsub",
        }.items()
    )
    assert [span.attributes["bridge.attempt"] for span in bad] == [1, 2]
    assert all(span.attributes["error.type"] == "LookupError" for span in bad)
    assert len({span.trace for span in (well, *bad)}) == 3  # each attempt is a trace of its own
    assert [span.parent for span in settles] == [well.id, bad[1].id]
    assert settles[1].attributes["messaging.message.id"] == poison
    (receive,) = of_mapping(collector, mapping, "receive", 1)[:1]
    assert (receive.trace, receive.id) in {(link.trace, link.span) for link in well.links}


def ministack(site: Site) -> Server:
    assert isinstance(site.server, Server)
    return site.server


def test_an_asynchronous_event_goes_on_with_its_own_trace(stage: Stage) -> None:
    site, bridge, collector = stage
    (started,) = bridge.said("started")
    api = client(f"http://{started['api']}")
    add_header(api, XRAY)
    request = api.invoke(FunctionName="single", InvocationType="Event", Payload=json.dumps({"says": CONTENT}))
    request_id = request["ResponseMetadata"]["RequestId"]
    (process,) = of_mapping(collector, "single:async", "process", 1)
    (note,) = bridge.until(lambda: [note for note in notes(site) if note["request"] == request_id])
    assert (process.trace, process.parent) == (TRACE, PARENT)
    assert (
        process.attributes.items()
        >= {
            "messaging.system": "aws.lambda",
            "messaging.destination.name": "single",
            "messaging.message.id": request_id,
            "faas.invocation_id": request_id,
            "faas.trigger": "other",
        }.items()
    )
    assert [(link.trace, link.span) for link in process.links][-1] == (TRACE, PARENT)
    assert root(note["trace"]) == TRACE
    assert note["trace"]["Parent"] == process.id
    assert "Lineage" in note["trace"]  # INV-40: hops are counted as before


def test_a_synchronous_invocation(stage: Stage) -> None:
    site, bridge, collector = stage
    (started,) = bridge.said("started")
    api = client(f"http://{started['api']}")
    add_header(api, XRAY)
    answer = api.invoke(FunctionName="single", Payload=json.dumps({"says": CONTENT}))
    request_id = answer["ResponseMetadata"]["RequestId"]
    api.invoke(FunctionName="worker", Payload=json.dumps({"Records": 0}))
    well, failed = collector.until(lambda spans: len(spans) == 2, "invoke")
    (note,) = [note for note in notes(site) if note["request"] == request_id]
    assert (well.name, well.kind, well.trace, well.parent) == ("single", "SERVER", TRACE, PARENT)
    assert well.attributes == {
        "faas.trigger": "http",
        "faas.name": "single",
        "faas.invocation_id": request_id,
        "faas.version": "$LATEST",
        "aws.lambda.invoked_arn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:single",
    }
    assert (root(note["trace"]), note["trace"]["Parent"]) == (well.trace, well.id)
    assert failed.failed
    assert failed.attributes["error.type"] == "TypeError"


def add_header(api: Any, header: str) -> None:
    def add_it(request: Any, **_: object) -> None:
        request.headers["X-Amzn-Trace-Id"] = header

    api.meta.events.register("before-sign.lambda.Invoke", add_it)


def test_no_body_is_ever_sent(stage: Stage) -> None:
    assert stage.collector.raw
    assert not any(CONTENT.encode() in raw for raw in stage.collector.raw)


def test_spans_go_out_in_batches(one_site: Site, collector: Receiver) -> None:
    queue = one_site.queue(visibility=30)
    add(one_site, "worker", "handler")
    mapping = one_site.mapping(queue, "worker", BatchSize=1)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    with one_site.running(env=env) as bridge:
        before = len(collector.requests)
        queue.send(*(str(number) for number in range(8)))
        bridge.empties(queue)
        assert len(collector.requests) == before  # nobody waits for the collector
        bridge.stop()
    assert len(collector.requests) == before + 1, "what was left goes out at the drain"
    assert len(of_mapping(collector, mapping, "process", 8)) == 8


def test_deletes_that_fail_and_deletes_that_are_shared(
    faulty_site: Site, faulty_server: FaultyServer, collector: Receiver
) -> None:
    failing, shared = faulty_server.queue(visibility=30), faulty_server.queue(visibility=60)
    add(faulty_site, "worker", "handler")
    first = faulty_site.mapping(failing, "worker")
    second = faulty_site.mapping(shared, "worker", BatchSize=1, delete_linger=1)
    failing.ask(failing.fake.refuse, "DeleteMessageBatch", "ServiceUnavailable")
    env = {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with faulty_site.running(env=env):
        failing.send("one")
        bad, good = of_mapping(collector, first, "settle", 2)
        (process,) = of_mapping(collector, first, "process", 1)
        assert (bad.failed, bad.attributes["error.type"]) == (True, "ServiceUnavailable")
        assert bad.attributes["bridge.failed_message_count"] == 1
        assert not good.failed
        assert {(span.trace, span.parent) for span in (bad, good)} == {(process.trace, process.id)}
        settle = shared_request(shared, collector, second)
        processes = {(span.trace, span.id) for span in of_mapping(collector, second, "process", 2)}
        assert settle.parent == ""
        assert len(settle.links) == settle.attributes["messaging.batch.message_count"] == 2
        assert {(link.trace, link.span) for link in settle.links} <= processes


def settled(collector: Receiver, mapping: str) -> list[tuple[Span, int]]:
    """The settle spans of a mapping, and of how many messages each is."""
    spans = [span for span in collector.spans("settle") if span.attributes["bridge.mapping"] == mapping]
    return [(span, span.attributes["messaging.batch.message_count"]) for span in spans]


def shared_request(queue: FaultyQueue, collector: Receiver, mapping: str) -> Span:
    """Sends two messages until both are deleted by one request: on a slow machine that takes several attempts."""
    for sent in range(2, 20, 2):
        queue.send("one", "two")
        collector.until(lambda _: sum(size for _, size in settled(collector, mapping)) >= sent)  # noqa: B023
        for span, size in settled(collector, mapping):
            if size == 2:
                return span
    raise AssertionError("no two deletes shared a request")


def test_sampling_is_honoured_and_handed_on(one_site: Site, collector: Receiver) -> None:
    queue = one_site.queue(visibility=30)
    add(one_site, "worker", "handler")
    mapping = one_site.mapping(queue, "worker")
    env = {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_SAMPLER": "always_off"}
    with one_site.running(env=env) as bridge:
        queue.send("one")
        bridge.empties(queue)
        bridge.stop()
    (note,) = notes(one_site)
    assert note["trace"]["Sampled"] == "0"
    assert len(root(note["trace"])) == 32
    assert not [span for span in collector.spans() if span.attributes.get("bridge.mapping") == mapping]


def test_off_means_off(one_site: Site, collector: Receiver) -> None:
    queue = one_site.queue(visibility=30)
    add(one_site, "worker", "handler")
    one_site.mapping(queue, "worker")
    before = len(collector.raw)
    env = {**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SDK_DISABLED": "true"}
    with one_site.running(env=env) as bridge:
        loaded = [line for line in Path(f"/proc/{bridge.pid}/maps").read_text().splitlines() if "protobuf" in line]
        queue.send("one")
        bridge.empties(queue)
    assert not loaded
    assert len(collector.raw) == before
    (note,) = notes(one_site)
    assert set(note["trace"]) == {"Root", "Sampled", "Lineage"}  # as without the extra


def test_a_collector_that_hangs_does_not_keep_the_daemon(one_site: Site) -> None:
    queue = one_site.queue(visibility=30)
    add(one_site, "worker", "handler")
    one_site.mapping(queue, "worker")
    one_site.config["shutdown_grace"] = 2
    with receiver() as collector:
        collector.delay = 60
        with one_site.running(env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as bridge:
            queue.send("one")
            bridge.empties(queue)
            assert bridge.stop() < 10
            assert bridge.events("shutdown_grace_over") or bridge.events("traces_cut_short")


def test_a_collector_that_refuses_is_told_of_once(one_site: Site) -> None:
    queue = one_site.queue(visibility=30)
    add(one_site, "worker", "handler")
    one_site.mapping(queue, "worker", BatchSize=1)
    with receiver() as collector:
        collector.status = 400
        with one_site.running(env={**FAST, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as bridge:
            queue.send("one")
            bridge.said("traces_not_sent")
            queue.send("two", "three")
            bridge.empties(queue)
            (line,) = bridge.events("traces_not_sent")
            assert "400" in line["detail"]


def test_a_missing_extra_is_said_and_stops_nobody(new_site: NewSite) -> None:
    site = new_site()
    package = site.folder / "hiding" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not here')\n")
    path = f"{package.parent}:{site.env['PYTHONPATH']}"
    with site.running(env={"PYTHONPATH": path, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) as bridge:
        (line,) = bridge.said("traces_unavailable")
        assert line["asked_by"] == "OTEL_EXPORTER_OTLP_ENDPOINT"
        assert "pip install 'bridge[otel]'" in line["detail"]

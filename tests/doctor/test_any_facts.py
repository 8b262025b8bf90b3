"""Whatever the facts are, they are judged: no check fails, and each finding can be shown."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings, strategies as st

from bridge.doctor.checks import findings
from bridge.doctor.facts import Case, Failed, Queue, Remote, Rival, Stream
from bridge.doctor.findings import CODES, LEVELS
from bridge.function import Function
from bridge.mapping import Mapping, SourceArn, StreamOptions
from tests.admin.control import view

PLACE = "eu-west-1:123456789012"
count = st.integers(0, 10**9)
seconds = st.one_of(st.integers(0, 43_200).map(float), st.floats(0, 1e9))


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    resource = draw(st.sampled_from([
        f"sqs:{PLACE}:orders", f"sqs:{PLACE}:orders.fifo", f"kinesis:{PLACE}:stream/clicks",
        f"kinesis:{PLACE}:stream/clicks/consumer/own:1", f"dynamodb:{PLACE}:table/users/stream/now",
    ]))  # fmt: skip
    arn = SourceArn.parse(f"arn:aws:{resource}")
    options = StreamOptions(
        lanes=draw(st.integers(1, 10)),
        retries=draw(st.one_of(st.just(inf), st.integers(0, 10_000))),
        max_age=draw(st.one_of(st.just(inf), st.integers(60, 604_800))),
        bisect=draw(st.booleans()),
        on_failure=draw(st.sampled_from(["", f"arn:aws:sqs:{PLACE}:dead"])),
    )
    return Mapping(
        name="it",
        uuid="0a1b2c3d-0000-4000-8000-000000000001",
        function="worker",
        source_arn=arn,
        batch_size=draw(st.integers(1, 10_000)),
        window=float(draw(st.integers(0, 300))),
        patterns=draw(st.sampled_from([(), ("{}",)])),
        maximum_concurrency=draw(st.one_of(st.none(), st.integers(2, 1000))),
        minimum_pollers=draw(st.one_of(st.none(), st.integers(1, 200))),
        stream=None if arn.service == "sqs" else options,
    )


queues = st.builds(
    Queue,
    arn=st.just("q"),
    fifo=st.booleans(),
    visibility=st.integers(0, 43_200),
    retention=st.integers(60, 1_209_600),
    waiting=count,
    in_flight=count,
    max_receives=st.one_of(st.just(inf), st.integers(1, 1000).map(float)),
    dlq=st.sampled_from(["", f"arn:aws:sqs:{PLACE}:dead", f"arn:aws:sqs:{PLACE}:dead.fifo"]),
    high_throughput=st.booleans(),
)
streams = st.builds(
    Stream,
    retention=st.one_of(st.just(inf), st.floats(3600, 31_536_000)),
    status=st.sampled_from(["", "ACTIVE", "DISABLED", "DELETING"]),
    shards=count,
    consumer=st.sampled_from([None, "ACTIVE", "CREATING"]),
    age=st.one_of(st.none(), seconds),
    lost=st.one_of(st.none(), seconds),
    seen=st.integers(0, 100),
    matched=st.integers(0, 100),
)
views = st.builds(
    lambda **fields: view("it", **fields),
    lag_seconds=st.one_of(st.none(), seconds),
    behind=st.one_of(st.none(), seconds),
    polled=count,
    in_flight=count,
    ready=st.booleans(),
)
failures = st.builds(
    Failed,
    kind=st.sampled_from([
        "unreachable", "no-answer", "call-failed", "credentials-refused", "permission-missing", "missing",
    ]),
    action=st.just("sqs:GetQueueUrl"),
    resource=st.sampled_from(["one", "two"]),
    detail=st.just("why"),
    about=st.sampled_from(["source", "dlq", "destination", "function"]),
)  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    mapping = draw(mappings())
    function = Function(
        name="worker",
        arn=f"arn:aws:lambda:{PLACE}:function:worker",
        kind=draw(st.sampled_from(["python", "lambda"])),
        timeout=float(draw(st.integers(1, 900))),
        reserved_concurrency=draw(st.one_of(st.none(), st.integers(0, 100))),
    )
    return Case(
        mapping=mapping,
        function=function,
        queue=draw(queues) if mapping.source == "sqs" else None,
        dlq=draw(st.one_of(st.none(), queues)),
        stream=draw(streams) if mapping.source != "sqs" else None,
        grace=draw(seconds),
        rivals=draw(st.sampled_from([[], [Rival("uuid", "function")]])),
        remote=draw(st.one_of(st.none(), st.builds(Remote, timeout=seconds, reserved=st.integers(0, 9)))),
        failed=draw(st.lists(failures, max_size=3)),
        skews=draw(st.sampled_from([{}, {"sqs": 7.0}, {"sqs": -1e6}])),
        readers=draw(st.sampled_from([(), ("other",), tuple("abcdefg")])),
        view=draw(st.one_of(st.none(), views)),
    )


@given(cases())
@settings(max_examples=150, deadline=None)
def test_every_case_is_judged(case: Case) -> None:
    found = findings(case)
    assert {finding.code for finding in found} <= CODES.keys()
    for finding in found:
        assert finding.message
        assert (finding.message + finding.fix).isprintable()
        assert "inf" not in finding.message.split()
        assert "nan" not in finding.message.split()
    ranks = [LEVELS.index(finding.level) for finding in found]
    assert ranks == sorted(ranks, reverse=True)

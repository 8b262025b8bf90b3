"""The rules of SQS end to end: a real daemon with real handlers on two unrelated servers (tests/spec/sqs.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.harness import Site, receive, say
from tests.e2e.journal import Invocation
from tests.e2e.stage import Performance, Scene, Stage
from tests.servers import REGION, Server

stage = Stage()


@pytest.fixture(scope="module")
def performance(
    sqs_server: Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Performance]:
    """All scenarios that were selected, under way."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = {str(item.callspec.params["name"]) for item in items if item.module is request.module}
    site = Site(tmp_path_factory.mktemp(sqs_server.name), sqs_server)
    with closing(site), stage.perform(site, names) as performance:
        yield performance


def overlap(invocations: list[Invocation]) -> int:
    """How many ran at once at the most."""
    now = most = 0
    steps = [(it.at, 1) for it in invocations] + [(it.ended or it.at, -1) for it in invocations]
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def first_received(invocation: Invocation) -> float:
    """By the server's clock, which is ours."""
    return min(int(record["attributes"]["ApproximateFirstReceiveTimestamp"]) for record in invocation.records) / 1000


# Failures, visibility and redrive.


@stage(queue={"visibility": 3}, sent=[say(raises=True)], BatchSize=1)
def a_failed_message_comes_again_when_its_visibility_ends(it: Scene) -> None:  # SQS-90, SQS-25, SQS-32
    first, second = it.invocations(2)
    assert first.ids == second.ids == it.sent
    assert (first.counts, second.counts) == ([1], [2])
    assert second.at - first_received(first) >= 3
    assert first_received(second) == first_received(first)
    assert first.records[0]["receiptHandle"] != second.records[0]["receiptHandle"]
    it.empty()
    assert len(it.runs) == 2


@stage(queue={"dead_after": 2}, sent=[say(raises=True, until=99)])
def a_poison_message_ends_in_the_dead_letter_queue(it: Scene) -> None:  # SQS-91, SQS-37
    (letter,) = it.dead(*it.sent)
    assert letter["Body"] == say(raises=True, until=99)
    assert [invocation.counts for invocation in it.runs] == [[1], [2]]
    assert it.queue.counts() == (0, 0)


@stage(
    queue={"fifo": True, "dead_after": 2},
    sent=[say(n=1), say(n=2, fails=True), say(n=3, fails=True), say(n=4, fails=True, until=99)],
    group="g",
    partial=True,
)
def what_a_fifo_batch_reports_comes_again_in_order(it: Scene) -> None:  # SQS-92, SQS-56
    it.dead(it.sent[3])
    first, second = it.runs
    assert (first.ids, first.counts) == (it.sent, [1] * 4)
    assert (second.ids, second.counts) == (it.sent[1:], [2] * 3)
    it.empty()


@stage(queue={"dead_after": 2}, sent=[say(raises=True, until=99), say()], partial=True)
def one_exception_fails_the_whole_batch(it: Scene) -> None:  # SQS-93, SQS-43
    it.dead(*it.sent)
    assert [sorted(invocation.ids) for invocation in it.runs] == [sorted(it.sent)] * 2


@stage(queue={"visibility": 4}, function={"Timeout": 20}, sent=[say(sleep=7)])
def a_handler_may_outlive_the_visibility_timeout(it: Scene) -> None:  # SQS-29
    (only,) = it.invocations(1, ended=True)
    it.empty()
    assert it.site.journal.ids(it.queue.name) == only.ids == it.sent
    assert only.ended is not None
    assert only.ended - only.at >= 7


@stage(function={}, sent=[say(), say(exits=3), say()], BatchSize=1)
def a_crash_is_a_function_error(it: Scene) -> None:  # SQS-32, INV-24
    it.empty()
    found = it.runs
    assert sorted(name for invocation in found if invocation.well for name in invocation.ids) == sorted(it.sent)
    assert [(invocation.ids, invocation.counts) for invocation in found if not invocation.well] == [([it.sent[1]], [1])]
    assert (it.bridge.view(it.mapping).last_error or "").startswith("Runtime.ExitError: ")


@stage(function={"Timeout": 1}, sent=[say(sleep=30, until=1)], BatchSize=1)
def a_timeout_is_a_function_error(it: Scene) -> None:  # SQS-32, INV-23
    first = it.invocations(1)[0]
    last_error = it.bridge.until(lambda: it.bridge.view(it.mapping).last_error)
    assert last_error == f"Sandbox.Timedout: RequestId: {first.request} Error: Task timed out after 1.00 seconds"
    it.queue.api.purge_queue(QueueUrl=it.queue.url)


@stage(sent=[say(answer={"batchItemFailures": [{"itemIdentifier": "$1"}]})])
def without_partial_responses_the_answer_is_ignored(it: Scene) -> None:  # SQS-30
    it.empty()
    assert [invocation.counts for invocation in it.runs] == [[1]]


# Partial responses.


def deletes_all(it: Scene) -> None:
    it.empty()
    assert [(invocation.ids, invocation.counts) for invocation in it.runs] == [(it.sent, [1, 1])]


def returns_the_second(it: Scene) -> None:
    it.empty()
    again = it.sent[1:]
    assert [(run.ids, run.counts) for run in it.runs] == [(it.sent, [1, 1]), (again, [2])]


def returns_all(it: Scene) -> None:
    it.empty()
    first, *later = it.runs
    assert (first.ids, first.counts) == (it.sent, [1, 1])
    assert sorted((name, count) for run in later for name, count in zip(run.ids, run.counts, strict=True)) == [
        (name, 2) for name in sorted(it.sent)
    ]


def answer(failures: Any) -> str:
    return say(answer={"batchItemFailures": failures})


ANSWERS = {
    # SQS-41, SQS-45, SQS-94
    "an_empty_list": (answer([]), deletes_all),
    "a_null_list": (answer(None), deletes_all),
    "an_empty_object": (say(answer={}), deletes_all),
    "an_object_without_the_key": (say(answer={"failures": ["$1"]}), deletes_all),
    "null": (say(answer=None), deletes_all),
    "no_bytes": (say(raw=""), deletes_all),
    # SQS-40, SQS-44
    "an_id": (answer([{"itemIdentifier": "$2"}]), returns_the_second),
    "an_id_twice": (answer([{"itemIdentifier": "$2"}, {"itemIdentifier": "$2"}]), returns_the_second),
    # SQS-42, SQS-46, SQS-94
    "another_key_in_an_entry": (answer([{"foo": "x"}]), returns_all),
    "an_empty_id": (answer([{"itemIdentifier": ""}]), returns_all),
    "a_null_id": (answer([{"itemIdentifier": None}]), returns_all),
    "an_unknown_id": (answer([{"itemIdentifier": "$2"}, {"itemIdentifier": "nobody"}]), returns_all),
    "no_list": (answer("$2"), returns_all),
    "no_object": (say(answer=["$2"]), returns_all),
    "no_json": (say(raw='{"batchItemFailures": ['), returns_all),
}

for name, (first, play) in ANSWERS.items():
    stage.add(f"answer_of_{name}", play, sent=[first, say()], partial=True)


@stage(
    function={"Handler": "batch_processor.handler"},
    sent=[say(bad=True), say(n=2), say(bad=True, n=3), say(n=4)],
    partial=True,
)
def the_batch_processor_of_powertools_reports_failures(it: Scene) -> None:  # SQS-40
    it.empty()
    first, *later = it.runs
    assert (first.ids, first.counts) == (it.sent, [1] * 4)
    assert sorted(name for run in later for name in run.ids) == sorted([it.sent[0], it.sent[2]])
    assert {count for run in later for count in run.counts} == {2}


# Batches and windows.


@stage(queue={"visibility": 30}, sent=[say(), say(), say()], BatchSize=100, MaximumBatchingWindowInSeconds=2)
def a_batch_that_is_not_full_goes_when_its_window_ends(it: Scene) -> None:  # SQS-14, SQS-5, SQS-7
    (only,) = it.invocations(1)
    assert only.ids == it.sent
    assert 2 <= only.at - first_received(only) < 4
    it.empty()


@stage(sent=[say()] * 10, BatchSize=10, MaximumBatchingWindowInSeconds=300)
def a_full_batch_goes_at_once(it: Scene) -> None:  # SQS-14
    (only,) = it.invocations(1)
    assert only.ids == it.sent
    assert only.at - first_received(only) < 10
    it.empty()


@stage(sent=[say()] * 60, BatchSize=20, MaximumBatchingWindowInSeconds=2, ScalingConfig={"MaximumConcurrency": 2})
def batches_above_ten_are_put_together(it: Scene) -> None:  # SQS-2, SQS-13
    it.empty()
    sizes = [len(run.ids) for run in it.runs]
    assert 10 < max(sizes) <= 20
    assert sorted(it.site.journal.ids(it.queue.name)) == sorted(it.sent)


@stage(function={}, sent=[say(sleep=0.5)] * 8, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
def maximum_concurrency_bounds_the_invocations_at_once(it: Scene) -> None:  # SQS-16
    runs = it.invocations(8, ended=True)
    assert overlap(runs) == 2
    assert sorted(name for run in runs for name in run.ids) == sorted(it.sent)
    it.empty()


# FIFO queues.


@stage(queue={"fifo": True, "visibility": 10}, function={}, sent=[say(sleep=1, n=n) for n in range(5)], group="g",
       BatchSize=1)  # fmt: skip
def one_group_runs_one_after_another(it: Scene) -> None:  # SQS-95, SQS-55
    runs = it.invocations(5, ended=True)
    assert [run.ids for run in runs] == [[name] for name in it.sent]
    assert overlap(runs) == 1
    assert len({run.pid for run in runs}) == 1
    it.empty()


@stage(queue={"fifo": True, "visibility": 4}, BatchSize=2)
def groups_keep_their_order_when_messages_fail(it: Scene) -> None:  # SQS-55, SQS-56, SQS-59, SQS-20
    groups = {
        group: it.queue.send(*(say(sleep=0.05, raises=n == 2, n=n) for n in range(6)), group=group) for group in "abc"
    }
    it.empty()
    runs = it.runs
    for ids in groups.values():
        mine = [run for run in runs if set(run.ids) & set(ids)]
        assert [name for run in mine if run.well for name in run.ids if name in ids] == ids
        assert overlap(mine) == 1
        failed = next(number for number, run in enumerate(mine) if not run.well and ids[2] in run.ids)
        assert ids[2] in mine[failed + 1].ids, "what failed was overtaken"


# Filters.


@stage(
    queue={"dead_after": 1},
    sent=['{"kind": "order"}', '{"kind": "bill"}', "order", '"order"'],
    FilterCriteria={"Filters": [{"Pattern": '{"body": {"kind": ["order"]}}'}]},
)
def what_no_filter_matches_is_deleted(it: Scene) -> None:  # SQS-65, SQS-96, FLT-30
    it.empty()
    assert [run.ids for run in it.invocations(1)] == [it.sent[:1]]
    view = it.bridge.view(it.mapping)
    assert (view.polled, view.filtered, view.succeeded) == (4, 3, 1)
    assert sorted(view.filtered_ids) == sorted(it.sent[1:])
    assert receive(it.site.letters_of(it.queue)) == []


@stage(
    queue={"visibility": 30},
    sent=[say(n=n % 5) for n in range(10)],
    BatchSize=10,
    MaximumBatchingWindowInSeconds=2,
    FilterCriteria={
        "Filters": [{"Pattern": {"body": {"n": [0]}}}, {"Pattern": {"body": {"n": [{"numeric": [">", 3]}]}}}]
    },
)
def only_what_matches_counts_towards_a_batch(it: Scene) -> None:  # SQS-11, FLT-2
    (only,) = it.invocations(1)
    assert only.ids == [it.sent[n] for n in (0, 4, 5, 9)]
    assert only.at - first_received(only) >= 2, "ten were received, but four count"
    it.empty()


@stage(sent=["no", "none"], FilterCriteria={"Filters": [{"Pattern": '{"body": {"kind": ["order"]}}'}]})
def without_a_match_nothing_is_invoked(it: Scene) -> None:  # SQS-66
    it.empty()
    it.bridge.until(lambda: it.bridge.view(it.mapping).filtered == 2)
    assert it.runs == []


# The event.


@stage()
def the_event_has_aws_shape(it: Scene) -> None:  # SQS-70, SQS-71, SQS-73
    attributes = {
        "kind": {"DataType": "String", "StringValue": "new"},
        "count": {"DataType": "Number.int", "StringValue": "7"},
        "blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    body = '{"é": "\\u0000 \U0001f600"}'
    sent = it.queue.api.send_message(QueueUrl=it.queue.url, MessageBody=body, MessageAttributes=attributes)
    ((record,),) = (run.records for run in it.invocations(1))
    always: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    assert record["messageAttributes"] == {
        "kind": {"stringValue": "new", "dataType": "String", **always},
        "count": {"stringValue": "7", "dataType": "Number.int", **always},
        "blob": {"binaryValue": "AP8=", "dataType": "Binary", **always},
    }
    assert record["messageId"] == sent["MessageId"]
    assert record["body"] == body
    assert record["md5OfBody"] == hashlib.md5(body.encode()).hexdigest()
    assert record["md5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert all(isinstance(value, str) for value in record["attributes"].values())
    assert {"SentTimestamp", "SenderId", "ApproximateFirstReceiveTimestamp"} <= record["attributes"].keys()
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"] == it.queue.arn
    assert record["awsRegion"] == REGION
    it.empty()


@pytest.mark.parametrize("name", stage.scenarios)
def test_scenario(name: str, performance: Performance) -> None:
    performance.result(name)

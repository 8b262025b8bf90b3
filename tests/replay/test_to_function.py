"""Letters are handed to functions as their mappings would: events byte by byte, filters, partial answers, and what
stays."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from bridge.errors import AccessDenied
from bridge.record import Batch
from bridge.replay.target import Parcel, Refused, Sent
from bridge.sources.shards import TRIM_HORIZON
from tests.clock import SKIPPING
from tests.replay.test_pointers import Near
from tests.replay.world import ARN, World, pointer
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_table import FaultyTable
from tests.sources.near_streams import LocalKinesis, LocalTable
from tests.sources.test_kinesis_event import aggregate
from tests.streams.world import failures, names_of, numbers_of

pytestmark = pytest.mark.anyio

WORKER = f"{ARN}worker"


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


@pytest.fixture(params=["kinesis", "dynamodb"])
def near(request: pytest.FixtureRequest) -> Near:
    return LocalKinesis(FaultyKinesis()) if request.param == "kinesis" else LocalTable(FaultyTable())


@pytest.fixture
def kinesis() -> LocalKinesis:
    return LocalKinesis(FaultyKinesis())


@pytest.fixture
def world(near: Near) -> World:
    made = World(near.stream)
    made.function("worker")
    return made


def only(outcomes: Any) -> Any:
    (outcome,) = outcomes
    return outcome


def names(world: World, function: str = "worker") -> list[list[str]]:
    return [names_of(event) for event in world.events(function)]


# Pointers.


async def test_records_go_to_their_function_in_the_mappings_batches(near: Near, world: World) -> None:
    """REPLAY-DO-9, REPLAY-DO-10."""
    world.mapping("clicks", "worker", near.stream.arn, batch_size=2)
    numbers = await near.put(*"abcde", key="k")
    sent = only(await world.send(pointer(near, numbers)))
    assert isinstance(sent, Sent)
    assert (sent.target, sent.maybe_twice, sent.detail) == (WORKER, False, "")
    assert names(world) == [["a", "b"], ["c", "d"], ["e"]]
    assert sent.new_id == world.executors["worker"].calls[-1].invocation.request_id


async def test_the_event_is_the_mappings_own(near: Near, world: World) -> None:  # REPLAY-DO-10, KIN-42, DDB-45
    mapping = world.mapping("clicks", "worker", near.stream.arn)
    numbers = await near.put("a", "b", key="k")
    assert isinstance(only(await world.send(pointer(near, numbers))), Sent)
    source = near.source(uuid=mapping.uuid)
    stream_api = await source.connect()
    (shard,) = await stream_api.shards()
    page = await stream_api.read(shard, await stream_api.cursor(shard, TRIM_HORIZON), 10)
    expected = json.loads(source.event(Batch(page.records, shard.id, "size"), {}))
    for record in expected["Records"]:
        if "invokeIdentityArn" in record:
            record["invokeIdentityArn"] = "arn:aws:iam::123456789012:role/worker"
    assert world.events("worker") == [expected]


async def test_the_mappings_filter_applies_again(near: Near, world: World) -> None:  # REPLAY-DO-9, KIN-39
    key = "eventID" if near.kind == "kinesis" else "eventName"
    numbers = await near.put(*"abc", key="k")
    wanted = f"shardId-000000000000:{numbers[1]}" if near.kind == "kinesis" else "INSERT"
    world.mapping("clicks", "worker", near.stream.arn, patterns=(json.dumps({key: [wanted]}),))
    sent = only(await world.send(pointer(near, numbers, batchSize=1)))
    assert isinstance(sent, Sent)
    assert names(world) == [["b" if near.kind == "kinesis" else "a"]]


async def test_a_filter_that_lets_nothing_through_leaves_the_letter(near: Near, world: World) -> None:
    world.mapping("clicks", "worker", near.stream.arn, patterns=('{"eventSource": ["nobody"]}',))
    refused = only(await world.send(pointer(near, await near.put("a"))))
    assert refused == Refused("the filter of mapping clicks does not let it through", True, WORKER, alone=True)
    assert names(world) == []


async def test_a_failure_leaves_the_letter_and_says_why(near: Near, world: World) -> None:  # REPLAY-DO-10
    def raising(event: Any) -> None:
        raise ValueError("no such customer")

    world.function("worker", raising)
    world.mapping("clicks", "worker", near.stream.arn)
    refused = only(await world.send(pointer(near, await near.put("a", "b", key="k"))))
    assert refused == Refused("the function failed: ValueError", target=WORKER, detail="no such customer")
    assert len(world.events("worker")) == 1  # it is not tried again


async def test_what_follows_a_failure_is_not_started(near: Near, world: World) -> None:
    def raising(event: Any) -> None:
        if names_of(event) == ["c", "d"]:
            raise ValueError("c")

    world.function("worker", raising)
    world.mapping("clicks", "worker", near.stream.arn, batch_size=2)
    refused = only(await world.send(pointer(near, await near.put(*"abcdef", key="k"))))
    assert refused == Refused(
        "in part: the function failed: ValueError", target=WORKER, maybe_sent=True,
        detail="the function took 2 of 6 records; c",
    )  # fmt: skip
    assert names(world) == [["a", "b"], ["c", "d"]]


async def test_a_partly_failed_letter_stays_and_says_so(near: Near, world: World) -> None:  # REPLAY-DO-9, KIN-71
    world.function("worker", lambda event: failures(*numbers_of(event)[2:]))
    world.mapping("clicks", "worker", near.stream.arn, partial=True)
    numbers = await near.put(*"abcd", key="k")
    refused = only(await world.send(pointer(near, numbers)))
    assert refused == Refused(
        "in part: the function's answer names records that failed", target=WORKER, maybe_sent=True,
        detail=f"the function took 2 of 4 records; the first is {numbers[2]}",
    )  # fmt: skip


async def test_an_answer_that_names_the_first_record(near: Near, world: World) -> None:  # KIN-77
    world.function("worker", lambda event: failures(numbers_of(event)[0]))
    world.mapping("clicks", "worker", near.stream.arn, partial=True)
    numbers = await near.put(*"ab", key="k")
    refused = only(await world.send(pointer(near, numbers)))
    assert (refused.reason, refused.maybe_sent) == ("the function's answer names records that failed", False)


@pytest.mark.parametrize("answer", [failures("unknown"), failures(""), "text", 7, {"batchItemFailures": 7}])
async def test_an_answer_that_cannot_be_read_is_a_failure(near: Near, world: World, answer: Any) -> None:  # KIN-72
    world.function("worker", lambda event: answer)
    world.mapping("clicks", "worker", near.stream.arn, partial=True)
    refused = only(await world.send(pointer(near, await near.put("a"))))
    assert isinstance(refused, Refused)
    assert not refused.maybe_sent


@pytest.mark.parametrize("answer", [None, {}, "", [], {"batchItemFailures": []}, {"batchItemFailures": None}])
async def test_answers_of_success(near: Near, world: World, answer: Any) -> None:  # KIN-70
    world.function("worker", lambda event: answer)
    world.mapping("clicks", "worker", near.stream.arn, partial=True)
    assert isinstance(only(await world.send(pointer(near, await near.put("a")))), Sent)


async def test_an_answer_counts_only_if_the_mapping_reads_it(near: Near, world: World) -> None:  # KIN-73
    world.function("worker", lambda event: failures(*numbers_of(event)))
    world.mapping("clicks", "worker", near.stream.arn)
    assert isinstance(only(await world.send(pointer(near, await near.put("a")))), Sent)


async def test_without_a_mapping_a_failure_that_is_named_counts(near: Near, world: World) -> None:
    world.function("worker", lambda event: failures(*numbers_of(event)[1:]))
    refused = only(await world.send(pointer(near, await near.put(*"ab", key="k"))))
    assert (refused.reason, refused.maybe_sent) == ("in part: the function's answer names records that failed", True)
    world.function("worker", lambda event: "done")
    assert isinstance(only(await world.send(pointer(near, await near.put(*"cd", key="k")))), Sent)


async def test_without_a_mapping_nothing_between_is_handed_over(near: Near, world: World) -> None:  # REPLAY-5
    numbers = await near.put(*"abcde", key="k")
    refused = only(await world.send(pointer(near, numbers, batchSize=2)))
    assert "name its configuration with -c" in refused.reason
    assert names(world) == []
    world.mapping("clicks", "worker", near.stream.arn)
    sent = only(await world.send(pointer(near, numbers, batchSize=2)))
    assert (sent.maybe_twice, sent.detail) == (
        True,
        "the function took 5 records; the letter says 2",
    )
    assert names(world) == [list("abcde")]


async def test_expired_records_leave_the_letter(near: Near, world: World) -> None:  # REPLAY-DO-9, REPLAY-6
    world.mapping("clicks", "worker", near.stream.arn)
    numbers = await near.put(*"abcd", key="k")
    near.stream.trim(near.stream.open[0], numbers[1])
    refused = only(await world.send(pointer(near, numbers)))
    assert refused == Refused(
        "expired in part: the stream does not keep all of its records any more",
        True,
        WORKER,
        maybe_sent=True,
        alone=True,
        detail="the function took the 2 that are left of 4 records",
    )
    near.stream.trim(near.stream.open[0])
    refused = only(await world.send(pointer(near, numbers)))
    assert (refused.reason, refused.sender_fault) == (
        "expired: the stream does not keep its records any more", True,
    )  # fmt: skip
    assert names(world) == [["c", "d"]]


async def test_a_stream_that_is_gone(near: Near, world: World) -> None:
    world.mapping("clicks", "worker", near.stream.arn)
    numbers = await near.put("a")
    await near.vanish()
    refused = only(await world.send(pointer(near, numbers)))
    assert isinstance(refused, Refused)
    assert refused.sender_fault


async def test_a_closed_shard_and_many_letters(near: Near, world: World) -> None:  # REPLAY-DO-9
    world.mapping("clicks", "worker", near.stream.arn)
    (shard,) = near.stream.open
    numbers = await near.put(*"abcd", key="k")
    await near.split()
    letters = [pointer(near, [number], shard=shard) for number in numbers]
    assert all(isinstance(it, Sent) for it in await world.send(*letters))
    assert names(world) == [["a"], ["b"], ["c"], ["d"]]
    assert near.stream.counts["ListShards"] + near.stream.counts["DescribeStream"] <= 2


async def test_a_reading_that_breaks_off_says_how_far_it_came(
    near: Near, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaking(event: Any) -> None:
        near.stream.refuse("GetRecords", "AccessDeniedException")
        near.stream.refuse("GetShardIterator", "AccessDeniedException")

    world.function("worker", breaking)
    world.mapping("clicks", "worker", near.stream.arn, batch_size=1)
    monkeypatch.setattr(type(near.stream), "most_records", 1)
    refused = only(await world.send(pointer(near, await near.put(*"abc", key="k"), batchSize=1)))
    assert (refused.maybe_sent, refused.detail) == (True, "the function took 1 of 1 records")
    assert "AccessDenied" in refused.reason


async def test_aggregated_records(kinesis: LocalKinesis) -> None:  # KIN-45
    world = World(kinesis.stream)
    world.function("worker")
    world.mapping("clicks", "worker", kinesis.stream.arn, deaggregate=True)
    packed = b64encode(aggregate(("a", b"one"), ("b", b"two"))).decode()
    number = kinesis.stream.put("k", Data=packed)
    sent = only(await world.send(pointer(kinesis, [number], batchSize=2)))
    assert (type(sent), sent.maybe_twice) == (Sent, False)
    assert names(world) == [["one", "two"]]


async def test_the_mapping_of_a_consumer(kinesis: LocalKinesis) -> None:  # KIN-44, KIN-106
    world = World(kinesis.stream)
    world.function("worker")
    world.mapping("clicks", "worker", kinesis.stream.consumer_arn)
    assert isinstance(only(await world.send(pointer(kinesis, await kinesis.put("a")))), Sent)
    (event,) = world.events("worker")
    assert event["Records"][0]["eventSourceARN"] == kinesis.stream.consumer_arn


async def test_of_several_mappings_that_of_its_function(near: Near, world: World) -> None:
    world.function("other")
    world.mapping("first", "other", near.stream.arn, batch_size=1)
    world.mapping("second", "worker", near.stream.arn, batch_size=5)
    numbers = await near.put(*"ab", key="k")
    await world.send(pointer(near, numbers))
    await world.send(pointer(near, numbers, "other:$LATEST"))
    assert (names(world), names(world, "other")) == ([["a", "b"]], [["a"], ["b"]])
    await world.send(pointer(near, numbers), to="other", mapping=world.mappings["second"])
    assert names(world, "other")[2:] == [["a", "b"]]


async def test_mappings_that_share_a_queue_for_their_failures(near: Near, world: World) -> None:
    """Whichever of them was named, each letter goes by the rules of its own."""
    world.function("other")
    world.function("fixed")
    first = world.mapping("first", "other", near.stream.arn, batch_size=1)
    world.mapping("second", "worker", near.stream.arn)
    numbers = await near.put(*"ab", key="k")
    await world.send(pointer(near, numbers), pointer(near, numbers, "other"), to="fixed", mapping=first)
    assert names(world, "fixed") == [["a", "b"], ["a"], ["b"]]


async def test_another_function_gets_it_by_the_mappings_rules(near: Near, world: World) -> None:  # story E
    world.function("fixed")
    clicks = world.mapping("clicks", "worker", near.stream.arn, batch_size=2)
    sent = only(await world.send(pointer(near, await near.put(*"abc", key="k")), to="fixed", mapping=clicks))
    assert sent.target == f"{ARN}fixed"
    assert (names(world), names(world, "fixed")) == ([], [["a", "b"], ["c"]])


async def test_tumbling_windows_cannot_be_made_again(near: Near, world: World) -> None:  # TW-1
    world.function("single")
    clicks = world.mapping("clicks", "worker", near.stream.arn, tumbling_window=30.0)
    letter = pointer(near, await near.put("a"))
    refused = only(await world.send(letter))
    assert "tumbling windows" in refused.reason
    assert refused.sender_fault
    assert isinstance(only(await world.send(letter, to="single", mapping=clicks)), Sent)
    assert [list(event) for event in world.events("single")] == [["Records"]]


# Stored batches.


def stored(near: Near, numbers: Any, **extra: Any) -> bytes:
    """An event of the stream."""
    member = "kinesis" if near.kind == "kinesis" else "dynamodb"
    name = "sequenceNumber" if near.kind == "kinesis" else "SequenceNumber"
    records = [{member: {name: number, "data": "", "exact": 1.50}, "eventName": "INSERT"} for number in numbers]
    return json.dumps({"Records": records, **extra}).encode()


async def test_a_stored_batch_is_handed_over_as_it_was(near: Near, world: World) -> None:  # KIN-85
    world.mapping("clicks", "worker", near.stream.arn, batch_size=1)
    payload = stored(near, ["1", "2", "3"])
    await near.vanish()  # nobody asks the stream
    letter = pointer(near, ["1", "2", "3"], payload=payload)
    assert letter.kind == "object"
    assert isinstance(only(await world.send(letter)), Sent)
    assert world.events("worker") == [json.loads(payload)]


async def test_a_stored_batch_of_a_window(near: Near, world: World) -> None:  # TW-30
    extra = {"window": {"start": "a", "end": "b"}, "state": {"n": 1}, "isFinalInvokeForWindow": False}
    payload = stored(near, ["1"], **extra)
    world.mapping("clicks", "worker", near.stream.arn, tumbling_window=30.0)
    world.function("worker", lambda event: {"state": {}})
    assert isinstance(only(await world.send(pointer(near, ["1"], payload=payload))), Sent)
    assert world.events("worker") == [json.loads(payload)]


async def test_a_stored_batch_goes_by_the_same_rules(near: Near, world: World) -> None:  # REPLAY-DO-9
    world.mapping("clicks", "worker", near.stream.arn, partial=True)
    world.function("worker", lambda event: failures("2"))
    refused = only(await world.send(pointer(near, ["1", "2"], payload=stored(near, ["1", "2"]))))
    assert (refused.reason, refused.maybe_sent) == ("in part: the function's answer names records that failed", True)
    world.mapping("clicks", "worker", near.stream.arn, patterns=('{"eventName": ["REMOVE"]}',))
    refused = only(await world.send(pointer(near, ["1"], payload=stored(near, ["1"]))))
    assert "does not let it through" in refused.reason


@pytest.mark.parametrize(
    "record",
    [
        {"x": 1}, 7, None, [], {"kinesis": {"sequenceNumber": "", "data": ""}, "dynamodb": {"SequenceNumber": ""}},
        {"kinesis": {"sequenceNumber": 1, "data": ""}, "dynamodb": {"SequenceNumber": 1}},
        {"kinesis": {"sequenceNumber": "1"}, "dynamodb": {}}, {"kinesis": 7, "dynamodb": 7},
    ],
    ids=str,
)  # fmt: skip
async def test_a_stored_batch_that_is_none(near: Near, world: World, record: Any) -> None:
    world.mapping("clicks", "worker", near.stream.arn, patterns=('{"eventName": ["INSERT"]}',))
    payload = json.dumps({"Records": [record]}).encode()
    refused = only(await world.send(pointer(near, ["1"], payload=payload)))
    assert refused.reason == "its payload is no event of a stream"
    assert refused.detail
    assert names(world) == []


async def test_fewer_records_than_the_letter_says_are_told(near: Near, world: World) -> None:
    world.mapping("clicks", "worker", near.stream.arn)
    sent = only(await world.send(pointer(near, await near.put(*"ab", key="k"), batchSize=7)))
    assert (sent.maybe_twice, sent.detail) == (False, "the function took 2 records; the letter says 7")


async def test_mappings_that_no_configuration_has_are_learnt(near: Near, world: World) -> None:
    asked = 0

    async def learn() -> list[Any]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise AccessDenied("may not list them")
        return [mapping]

    mapping = world.mapping("clicks", "worker", near.stream.arn, batch_size=2)
    world.mappings.clear()
    numbers = await near.put(*"abc", key="k")
    letter = pointer(near, numbers, batchSize=2)
    async with world.target(learn=learn) as target:
        outcomes = [only(await target.send([Parcel(letter, "t")])) for _ in range(3)]
    assert outcomes[0] == Refused("may not list them")
    assert [type(it) for it in outcomes[1:]] == [Sent, Sent]
    assert names(world)[:2] == [["a", "b"], ["c"]]
    assert asked == 2

"""What a handler gets of a change to a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent
from aws_lambda_powertools.utilities.parser.models import DynamoDBStreamModel

from bridge.filtering import compile_filter
from bridge.record import Batch, Record
from bridge.sources.dynamodb_records import WireRecord, lane_key, record_json
from bridge.sources.payload import records_event

EVENTS = Path(__file__).parent.parent / "events"
RECORDED = Path(__file__).parents[3] / "shared" / "spec" / "recordings"
RECORDED /= "test_lambda_integration_dynamodbstreams.snapshot.json"
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2024-06-10T19:26:16.525"


def load(name: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((EVENTS / name).read_text())["Records"]
    return records


def read(wire: dict[str, Any]) -> WireRecord:
    """As it comes."""
    return msgspec.json.decode(compact(wire), type=WireRecord)


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event() -> bytes:
    """The golden one, from what the API gave."""
    made = (record_json(read(wire), ARN) for wire in load("dynamodb.received.json"))
    return records_event(Batch(tuple(Record(id="1", json=it, arrived_at=0) for it in made), "p", "size"), {})


def test_records_are_the_golden_ones_byte_for_byte() -> None:  # DDB-40 to DDB-45
    made = [record_json(read(wire), ARN) for wire in load("dynamodb.received.json")]
    assert made == [compact(record) for record in load("dynamodb.json")]


def recorded() -> Iterator[dict[str, Any]]:
    """Every record of an event that AWS really sent."""

    def walk(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if "eventID" in value and "eventSourceARN" in value:
                yield value
            for inner in value.values():
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return walk(json.loads(RECORDED.read_text()))


@pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not here")
def test_recorded_records_come_out_byte_for_byte() -> None:
    records = [record for record in recorded() if next(iter(record)) == "eventID"]  # one was sorted by its recorder
    assert len(records) > 10
    for record in records:
        record["dynamodb"]["ApproximateCreationDateTime"] = 1480642020.0  # a placeholder is there
        wire = dict(reversed(record.items()))
        arn = wire.pop("eventSourceARN")
        wire["dynamodb"] = dict(reversed(record["dynamodb"].items()))
        assert record_json(read(wire), arn) == compact(record)


def test_powertools_reads_it() -> None:
    records = list(DynamoDBStreamEvent(json.loads(event())).records)
    names = [record.event_name.name for record in records if record.event_name]
    assert names == ["INSERT", "MODIFY", "REMOVE", "MODIFY"]
    stream = records[1].dynamodb
    assert stream is not None
    assert stream.new_image["m"] == {"b": "Zm9v", "l": [1, {}]}
    assert stream.new_image["bs"] == {"Zm9v", "YmFy"}
    assert records[2].user_identity == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}  # DDB-44
    assert records[2].event_source_arn == ARN


def test_powertools_parser_accepts_it() -> None:
    model = DynamoDBStreamModel.model_validate_json(event())
    assert [record.eventName for record in model.Records] == ["INSERT", "MODIFY", "REMOVE", "MODIFY"]
    assert model.Records[2].userIdentity is not None
    assert model.Records[2].userIdentity.principalId == "dynamodb.amazonaws.com"


# Filters, on records as the function gets them.

ITEM = {"id": {"S": "a"}, "n": {"N": "42"}, "k": {"S": "x"}}


def matches(pattern: Any, **members: Any) -> bool:
    image = members.pop("image", ITEM)
    wire = {**load("dynamodb.received.json")[0], **members}
    wire["dynamodb"] = {**wire["dynamodb"], "NewImage": image}
    text = pattern if isinstance(pattern, str) else json.dumps(pattern)
    return bool(compile_filter((text,), "dynamodb")(json.loads(record_json(read(wire), ARN))))


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        ({"eventName": ["INSERT"]}, {"eventName": ["REMOVE"]}),
        ({"eventName": ["INSERT", "MODIFY"]}, {"eventName": ["MODIFY", "REMOVE"]}),
        ({"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}, {"eventName": ["INSERT"], "eventSource": ["x"]}),
        ({"eventSourceARN": [{"prefix": "arn:aws:dynamodb:us-east-1:"}]}, {"eventSourceARN": [{"suffix": "2023"}]}),
        ({"dynamodb": {"Keys": {"id": {"S": ["a"]}}}}, {"dynamodb": {"Keys": {"id": {"N": ["a"]}}}}),
        ({"dynamodb": {"StreamViewType": ["NEW_IMAGE"]}}, {"dynamodb": {"StreamViewType": ["KEYS_ONLY"]}}),
        (
            {"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 1480642019]}]}},
            {"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 1480642020]}]}},
        ),
    ],
)
def test_all_members_of_a_record_can_be_filtered(pattern: Any, other: Any) -> None:  # DDB-50
    assert matches(pattern)
    assert not matches(other)


def in_image(pattern: Any) -> dict[str, Any]:
    return {"dynamodb": {"NewImage": pattern}}


def test_numbers_are_strings() -> None:  # DDB-51
    assert not matches(in_image({"n": {"N": [{"numeric": [">", 1]}]}}))
    assert matches(in_image({"n": {"N": ["42"]}}))
    assert matches(in_image({"n": {"N": [{"numeric": [">", 100]}, {"anything-but": "101"}]}}))


def test_exists_looks_at_leaves() -> None:  # DDB-52, DDB-53
    assert matches(in_image({"k": {"S": [{"exists": True}]}}))
    assert not matches(in_image({"k": [{"exists": True}]}))
    assert matches(in_image({"k": [{"exists": False}]}))
    assert matches(in_image({"k": [{"exists": False}]}), image={"id": {"S": "a"}})


def test_the_last_of_two_equal_keys_wins() -> None:  # DDB-54
    first, last = '{"NewImage":{"k":{"S":["y"]}}}', '{"NewImage":{"k":{"S":["x"]}}}'
    assert matches(f'{{"dynamodb":{first},"dynamodb":{last}}}')
    assert not matches(f'{{"dynamodb":{last},"dynamodb":{first}}}')


def test_deletes_by_time_to_live_can_be_told_from_others() -> None:  # DDB-44
    pattern = {"userIdentity": {"type": ["Service"], "principalId": ["dynamodb.amazonaws.com"]}}
    identity = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
    assert matches(pattern, userIdentity=identity)
    assert not matches(pattern)


def test_the_lane_is_that_of_the_whole_key_whatever_its_order() -> None:  # DDB-46
    one, other = {"id": {"S": "a"}, "sort": {"N": "1"}}, {"sort": {"N": "1"}, "id": {"S": "a"}}
    assert lane_key(one) == lane_key(other) != lane_key({**one, "sort": {"N": "2"}})
    assert lane_key({"id": {"S": "1"}}) != lane_key({"id": {"N": "1"}})

"""Mappings of streams: where they start, AWS's ranges and combinations, destinations, and pasted answers."""

from __future__ import annotations

import json
import time
from math import inf
from pathlib import Path
from typing import Any

import pytest

from bridge.mapping import StreamOptions
from tests.configured import WORKER, mapped, problem, problems, settings, warnings

KINESIS = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
CONSUMER = f"{KINESIS}/consumer/bridge"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/users/stream/2024-06-10T19:26:16.525"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:given-up"
UUID_4 = "4a1e6b0c-5c2d-4f83-9b7a-2d1f0c3e5a68"
BOTH = pytest.mark.parametrize("arn", [KINESIS, TABLE], ids=["kinesis", "dynamodb"])


def stream(folder: Path, options: str = "", arn: str = KINESIS) -> StreamOptions:
    """What a stream's mapping with these options has besides."""
    start = "" if "StartingPosition:" in options else "StartingPosition: LATEST, "
    made = settings(folder, mapped(start + options, arn)).mappings["orders"].stream
    assert made is not None
    return made


def refused(folder: Path, options: str, arn: str = KINESIS) -> str:
    """The one problem of a mapping that starts at LATEST and has these options, from the option's name on."""
    found = problem(folder, mapped(f"StartingPosition: LATEST, {options}", arn))
    start = "bridge.yaml:2: mappings.orders."
    assert found.startswith(start)
    return found.removeprefix(start)


@BOTH
def test_defaults(tmp_path: Path, arn: str) -> None:  # KIN-1, KIN-6: the older ones were 604800 s and 10000 retries
    mapping = settings(tmp_path, mapped("StartingPosition: TRIM_HORIZON", arn)).mappings["orders"]
    assert (mapping.batch_size, mapping.window, mapping.partial) == (100, 0.0, False)
    assert mapping.stream == StreamOptions(starting_position="TRIM_HORIZON")
    assert (mapping.stream.retries, mapping.stream.max_age, mapping.stream.lanes) == (inf, inf, 1)


def test_a_queue_has_none(tmp_path: Path) -> None:
    assert settings(tmp_path, mapped()).mappings["orders"].stream is None


@BOTH
@pytest.mark.parametrize(("size", "window"), [(1, 0), (500, 0), (10_000, 300)])
def test_large_batches_need_no_window(tmp_path: Path, arn: str, size: int, window: int) -> None:  # KIN-2, DDB-64
    text = mapped(f"StartingPosition: LATEST, BatchSize: {size}, MaximumBatchingWindowInSeconds: {window}", arn)
    mapping = settings(tmp_path, text).mappings["orders"]
    assert (mapping.batch_size, mapping.window) == (size, float(window))


@BOTH
@pytest.mark.parametrize(
    ("option", "field", "values", "wrong"),
    [
        ("ParallelizationFactor", "lanes", {1: 1, 10: 10}, (0, 11, 1.5)),
        ("MaximumRetryAttempts", "retries", {-1: inf, 0: 0, 10_000: 10_000}, (-2, 10_001)),
        ("MaximumRecordAgeInSeconds", "max_age", {-1: inf, 60: 60, 604_800: 604_800}, (-2, 0, 59, 604_801)),
        ("TumblingWindowInSeconds", "tumbling_window", {0: 0, 1: 1, 900: 900}, (-1, 901)),  # TW-1
        ("BisectBatchOnFunctionError", "bisect", {"true": True, "false": False}, ("'true'", 1)),
    ],
)
def test_ranges(
    tmp_path: Path, arn: str, option: str, field: str, values: dict[Any, Any], wrong: tuple[Any, ...]
) -> None:  # KIN-1, ESM-20, ESM-44
    for given, expected in values.items():
        assert getattr(stream(tmp_path, f"{option}: {given}", arn), field) == expected
    for given in wrong:
        assert refused(tmp_path, f"{option}: {given}", arn).startswith(f"{option}: ")


@pytest.mark.parametrize(
    ("option", "least", "most"), [("BatchSize", 1, 10_000), ("MaximumBatchingWindowInSeconds", 0, 300)]
)
def test_batches_beyond_their_ranges(tmp_path: Path, option: str, least: int, most: int) -> None:  # KIN-1
    assert refused(tmp_path, f"{option}: {least - 1}") == (
        f"{option}: {least - 1} is less than {least}, the least that a Kinesis stream allows"
    )
    assert refused(tmp_path, f"{option}: {most + 1}", TABLE) == (
        f"{option}: {most + 1} is more than {most}, the most that a DynamoDB stream allows"
    )


class TestStart:
    def test_it_is_required(self, tmp_path: Path) -> None:  # ESM-32
        expected = "mappings.orders.StartingPosition: is missing; a stream needs it: TRIM_HORIZON or LATEST"
        assert expected + " or AT_TIMESTAMP" in problem(tmp_path, mapped(queue=KINESIS))
        assert problem(tmp_path, mapped("StartingPosition: null", TABLE)).endswith(expected)

    def test_another_word(self, tmp_path: Path) -> None:
        found = problem(tmp_path, mapped("StartingPosition: TRIM", KINESIS))
        assert '"TRIM" is not one of AT_TIMESTAMP, LATEST, TRIM_HORIZON' in found

    @pytest.mark.parametrize(
        "given", ["1767225600", "1767225600.0", "2026-01-01T00:00:00Z", "'2026-01-01T01:00:00+01:00'"]
    )
    def test_at_a_time(self, tmp_path: Path, given: str) -> None:
        made = stream(tmp_path, f"StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: {given}")
        assert (made.starting_position, made.starting_timestamp) == ("AT_TIMESTAMP", 1767225600.0)

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ("StartingPosition: AT_TIMESTAMP", "StartingPosition: AT_TIMESTAMP needs StartingPositionTimestamp"),
            ("StartingPosition: LATEST, StartingPositionTimestamp: 1767225600",
             "StartingPositionTimestamp: has a meaning only with AT_TIMESTAMP, not with LATEST"),
            ("StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: -1", "-1.0 is no time; expected epoch"),
            ("StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: .nan", "nan is no time"),
            ("StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: .inf", "inf is in the future"),
            ("StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: yesterday", '"yesterday" is no time'),
            ("StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: '2026-01-01T00:00:00'", "with its offset"),
            ("StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: true", "expected epoch seconds, or a time"),
        ],
    )  # fmt: skip
    def test_times_that_do_not_fit(self, tmp_path: Path, options: str, part: str) -> None:  # KIN-1
        assert part in problem(tmp_path, mapped(options, KINESIS))

    def test_the_future(self, tmp_path: Path) -> None:  # KIN-1
        text = mapped(f"StartingPosition: AT_TIMESTAMP, StartingPositionTimestamp: {time.time() + 60:.0f}", KINESIS)
        assert problem(tmp_path, text).endswith(" is in the future")

    def test_a_table_knows_no_times(self, tmp_path: Path) -> None:  # DDB-7, ESM-20, ESM-33
        start, at = "StartingPosition: AT_TIMESTAMP", "StartingPositionTimestamp: 1767225600"
        first, second = problems(tmp_path, mapped(f"{start}, {at}", TABLE))
        assert "StartingPosition: the stream of a table starts at TRIM_HORIZON or LATEST" in first + second
        assert "StartingPositionTimestamp: no option of DynamoDB Streams mappings, only of: Kinesis" in first + second


class TestArns:
    @pytest.mark.parametrize("arn", [KINESIS, CONSUMER, f"{CONSUMER}:1768469400", TABLE])  # KIN-106
    def test_of_streams(self, tmp_path: Path, arn: str) -> None:
        assert str(settings(tmp_path, mapped("StartingPosition: LATEST", arn)).mappings["orders"].source_arn) == arn

    @pytest.mark.parametrize(
        ("arn", "part"),
        [
            ("arn:aws:kinesis:eu-west-1:123456789012:clicks", "expected the ARN of a stream, …:stream/NAME, or of its"),
            (f"{KINESIS}/consumer", "expected the ARN of a stream"),
            (TABLE.partition("/stream")[0], "expected the ARN of a table's stream, …:table/NAME/stream/LABEL"),
        ],
    )
    def test_of_something_else(self, tmp_path: Path, arn: str, part: str) -> None:
        found = problem(tmp_path, mapped("StartingPosition: LATEST", arn))
        assert f'mappings.orders.EventSourceArn: "{arn}": {part}' in found


class TestArnInEvents:
    """KIN-44."""

    def test_of_a_consumer(self, tmp_path: Path) -> None:
        for options, expected in (
            ("", CONSUMER),
            ("arn_in_events: consumer", CONSUMER),
            ("arn_in_events: stream", KINESIS),
        ):
            text = mapped(f"StartingPosition: LATEST, {options}", CONSUMER)
            assert settings(tmp_path, text).mappings["orders"].arn_in_events == expected

    @pytest.mark.parametrize("value", ["consumer", "stream"])
    def test_of_a_stream_itself(self, tmp_path: Path, value: str) -> None:
        assert refused(tmp_path, f"arn_in_events: {value}") == (
            "arn_in_events: has a meaning only where EventSourceArn is a consumer's, …:stream/NAME/consumer/NAME,"
            f" not with {KINESIS}"
        )

    def test_of_something_else(self, tmp_path: Path) -> None:
        found = refused(tmp_path, "arn_in_events: mapping", CONSUMER)
        assert found.startswith('arn_in_events: "mapping" is not one of consumer, stream')


class TestOptionsOfOthers:
    @pytest.mark.parametrize(
        ("arn", "options", "part"),
        [
            (
                KINESIS,
                "ScalingConfig: {MaximumConcurrency: 5}",
                "no option of Kinesis mappings, only of: SQS",
            ),  # ESM-41
            (TABLE, "ScalingConfig: {MaximumConcurrency: 5}", "no option of DynamoDB Streams mappings, only of: SQS"),
            (KINESIS, "ProvisionedPollerConfig: {MinimumPollers: 5}", "only of: SQS, Kafka"),
            (KINESIS, "delete_linger: 0.1", "no option of Kinesis mappings, only of: SQS"),
            (TABLE, "kpl_deaggregation: true", "no option of DynamoDB Streams mappings, only of: Kinesis"),
            (TABLE, "arn_in_events: stream", "no option of DynamoDB Streams mappings, only of: Kinesis"),
            (KINESIS, "Topics: [x]", "no option of Kinesis mappings, only of: Kafka"),
            (KINESIS, "KMSKeyArn: 'arn:aws:kms:x'", "not implemented yet"),
        ],
    )
    def test_on_a_stream(self, tmp_path: Path, arn: str, options: str, part: str) -> None:  # ESM-20
        found = refused(tmp_path, options, arn)
        assert found.startswith(options.partition(":")[0])
        assert part in found

    @pytest.mark.parametrize(
        "options",
        ["BisectBatchOnFunctionError: false", "MaximumRecordAgeInSeconds: -1", "TumblingWindowInSeconds: 0",
         "StartingPosition: LATEST", "on_delivery_failure: drop", "kpl_deaggregation: false",
         "arn_in_events: consumer"],
    )  # fmt: skip
    def test_on_a_queue(self, tmp_path: Path, options: str) -> None:  # ESM-20, SQS-38
        assert f"{options.partition(':')[0]}: no option of SQS mappings, only of: Kinesis" in problem(
            tmp_path, mapped(options)
        )

    def test_empty_blocks_ask_for_nothing(self, tmp_path: Path) -> None:  # ESM-61
        made = stream(tmp_path, "ScalingConfig: {}, ProvisionedPollerConfig: {}, DestinationConfig: {}")
        assert made == StreamOptions(starting_position="LATEST")
        assert settings(tmp_path, mapped("DestinationConfig: {}")).mappings["orders"].stream is None


class TestCombinations:
    def test_windows_have_one_lane(self, tmp_path: Path) -> None:  # TW-2
        assert refused(tmp_path, "TumblingWindowInSeconds: 60, ParallelizationFactor: 2") == (
            "ParallelizationFactor: 2 excludes TumblingWindowInSeconds; remove one of the two"
        )
        assert stream(tmp_path, "TumblingWindowInSeconds: 60, ParallelizationFactor: 1").tumbling_window == 60
        assert stream(tmp_path, "TumblingWindowInSeconds: 0, ParallelizationFactor: 2").lanes == 2

    def test_windows_go_with_all_the_rest(self, tmp_path: Path) -> None:  # TW-3
        rest = "MaximumRetryAttempts: 1, MaximumRecordAgeInSeconds: 60, BisectBatchOnFunctionError: true"
        made = stream(
            tmp_path, f"TumblingWindowInSeconds: 60, FunctionResponseTypes: [ReportBatchItemFailures], {rest}"
        )
        assert (made.tumbling_window, made.retries, made.max_age, made.bisect) == (60.0, 1.0, 60.0, True)


class TestDestinations:
    def to(self, target: str) -> str:
        return f"MaximumRetryAttempts: 1, DestinationConfig: {{OnFailure: {{Destination: '{target}'}}}}"

    @pytest.mark.parametrize("arn", [QUEUE, "arn:aws:sns:eu-west-1:123456789012:given-up", "arn:aws:s3:::given-up"])
    def test_those_of_streams(self, tmp_path: Path, arn: str) -> None:  # ESM-24
        assert stream(tmp_path, self.to(arn)).on_failure == arn

    @pytest.mark.parametrize("none", ["{}", "{OnFailure: {}}", "{OnFailure: {Destination: ''}}", "null"])
    def test_none(self, tmp_path: Path, none: str) -> None:  # KIN-1
        assert stream(tmp_path, f"DestinationConfig: {none}").on_failure == ""

    @pytest.mark.parametrize(
        ("target", "part"),
        [
            (f"{QUEUE}.fifo", "FIFO queues and topics are not supported here"),  # KIN-86
            ("arn:aws:sns:eu-west-1:123456789012:given-up.fifo", "FIFO queues and topics are not supported here"),
            ("arn:aws:lambda:eu-west-1:123456789012:function:f", "is a function, no destination of a stream's records"),
            ("arn:aws:events:eu-west-1:123456789012:event-bus/b", "is an EventBridge bus, no destination"),
            ("given-up", '"given-up" is no ARN of a destination; expected that of an SQS queue, an SNS topic or an S3'),
            ("kafka://given-up", "is no ARN of a destination"),
        ],
    )
    def test_others(self, tmp_path: Path, target: str, part: str) -> None:  # ESM-24
        found = refused(tmp_path, self.to(target))
        assert found.startswith("DestinationConfig.OnFailure.Destination: ")
        assert part in found

    def test_success_is_told_to_nobody(self, tmp_path: Path) -> None:  # ESM-23
        text = mapped(
            f"StartingPosition: LATEST, DestinationConfig: {{OnSuccess: {{Destination: '{QUEUE}'}}}}", KINESIS
        )
        assert any("DestinationConfig.OnSuccess: " in line for line in problems(tmp_path, text))

    def test_block(self, tmp_path: Path) -> None:  # KIN-87
        assert stream(tmp_path, f"{self.to(QUEUE)}, on_delivery_failure: block").block
        assert not stream(tmp_path, f"{self.to(QUEUE)}, on_delivery_failure: drop").block
        assert not stream(tmp_path, self.to(QUEUE)).block
        assert "on_delivery_failure: has a meaning only with DestinationConfig" in refused(
            tmp_path, "on_delivery_failure: block"
        )
        assert '"wait" is not one of block, drop' in refused(tmp_path, "on_delivery_failure: wait")


class TestAdvice:
    def test_a_stream_without_any_bound(self, tmp_path: Path) -> None:  # KIN-60
        (only,) = warnings(tmp_path, mapped("StartingPosition: LATEST", KINESIS))
        assert only.startswith(
            "bridge.yaml:2: mappings.orders: neither MaximumRetryAttempts nor MaximumRecordAgeInSeconds is limited"
        )

    @pytest.mark.parametrize("bound", ["MaximumRetryAttempts: 0", "MaximumRecordAgeInSeconds: 60"])
    def test_a_bound_without_a_destination(self, tmp_path: Path, bound: str) -> None:  # KIN-68
        (only,) = warnings(tmp_path, mapped(f"StartingPosition: LATEST, {bound}", TABLE))
        assert "mappings.orders: what is given up is lost: DestinationConfig.OnFailure names nobody to tell" in only
        told = f"DestinationConfig: {{OnFailure: {{Destination: '{QUEUE}'}}}}"
        assert warnings(tmp_path, mapped(f"StartingPosition: LATEST, {bound}, {told}", TABLE)) == []


class TestFilters:
    @pytest.mark.parametrize(
        ("arn", "pattern"),
        [
            (KINESIS, "{data: {kind: [click]}, kinesis: {partitionKey: [a]}}"),  # KIN-40
            (TABLE, "{dynamodb: {NewImage: {id: {S: [{exists: true}]}}}, eventName: [INSERT]}"),  # DDB-50
        ],
    )
    def test_what_matches_here(self, tmp_path: Path, arn: str, pattern: str) -> None:
        text = mapped(f"StartingPosition: LATEST, FilterCriteria: {{Filters: [{{Pattern: {pattern}}}]}}", arn)
        assert len(settings(tmp_path, text).mappings["orders"].patterns) == 1
        assert not any("payload" in line for line in warnings(tmp_path, text))

    @pytest.mark.parametrize(
        ("arn", "key", "own"), [(KINESIS, "body", "data"), (KINESIS, "dynamodb", "data"), (TABLE, "data", "dynamodb")]
    )
    def test_what_was_copied_from_elsewhere(self, tmp_path: Path, arn: str, key: str, own: str) -> None:  # FLT-40
        text = mapped(
            f"StartingPosition: LATEST, FilterCriteria: {{Filters: [{{Pattern: {{{key}: {{a: [1]}}}}}}]}}", arn
        )
        assert any(
            line.endswith(f"Pattern: the payload of these records is `{own}`; they have no `{key}`")
            for line in warnings(tmp_path, text)
        )


class TestPasted:
    """ESM-91: what get-event-source-mapping prints."""

    @pytest.mark.parametrize("printed", ["api", "cli"])
    @BOTH
    def test_a_whole_answer_works_with_one_notice(self, tmp_path: Path, arn: str, printed: str) -> None:
        answer: dict[str, Any] = {
            "UUID": UUID_4, "BatchSize": 100, "MaximumBatchingWindowInSeconds": 0, "ParallelizationFactor": 1,
            "StartingPosition": "TRIM_HORIZON", "EventSourceArn": arn,
            "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:worker",
            "LastModified": 1767225600.123, "LastProcessingResult": "No records processed", "State": "Enabled",
            "StateTransitionReason": "User action", "DestinationConfig": {"OnFailure": {}},
            "MaximumRecordAgeInSeconds": -1, "BisectBatchOnFunctionError": False, "MaximumRetryAttempts": -1,
            "TumblingWindowInSeconds": 0, "FunctionResponseTypes": [],
            "EventSourceMappingArn": f"arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:{UUID_4}",
        }  # fmt: skip
        if arn == KINESIS:
            at = {"api": 1767225600, "cli": "2026-01-01T00:00:00+00:00"}[printed]
            answer |= {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": at}
        loaded = settings(tmp_path, f"{WORKER}mappings:\n  orders: {json.dumps(answer, indent=4)}\n")
        mapping = loaded.mappings["orders"]
        assert (mapping.uuid, mapping.enabled, mapping.batch_size) == (UUID_4, True, 100)
        expected = StreamOptions(
            starting_position=answer["StartingPosition"],
            starting_timestamp=1767225600.0 if arn == KINESIS else None,
        )
        assert mapping.stream == expected
        (notice,) = loaded.notices
        assert "LastModified, LastProcessingResult, StateTransitionReason, EventSourceMappingArn" in notice

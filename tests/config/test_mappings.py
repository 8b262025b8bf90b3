"""Mappings: AWS's ranges and combinations, pasted answers, names and ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest

from bridge.sources import SOURCES
from tests.configured import QUEUE, WORKER, mapped, problem, problems, settings, warnings

FIFO = f"{QUEUE}.fifo"
UUID_4 = "4a1e6b0c-5c2d-4f83-9b7a-2d1f0c3e5a68"
RECORDINGS = Path(__file__).parents[3] / "shared" / "spec" / "recordings"


class TestDefaults:
    def test_of_a_standard_queue(self, tmp_path: Path) -> None:
        mapping = settings(tmp_path, mapped()).mappings["orders"]
        assert (mapping.batch_size, mapping.window, mapping.enabled, mapping.partial) == (
            10,
            0.0,
            True,
            False,
        )  # ESM-20
        assert (mapping.patterns, mapping.maximum_concurrency, mapping.minimum_pollers) == ((), None, None)
        assert (mapping.name, mapping.function, mapping.qualifier, mapping.source) == ("orders", "worker", "", "sqs")
        assert mapping.where == str(tmp_path / "bridge.yaml:2")
        assert str(mapping.source_arn) == QUEUE

    def test_of_a_fifo_queue(self, tmp_path: Path) -> None:
        mapping = settings(tmp_path, mapped(queue=FIFO)).mappings["orders"]
        assert (mapping.batch_size, mapping.window) == (10, 0.0)


class TestBatches:
    @pytest.mark.parametrize(("size", "window"), [(1, 0), (10, 0), (11, 1), (10_000, 300)])
    def test_what_a_standard_queue_allows(self, tmp_path: Path, size: int, window: int) -> None:  # SQS-10
        text = mapped(f"BatchSize: {size}, MaximumBatchingWindowInSeconds: {window}")
        mapping = settings(tmp_path, text).mappings["orders"]
        assert (mapping.batch_size, mapping.window) == (size, float(window))

    def test_too_large_names_the_most_and_whose_it_is(self, tmp_path: Path) -> None:
        assert problem(tmp_path, mapped("BatchSize: 20000, MaximumBatchingWindowInSeconds: 1")) == (
            "bridge.yaml:2: mappings.orders.BatchSize:"
            " 20000 is more than 10000, the most that an SQS standard queue allows"
        )

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ("BatchSize: 0", "BatchSize: 0 is less than 1, the least that an SQS standard queue allows"),
            ("BatchSize: -5", "BatchSize: -5 is less than 1"),
            ("BatchSize: '10'", 'BatchSize: expected a whole number, got "10"'),
            ("BatchSize: 1.5", "BatchSize: expected a whole number, got 1.5"),
            ("BatchSize: true", "BatchSize: expected a whole number, got true"),
            ("BatchSize: [1]", "BatchSize: expected a whole number, got a list"),
            ("MaximumBatchingWindowInSeconds: 301", "301 is more than 300, the most that an SQS standard queue allows"),
            ("MaximumBatchingWindowInSeconds: 0.5", "expected a whole number, got 0.5"),
        ],
    )
    def test_what_it_does_not(self, tmp_path: Path, options: str, part: str) -> None:
        assert part in problem(tmp_path, mapped(options))

    def test_more_than_ten_need_a_window(self, tmp_path: Path) -> None:  # ESM-34
        text = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        assert text in problem(tmp_path, mapped("BatchSize: 11"))
        assert text in problem(tmp_path, mapped("BatchSize: 10000, MaximumBatchingWindowInSeconds: 0"))

    def test_a_fifo_queue_has_no_window(self, tmp_path: Path) -> None:  # ESM-35
        text = "Batching window is not supported for FIFO queues"
        assert text in problem(tmp_path, mapped("MaximumBatchingWindowInSeconds: 1", FIFO))
        assert settings(tmp_path, mapped("MaximumBatchingWindowInSeconds: 0", FIFO)).mappings

    def test_a_fifo_queue_has_ten_at_most(self, tmp_path: Path) -> None:  # ESM-36
        assert "11 is more than 10, the most that an SQS FIFO queue allows" in problem(
            tmp_path, mapped("BatchSize: 11", FIFO)
        )


class TestScaling:
    @pytest.mark.parametrize("number", [2, 1000])
    def test_maximum_concurrency(self, tmp_path: Path, number: int) -> None:  # SQS-16
        text = mapped(f"ScalingConfig: {{MaximumConcurrency: {number}}}")
        assert settings(tmp_path, text).mappings["orders"].maximum_concurrency == number

    @pytest.mark.parametrize(("number", "limit"), [(1, "less than 2"), (1001, "more than 1000")])
    def test_its_range(self, tmp_path: Path, number: int, limit: str) -> None:
        found = problem(tmp_path, mapped(f"ScalingConfig: {{MaximumConcurrency: {number}}}"))
        assert found.startswith(f"bridge.yaml:2: mappings.orders.ScalingConfig.MaximumConcurrency: {number} is {limit}")

    @pytest.mark.parametrize("empty", ["ScalingConfig: {}", "ProvisionedPollerConfig: {}", "ScalingConfig: null"])
    def test_empty_asks_for_nothing(self, tmp_path: Path, empty: str) -> None:  # ESM-61
        mapping = settings(tmp_path, mapped(empty)).mappings["orders"]
        assert (mapping.maximum_concurrency, mapping.minimum_pollers, mapping.maximum_pollers) == (None, None, None)

    @pytest.mark.parametrize(
        ("given", "pollers"),
        [
            ("MinimumPollers: 5", (5, 200)),
            ("MaximumPollers: 7", (2, 7)),
            ("MinimumPollers: 200, MaximumPollers: 10000", (200, 10_000)),
        ],
    )
    def test_provisioned_mode(self, tmp_path: Path, given: str, pollers: tuple[int, int]) -> None:  # ESM-42
        mapping = settings(tmp_path, mapped(f"ProvisionedPollerConfig: {{{given}}}")).mappings["orders"]
        assert (mapping.minimum_pollers, mapping.maximum_pollers) == pollers

    @pytest.mark.parametrize(
        ("given", "part"),
        [
            ("MinimumPollers: 1", "1 is less than 2"),
            ("MinimumPollers: 201", "201 is more than 200"),
            ("MaximumPollers: 10001", "10001 is more than 10000"),
            ("MinimumPollers: 9, MaximumPollers: 8", "9 is more than MaximumPollers, 8"),
            ("PollerGroupName: x", "unknown option"),  # ESM-43
        ],
    )
    def test_its_ranges(self, tmp_path: Path, given: str, part: str) -> None:
        assert part in problem(tmp_path, mapped(f"ProvisionedPollerConfig: {{{given}}}"))

    def test_the_two_exclude_each_other(self, tmp_path: Path) -> None:  # ESM-40
        text = mapped("ScalingConfig: {MaximumConcurrency: 5}, ProvisionedPollerConfig: {MinimumPollers: 5}")
        assert "excludes ScalingConfig.MaximumConcurrency" in problem(tmp_path, text)


class TestFilters:
    def test_json_text_and_yaml_are_alike(self, tmp_path: Path) -> None:
        as_text, as_yaml = """{Pattern: '{"body": {"a": [1, null]}}'}""", "{Pattern: {body: {a: [1, null]}}}"
        text = mapped(f"FilterCriteria: {{Filters: [{as_text}, {as_yaml}]}}")
        first, second = settings(tmp_path, text).mappings["orders"].patterns
        assert json.loads(first) == json.loads(second) == {"body": {"a": [1, None]}}

    @pytest.mark.parametrize("none", ["{}", "{Filters: []}", "null"])
    def test_none(self, tmp_path: Path, none: str) -> None:  # ESM-61, ESM-62
        assert settings(tmp_path, mapped(f"FilterCriteria: {none}")).mappings["orders"].patterns == ()

    @pytest.mark.parametrize(
        "pattern",
        [
            "{}", "{Pattern: ''}", "{Pattern: '{}'}", "{Pattern: 'null'}", "{Pattern: order}", "{Pattern: {}}",
            """{Pattern: '{"eventSource": "aws:sqs"}'}""", """{Pattern: '{"eventSource": []}'}""",
            "{Pattern: '[1]'}", "{Pattern: '{'}", "{Pattern: {body: {a: [{NUMERIC: ['=', 1]}]}}}",
            "{Pattern: {a: [.nan]}}", "{Pattern: 5}",
        ],
    )  # fmt: skip
    def test_invalid_ones(self, tmp_path: Path, pattern: str) -> None:  # FLT-3, FLT-4, FLT-5, FLT-8, FLT-9
        found = problem(tmp_path, mapped(f"FilterCriteria: {{Filters: [{{Pattern: {{a: [1]}}}}, {pattern}]}}"))
        assert found.startswith("bridge.yaml:2: mappings.orders.FilterCriteria.Filters[1]")
        assert "Invalid filter pattern definition" in found

    def test_too_long(self, tmp_path: Path) -> None:  # FLT-6
        pattern = json.dumps({"body": {"a": ["x" * 4096]}})
        assert "Invalid filter pattern definition" in problem(
            tmp_path, mapped(f"FilterCriteria: {{Filters: [{{Pattern: '{pattern}'}}]}}")
        )

    def test_ten_are_the_most(self, tmp_path: Path) -> None:  # ESM-45
        ten = ", ".join(["{Pattern: {a: [1]}}"] * 10)
        assert (
            len(settings(tmp_path, mapped(f"FilterCriteria: {{Filters: [{ten}]}}")).mappings["orders"].patterns) == 10
        )
        text = mapped(f"FilterCriteria: {{Filters: [{ten}, {{Pattern: {{a: [1]}}}}]}}")
        assert "11 filters are more than 10" in problem(tmp_path, text)

    def test_the_line_is_the_patterns(self, tmp_path: Path) -> None:
        text = f"""{WORKER}mappings:
  orders:
    FunctionName: worker
    EventSourceArn: {QUEUE}
    FilterCriteria:
      Filters:
        - Pattern: '{{"a": [1]}}'
        - Pattern:
            a: []
"""
        assert problem(tmp_path, text).startswith("bridge.yaml:9: mappings.orders.FilterCriteria.Filters[1].Pattern: ")


class TestFunctionNames:
    @pytest.mark.parametrize(
        ("name", "qualifier"),
        [
            ("worker", ""),
            ("'worker:$LATEST'", "$LATEST"),
            ("'123456789012:function:worker'", ""),
            ("'function:worker'", ""),
            ("'arn:aws:lambda:eu-west-1:123456789012:function:worker'", ""),
            ("'arn:aws:lambda:eu-west-1:123456789012:function:worker:$LATEST'", "$LATEST"),
        ],
    )
    @pytest.mark.parametrize("key", ["FunctionName", "FunctionArn"])
    def test_forms(self, tmp_path: Path, key: str, name: str, qualifier: str) -> None:  # ESM-8
        text = f"{WORKER}mappings: {{orders: {{{key}: {name}, EventSourceArn: '{QUEUE}'}}}}"
        mapping = settings(tmp_path, text).mappings["orders"]
        assert (mapping.function, mapping.qualifier) == ("worker", qualifier)

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ("FunctionName: wroker", 'FunctionName: Function does not exist: "wroker" is not among'),  # ESM-12
            ("FunctionName: wroker", '; did you mean "worker"?'),
            ("FunctionName: 'worker:1'", "FunctionName: Function does not exist: worker has no version or alias"),
            ("FunctionName: 'worker:live'", 'no version or alias "live"; known are: $LATEST'),
            ("FunctionName: 'arn:aws:lambda:eu-west-1:123456789012:function:worker:7'", 'no version or alias "7"'),
            ("FunctionName: 'a b'", '"a b" is no function; expected a name'),
            ("FunctionName: 'arn:aws:sqs:eu-west-1:123456789012:worker'", "is no function"),
            ("FunctionName: worker, FunctionArn: 'function:other'", "FunctionArn: Function does not exist"),
            (
                "",
                "mappings.orders: FunctionName is missing; give the name of a function of this file; known are: worker",
            ),
        ],
    )
    def test_others(self, tmp_path: Path, options: str, part: str) -> None:
        assert part in problem(tmp_path, f"{WORKER}mappings: {{orders: {{EventSourceArn: '{QUEUE}', {options}}}}}")

    def test_name_and_arn_must_agree(self, tmp_path: Path) -> None:
        functions = WORKER.replace("}}", "}, other: {Runtime: python3.11, Handler: app.handler, CodeUri: .}}")
        both = "FunctionName: worker, FunctionArn: 'function:other'"
        text = f"{functions}mappings: {{o: {{{both}, EventSourceArn: '{QUEUE}'}}}}"
        assert "FunctionArn: names another function than FunctionName worker" in problem(tmp_path, text)


class TestSources:
    @pytest.mark.parametrize(
        ("arn", "part"),
        [
            ("arn:aws:kafka:eu-west-1:123456789012:cluster/c/u", "event sources of kafka are not implemented yet"),
            ("arn:aws:sns:eu-west-1:123456789012:topic", "sns is no event source"),
        ],
    )
    def test_unsupported_ones_name_what_there_is(self, tmp_path: Path, arn: str, part: str) -> None:
        found = problem(tmp_path, mapped("StartingPosition: LATEST", arn))
        assert found.startswith(
            f"bridge.yaml:2: mappings.orders.EventSourceArn: unsupported ARN: {arn}: {part}; implemented are: "
        )
        assert found.endswith(", ".join(SOURCES))

    @pytest.mark.parametrize(
        "arn", ["orders", "arn:aws:sqs", "arn:aws:sqs:eu-west-1:1234:orders", "arn:aws:sqs::123456789012:orders",
                "arn:aws:sqs:eu-west-1:123456789012:", "https://sqs.eu-west-1.amazonaws.com/123456789012/orders",
                "arn:aws:sqs:eu-west-1:123456789012:no spaces"],
    )  # fmt: skip
    def test_what_is_no_arn(self, tmp_path: Path, arn: str) -> None:
        assert "EventSourceArn: " in problem(tmp_path, mapped(queue=arn))
        assert "is no ARN of an event source; expected one such as arn:aws:sqs:" in problem(tmp_path, mapped(queue=arn))

    def test_none(self, tmp_path: Path) -> None:  # ESM-30
        assert problem(tmp_path, f"{WORKER}mappings: {{orders: {{FunctionName: worker}}}}") == (
            "bridge.yaml:2: mappings.orders: Unrecognized event source: EventSourceArn is missing"
        )

    def test_self_managed_kafka(self, tmp_path: Path) -> None:
        own = "SelfManagedEventSource: {Endpoints: {}}, Topics: [t]"
        text = f"{WORKER}mappings: {{k: {{FunctionName: worker, {own}}}}}"
        assert "mappings.k.SelfManagedEventSource: self-managed Kafka is not implemented yet" in problem(tmp_path, text)

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            ("StartingPosition: LATEST",
             "no option of SQS mappings, only of: Kinesis, DynamoDB Streams, Kafka, DocumentDB"),
            ("ParallelizationFactor: 2", "no option of SQS mappings, only of: Kinesis, DynamoDB Streams"),
            ("MaximumRetryAttempts: 2", "no option of SQS mappings"),  # SQS-38
            ("BisectBatchOnFunctionError: true", "no option of SQS mappings"),
            ("Topics: [x]", "no option of SQS mappings, only of: Kafka"),
            ("DestinationConfig: {OnFailure: {Destination: x}}",
             "Unsupported DestinationConfig parameter for given event source mapping type"),  # ESM-23
            ("KMSKeyArn: 'arn:aws:kms:x'", "not implemented yet"),
            ("Tags: {a: b}", "not implemented yet"),
            ("MetricsConfig: {Metrics: [ErrorCount]}", '"ErrorCount" is not one of EventCount'),
            ("FilterCriteriaError: {ErrorCode: x}", "AWS could not show the filters"),  # ESM-71
            ("FunctionResponseTypes: [x]", '"x" is not one of ReportBatchItemFailures'),
            ("FunctionResponseTypes: [ReportBatchItemFailures, ReportBatchItemFailures]", "more than 1 entry"),
            ("batch_size: 5", 'unknown option; did you mean "BatchSize"?'),
            ("delete_linger: 2", "2 is more than 1"),
            ("Zzzz: 1", "unknown option; known are: FunctionName, "),
        ],
    )  # fmt: skip
    def test_other_keys(self, tmp_path: Path, options: str, part: str) -> None:  # ESM-20
        found = problem(tmp_path, mapped(options))
        assert found.startswith(f"bridge.yaml:2: mappings.orders.{options.partition(':')[0]}")
        assert part in found

    def test_what_is_null_asks_for_nothing(self, tmp_path: Path) -> None:
        text = mapped(
            "StartingPosition: null, KMSKeyArn: null, BatchSize: null, UUID: null, MetricsConfig: {Metrics: null}"
        )
        assert settings(tmp_path, text).mappings["orders"].batch_size == 10

    def test_event_count_is_understood(self, tmp_path: Path) -> None:  # ESM-95: our metrics are always on
        assert settings(tmp_path, mapped("MetricsConfig: {Metrics: [EventCount]}")).mappings


class TestIdentity:
    def test_the_id_follows_from_the_name(self, tmp_path: Path) -> None:
        mapping = settings(tmp_path, mapped()).mappings["orders"]
        assert mapping.uuid == settings(tmp_path, mapped("BatchSize: 5")).mappings["orders"].uuid
        assert mapping.uuid == "f56109b5-cec1-5ec2-badf-29d31c8826d9", (
            "state is kept under these ids: they never change"
        )
        assert UUID(mapping.uuid).version == 5

    def test_a_given_one_is_kept(self, tmp_path: Path) -> None:  # ESM-6
        text = mapped("UUID: 4A1E6B0C-5c2d-4f83-9b7a-2d1f0c3e5a68")
        assert settings(tmp_path, text).mappings["orders"].uuid == "4a1e6b0c-5c2d-4f83-9b7a-2d1f0c3e5a68"

    @pytest.mark.parametrize("uuid", ["orders", "4a1e6b0c5c2d4f839b7a2d1f0c3e5a68", "5"])
    def test_others_are_refused(self, tmp_path: Path, uuid: str) -> None:
        assert f'mappings.orders.UUID: "{uuid}" is no UUID' in problem(tmp_path, mapped(f"UUID: {uuid}"))

    def test_no_two_are_alike(self, tmp_path: Path) -> None:
        uuid = "4a1e6b0c-5c2d-4f83-9b7a-2d1f0c3e5a68"
        text = f"""{WORKER}mappings:
  a: {{FunctionName: worker, EventSourceArn: '{QUEUE}', UUID: {uuid}}}
  b: {{FunctionName: worker, EventSourceArn: '{QUEUE}2', UUID: {uuid}}}
"""
        assert problem(tmp_path, text).startswith(
            f"bridge.yaml:4: mappings.b.UUID: mappings.a has the same UUID {uuid}"
        )

    def test_one_source_and_function_make_one_mapping(self, tmp_path: Path) -> None:  # ESM-11
        text = f"""{WORKER}mappings:
  a: {{FunctionName: worker, EventSourceArn: '{QUEUE}'}}
  b: {{FunctionName: 'function:worker', EventSourceArn: '{QUEUE}'}}
"""
        found = problem(tmp_path, text)
        assert found.startswith("bridge.yaml:4: mappings.b.EventSourceArn: an event source mapping of ")
        assert "already exists: mappings.a" in found

    def test_a_qualifier_makes_another(self, tmp_path: Path) -> None:  # ESM-10, ESM-15
        text = f"""{WORKER}mappings:
  a: {{FunctionName: worker, EventSourceArn: '{QUEUE}'}}
  b: {{FunctionName: 'worker:$LATEST', EventSourceArn: '{QUEUE}'}}
"""
        assert len(settings(tmp_path, text).mappings) == 2


class TestStates:
    @pytest.mark.parametrize("state", ["Creating", "Enabling", "Enabled", "Updating"])
    def test_enabled(self, tmp_path: Path, state: str) -> None:  # ESM-50
        assert settings(tmp_path, mapped(f"State: {state}")).mappings["orders"].enabled

    @pytest.mark.parametrize(
        "state", ["State: Disabling", "State: Disabled", "Enabled: false", "State: Disabled, Enabled: false"]
    )
    def test_disabled(self, tmp_path: Path, state: str) -> None:
        assert not settings(tmp_path, mapped(state)).mappings["orders"].enabled

    @pytest.mark.parametrize(
        ("state", "part"),
        [
            ("State: Disabled, Enabled: true", "Disabled contradicts Enabled: true"),
            ("State: Deleting", '"Deleting" is not one of'),
            ("Enabled: 'yes'", 'Enabled: expected true or false, got "yes"'),
        ],
    )
    def test_others(self, tmp_path: Path, state: str, part: str) -> None:
        assert part in problem(tmp_path, mapped(state))


class TestPasted:
    def pasted(self, answer: dict[str, Any]) -> str:
        return f"{WORKER}mappings:\n  orders: {json.dumps(answer, indent=4)}\n"

    ANSWER: ClassVar[dict[str, Any]] = {  # ESM-90
        "UUID": UUID_4,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": QUEUE,
        "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:worker",
        "LastModified": 1767225600.123,
        "State": "Disabled",
        "StateTransitionReason": "USER_INITIATED",
        "FunctionResponseTypes": [],
        "EventSourceMappingArn": f"arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:{UUID_4}",
    }

    def test_a_whole_answer_works_with_one_notice(self, tmp_path: Path) -> None:
        loaded = settings(tmp_path, self.pasted(self.ANSWER))
        mapping = loaded.mappings["orders"]
        assert (mapping.uuid, mapping.function, mapping.enabled) == (self.ANSWER["UUID"], "worker", False)
        (notice,) = loaded.notices
        assert "mappings.orders: LastModified, StateTransitionReason, EventSourceMappingArn" in notice

    def test_as_yaml_it_works_as_well(self, tmp_path: Path) -> None:
        lines = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in self.ANSWER.items())
        loaded = settings(tmp_path, f"{WORKER}mappings:\n  orders:\n{lines}")
        assert loaded.mappings["orders"].uuid == self.ANSWER["UUID"]

    def test_several_make_one_notice(self, tmp_path: Path) -> None:
        other = {**self.ANSWER, "UUID": "0fb0e1a3-6b2f-4c1d-8d0e-2f3a4b5c6d7e", "EventSourceArn": f"{QUEUE}2"}
        text = f"{WORKER}mappings: {json.dumps({'a': self.ANSWER, 'b': other})}"
        assert len(settings(tmp_path, text).notices) == 1

    def test_recorded_answers_work(self, tmp_path: Path) -> None:
        if not RECORDINGS.is_dir():
            pytest.skip("the recordings are not here")
        answers = list(self.recorded())
        assert len(answers) >= 5
        for answer in answers:
            text = json.dumps({**answer, "UUID": UUID_4}).replace("<partition>", "aws").replace("<region>", "us-east-1")
            filled = json.loads(text.replace("<resource:3>", "worker").replace("<resource:1>", "queue"))
            if not filled["FunctionArn"].endswith((":worker", ":worker:$LATEST")):
                assert "worker has no version or alias" in " ".join(problems(tmp_path, self.pasted(filled)))
                continue
            mapping = settings(tmp_path, self.pasted(filled)).mappings["orders"]
            assert mapping.batch_size == answer["BatchSize"]

    def recorded(self) -> Any:
        file = RECORDINGS / "test_lambda_api.event_source_mapping_subset.snapshot.json"
        recording = json.loads(file.read_text())
        test = next(key for key in recording if key.endswith("test_function_name_variations"))
        for step in recording[test]["recorded-content"].values():
            if step.get("ResponseMetadata", {}).get("HTTPStatusCode") == 202:
                yield step


class TestAws:
    def test_the_region_is_the_queues(self, tmp_path: Path) -> None:
        loaded = settings(tmp_path, f"aws: {{region: us-east-1}}\n{mapped()}")
        assert loaded.aws.region == "us-east-1"
        assert loaded.mappings["orders"].aws.region == "eu-west-1"

    def test_a_block_of_its_own_goes_over_the_one_at_the_top(self, tmp_path: Path) -> None:
        own = "aws: {endpoint_url: 'http://b:2', role_arn: 'arn:aws:iam::123456789012:role/r'}"
        top = "aws: {endpoint_url: 'http://a:1', endpoint_urls: {sqs: 'http://a:9'}, profile: dev}\n"
        aws = settings(tmp_path, top + mapped(own)).mappings["orders"].aws
        assert (aws.endpoint_url, aws.endpoint_urls, aws.profile) == ("http://b:2", {}, "dev")
        assert aws.role_arn == "arn:aws:iam::123456789012:role/r"

    def test_without_one_the_top_holds(self, tmp_path: Path) -> None:
        top = "aws: {endpoint_url: 'http://a:1', endpoint_urls: {sqs: 'http://a:9'}}\n"
        aws = settings(tmp_path, top + mapped("aws: {endpoint_urls: {sns: 'http://c:3'}}")).mappings["orders"].aws
        assert aws.endpoint_url == "http://a:1"
        assert aws.endpoint_urls == {"sqs": "http://a:9", "sns": "http://c:3"}

    def test_the_client_of_the_hot_operations(self, tmp_path: Path) -> None:
        assert settings(tmp_path, f"aws: {{client: sdk}}\n{mapped()}").mappings["orders"].aws.client == "sdk"
        text = f"aws: {{client: sdk}}\n{mapped('aws: {client: fast}')}"
        assert settings(tmp_path, text).mappings["orders"].aws.client == "fast"
        assert 'aws.client: "slow"' in problem(tmp_path, mapped("aws: {client: slow}"))

    def test_another_region_than_the_arns_is_odd(self, tmp_path: Path) -> None:
        text = mapped("aws: {region: us-east-1}")
        assert settings(tmp_path, text).mappings["orders"].aws.region == "us-east-1"
        assert any(
            "mappings.orders.aws.region: the source is asked for in us-east-1" in line
            for line in warnings(tmp_path, text)
        )

    @pytest.mark.parametrize(
        ("block", "part"),
        [
            ("region: Ireland", 'aws.region: "Ireland" is no region'),
            ("endpoint_url: 'localhost:4566'", "aws.endpoint_url: "),
            ("endpoint_url: 'http://'", "aws.endpoint_url: "),
            ("endpoint_url: 'http://x:99999'", "aws.endpoint_url: "),
            ("endpoint_url: 'http://[::1'", "aws.endpoint_url: "),
            ("endpoint_urls: {SQS: 'http://x'}", "aws.endpoint_urls.SQS: "),
            ("account_id: 12", 'aws.account_id: "12" is no account; expected 12 digits'),
            ("role_arn: admin", 'aws.role_arn: "admin" is no role'),
            ("endpoint: x", 'aws.endpoint: unknown option; did you mean "endpoint_url"?'),
        ],
    )
    def test_blocks_are_checked_wherever_they_stand(self, tmp_path: Path, block: str, part: str) -> None:
        assert f"mappings.orders.{part}" in problem(tmp_path, mapped(f"aws: {{{block}}}"))
        assert f": {part}" in problem(tmp_path, f"aws: {{{block}}}\n{mapped()}")

    def test_an_unquoted_account_is_taken_as_written(self, tmp_path: Path) -> None:
        assert settings(tmp_path, f"aws: {{account_id: 012345670123}}\n{mapped()}").aws.account_id == "012345670123"

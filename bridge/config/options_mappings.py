"""The options of event source mappings, as bridge/config/options.py says of all of them."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.function import AwsSettings


class FilterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event pattern."""

    Pattern: Annotated[
        str | dict[str, Any] | None,
        Meta(
            description="Event pattern, as JSON text or as a YAML mapping.",
            examples=['{"body": {"kind": ["order"]}}'],
            extra={"required": True},
        ),
    ] = None


class FilterCriteriaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records reach the function."""

    Filters: Annotated[
        tuple[FilterOptions, ...],
        Meta(
            description="Up to 10 filters; a record that matches none of them is deleted from its queue, or passed over"
            " in its stream.",
            examples=[[{"Pattern": '{"body": {"kind": ["order"]}}'}]],
        ),
    ] = ()


class ScalingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a mapping scales."""

    MaximumConcurrency: Annotated[
        Annotated[int, Meta(ge=2, le=1000)] | None,
        Meta(description="Most invocations of this mapping at once, 2 to 1000.", examples=[10]),
    ] = None


class PollerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Provisioned mode: how many pollers stand ready."""

    MinimumPollers: Annotated[
        Annotated[int, Meta(ge=2, le=200)] | None,
        Meta(description="Pollers that are always there, 2 to 200. Default, if the other is given: 2.", examples=[2]),
    ] = None
    MaximumPollers: Annotated[
        Annotated[int, Meta(ge=2, le=10000)] | None,
        Meta(description="Most pollers, 2 to 10,000. Default, if the other is given: 200.", examples=[20]),
    ] = None


class MetricsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics of the mapping."""

    Metrics: Annotated[
        tuple[Literal["EventCount"], ...],
        Meta(description="Understood and always on: EventCount.", examples=[["EventCount"]]),
    ] = ()


class FailureOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told of records that are given up."""

    Destination: Annotated[
        str | None,
        Meta(
            description="ARN of an SQS standard queue, SNS standard topic or S3 bucket.",
            examples=["arn:aws:sqs:eu-west-1:123456789012:given-up"],
        ),
    ] = None


class FailuresOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of the records of a stream that are given up."""

    OnFailure: Annotated[
        FailureOptions,
        Meta(
            description="Is told which records of the stream are given up; a bucket gets them as well.",
            examples=[{"Destination": "arn:aws:s3:::given-up"}],
        ),
    ] = FailureOptions()


class MappingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mapping: AWS's names mean what they mean in CreateEventSourceMapping, the others are the bridge's own."""

    FunctionName: Annotated[
        str | None,
        Meta(
            description="Function of this file that gets the batches: its name, or an ARN that ends in it.",
            examples=["my-worker"],
            extra={"required": True},
        ),
    ] = None
    EventSourceArn: Annotated[
        str | None,
        Meta(
            description="ARN of the queue (one that ends in .fifo is a FIFO queue), of the Kinesis stream or a consumer"
            " of one, or of the stream of a DynamoDB table.",
            examples=["arn:aws:sqs:eu-west-1:123456789012:my-queue"],
            extra={"required": True},
        ),
    ] = None
    Enabled: Annotated[bool | None, Meta(description="Whether the mapping polls. Default: true.", examples=[False])] = (
        None
    )
    BatchSize: Annotated[
        int | None,
        Meta(
            description="Most records in one batch: 1 to 10,000, for a FIFO queue 1 to 10; of a queue more than 10 need"
            " a batching window. Default: 10, of streams 100.",
            examples=[100],
            extra_json_schema={"minimum": 1, "maximum": 10000},
        ),
    ] = None
    MaximumBatchingWindowInSeconds: Annotated[
        int | None,
        Meta(
            description="Seconds from a batch's first record, of streams from the end of the invocation before, until"
            " it is invoked although not full: 0 to 300, not for FIFO queues. Default: 0, what is there is a batch.",
            examples=[5],
            extra_json_schema={"minimum": 0, "maximum": 300},
        ),
    ] = None
    FilterCriteria: Annotated[
        FilterCriteriaOptions,
        Meta(
            description="Which records reach the function. A record that matches no filter is deleted from its queue,"
            " or passed over in its stream.",
            examples=[{"Filters": [{"Pattern": '{"body": {"kind": ["order"]}}'}]}],
        ),
    ] = FilterCriteriaOptions()
    FunctionResponseTypes: Annotated[
        tuple[Literal["ReportBatchItemFailures"], ...],
        Meta(
            description="Whether the function's answer names the records that failed (batchItemFailures).",
            examples=[["ReportBatchItemFailures"]],
        ),
    ] = ()
    StartingPosition: Annotated[
        Literal["TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"] | None,
        Meta(
            description="Where a stream is first read: TRIM_HORIZON (all that it still has), LATEST (what comes from"
            " now on) or, of Kinesis, AT_TIMESTAMP. Streams need it; it counts until a position is stored.",
            examples=["TRIM_HORIZON"],
        ),
    ] = None
    StartingPositionTimestamp: Annotated[
        float | str | None,
        Meta(
            description="With AT_TIMESTAMP: epoch seconds, or a time with its offset, not in the future.",
            examples=["2026-01-15T09:30:00Z"],
            extra={"expected": "epoch seconds, or a time such as 2026-01-15T09:30:00Z"},
        ),
    ] = None
    ParallelizationFactor: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None,
        Meta(
            description="Batches of one shard at once, 1 to 10: records of one key stay in order. Default: 1.",
            examples=[4],
        ),
    ] = None
    MaximumRetryAttempts: Annotated[
        Annotated[int, Meta(ge=-1, le=10000)] | None,
        Meta(
            description="Retries of a stream's batch that fails, 0 to 10,000, until its records are given up; -1: until"
            " they succeed. Default: -1.",
            examples=[5],
        ),
    ] = None
    MaximumRecordAgeInSeconds: Annotated[
        Annotated[int, Meta(ge=-1, le=604800)] | None,
        Meta(
            description="Seconds, 60 to 604,800, after which a stream's record is given up; -1: never. Default: -1.",
            examples=[3600],
        ),
    ] = None
    BisectBatchOnFunctionError: Annotated[
        bool | None,
        Meta(
            description="Whether a stream's batch that fails is retried as two halves, until what fails stands alone."
            " Default: false.",
            examples=[True],
        ),
    ] = None
    TumblingWindowInSeconds: Annotated[
        Annotated[int, Meta(ge=0, le=900)] | None,
        Meta(
            description="Length of the windows over which a stream's function carries its state, 0 to 900; 0: none. Not"
            " together with a ParallelizationFactor. Default: 0.",
            examples=[60],
        ),
    ] = None
    DestinationConfig: Annotated[
        FailuresOptions,
        Meta(
            description="What becomes of a stream's records that are given up.",
            examples=[{"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:123456789012:given-up"}}],
        ),
    ] = FailuresOptions()
    ScalingConfig: Annotated[
        ScalingOptions,
        Meta(description="How far this mapping scales.", examples=[{"MaximumConcurrency": 10}]),
    ] = ScalingOptions()
    ProvisionedPollerConfig: Annotated[
        PollerOptions,
        Meta(
            description="Provisioned mode: pollers that stand ready; not together with ScalingConfig.",
            examples=[{"MinimumPollers": 2, "MaximumPollers": 20}],
        ),
    ] = PollerOptions()
    MetricsConfig: Annotated[
        MetricsOptions,
        Meta(description="Understood: all metrics are always on.", examples=[{"Metrics": ["EventCount"]}]),
    ] = MetricsOptions()
    UUID: Annotated[
        str | None,
        Meta(
            description="Id under which the mapping's state is kept. Default: one that follows from its name.",
            examples=["0fb0e1a3-6b2f-4c1d-8d0e-2f3a4b5c6d7e"],
        ),
    ] = None
    FunctionArn: Annotated[
        str | None,
        Meta(
            description="What AWS prints for FunctionName; one of the two.",
            examples=["arn:aws:lambda:eu-west-1:123456789012:function:my-worker"],
        ),
    ] = None
    State: Annotated[
        Literal["Creating", "Enabling", "Enabled", "Updating", "Disabling", "Disabled"] | None,
        Meta(description="What AWS prints for Enabled: Disabled and Disabling are false.", examples=["Enabled"]),
    ] = None
    delete_linger: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(
            description="Seconds that a delete may wait for others to fill its request, 0 to 1: fewer requests, and"
            " more duplicates after a crash.",
            examples=[0.05],
        ),
    ] = 0
    on_delivery_failure: Annotated[
        Literal["drop", "block"],
        Meta(
            description="What becomes of a stream's records when their destination cannot be told for a minute: drop,"
            " as AWS does, or block (their shard waits until it can).",
            examples=["block"],
        ),
    ] = "drop"
    kpl_deaggregation: Annotated[
        bool,
        Meta(
            description="Whether records that the Kinesis Producer Library packed into one are taken apart: true or"
            " false. Default: false, as AWS.",
            examples=[True],
        ),
    ] = False
    arn_in_events: Annotated[
        Literal["consumer", "stream"],
        Meta(
            description="What eventSourceARN is in the events of a mapping whose EventSourceArn is a stream's consumer:"
            " that ARN (consumer), or the one of its stream. AWS does not say which.",
            examples=["stream"],
        ),
    ] = "consumer"
    aws: Annotated[
        AwsSettings,
        Meta(
            description="What differs for this mapping's source from the aws block at the top.",
            examples=[{"endpoint_url": "http://127.0.0.1:9324", "role_arn": "arn:aws:iam::123456789012:role/queue"}],
        ),
    ] = AwsSettings()

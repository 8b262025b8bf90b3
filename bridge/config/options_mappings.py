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
            description="Up to 10 filters; a record that matches none of them is deleted from its queue.",
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
            description="ARN of the queue; one that ends in .fifo is a FIFO queue.",
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
            description="Most records in one batch: 1 to 10,000, for a FIFO queue 1 to 10; above 10 it needs a batching"
            " window. Default: 10.",
            examples=[100],
            extra_json_schema={"minimum": 1, "maximum": 10000},
        ),
    ] = None
    MaximumBatchingWindowInSeconds: Annotated[
        int | None,
        Meta(
            description="Seconds from a batch's first record until it is invoked although not full: 0 to 300, not for"
            " FIFO queues. Default: 0, what one receive gives is a batch.",
            examples=[5],
            extra_json_schema={"minimum": 0, "maximum": 300},
        ),
    ] = None
    FilterCriteria: Annotated[
        FilterCriteriaOptions,
        Meta(
            description="Which records reach the function. A record that matches no filter is deleted from its queue.",
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
    aws: Annotated[
        AwsSettings,
        Meta(
            description="What differs for this mapping's queue from the aws block at the top.",
            examples=[{"endpoint_url": "http://127.0.0.1:9324", "role_arn": "arn:aws:iam::123456789012:role/queue"}],
        ),
    ] = AwsSettings()

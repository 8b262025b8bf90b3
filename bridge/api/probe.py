"""Whether a mapping's source is there and fits its function: asked of the source itself, before the mapping is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.api import ApiError, Host, invalid
from bridge.errors import AccessDenied, NotFound, Rejected, RemoteError
from bridge.mapping import Mapping, SourceArn
from bridge.sources.kinesis import stream_of

PATIENCE = 10.0
"""Seconds for one request."""
MISSING = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message:"
    " The specified queue does not exist."
)


async def check_source(host: Host, mapping: Mapping) -> None:
    """ESM-37 to ESM-39, ESM-46. Nothing is received on trial: that would count as a delivery of somebody's message."""
    await _CHECKS[mapping.source](host, mapping)


async def _check_queue(host: Host, mapping: Mapping) -> None:
    function = host.settings.functions[mapping.function]
    region, timeout = SourceArn.parse(function.arn).region, function.timeout
    if mapping.source_arn.region != region:  # ESM-46; the wording is ours
        raise invalid(f"Queue and function must be in the same Region: {mapping.source_arn} and {function.arn}")
    visibility = await _visibility(host, mapping)
    if visibility < timeout:
        raise invalid(
            f"Queue visibility timeout: {visibility} seconds is less than Function timeout: {timeout:.0f} seconds"
        )


async def _visibility(host: Host, mapping: Mapping) -> int:
    arn = mapping.source_arn
    operation = "GetQueueUrl"
    try:
        api = await host.aws.api("sqs", mapping.aws, arn.region or None)
        address = {"QueueName": arn.resource, "QueueOwnerAWSAccountId": arn.account}
        queue = await api.call(operation, address, timeout=PATIENCE)
        operation = "GetQueueAttributes"
        query = {"QueueUrl": queue["QueueUrl"], "AttributeNames": ["VisibilityTimeout"]}
        answer = await api.call(operation, query, timeout=PATIENCE)
        return int(answer["Attributes"]["VisibilityTimeout"])
    except NotFound:
        raise invalid(MISSING) from None
    except AccessDenied:
        text = f"The provided execution role does not have permissions to call {operation} on SQS"
        raise invalid(text) from None
    except RemoteError as error:
        raise _out_of_reach(error) from None


async def _check_stream(host: Host, mapping: Mapping) -> None:
    """Of a consumer both: the stream, and whether the consumer is registered there."""
    stream = stream_of(mapping.source_arn)
    name = stream.resource.removeprefix("stream/")
    consumer = mapping.source_arn.resource.removeprefix(stream.resource).removeprefix("/consumer/").partition(":")[0]
    with _stream_errors(mapping):
        api = await host.aws.api("kinesis", mapping.aws, stream.region or None)
        try:
            await api.call("DescribeStreamSummary", {"StreamARN": str(stream)}, timeout=PATIENCE)
        except Rejected:  # endpoints of development that know streams by their names alone
            await api.call("DescribeStreamSummary", {"StreamName": name}, timeout=PATIENCE)
        if consumer:
            registered = {"StreamARN": str(stream), "ConsumerName": consumer}
            await api.call("DescribeStreamConsumer", registered, timeout=PATIENCE)


async def _check_table(host: Host, mapping: Mapping) -> None:
    arn = mapping.source_arn
    with _stream_errors(mapping):
        api = await host.aws.api("dynamodbstreams", mapping.aws, arn.region or None)
        await api.call("DescribeStream", {"StreamArn": str(arn), "Limit": 1}, timeout=PATIENCE)


@contextmanager
def _stream_errors(mapping: Mapping) -> Iterator[None]:
    """KIN-4, DDB-29, and how AWS says that a permission is missing."""
    try:
        yield
    except NotFound:
        raise invalid(f"Stream not found: {mapping.source_arn}") from None
    except AccessDenied:
        raise invalid(
            f"Cannot access stream {mapping.source_arn}. Please ensure the role can perform the GetRecords,"
            " GetShardIterator, DescribeStream, and ListStreams Actions on your stream in IAM."
        ) from None
    except RemoteError as error:
        raise _out_of_reach(error) from None


def _out_of_reach(error: RemoteError) -> ApiError:
    return ApiError("ServiceException", f"The event source cannot be reached: {error}")


_CHECKS = {"sqs": _check_queue, "kinesis": _check_stream, "dynamodb": _check_table}

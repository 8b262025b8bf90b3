"""Whether a mapping's source is there and fits its function: asked of the source itself, before the mapping is made."""

from __future__ import annotations

from bridge.api import ApiError, Host, invalid
from bridge.errors import AccessDenied, NotFound, RemoteError
from bridge.mapping import Mapping

PATIENCE = 10.0
"""Seconds for one request."""
MISSING = (
    "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message:"
    " The specified queue does not exist."
)


async def check_source(host: Host, mapping: Mapping) -> None:
    """ESM-37 to ESM-39. Nothing is received on trial: that would count as a delivery of somebody's message."""
    if mapping.source != "sqs":
        return
    visibility = await _visibility(host, mapping)
    timeout = host.settings.functions[mapping.function].timeout
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
        raise ApiError("ServiceException", f"The event source cannot be reached: {error}") from None

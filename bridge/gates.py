"""The gates: whatever a record, a partition, a mapping or a function can wait for has one of these names."""

from __future__ import annotations

from typing import Literal

GateName = Literal[
    "starting", "polling", "window", "tumbling", "buffer", "failing", "slot", "concurrency", "pollers", "throttled",
    "invoking", "environment", "restarting", "credentials", "debugger", "output", "retrying", "reporting", "settling",
    "deletes", "store", "returning",
    "group", "visibility", "due", "parent", "children", "ahead", "turn", "subscription",
    "endpoint", "opening", "state", "crashed", "stalled", "closing", "draining", "paused", "disabled", "version",
]  # fmt: skip

GATES: dict[GateName, str] = {
    # A runner of a partition, from the poll to the settlement.
    "starting": "the poller has just been started",
    "polling": "a poll is open, there is nothing new in the queue or shard",
    "window": "records wait for their batching window, or for more of them",
    "tumbling": "a tumbling window is open; nothing new came, and its end has not come yet",
    "buffer": "`max_buffered_bytes` is used up",
    "failing": "the function fails every time; it is being probed",
    "slot": "every environment of the function is busy",
    "concurrency": "`MaximumConcurrency` is used up, or was lowered after function errors (SQS-34)",
    "pollers": "`MaximumPollers` of the provisioned mode is used up",
    "throttled": "the function is throttled or not to be reached, or its reserved concurrency is 0",
    "invoking": "the handler runs",
    "environment": "an environment is being started for the batch",
    "restarting": "environments of the function keep ending; the next one is started a little later",
    "credentials": "the AWS keys are being fetched",
    "debugger": "`debug` is set: a debugger has to connect",
    "output": "the handler printed more than has been passed on yet",
    "retrying": "a batch of a stream failed and is tried again; what follows it in its shard waits",
    "reporting": "a destination is being told of an event's end, or of records that are given up",
    "settling": "deletes or a position are on their way",
    "deletes": "the queue answers deletes more slowly than they come",
    "store": "the state store is being written or read",
    "returning": "what was not handled is given back",
    # What waits at the source, while its pollers go on.
    "group": "later messages of a FIFO group wait for an earlier one",
    "visibility": "failed messages are hidden until they come again",
    "due": "asynchronous events wait for their next attempt",
    "parent": "a shard waits until its parents are done",
    "children": "a shard ended, and its children are not listed yet",
    "ahead": "enough of a shard is read ahead; its records have to be taken or finished first",
    "turn": "other shards of the mapping read large pages",
    "subscription": "a consumer may subscribe to a shard again only after a pause",
    # A mapping as a whole.
    "endpoint": "the endpoint does not answer, throttles, or refuses",
    "opening": "the source is being opened; or it does not exist, or may not be read",
    "state": "positions cannot be written (full disk, read-only file); nothing is polled without them",
    "crashed": "a bug of bridge; the mapping is being restarted",
    "stalled": "a poller stood still; the mapping is being restarted with fresh clients",
    "closing": "the source is being closed: what is on its way is settled",
    "draining": "it is being paused, reloaded or stopped",
    "paused": "by `bridge mappings pause`",
    "disabled": "by `Enabled: false`",
    # A function.
    "version": "new code, or a provisioned environment, is being started; until it is ready, what is there runs",
}
"""Name -> what it means."""

"""Nothing that waits is unnamed: each function between a source and its settlement that awaits anything has a line
here, with the gates that show while it does. A new one fails this test until somebody has said what it waits for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import bridge
from bridge.gates import GATES

ROOT = Path(bridge.__file__).parent
LOOKED_AT = (
    "runner", "flow", "crew", "invoker", "supervised", "checkpoints", "faults", "sources/*", "destinations/*",
    "executors/process", "executors/environment", "executors/versions", "executors/restarts", "executors/debugger",
    "executors/http", "executors/calls", "executors/aws_lambda",
)  # fmt: skip

WAITS = """
runner:Runner._collect             window tumbling polling
runner:Runner._receive             polling window tumbling
runner:Runner._may_receive         failing buffer slot concurrency pollers throttled
runner:Runner._slot                slot concurrency pollers throttled
runner:Runner._attempt             invoking
runner:Runner._invoke              invoking
runner:Runner._pause               retrying throttled
runner:Runner._report              reporting
runner:Runner._tell                reporting
runner:Runner._settle              settling
runner:Runner._give_back           returning
runner:Runner._process             -- all that it calls is above
runner:Runner._round               -- all that it calls is above
runner:Runner._work                settling
runner:Runner.run                  starting
flow:Buffer.freed                  buffer
flow:Flow.tell                     reporting
crew:Crew.*                        -- waits for its runners, which have gates of their own
invoker:Invoker.invoke             invoking
invoker:Invoker.changed            slot concurrency pollers throttled
invoker:Lane.*                     slot concurrency pollers throttled
supervised:Supervised.run          paused disabled opening state crashed stalled
supervised:Supervised._try         opening stalled
supervised:Supervised._open_and_run  opening closing
supervised:Supervised._run_*       -- waits for its crews
supervised:Supervised.stopped      -- whoever asked for the pause waits
supervised:Supervised.backlog      -- whoever asked for it waits
checkpoints:Checkpoints.move       store
checkpoints:Checkpoints.load       store
checkpoints:Checkpoints._written   store
checkpoints:Checkpoints.forget     -- `bridge mappings forget` waits
checkpoints:Checkpoints.stored     -- `bridge mappings forget` waits
checkpoints:Checkpoints.running    -- the daemon's own
checkpoints:Checkpoints._run       -- the writer, for whom others wait at `store`
checkpoints:Checkpoints._write     -- the writer
checkpoints:_Positions.*           store
faults:persist                     opening reporting endpoint
faults:_wait_out                   opening reporting endpoint
sources/dynamodb:*                 opening
sources/kinesis:*                  opening
sources/dynamodb_stream:TableStream.shards   opening children endpoint
sources/dynamodb_stream:TableStream.*        polling endpoint
sources/kinesis_stream:KinesisStream.open    opening
sources/kinesis_stream:KinesisStream.shards  opening children endpoint
sources/kinesis_stream:KinesisStream._list   opening children endpoint
sources/kinesis_stream:KinesisStream.*       polling endpoint
sources/kinesis_push:Push.pages    subscription polling
sources/event_queue:EventQueue.read    store
sources/event_queue:EventQueue.finish  store
sources/event_queue:EventQueue.postpone  store
sources/event_queue:EventQueue.accept    -- whoever invokes waits
sources/event_queue:EventQueue.functions -- the daemon's own
sources/event_queue:EventQueue.running   -- the daemon's own
sources/event_queue:Line.change    polling due
sources/event_queue:Line.*         store
sources/event_queue:_Writer.written  store
sources/event_queue:_Writer.write    store
sources/event_queue:_Writer.*      -- the writer, for whom others wait at `store`
sources/invocations:InvocationSource.__aenter__     opening
sources/invocations:InvocationPartition.fetch   polling due store
sources/invocations:InvocationPartition.hold    slot
sources/invocations:InvocationPartition.settle  settling store
sources/outbox:Outbox.room         deletes
sources/outbox:Outbox.flush        closing
sources/outbox:Outbox._movement    deletes closing
sources/outbox:Outbox._deliver     -- a request on its way
sources/shard_lanes:ShardLane.fetch   polling
sources/shard_lanes:ShardLane._wait   polling
sources/shard_lanes:ShardLane.hold    slot
sources/shard_lanes:ShardLane.settle  settling store
sources/shard_lanes:ShardLane.finish  settling store
sources/shard_reader:OpenShard._is_placed   opening
sources/shard_reader:OpenShard._large_page  turn
sources/shard_reader:OpenShard._may_read    ahead polling
sources/shard_reader:OpenShard._wait_out    endpoint
sources/shard_reader:OpenShard._commit*     store
sources/shard_reader:OpenShard.settle       settling store
sources/shard_reader:OpenShard.finish       settling store
sources/shard_reader:OpenShard.*            polling
sources/sqs:SqsSource.__aenter__   opening
sources/sqs:SqsSource._open        opening endpoint
sources/sqs:SqsSource.__aexit__    closing
sources/sqs:SqsSource.backlog      -- whoever asked for it waits
sources/sqs_queue:SqsPartition.fetch     polling window
sources/sqs_queue:SqsPartition._receive  polling window endpoint
sources/sqs_queue:SqsPartition.settle    settling deletes
sources/sqs_queue:SqsPartition.close     closing
sources/sqs_queue:SqsPartition.work      -- the queue's own task
sources/sqs_queue:SqsPartition._keep_hidden  -- the heartbeat; what it keeps waits at `group`
sources/sqs_queue:SqsPartition._*        -- a request on its way
sources/streams:StreamSource.__aenter__  opening store
sources/streams:StreamSource._begin*     opening store
sources/streams:StreamSource._forget_*   opening store
sources/streams:StreamSource.__aexit__   closing
sources/streams:StreamSource.partitions  parent children
sources/streams:StreamSource._discover   children parent
sources/streams:StreamSource._list       endpoint
sources/streams:StreamSource._advance    store
sources/streams:StreamSource._ended      store
sources/streams:StreamSource._missing    polling
destinations/*:*                   reporting
executors/versions:Versions.invoke      invoking
executors/versions:Versions.__a*        -- the function's start and end
executors/process:ProcessExecutor.invoke    invoking
executors/process:ProcessExecutor._run      invoking
executors/process:ProcessExecutor._becomes_ready  invoking
executors/process:ProcessExecutor._start    environment
executors/process:ProcessExecutor._init     environment restarting debugger
executors/process:ProcessExecutor._open     credentials environment
executors/process:ProcessExecutor._keys     credentials
executors/process:ProcessExecutor._start_ahead  version
executors/process:ProcessExecutor._provision    version
executors/process:ProcessExecutor._follow_code  version
executors/process:ProcessExecutor._*        -- the function's start and end
executors/environment:Environment.run       invoking output
executors/environment:Environment.ready     environment debugger invoking
executors/environment:Environment.listen    environment
executors/environment:Environment.gone      -- the function's end
executors/restarts:Restarts.pause           restarting
executors/debugger:free_port                debugger
executors/debugger:check_debugger           -- the function's start
executors/http:HttpExecutor.invoke          invoking
executors/http:_*                           invoking
executors/http:HttpExecutor.__aexit__       -- the function's end
executors/calls:Calls.run                   invoking
executors/calls:Calls.close                 -- the function's end
executors/aws_lambda:LambdaExecutor.invoke* invoking credentials
executors/aws_lambda:LambdaExecutor.__aexit__  -- the function's end
"""


def awaiting() -> Iterator[str]:
    """Functions that await something: ``module:Class.function``."""
    for pattern in LOOKED_AT:
        for file in sorted(ROOT.glob(f"{pattern}.py")):
            module = str(file.relative_to(ROOT).with_suffix(""))
            if module != "sources/memory":  # its queues are for tests
                yield from (f"{module}:{name}" for name in _functions(ast.parse(file.read_text()), ""))


def _functions(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        name = f"{prefix}.{child.name}".lstrip(".")
        if isinstance(child, ast.AsyncFunctionDef) and any(
            isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith) for inner in ast.walk(child)
        ):
            yield name
        yield from _functions(child, name)


LINES = [(line.split()[0], line.split(maxsplit=1)[1]) for line in WAITS.strip().splitlines()]


def test_each_wait_has_its_gates() -> None:
    names = list(awaiting())
    assert len(names) > 150
    unnamed = [name for name in names if not any(fnmatchcase(name, pattern) for pattern, _ in LINES)]
    assert unnamed == []


def test_each_line_is_about_something() -> None:
    names = list(awaiting())
    idle = [pattern for pattern, _ in LINES if not any(fnmatchcase(name, pattern) for name in names)]
    assert idle == []


def test_they_are_gates() -> None:
    named = {gate for _, text in LINES if not text.startswith("--") for gate in text.split()}
    assert named <= set(GATES)
    # Those of a whole mapping, of a source, and of what nobody awaits.
    assert set(GATES) - named == {"draining", "group", "visibility"}

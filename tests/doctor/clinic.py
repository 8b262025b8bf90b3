"""A configuration that ``bridge doctor`` looks at through its own command line, and what it found."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bridge.commands import main
from tests.servers import ACCOUNT, REGION, Queue, Server, unique
from tests.wire import Wire

RUNTIME = f"python3.{sys.version_info[1]}"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders"


class Found(NamedTuple):
    """One finding."""

    level: str
    message: str
    fix: str


class Report:
    """What a run found, by mapping (or by function, of those without one), then by code."""

    def __init__(self, status: int, rows: list[dict[str, Any]]) -> None:
        self.status, self.rows = status, rows

    def __repr__(self) -> str:
        return f"<Report {self.status}: {[(row['mapping'], row['code']) for row in self.rows]}>"

    def __getitem__(self, subject: str) -> dict[str, Found]:
        return {
            row["code"]: Found(row["level"], row["message"], row["fix"])
            for row in self.rows
            if subject in (row["mapping"], f"function {row['function']}" if row["mapping"] is None else None)
        }

    def all(self, subject: str, code: str) -> list[str]:
        """The messages of one code."""
        return [row["message"] for row in self.rows if row["mapping"] == subject and row["code"] == code]


class Clinic:
    """Collects queues, functions and mappings; ``examine`` writes them down and runs the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
        self.folder, self._capsys = folder, capsys
        (folder / "app.py").write_text("def handler(event, context):\n    return event\n")
        self.config: dict[str, Any] = {
            "aws": {"region": REGION, "endpoint_url": url},
            "state": f"sqlite:///{folder}/state.db",
            "admin": {"listen": "127.0.0.1:0"},
            "functions": {},
            "mappings": {},
        }

    def function(self, name: str = "worker", **options: Any) -> str:
        code = {} if "lambda" in options or "url" in options else {"Runtime": RUNTIME, "Handler": "app.handler"}
        self.config["functions"][name] = {**code, **({"CodeUri": "."} if code else {}), **options}
        return name

    def mapping(self, name: str, source: Queue | str = QUEUE, function: str = "worker", **options: Any) -> str:
        if function not in self.config["functions"]:
            self.function(function)
        arn = source if isinstance(source, str) else source.arn
        self.config["mappings"][name] = {"FunctionName": function, "EventSourceArn": arn, **options}
        return name

    def write(self) -> Path:
        file = self.folder / "bridge.yaml"
        file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return file

    def examine(self, *arguments: str) -> Report:
        """``bridge doctor --json``."""
        status, out, err = self.run("doctor", "--json", *arguments)
        assert err == ""
        return Report(status, json.loads(out))

    def run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        """Any command on it: status, stdout, stderr."""
        status = main([command, "-c", str(self.write()), *arguments])
        return (status, *self._capsys.readouterr())


def redriven(server: Server, receives: int, *, fifo: bool = False, **attributes: Any) -> dict[str, Any]:
    """The attribute that sends messages to a new dead-letter queue with these attributes."""
    letters = server.queue(fifo=fifo, **attributes)
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": letters.arn, "maxReceiveCount": str(receives)})}


class Wired:
    """A scripted wire in a thread of its own."""

    def __init__(self, wire: Wire, portal: BlockingPortal) -> None:
        self.wire, self._portal = wire, portal

    @property
    def url(self) -> str:
        return self.wire.url

    def down(self) -> None:
        """Refuses connections from now on."""
        self._portal.call(self.wire.down)


@contextmanager
def wired() -> Iterator[Wired]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Wire()) as wire:
        yield Wired(wire, portal)


class Stream:
    """A Kinesis stream of its own."""

    def __init__(self, server: Server, shards: int = 1) -> None:
        self.api, self.name = server.client("kinesis"), unique("stream")
        self.api.create_stream(StreamName=self.name, ShardCount=shards)
        summary = self.api.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]
        self.arn: str = summary["StreamARN"]

    def put(self, *bodies: str) -> None:
        records = [{"Data": body.encode(), "PartitionKey": body} for body in bodies]
        assert not self.api.put_records(StreamName=self.name, Records=records)["FailedRecordCount"]


def table(server: Server, items: int = 0) -> str:
    """The ARN of the stream of a new table with so many items."""
    api, name = server.client("dynamodb"), unique("table")
    made = api.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )["TableDescription"]
    for number in range(items):
        api.put_item(TableName=name, Item={"id": {"S": str(number)}})
    return str(made["LatestStreamArn"])

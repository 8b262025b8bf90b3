"""What ``--to`` means for each kind of place, on a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.aws import Aws
from bridge.commands.replay_targets import Given, Targets
from bridge.errors import UsageError
from bridge.function import AwsSettings
from bridge.replay.bucket import BucketShelf
from bridge.replay.finding import resolve
from bridge.replay.functions import NEITHER
from bridge.replay.objects import Objects, Place
from bridge.replay.queue import SqsShelf
from bridge.replay.queues import find
from bridge.replay.target import Parcel, Refused, Sent
from bridge.replay.to_function import ToFunction
from bridge.replay.to_origin import NO_MESSAGE, OriginTarget
from bridge.settings import Settings, load
from tests.replay.test_documents import POINTER
from tests.replay.world import message
from tests.servers import ACCOUNT, REGION, Queue, Server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

STREAM = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks"


class Stage:
    """A queue with a dead-letter queue, and a configuration that names both and more."""

    def __init__(self, server: Server, aws: Aws, folder: Path) -> None:
        self.server, self.aws = server, aws
        self.letters = server.queue()
        redrive = json.dumps({"deadLetterTargetArn": self.letters.arn, "maxReceiveCount": "3"})
        self.source = server.queue(RedrivePolicy=redrive)
        self.failures = server.queue()
        self.file = folder / "bridge.yaml"
        function = {"Runtime": "provided.al2023", "command": ["./worker"], "CodeUri": str(folder)}
        self.config: dict[str, Any] = {
            "aws": {"region": REGION, "endpoint_url": server.url, "account_id": ACCOUNT},
            "functions": {
                "worker": {**function, "DeadLetterConfig": {"TargetArn": self.failures.arn}},
                "plain": {**function},
            },
            "mappings": {
                "orders": {"FunctionName": "worker", "EventSourceArn": self.source.arn},
                "clicks": self.stream(self.failures.arn),
                "stored": self.stream("arn:aws:s3:::failures", "other-clicks"),
            },
        }
        (folder / "worker").touch(mode=0o700)

    def stream(self, destination: str, name: str = "clicks") -> dict[str, Any]:
        return {
            "FunctionName": "worker",
            "EventSourceArn": STREAM.replace("/clicks", f"/{name}"),
            "StartingPosition": "LATEST",
            "DestinationConfig": {"OnFailure": {"Destination": destination}},
        }

    @property
    def settings(self) -> Settings:
        self.file.write_text(yaml.safe_dump(self.config))
        return load(str(self.file), {"HOME": str(self.file.parent)}, ())

    async def targets(
        self, queue: Queue | None = None, word: str = "", *, configured: bool = True, api: str = ""
    ) -> Targets:
        place = self.server.settings
        given = Given(self.settings if configured else None, place, word, api)
        if queue is None:
            shelf: Any = BucketShelf(Objects(await self.aws.api("s3", place), Place("failures")))
        else:
            shelf = SqsShelf(await find(self.aws, place, queue.url), poll=0)
        return Targets(self.aws, given, place, shelf)


@pytest.fixture
async def stage(ministack_server: Server, tmp_path: Path) -> AsyncIterator[Stage]:
    async with Aws() as aws:
        yield Stage(ministack_server, aws, tmp_path)


async def test_by_default_each_goes_where_it_came_from(stage: Stage) -> None:  # REPLAY-DO-3, REPLAY-DO-8
    targets = await stage.targets(stage.letters, "orders")
    target = await targets.find(None)
    assert isinstance(target, OriginTarget)
    await target.check(dry=False)
    assert stage.source.name in target.name
    assert [type(it) for it in targets.functions] == [ToFunction]


async def test_what_stands_for_what_a_function_did_not_take_goes_to_functions(stage: Stage) -> None:
    for queue, word in (
        (stage.failures, "clicks"),
        (stage.failures, "worker"),
        (None, "stored"),
        (None, "s3://failures"),
    ):
        targets = await stage.targets(queue, word)
        assert isinstance(await targets.find(None), ToFunction)
        with pytest.raises(UsageError, match="--to source is for messages of queues"):
            await targets.find("source")


async def test_a_queue_that_holds_such_letters_shows_it(stage: Stage) -> None:
    stage.failures.send(json.dumps(POINTER))
    with pytest.raises(UsageError, match="stands for what a function did not take"):
        await (await stage.targets(stage.failures)).find("source")
    target = await (await stage.targets(stage.failures)).find(None)
    assert target is not None
    assert (target.most, target.name) == (1, "function of each letter through this process")


async def test_a_message_among_them_that_does_not_say_its_queue_keeps_none_of_them(stage: Stage) -> None:
    stage.failures.send("text", json.dumps(POINTER))
    target = await (await stage.targets(stage.failures)).find(None)
    assert target is not None
    await target.check(dry=False)
    (outcome,) = await target.send([Parcel(message("text"), "token")])
    assert isinstance(outcome, Refused)
    assert "does not say which queue it came from" in outcome.reason


async def test_without_functions_such_letters_stay(stage: Stage) -> None:
    target = await (await stage.targets(stage.letters, configured=False)).find(None)
    assert target is not None
    (outcome,) = await target.send([Parcel(message(POINTER), "token")])
    assert outcome == Refused(NEITHER, sender_fault=True, alone=True)


async def test_a_queue_by_name_takes_messages_alone(stage: Stage) -> None:  # REPLAY-DONT-8
    target = await (await stage.targets(stage.letters)).find(stage.source.name)
    assert target is not None
    await target.check(dry=False)
    outcomes = await target.send([Parcel(message("text", name="a"), "t"), Parcel(message(POINTER, name="b"), "u")])
    assert [type(it) for it in outcomes] == [Sent, Refused]
    assert outcomes[1] == Refused(NO_MESSAGE, sender_fault=True, alone=True)
    assert stage.source.counts() == (1, 0)


async def test_functions_by_name(stage: Stage) -> None:
    target = await (await stage.targets(stage.letters, "orders")).find("function:plain")
    assert isinstance(target, ToFunction)
    await target.check(dry=True)
    assert target.name.endswith(":function:plain through this process")
    target = await (await stage.targets(stage.letters, "orders")).find("function")
    assert target is not None
    await target.check(dry=True)
    assert target.name.endswith(":function:worker through this process")
    unknown = await (await stage.targets(stage.letters, "orders")).find("function:plane")
    assert unknown is not None
    with pytest.raises(UsageError, match='did you mean "plain"'):
        await unknown.check(dry=True)


async def test_what_does_not_go_together(stage: Stage) -> None:
    for to in ("source", stage.source.name):
        with pytest.raises(UsageError, match="--api goes with --to function"):
            await (await stage.targets(stage.letters, api="127.0.0.1:1")).find(to)
    with pytest.raises(UsageError, match="is no address of an API"):
        await (await stage.targets(stage.letters, api="ftp://x")).find(None)


async def test_the_function_whose_queue_it_is_is_known_by_the_queue_alone(stage: Stage) -> None:  # DST-20
    target = await (await stage.targets(stage.failures, stage.failures.url)).find("function")
    assert target is not None
    await target.check(dry=True)
    assert target.name.endswith(":function:worker through this process")


async def test_places_in_a_bucket(stage: Stage) -> None:  # KIN-85, DST-13
    stage.config["functions"]["plain"]["EventInvokeConfig"] = {
        "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::failures"}}
    }
    settings = stage.settings
    uuid = settings.mappings["stored"].uuid
    for word, place in (
        ("stored", f"s3://failures/aws/lambda/{uuid}/"),
        ("plain", "s3://failures/aws/lambda/async/plain/"),
        ("s3://failures/x", "s3://failures/x"),
        ("arn:aws:s3:::failures", "arn:aws:s3:::failures"),
    ):
        found = await resolve(stage.aws, word, settings, AwsSettings())
        assert found.word == place
        assert found.aws.endpoint_url == stage.server.url

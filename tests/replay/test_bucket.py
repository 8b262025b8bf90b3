"""A bucket as a shelf, on a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from bridge.aws import Aws
from bridge.errors import UsageError
from bridge.replay import objects
from bridge.replay.bucket import STRANGER, BucketShelf, find
from bridge.replay.letter import Letter
from bridge.replay.objects import FOLDER, LARGEST, Objects, Place
from tests.replay.test_documents import ASYNC, EVENT, POINTER
from tests.servers import REGION, Server, unique

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]

STORED = {**POINTER, "payload": json.dumps(EVENT)}


class Bucket:
    """One of its own for the calling test."""

    def __init__(self, server: Server, aws: Aws) -> None:
        self.server, self.aws, self.api = server, aws, server.client("s3")
        self.name = unique("failures")
        self.api.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(self, key: str, body: Any = STORED, *, folder: str = f"{FOLDER}uuid/shard/") -> str:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.api.put_object(Bucket=self.name, Key=f"{folder}{key}", Body=text)
        return f"{folder}{key}"

    def keys(self) -> list[str]:
        return [it["Key"] for it in self.api.list_objects_v2(Bucket=self.name).get("Contents", ())]

    async def shelf(self, prefix: str = "", **options: Any) -> BucketShelf:
        place = Place.parse(f"s3://{self.name}/{prefix}")
        assert place
        return BucketShelf(Objects(await self.aws.api("s3", self.server.settings), place), **options)


@pytest.fixture
async def bucket(ministack_server: Server) -> AsyncIterator[Bucket]:
    async with Aws() as aws:
        yield Bucket(ministack_server, aws)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://b", Place("b", "aws/lambda/")),
        ("s3://b/", Place("b", "aws/lambda/")),
        ("s3://b/some/part", Place("b", "some/part")),
        ("arn:aws:s3:::b", Place("b", "aws/lambda/")),
        ("arn:aws-cn:s3:::b/p", Place("b", "p")),
        ("orders-dlq", None),
        ("arn:aws:sqs:eu-west-1:123456789012:orders-dlq", None),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/orders-dlq", None),
    ],
)
async def test_places(
    text: str, place: Place | None
) -> None:  # KIN-85, DST-13: Lambda's own folder unless one is named
    assert Place.parse(text) == place


async def test_a_place_without_a_name() -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        Place.parse("s3:///x")


async def taken(shelf: BucketShelf, at_once: int = 10) -> list[Letter]:
    letters: list[Letter] = []
    while more := await shelf.take(at_once):
        letters += more
    return letters


async def test_objects_are_letters_in_order(bucket: Bucket) -> None:  # REPLAY-DO-8, KIN-85
    second, first = bucket.put("2"), bucket.put("1")
    event = bucket.put("3", ASYNC, folder=f"{FOLDER}async/worker/")
    bucket.put("mine", folder="pictures/")
    bucket.put("", b"", folder=f"{FOLDER}folder/")
    async with await bucket.shelf() as shelf:
        letters = await taken(shelf, 2)
        assert [(it.id, it.kind, it.hindrance) for it in letters] == [
            (event, "async", ""), (first, "object", ""), (second, "object", ""),
        ]  # fmt: skip
        assert (await shelf.count()).waiting == 0
        assert all(shelf.holds(letter) for letter in letters)
    assert letters[0].message.sent_at
    assert len(bucket.keys()) == 5


async def test_what_was_sent_is_deleted_and_the_rest_stays(bucket: Bucket) -> None:
    keys = [bucket.put(str(n)) for n in range(4)]
    async with await bucket.shelf() as shelf:
        letters = await taken(shelf)
        assert await shelf.delete(letters[:2]) == ["", ""]
        assert await shelf.delete(letters[:1]) == [""]  # it is gone
        await shelf.release(letters[2:3])
        shelf.park(letters[3:])
        assert await shelf.take(1) == []
        assert not any(shelf.holds(letter) for letter in letters)
    assert bucket.keys() == keys[2:]
    async with shelf:
        assert [it.id for it in await taken(shelf)] == keys[2:]  # a shelf may be entered again


async def test_an_object_that_is_none_of_lambdas_is_left(bucket: Bucket) -> None:
    bucket.put("a", b"\xff\x00 a picture")
    bucket.put("b", {"some": "json"})
    async with await bucket.shelf() as shelf:
        assert [(it.kind, it.hindrance) for it in await taken(shelf)] == [("plain", STRANGER)] * 2


async def test_a_large_object_is_read_in_pieces_and_a_larger_one_not(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE", 1000)
    monkeypatch.setattr(objects, "LARGEST", 10_000)
    bucket.put("1", {**ASYNC, "requestPayload": "x" * 5000})
    bucket.put("2", {**ASYNC, "requestPayload": "x" * 20_000})
    async with await bucket.shelf() as shelf:
        whole, large = await taken(shelf)
    assert (json.loads(whole.document.event), whole.hindrance) == ("x" * 5000, "")
    assert "more than 10000" in large.hindrance
    assert LARGEST > 2 * 6_291_456  # quotes in an event become two characters each


async def test_more_than_one_page(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAGE", 3)
    keys = [bucket.put(str(n)) for n in range(7)]
    async with await bucket.shelf() as shelf:
        assert (await shelf.count()).waiting == 7
        assert [it.id for it in await taken(shelf, 4)] == keys


async def test_no_more_is_held_than_fits(bucket: Bucket) -> None:
    for n in range(4):
        bucket.put(str(n), {**ASYNC, "requestPayload": "x" * 1000})
    async with await bucket.shelf(most_held=3000) as shelf:
        first = await shelf.take(10)
        assert len(first) == 2
        got: list[Letter] = []

        async def more() -> None:
            got.extend(await shelf.take(10))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(more)
                await anyio.wait_all_tasks_blocked()
                await shelf.delete(first)
        assert len(got) == 2


async def test_an_end_frees_whoever_waits(bucket: Bucket) -> None:
    for n in range(3):
        bucket.put(str(n), {**ASYNC, "requestPayload": "x" * 1000})
    async with await bucket.shelf(most_held=1) as shelf:
        assert len(await shelf.take(10)) == 1
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(shelf.take, 10)
                await anyio.wait_all_tasks_blocked()
                shelf.end()
        assert await shelf.take(10) == []


async def test_one_that_has_gone_meanwhile(bucket: Bucket) -> None:
    bucket.put("1")
    key = bucket.put("2")
    async with await bucket.shelf() as shelf:
        assert len(await shelf.take(1)) == 1
        bucket.api.delete_object(Bucket=bucket.name, Key=key)
        assert await shelf.take(1) == []


async def test_a_bucket_that_is_not_there(bucket: Bucket) -> None:
    with pytest.raises(UsageError, match="there is no bucket nobodys-bucket"):
        await find(bucket.aws, bucket.server.settings, Place("nobodys-bucket"))
    assert (await find(bucket.aws, bucket.server.settings, Place(bucket.name))).arn == f"arn:aws:s3:::{bucket.name}"

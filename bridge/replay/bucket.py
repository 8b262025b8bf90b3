"""A bucket of S3 with the failures that Lambda stored there (KIN-85, DST-13), as a shelf. A bucket hides nothing: two
replays of one place at the same time hand over twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

import anyio
import msgspec

from bridge.aws import Aws
from bridge.errors import NotFound, Rejected, RemoteError, UsageError
from bridge.function import AwsSettings
from bridge.replay.documents import Found
from bridge.replay.letter import Letter, Message, read
from bridge.replay.objects import Objects, Place, Stored
from bridge.replay.shelf import Count

MOST_COUNTED = 10_000
"""Objects; a bucket does not say how many it has, so that they are counted one by one."""
MOST_HELD = 64 << 20
"""Bytes of objects that are held at a time; one more is read if nothing is."""
STRANGER = "this object is no record of a failure"


async def find(aws: Aws, settings: AwsSettings, place: Place) -> BucketShelf:
    """The shelf at this place. Raises UsageError when there is no such bucket, RemoteError."""
    api = await aws.api("s3", settings)
    objects = Objects(api, place)
    try:
        await objects.check()
    except NotFound as error:
        raise UsageError(f"there is no bucket {place.bucket}: {error}") from None
    return BucketShelf(objects)


class BucketShelf:
    """The objects at one place, each a letter whose id is its key, in the order of their keys. What is given back is
    not taken a second time."""

    service = "s3"
    fifo = False
    retention: float | None = None
    """A bucket does not say how long it keeps them."""

    def __init__(self, objects: Objects, *, most_held: int = MOST_HELD) -> None:
        self.arn = objects.place.arn
        self.place = objects.place
        self._objects = objects
        self._most_held = most_held
        self._listing: AsyncGenerator[Stored]
        self._held: dict[str, int] = {}
        self._freed = anyio.Event()
        self._taking = anyio.Lock()
        self._next: Stored | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"<BucketShelf {self.place}: {len(self._held)} held>"

    async def __aenter__(self) -> Self:
        self._listing, self._next, self._ended = self._objects.listed(), None, False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.clear()
        with anyio.CancelScope(shield=True):
            await self._listing.aclose()

    async def count(self) -> Count:
        """Of more than MOST_COUNTED no more than these."""
        counted = 0
        async for _ in self._objects.listed():
            counted += 1
            if counted == MOST_COUNTED:
                break
        return Count(max(0, counted - len(self._held)), len(self._held))

    async def take(self, n: int) -> list[Letter]:
        async with self._taking:
            letters: list[Letter] = []
            while not self._ended and len(letters) < n and (stored := await self._following()) is not None:
                if not await self._has_room(stored, wait=not letters):
                    break
                self._next = None
                self._held[stored.key] = stored.size
                if letter := await self._letter(stored):
                    letters.append(letter)
                else:
                    self._free(stored.key)
            return letters

    async def _following(self) -> Stored | None:
        if self._next is None:
            self._next = await anext(self._listing, None)
        return self._next

    async def _has_room(self, stored: Stored, *, wait: bool) -> bool:
        while self._held and sum(self._held.values()) + stored.size > self._most_held:
            if not wait or self._ended:
                return False
            self._freed = anyio.Event()
            await self._freed.wait()
        return True

    async def _letter(self, stored: Stored) -> Letter | None:
        """None: it has gone meanwhile."""
        body, hindrance = "", ""
        try:
            body = (await self._objects.read(stored)).decode(errors="replace")
        except NotFound:
            return None
        except Rejected as error:
            hindrance = str(error)
        sent = {"SentTimestamp": str(int(stored.at * 1000))}
        letter = read(Message(id=stored.key, body=body, attributes=sent), None)
        if letter.kind == "plain":
            return msgspec.structs.replace(letter, document=Found(hindrance=hindrance or STRANGER))
        return letter

    def end(self) -> None:
        self._ended = True
        self._freed.set()

    def holds(self, letter: Letter) -> bool:
        return letter.id in self._held

    def park(self, letters: Sequence[Letter]) -> None:
        """A listing goes on; it does not come back to them."""
        for letter in letters:
            self._free(letter.id)

    async def release(self, letters: Sequence[Letter]) -> None:
        self.park(letters)

    async def delete(self, letters: Sequence[Letter]) -> list[str]:
        return [await self._delete(letter) for letter in letters]

    async def _delete(self, letter: Letter) -> str:
        try:
            await self._objects.delete(letter.id)
        except RemoteError as error:
            return str(error)
        finally:
            self._free(letter.id)
        return ""

    def _free(self, key: str) -> None:
        self._held.pop(key, None)
        self._freed.set()

"""The objects in which Lambda stores failures (KIN-85, DST-13): listed in order, read in pieces, deleted one by one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping as Dict
from datetime import datetime
from typing import Any, NamedTuple

import anyio
import structlog

from bridge.aws import Api
from bridge.errors import Rejected, UsageError
from bridge.faults import persist

CALL_TIMEOUT = 20.0
PATIENCE = 60.0
"""Seconds that a fault may last."""
PAGE = 1000
"""Keys of one listing."""
PIECE = 4 << 20
"""Bytes of one read: less than the client reads of an answer at most."""
LARGEST = 24 << 20
"""Bytes of an object that is looked into: an event of 6 MiB as text, with every quote and letter escaped."""
FOLDER = "aws/lambda/"
"""Below it are all objects that Lambda stores."""

log = structlog.get_logger()


class Place(NamedTuple):
    """A bucket, or a part of one: the keys that begin with ``prefix``."""

    bucket: str
    prefix: str = FOLDER

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Of ``s3://BUCKET[/PREFIX]`` or the ARN of a bucket; without a prefix what Lambda stores in it. None: it is
        neither. Raises UsageError for one without a name."""
        rest = next((text.removeprefix(head) for head in ("s3://", "arn:aws:s3:::") if text.startswith(head)), None)
        if rest is None and text.startswith("arn:aws") and ":s3:::" in text:  # of another partition
            rest = text.partition(":s3:::")[2]
        if rest is None:
            return None
        bucket, slash, prefix = rest.partition("/")
        if not bucket:
            raise UsageError(f'"{text}" names no bucket; expected s3://BUCKET or s3://BUCKET/PREFIX')
        return cls(bucket, prefix) if slash and prefix else cls(bucket)

    @property
    def arn(self) -> str:
        """Of the bucket."""
        return f"arn:aws:s3:::{self.bucket}"

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


class Stored(NamedTuple):
    """One object. ``at``: epoch seconds when it was written."""

    key: str
    size: int
    tag: str
    at: float


class Objects:
    """The objects at one place. Waits out what passes; raises RemoteError."""

    def __init__(self, api: Api, place: Place) -> None:
        self.place = place
        self._api = api

    def __repr__(self) -> str:
        return f"<Objects of {self.place}>"

    async def check(self) -> None:
        """Raises RemoteError: NotFound when there is no such bucket."""
        await self._call("ListObjectsV2", {"Bucket": self.place.bucket, "Prefix": self.place.prefix, "MaxKeys": 1})

    async def listed(self) -> AsyncGenerator[Stored]:
        """All of them in the order of their keys: a mapping's and a shard's in the order of time. Asks as it goes."""
        query: dict[str, Any] = {"Bucket": self.place.bucket, "Prefix": self.place.prefix, "MaxKeys": PAGE}
        while True:
            answer = await self._call("ListObjectsV2", query)
            for entry in answer.get("Contents") or ():
                if not entry["Key"].endswith("/"):  # somebody's idea of a folder
                    at = entry["LastModified"]
                    since = at.timestamp() if isinstance(at, datetime) else float(at)
                    yield Stored(entry["Key"], int(entry["Size"]), entry.get("ETag", ""), since)
            following = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not following:
                return
            query = {**query, "ContinuationToken": following}

    async def read(self, stored: Stored) -> bytes:
        """All of it. Raises Rejected when it is larger than such objects are, or changes meanwhile."""
        if stored.size > LARGEST:
            raise Rejected(f"{stored.size} bytes are more than {LARGEST}, the most that a stored failure has")
        pieces: list[bytes] = []
        got = 0
        while got < stored.size:
            last = min(got + PIECE, stored.size) - 1
            query = {"Bucket": self.place.bucket, "Key": stored.key, "Range": f"bytes={got}-{last}"}
            if stored.tag:
                query["IfMatch"] = stored.tag
            piece: bytes = (await self._call("GetObject", query))["Body"]
            if len(piece) != last + 1 - got:
                raise Rejected(f"{len(piece)} bytes came of the {last + 1 - got} that were asked for (Range)")
            pieces.append(piece)
            got += len(piece)
        return b"".join(pieces)

    async def delete(self, key: str) -> None:
        """It is gone, whether it was there or not."""
        await self._call("DeleteObject", {"Bucket": self.place.bucket, "Key": key})

    async def _call(self, operation: str, query: Dict[str, Any]) -> dict[str, Any]:
        return await persist(
            lambda: self._api.call(operation, query, timeout=CALL_TIMEOUT),
            trouble=self._told,
            until=anyio.current_time() + PATIENCE,
        )

    def _told(self, line: str | None) -> None:
        if line is not None:
            log.warning("replay_waits", bucket=self.place.bucket, detail=line)

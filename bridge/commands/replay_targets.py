"""What ``--to`` of ``bridge replay`` means: a queue, functions, or where each letter came from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from bridge.errors import RemoteError, UsageError

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.function import AwsSettings
    from bridge.replay.bucket import BucketShelf
    from bridge.replay.queue import SqsShelf
    from bridge.replay.target import Target
    from bridge.replay.to_function import ToFunction
    from bridge.settings import Settings


class Given(NamedTuple):
    """What the user said."""

    settings: Settings | None
    aws: AwsSettings
    """On the command line."""
    word: str
    """What the shelf was called."""
    api: str


class Targets:
    """Of one shelf, whose place ``aws`` describes. The functions among what is found are to be entered."""

    def __init__(self, aws: Aws, given: Given, settings: AwsSettings, shelf: SqsShelf | BucketShelf) -> None:
        self._aws, self._given, self._settings, self._shelf = aws, given, settings, shelf
        self.functions: list[ToFunction] = []

    async def find(self, to: str | None) -> Target | None:
        """None: the queue is empty, and nothing tells where its letters would come from. Raises UsageError,
        RemoteError."""
        from bridge.replay.queue import SqsShelf
        from bridge.replay.queues import find
        from bridge.replay.to_origin import NO_MESSAGE, OriginTarget
        from bridge.replay.to_queue import QueueTarget
        from bridge.replay.to_source import source_target

        shelf = self._shelf
        if to is not None and (to == "function" or to.startswith("function:")):
            return await self._function(to.partition(":")[2])
        if to is None:
            return await self._origin()
        if self._given.api:
            raise UsageError("--api goes with --to function, or without --to")
        if to == "source":
            if not isinstance(shelf, SqsShelf) or self._stands_for_others:
                raise UsageError(
                    "--to source is for messages of queues; what lies there stands for what a function did not take:"
                    " leave --to away or give --to function"
                )
            queues = await source_target(self._aws, self._settings, shelf, messages_only=True)
            return queues and OriginTarget(queues, None, NO_MESSAGE)
        of = shelf.queue if isinstance(shelf, SqsShelf) else None
        return OriginTarget(QueueTarget(await find(self._aws, self._settings, to), of), None, NO_MESSAGE)

    @property
    def _stands_for_others(self) -> bool:
        """It is the failure destination of a stream's mapping, or of a function, as far as its name says."""
        settings, word = self._given.settings, self._given.word
        if settings is None:
            return False
        mapping = settings.mappings.get(word)
        return word in settings.functions if mapping is None else mapping.stream is not None

    async def _function(self, name: str = "") -> ToFunction:
        from bridge.replay.functions import to_function

        given = self._given
        made = await to_function(
            self._aws,
            given.settings,
            given.aws,
            shelf=self._shelf.arn,
            word=given.word,
            function=name,
            api=given.api,
            output=_to_stderr,
        )
        self.functions.append(made)
        return made

    async def _origin(self) -> Target | None:
        """Where each came from."""
        from bridge.replay.queue import SqsShelf
        from bridge.replay.to_origin import OriginTarget
        from bridge.replay.to_source import source_target

        shelf = self._shelf
        if not isinstance(shelf, SqsShelf) or self._stands_for_others:
            return await self._function()
        queues = await source_target(self._aws, self._settings, shelf)
        if queues is None:
            return None
        why = ""
        try:
            functions = await self._function()
        except (UsageError, RemoteError) as error:  # most queues hold nothing for functions
            if self._given.api:
                raise
            functions, why = None, str(error)
        return OriginTarget(queues, functions, why)


def _to_stderr(line: str, **_origin: str) -> None:
    """The log of functions that run here."""
    print(line, file=sys.stderr)

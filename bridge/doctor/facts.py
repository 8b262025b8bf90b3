"""What was found out about a mapping, before anybody judges it. Seconds; none: not known."""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec

from bridge.function import Function
from bridge.mapping import Mapping
from bridge.snapshot import MappingView

Trouble = Literal["unreachable", "no-answer", "call-failed", "credentials-refused", "permission-missing", "missing"]


About = Literal["source", "dlq", "destination", "function"]
"""What a question was about."""


class Failed(msgspec.Struct, frozen=True):
    """A question that was not answered."""

    kind: Trouble
    action: str
    """As IAM names it: ``sqs:GetQueueAttributes``."""
    resource: str
    """ARN, or what is asked where there is none."""
    detail: str
    about: About = "source"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of a queue."""

    arn: str
    fifo: bool
    visibility: int
    retention: int
    waiting: int = 0
    """Visible and delayed messages."""
    in_flight: int = 0
    max_receives: float = inf
    dlq: str = ""
    """ARN; empty: no redrive policy."""
    key: str = ""
    """The KMS key that it is encrypted with; empty: none that IAM has to know."""
    high_throughput: bool = False
    """Of a FIFO queue: limits count per message group."""


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream, and where the mapping stands in it."""

    retention: float
    status: str = ""
    shards: int = 0
    """Open ones."""
    consumer: str | None = None
    """Status of the registered consumer that the mapping names."""
    age: float | None = None
    """Of the oldest record that the mapping has not handled."""
    lost: float | None = None
    """Seconds by which the stored position is older than what the stream still has, 0 where that is not known."""
    seen: int = 0
    """Records that were read to try the filter on."""
    matched: int = 0


class Rival(msgspec.Struct, frozen=True):
    """An event source mapping of Lambda itself on the same source."""

    uuid: str
    function: str


class Remote(msgspec.Struct, frozen=True):
    """A function on Lambda."""

    timeout: float
    reserved: int | None = None


class Case(msgspec.Struct, kw_only=True):
    """All about one mapping, as far as it came in time; of a function that no mapping has, ``mapping`` is none."""

    mapping: Mapping | None
    function: Function
    queue: Queue | None = None
    dlq: Queue | None = None
    stream: Stream | None = None
    rivals: list[Rival] = []
    grace: float = inf
    """``shutdown_grace``."""
    remote: Remote | None = None
    refused: str = ""
    """Why there is no connection to a function's URL; empty: there is one, or nobody tried."""
    failed: list[Failed] = []
    skews: dict[str, float] = {}
    """Endpoint -> seconds by which its clock is ahead of ours."""
    readers: tuple[str, ...] = ()
    """Other enabled mappings of the configuration that read the same source."""
    view: MappingView | None = None
    """What the running daemon says about the mapping."""

    @property
    def subject(self) -> str:
        """For people: whom it is about."""
        return self.mapping.name if self.mapping else f"function {self.function.name}"

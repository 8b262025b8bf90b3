"""What happens in one simulated run, all of it drawn from one number: settings, what is put and how it is resharded,
which faults come when, how the handler behaves."""

from __future__ import annotations

import json
import random
from itertools import chain
from math import inf
from typing import Any, Literal, NamedTuple

import msgspec

from bridge.mapping import StreamOptions

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:given-up"
UNWANTED = ("0", "3")
"""Ends of keys."""
LENGTHS = (2.0, 5.0, 5.0, 25.0)
"""Seconds in which everything is put, and faults begin: one of these."""


class Act(NamedTuple):
    """Something that happens to the stream, the store or the daemon at a time."""

    at: float
    what: str
    detail: Any = None


class Change(NamedTuple):
    """What the mapping has from a reload on (KIN-56)."""

    lanes: int
    batch_size: int
    window: float


class Plan(msgspec.Struct, kw_only=True):
    """One run."""

    seed: int
    kind: Literal["kinesis", "dynamodb"]
    shards: int
    batch_size: int
    window: float
    partial: bool
    environments: int
    """How many invocations may run at once."""
    options: StreamOptions
    fates: dict[int, float]
    """The number of a record, in the order of putting -> how often the handler fails when it is the first bad one."""
    acts: list[Act]
    shape: dict[str, Any]
    """Attributes of the stream."""
    throttles: float
    """Share of invocations that do not run."""
    slow_store: float
    """Seconds at most that a write takes."""
    filtered: bool
    """Records of some keys never reach the handler."""
    pushed: bool
    """Records come by enhanced fan-out (KIN-100)."""
    travel: float
    """Seconds at most that a request takes on its way."""
    starts_after: float
    """Seconds after which the daemon starts, and the mapping begins."""
    state_limit: int
    """Bytes of a window's state; 0: what it is (TW-32)."""

    def filters(self, key: str) -> bool:
        """Whether records of this key never do."""
        return self.filtered and key.endswith(UNWANTED)

    @property
    def patterns(self) -> tuple[str, ...]:
        if not self.filtered:
            return ()
        leaf = [{"anything-but": {"suffix": [*UNWANTED]}}]
        inner = {"partitionKey": leaf} if self.kind == "kinesis" else {"dynamodb": {"Keys": {"id": {"S": leaf}}}}
        return (json.dumps(inner),)

    @property
    def buffer(self) -> int:
        """Bytes that may be received and unfinished: sometimes a few records."""
        return self.dice("buffer").choice((1 << 28, 1 << 28, 1500))

    def dice(self, whose: str) -> random.Random:
        """Chance for one actor, whatever the others do."""
        return random.Random(f"{self.seed} {whose}")


def plan(seed: int) -> Plan:
    """Everything about the run with this number."""
    dice = random.Random(seed)
    kind: Literal["kinesis", "dynamodb"] = dice.choice(("kinesis", "dynamodb"))
    length, records = dice.choice(LENGTHS), dice.randint(3, 40)
    retries = dice.choice((inf, 0, 1, 2, 3))
    tumbling = dice.choice((0.0, 0.0, 0.0, 2.0, 10.0))
    block = dice.random() < 0.3
    late, starting = _start(dice, kind, length)
    return Plan(
        seed=seed,
        kind=kind,
        shards=dice.randint(1, 3),
        batch_size=dice.choice((1, 2, 3, 5, 10, 100)),
        window=dice.choice((0, 0, 0, 1, 5)),
        partial=dice.random() < 0.5,
        environments=dice.choice((1, 2, 16)),
        options=StreamOptions(
            lanes=1 if tumbling else dice.choice((1, 1, 2, 3)),  # TW-2
            retries=retries,
            bisect=dice.random() < 0.5,
            tumbling_window=tumbling,
            on_failure=QUEUE,
            block=block,
            max_age=dice.choice((inf, inf, inf, 2.0, 10.0, 60.0)),
            **starting,
        ),
        fates=_fates(dice, records, retries),
        acts=_acts(dice, length, records, kind, block=block, windowed=tumbling > 0),
        shape=_shape(dice, kind),
        throttles=dice.choice((0.0, 0.0, 0.1, 0.3)),
        slow_store=dice.choice((0.0, 0.0, 0.1, 2.0)),
        filtered=dice.random() < 0.2,
        pushed=kind == "kinesis" and dice.random() < 0.3,
        travel=dice.choice((0.0, 0.0, 0.5)),
        starts_after=late,
        state_limit=dice.choice((0, 200)) if tumbling else 0,
    )


def _start(dice: random.Random, kind: str, length: float) -> tuple[float, dict[str, Any]]:
    """When the daemon starts, and the mapping's options about where it begins. Times are seconds of the run."""
    late = dice.choice((0.0, 0.0, length / 2))
    way = dice.choice(("TRIM_HORIZON", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"))
    if way == "AT_TIMESTAMP" and kind == "dynamodb":
        way = "LATEST"  # DDB-7
    at = dice.choice((-60.0, late / 2, late)) if way == "AT_TIMESTAMP" else None
    return late, {"starting_position": way, "starting_timestamp": at}


def _acts(dice: random.Random, length: float, records: int, kind: str, *, block: bool, windowed: bool) -> list[Act]:
    kinds = (
        _puts(dice, length, records),
        _shapes(dice, length, kind),
        _faults(dice, length, block=block),
        _deaths(dice, length, windowed=windowed),
        _losses(dice, length),
    )
    return sorted(chain(*kinds), key=lambda act: act.at)


def _losses(dice: random.Random, length: float) -> list[Act]:
    """What the stream does not keep any longer, read or not."""
    ways = (lambda: ("trim", (dice.random(), dice.random())), lambda: ("vanish", dice.random()))
    return [Act(dice.uniform(0, length), *dice.choice(ways)()) for _ in range(dice.choice((0, 0, 1, 3)))]


def _fates(dice: random.Random, records: int, retries: float) -> dict[int, float]:
    bad = dice.sample(range(records), k=dice.choice((0, 0, 1, 1, 2, min(3, records))))
    often = (1, 2, 3, 5) if retries == inf else (1, 2, 3, inf, inf)
    return {number: dice.choice(often) for number in bad}


def _puts(dice: random.Random, length: float, records: int) -> list[Act]:
    keys = [f"key {number}" for number in range(dice.choice((1, 2, 5, 20)))]
    burst = dice.random() < 0.3
    return [Act(0.0 if burst else dice.uniform(0, length), "put", dice.choice(keys)) for _ in range(records)]


def _shapes(dice: random.Random, length: float, kind: str) -> list[Act]:
    ways = ("split", "split", "merge", "forget") if kind == "kinesis" else ("roll", "roll", "split", "forget")
    count = dice.choice((0, 0, 1, 2, 4, 6))
    spread = dice.choice((1.0, length))  # in a burst, whole generations come and go between two listings
    return [Act(dice.uniform(0, spread), dice.choice(ways), dice.random()) for _ in range(count)]


def _faults(dice: random.Random, length: float, *, block: bool) -> list[Act]:
    codes = ("throttled", "InternalFailure", "ServiceUnavailable", "expired")
    operations = ("read", "read", "GetShardIterator", "list")
    makers = (
        lambda: ("refuse", (dice.choice(operations), [dice.choice(codes)] * dice.randint(1, 4))),
        lambda: ("cut_off", dice.choice(operations)),
        lambda: ("slow", (dice.choice(operations), dice.choice((0.5, 3.0, 15.0)))),
        lambda: ("blank", dice.randint(1, 3)),
        lambda: ("repeat", dice.randint(1, 2)),
        lambda: ("expire", None),
        lambda: ("store fails", dice.randint(1, 2)),
        lambda: ("queue fails", dice.randint(1, 2)),
        lambda: ("queue is away", dice.choice((20.0, 100.0) if block else (20.0,))),
        lambda: ("steal", None),
        lambda: ("hide", [dice.random() for _ in range(5)]),
    )
    return [Act(dice.uniform(0, length), *dice.choice(makers)()) for _ in range(dice.choice((0, 1, 3, 6)))]


def _deaths(dice: random.Random, length: float, *, windowed: bool) -> list[Act]:
    ways = (
        lambda: ("crash", dice.random() < 0.5),  # whether the write that is under way still happens
        lambda: ("crash", dice.random() < 0.5),
        lambda: ("restart", None),
        lambda: ("pause", dice.choice((0.0, 0.1, 2.0))),
        lambda: ("outage", dice.choice((1.0, 5.0))),
        lambda: ("outage", dice.choice((1.0, 5.0))),
        lambda: (
            "reload",
            Change(1 if windowed else dice.randint(1, 3), dice.choice((1, 3, 100)), dice.choice((0, 0, 2))),
        ),
    )
    return [Act(dice.uniform(0, length + 5), *dice.choice(ways)()) for _ in range(dice.choice((0, 0, 1, 1, 2, 3)))]


def _shape(dice: random.Random, kind: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"latency": dice.choice((0.0, 0.05)), "shards_a_page": dice.choice((1, 2, 100))}
    if kind == "kinesis":
        shape["hides_children"] = dice.random() < 0.3
        shape["ignores_filters"] = dice.random() < 0.3
    else:
        shape["local"] = dice.random() < 0.3
    return shape

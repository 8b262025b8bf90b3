"""What must hold in every simulated run, whatever happens in it. The ledger is told what is put, handled, stored and
reported, and knows at each moment what of that may not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as Dict, Sequence
from datetime import datetime
from math import inf
from typing import Any

import msgspec

from bridge.position import Position
from bridge.sources.shard_lanes import lane_of
from bridge.sources.shards import Where


class Broken(AssertionError):
    """A promise was not kept."""


class Entry(msgspec.Struct, eq=False):
    """One record that was put."""

    order: int
    """In which it was put."""
    number: str
    """The sequence number."""
    key: str
    shard: str
    filtered: bool
    at: float
    """Epoch seconds of its arrival, as the stream tells it."""
    lane_key: str
    """By which it is put into a lane."""


class Life(msgspec.Struct, eq=False):
    """From one opening of the source to the next: what is done in it, and where it began."""

    floor: dict[str, Position]
    done: set[int] = msgspec.field(default_factory=set)
    """Orders of records."""
    failures: Counter[tuple[int, ...]] = msgspec.field(default_factory=Counter)
    """A batch -> how often it has failed."""


class Ledger:
    """``retries``, ``bisect`` and ``lanes`` are those of the mapping."""

    def __init__(
        self, *, retries: float, bisect: bool, partial: bool, lanes: int, max_age: float = inf, state_limit: int = 0
    ) -> None:
        self._retries, self._bisect, self._partial, self._lanes = retries, bisect, partial, lanes
        self._max_age, self._state_limit = max_age, state_limit
        self.lanes = lanes
        """From the next opening on."""
        self.since = -inf
        """Epoch seconds: what arrived before is not for the mapping."""
        self.begun = True
        """What is put from now on has to be handled."""
        self.entries: dict[str, Entry] = {}
        """By sequence number."""
        self.done: set[int] = set()
        """Handled well, or given up and told."""
        self.stored: dict[str, Position] = {}
        self.trail: list[str] = []
        """What happened, a line each."""
        self.delivered = 0
        self.broken: Broken | None = None
        """The first promise that was not kept."""
        self._counted: set[int] = set()
        self._given_up: set[int] = set()
        self._excused: set[int] = set()
        """Trimmed, or from before the beginning: may be handled, or not."""
        self._terminated: set[tuple[str, str]] = set()
        """Windows of which the state was too large: shard and start."""
        self._is_given_up = False
        """The state of some window: what follows in it begins with none."""
        self._windowed = False
        self._life = Life({})
        self._by_shard: dict[str, list[Entry]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._closed: set[str] = set()
        self._ended: set[str] = set()

    # What is told.

    def shard(self, name: str, parents: Sequence[str]) -> None:
        self._by_shard.setdefault(name, [])
        self._parents[name] = tuple(parents)
        self._closed.update(parents)

    def put(
        self, number: str, key: str, shard: str, *, filtered: bool, at: float = 0.0, lane_key: str | None = None
    ) -> None:
        entry = Entry(len(self.entries), number, key, shard, filtered, at, key if lane_key is None else lane_key)
        self.entries[number] = entry
        self._by_shard[shard].append(entry)
        if filtered:
            self.done.add(entry.order)
        if not self.begun or at < self.since + 0.001:  # times are told in milliseconds
            self._excused.add(entry.order)

    def trimmed(self, shard: str, horizon: float = inf) -> None:
        """What has a lower sequence number cannot be read any more."""
        gone = {entry.order for entry in self._by_shard[shard] if int(entry.number) < horizon}
        self._excused |= gone
        self.note(f"trimmed {sorted(gone)}")

    def opened(self, positions: Dict[str, Position]) -> None:
        """A source starts from what is stored."""
        self.note(f"opened with {_told(positions)}")
        self._life = Life(dict(positions))
        self._lanes = self.lanes

    def begins(self, numbers: Sequence[str], event: Dict[str, Any], now: float = 0.0) -> None:
        """An invocation gets these records."""
        batch = [self.entries[number] for number in numbers]
        state = event.get("state", {}).get("orders", [])
        self.note(f"given {[entry.order for entry in batch]}" + (f" after {state}" if "window" in event else ""))
        self._judge_state([entry.order for entry in batch], state)
        self._judge_size(event)
        if not batch:
            early = self._is_given_up or _window(event) in self._terminated
            if not event["isFinalInvokeForWindow"] or not (state or early):
                raise Broken("an invocation without records, of a window without records")  # TW-43
            return
        self.delivered += len(batch)
        if len({entry.shard for entry in batch}) != 1:
            raise Broken(f"records of several shards in one batch: {numbers}")  # KIN-36
        if [int(number) for number in numbers] != sorted({int(number) for number in numbers}):
            raise Broken(f"a batch that is not in order: {numbers}")
        here = {entry.order for entry in batch}
        for entry in batch:
            if entry.filtered:
                raise Broken(f"record {entry.order} was filtered out, and came all the same")
            if now - entry.at >= self._max_age:
                raise Broken(f"record {entry.order} is {now - entry.at:.3f} s old, and came all the same")  # KIN-66
            if entry.at < self.since - 0.001:
                raise Broken(f"record {entry.order} is from before the mapping's start")  # KIN-25
            self._judge_order(entry, here)
        self._judge_lineage(batch[0])

    def ends(self, numbers: Sequence[str], finished: int, event: Dict[str, Any]) -> None:
        """It ran; so many records from the first on are handled."""
        if not numbers:
            self.note("ended its window")
            self._counted.update(event["state"].get("orders", ()))
            if event["isWindowTerminatedEarly"]:
                self._terminated.add(_window(event))
            return
        self._windowed = "window" in event
        batch = tuple(self.entries[number].order for number in numbers)
        self.note(f"ended {list(batch)}, {finished} of {len(batch)} well")
        self._resolve(batch[:finished])
        if finished < len(batch) and not (finished and self._partial):
            self._count(batch)

    def moves(self, positions: Dict[str, Position]) -> None:
        """These positions are being written."""
        self.note(f"stored {_told(positions)}")
        for shard, position in positions.items():
            self._judge_position(shard, position)
            self.stored[shard] = position
            if position.ended:
                self._ended.add(shard)

    def forgot(self, shard: str) -> None:
        self.note(f"forgot {shard}")
        self.stored.pop(shard, None)

    def reported(self, document: Dict[str, Any]) -> None:
        """A failure document arrived."""
        (info,) = (value for name, value in document.items() if name.endswith("BatchInfo"))
        first, last = self.entries[info["startSequenceNumber"]], self.entries[info["endSequenceNumber"]]
        count = document["requestContext"]["approximateInvokeCount"]
        why = document["requestContext"].get("condition", "")
        self.note(f"given up {first.order} to {last.order}, {info['batchSize']} of them, {count} attempts: {why}")
        if info["shardId"] != first.shard:
            raise Broken(f"{document} is about {first.shard}")
        if why == "RecordAgeExceeded":
            self._aged(first, last, info["batchSize"], datetime.fromisoformat(document["timestamp"]).timestamp())
            return
        fitting = [
            (batch, times)
            for batch, times in self._life.failures.items()
            if (batch[0], batch[-1], len(batch)) == (first.order, last.order, info["batchSize"])
        ]
        if not fitting:
            raise Broken(f"nothing like this failed: {document}")
        ((batch, times),) = fitting
        if not times == count == self._retries + 1:  # KIN-62
            raise Broken(f"{batch} failed {times} times, may {self._retries + 1}, the document says {count}")
        del self._life.failures[batch]
        self._given_up.update(batch)
        self._resolve(batch)

    def _aged(self, first: Entry, last: Entry, count: int, now: float) -> None:
        """KIN-66: a run of records of one lane, or the state of a window (TW-46)."""
        reach = range(int(first.number), int(last.number) + 1)
        among = [entry for entry in self._by_shard[first.shard] if int(entry.number) in reach and not entry.filtered]
        if self._windowed and not self._is_due(first):
            self._is_given_up = True
            self._given_up.update(entry.order for entry in among if not self._is_due(entry))
            return
        lane = lane_of(first.lane_key, self._lanes)
        run = [entry for entry in among if self._is_due(entry) and lane_of(entry.lane_key, self._lanes) == lane]
        surely = [entry for entry in run if entry.order not in self._excused]
        if not len(surely) <= count <= len(run):
            raise Broken(f"{[entry.order for entry in run]} are given up as {count} records that are too old")
        for entry in run:
            if now - entry.at < self._max_age - 0.002:
                raise Broken(f"record {entry.order} is given up as too old at {now - entry.at:.3f} s")
        gone = {entry.order for entry in run}
        for batch, times in [*self._life.failures.items()]:
            rest = tuple(order for order in batch if order not in gone)
            if rest and not self._bisect:
                self._life.failures[rest] = max(times, self._life.failures[rest])  # it goes on with its attempts
            if rest != batch:
                del self._life.failures[batch]
        self._given_up |= gone
        self._resolve(sorted(gone))

    def _is_due(self, entry: Entry) -> bool:
        """It is neither done in this life, nor was before."""
        behind = _reached(self._life.floor.get(entry.shard)) >= int(entry.number)
        return entry.order not in self._life.done and not behind

    def broke(self, error: Broken) -> None:
        self.broken = self.broken or error

    def over(self) -> None:
        """Nothing follows."""
        self.note("over")

    def note(self, line: str) -> None:
        self.trail.append(line)

    def has_ended(self, shard: str) -> bool:
        """It is stored as done to its end."""
        return shard in self._ended

    # What is judged.

    @property
    def open(self) -> list[int]:
        """Records that are neither handled nor given up, nor of a window that is closed."""
        counted = self._counted | self._given_up
        return [
            entry.order
            for entry in self.entries.values()
            if entry.order not in self._excused
            and (entry.order not in self.done or (self._windowed and not entry.filtered and entry.order not in counted))
        ]

    @property
    def wanted(self) -> int:
        """Records that the handler should get."""
        spared = self._excused | self._given_up
        return sum(not entry.filtered and entry.order not in spared for entry in self.entries.values())

    @property
    def behind(self) -> list[str]:
        """Shards whose stored position is not past their last record."""
        return [
            shard
            for shard, entries in self._by_shard.items()
            if shard not in self._ended
            and (last := max((int(it.number) for it in entries if it.order not in self._excused), default=0))
            and _reached(self.stored.get(shard)) < last
        ]

    @staticmethod
    def _judge_state(batch: list[int], state: list[int]) -> None:
        """TW-21, TW-47, TW-60: what a window counts, it counts once."""
        if len(set(state)) < len(state) or not set(state).isdisjoint(batch):
            raise Broken(f"{batch} comes with a state that has counted {state}")

    def _judge_size(self, event: Dict[str, Any]) -> None:
        """TW-50: a state that is too large is told once, and then no more."""
        size = len(msgspec.json.encode(event.get("state")))
        if self._state_limit and size > self._state_limit and not event["isWindowTerminatedEarly"]:
            raise Broken(f"a state of {size} bytes goes on")

    def _judge_order(self, entry: Entry, here: set[int]) -> None:
        """KIN-50: nothing of a key, and with one lane nothing of the shard, is given before all that comes before it is
        finished: in this life, or, where it began behind that, in an earlier one."""
        for before in self._by_shard[entry.shard]:
            if before is entry:
                return
            if before.filtered or before.order in here or before.order in self._life.done | self._excused:
                continue
            if self._lanes > 1 and before.key != entry.key:
                continue
            behind = _reached(self._life.floor.get(entry.shard)) >= int(before.number)
            if not (behind and before.order in self.done):
                raise Broken(f"record {entry.order} of {entry.key} comes before {before.order} of {before.key} is done")

    def _judge_lineage(self, entry: Entry) -> None:
        """KIN-91, KIN-93: nothing of a shard before all of its ancestors is finished."""
        ancestors = [*self._parents[entry.shard]]
        while ancestors:
            shard = ancestors.pop()
            ancestors += self._parents.get(shard, ())
            closed = self.done | self._excused
            left = [before.order for before in self._by_shard.get(shard, ()) if before.order not in closed]
            if left:
                raise Broken(f"record {entry.order} of {entry.shard} comes before {left} of its ancestor {shard}")

    def _judge_position(self, shard: str, position: Position) -> None:
        reached = _reached(position)
        entries = self._by_shard[shard]
        left = [entry for entry in entries if entry.order not in self.done | self._excused]
        ahead = [entry.order for entry in left if position.ended or int(entry.number) <= reached]
        if ahead:
            raise Broken(f"the position of {shard} is {_told({shard: position})}, before {ahead} are done")
        if position.ended and shard not in self._closed:
            raise Broken(f"{shard} is open, and stored as ended")
        before = self.stored.get(shard)
        if before is not None and (reached < _reached(before) or before.ended > position.ended):
            raise Broken(f"the position of {shard} went back from {_told({shard: before})}")

    def _resolve(self, batch: Sequence[int]) -> None:
        self.done.update(batch)
        self._life.done.update(batch)

    def _count(self, batch: tuple[int, ...]) -> None:
        """A batch failed as a whole (KIN-62..64, KIN-77)."""
        failures = self._life.failures
        failures[batch] += 1
        most = 1 if self._bisect and len(batch) > 1 else self._retries + 1
        if failures[batch] > most:
            raise Broken(f"{batch} failed {failures[batch]} times, and may {most}")


def _window(event: Dict[str, Any]) -> tuple[str, str]:
    return event["shardId"], event["window"]["start"]


def _reached(position: Position | None) -> float:
    """The sequence number up to which all is done."""
    if position is None:
        return -inf
    where = Where.parse(position.position)
    return int(where.sequence) if where.kind == "AFTER_SEQUENCE_NUMBER" else -inf


def _told(positions: Dict[str, Position]) -> str:
    return ", ".join(f"{name}: {it.position}{' ended' if it.ended else ''}" for name, it in positions.items())

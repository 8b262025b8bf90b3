"""The last quarter of an hour of each mapping, for the charts of the dashboard: a ring of fixed size."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice
from math import nan

import msgspec

from bridge.snapshot import MappingView, Snapshot

EVERY = 5.0
"""Seconds between two samples."""
KEPT = 180
"""Samples: a quarter of an hour."""
MOST_MAPPINGS = 200
"""Mappings that are written down (3 KB each); the page shows figures of the others, without charts."""


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of each mapping, the newest last, ``every`` so many seconds. A sample that there is not is null."""

    every: float
    kept: int
    sequence: int
    """Number of the newest one, counted from 1."""
    mappings: dict[str, Series]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One mapping's samples."""

    rate: list[float]
    """Records received a second."""
    lag: list[float]
    """Seconds."""
    in_flight: list[float]
    failed: list[float]
    """Records that failed since the sample before."""


NAMES = Series.__struct_fields__


class History:
    """A ring of samples for each mapping that is there."""

    def __init__(self, *, kept: int = KEPT, most: int = MOST_MAPPINGS) -> None:
        self.every = EVERY
        self.sequence = 0
        self._kept = kept
        self._most = most
        self._rings: dict[str, dict[str, array[float]]] = {}
        self._before: dict[str, MappingView] = {}
        self._at: float | None = None

    def __repr__(self) -> str:
        return f"<History of {len(self._rings)} mappings, {self.sequence} samples>"

    def add(self, snapshot: Snapshot) -> None:
        """Writes down the moment. A mapping that is gone is forgotten."""
        seconds = None if self._at is None else snapshot.at - self._at
        views = {view.name: view for view in islice(snapshot.mappings, self._most)}
        place = self.sequence % self._kept
        self._rings = {name: self._rings.get(name) or self._empty() for name in views}
        for name, view in views.items():
            for kind, value in zip(NAMES, self._sample(view, seconds), strict=True):
                self._rings[name][kind][place] = value
        self._before, self._at = views, snapshot.at
        self.sequence += 1

    def since(self, sequence: int) -> Samples:
        """What came after sample number ``sequence``, as far as it is kept."""
        count = min(self.sequence - sequence, self._kept)
        return Samples(
            every=self.every,
            kept=self._kept,
            sequence=self.sequence,
            mappings={
                name: Series(**{kind: list(self._last(ring[kind], count)) for kind in NAMES})
                for name, ring in self._rings.items()
            },
        )

    def _empty(self) -> dict[str, array[float]]:
        return {kind: array("f", [nan]) * self._kept for kind in NAMES}

    def _sample(self, view: MappingView, seconds: float | None) -> tuple[float, ...]:
        lag = nan if view.lag_seconds is None else view.lag_seconds
        if not seconds or seconds < 0:  # nothing to compare with, or the clock was set back
            return nan, lag, view.in_flight, nan
        before = self._before.get(view.name)
        polled, failed = (before.polled, before.failed) if before else (0, 0)  # new since the sample before
        return _grown(polled, view.polled) / seconds, lag, view.in_flight, _grown(failed, view.failed)

    def _last(self, ring: array[float], count: int) -> Iterator[float]:
        for number in range(self.sequence - count, self.sequence):
            yield round(ring[number % self._kept], 3)


def _grown(before: int, now: int) -> int:
    """Counters begin anew with their mapping."""
    return now - before if now >= before else now

"""What all meters share: their labels and buckets, and how the series of one are made and removed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from prometheus_client.metrics import MetricWrapperBase

# MET-30: from 1 ms to 900 s.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900)
AGES = (0.001, 0.01, 0.1, 0.5, 1, 5, 30, 60, 300, 900, 3600, 21600, 86400)
"""Messages may wait for days."""
COUNTS = (1, 2, 5, 10, 50, 100, 500, 1000, 5000, 10000)
BYTES = (1 << 10, 1 << 13, 1 << 16, 1 << 18, 1 << 20, 4 << 20, 6 << 20)
# Each bucket of each mapping costs 150 bytes of memory, hence no finer ones.

MAPPING = ("mapping", "source", "function")
FUNCTION = ("function",)

Family = TypeVar("Family", bound=MetricWrapperBase)


class Meter:
    """Children under the same labels, made once and removed together."""

    def __init__(self, labels: tuple[str, ...], forget: Callable[[], object]) -> None:
        self.labels = labels
        self.opened = 0
        """How many still count with it."""
        self._forget = forget
        self._made: list[tuple[MetricWrapperBase, tuple[str, ...]]] = []

    def close(self) -> None:
        """Removes all series when the last one who opened it closes it (MET-31). What is counted later is not shown."""
        self.opened -= 1
        if self.opened > 0:
            return
        self._forget()
        for family, more in self._made:
            family.remove(*self.labels, *more)
        self._made.clear()

    def child(self, family: Family, *more: str) -> Family:
        """The series of ``family`` under this meter's labels and ``more``."""
        self._made.append((family, more))
        return family.labels(*self.labels, *more)

    def children(self, family: Family, names: Iterable[str]) -> dict[str, Family]:
        """One for each word of the last label."""
        return {name: self.child(family, name) for name in names}

"""Plays many scenarios at once on one daemon: each has a queue and a mapping of its own and is an ordinary function,
read from top to bottom, but the seconds that they wait are the same seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.e2e.harness import ASK_EVERY, Bridge, Site, receive
from tests.e2e.journal import Invocation
from tests.servers import Queue


class Scene:
    """What a scenario plays with."""

    def __init__(self, site: Site, queue: Queue, mapping: str, sent: list[str]) -> None:
        self.site, self.queue, self.mapping = site, queue, mapping
        self.sent = sent
        """The ids of the messages that were in the queue before the daemon was."""
        self.bridge: Bridge

    @property
    def runs(self) -> list[Invocation]:
        """What the handler was given from this queue so far."""
        return self.site.journal.invocations(self.queue.name)

    def invocations(self, count: int, *, ended: bool = False) -> list[Invocation]:
        """``runs``, as soon as there are so many (that have ended)."""

        def look() -> list[Invocation] | None:
            runs = self.runs
            enough = sum(not ended or run.ended is not None for run in runs) >= count
            return runs if enough else None

        return self.bridge.until(look) or []

    def empty(self) -> None:
        """Returns when the queue is."""
        self.bridge.empties(self.queue)

    def dead(self, *ids: str) -> list[dict[str, Any]]:
        """Returns when these, and no others, are in the dead-letter queue."""
        letters = self.site.letters_of(self.queue)
        found: dict[str, dict[str, Any]] = {}

        def look() -> bool:
            found.update({message["MessageId"]: message for message in receive(letters)})
            return found.keys() >= set(ids)

        self.bridge.until(look, every=ASK_EVERY)
        assert found.keys() == set(ids)
        return [found[name] for name in ids]


Play = Callable[[Scene], None]


class Scenario(NamedTuple):
    """How its queue, function and mapping are made, and what is played."""

    play: Play
    queue: dict[str, Any]
    function: dict[str, Any] | None
    mapping: dict[str, Any]
    sent: Sequence[str]
    group: str | None


class Stage:
    """The scenarios of a module. Used as a decorator, which says how queue, function and mapping are made (those that
    say nothing about the function share one) and which messages are there before the first poll: one receive has them
    all, where the batch matters.
    """

    def __init__(self) -> None:
        self.scenarios: dict[str, Scenario] = {}

    def __call__(self, **options: Any) -> Callable[[Play], Play]:
        def decorate(play: Play) -> Play:
            self.add(play.__name__, play, **options)
            return play

        return decorate

    def add(
        self,
        name: str,
        play: Play,
        *,
        queue: dict[str, Any] | None = None,
        function: dict[str, Any] | None = None,
        sent: Sequence[str] = (),
        group: str | None = None,
        **mapping: Any,
    ) -> None:
        """Keywords are those of ``Site.queue``, ``Site.function`` and ``Site.mapping``."""
        self.scenarios[name] = Scenario(play, queue or {}, function, mapping, sent, group)

    def perform(self, site: Site, names: Collection[str]) -> Performance:
        """Begins with these."""
        return Performance(site, {name: it for name, it in self.scenarios.items() if name in names})


class Performance:
    """A daemon with scenarios under way. A context manager."""

    def __init__(self, site: Site, scenarios: dict[str, Scenario]) -> None:
        self._scenes = {name: _scene(site, name, scenario) for name, scenario in scenarios.items()}
        self._scenarios = scenarios
        self._bridge = site.start()
        self._results: dict[str, Future[None]] = {}
        self._threads = ThreadPoolExecutor(max_workers=max(1, len(scenarios)), thread_name_prefix="scenario")

    def __enter__(self) -> Self:
        self._bridge.ready()
        for name, scene in self._scenes.items():
            scene.bridge = self._bridge
            self._results[name] = self._threads.submit(self._scenarios[name].play, scene)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown()
        with self._bridge:
            self._bridge.stop()

    def result(self, name: str) -> None:
        """Waits for the end of a scenario; raises what it raised."""
        try:
            self._results[name].result()
        except BaseException as error:
            error.add_note(self._bridge.last_words(self._scenes[name].mapping))
            raise


def _scene(site: Site, name: str, scenario: Scenario) -> Scene:
    queue = site.queue(**scenario.queue)
    options = dict(scenario.mapping)
    partial = options.get("partial", False)
    if scenario.function is not None:
        function = site.function(name, partial=partial, **scenario.function)
    else:
        function = site.function("partial" if partial else "actor", partial=partial, max_environments=24)
    mapping = site.mapping(queue, function, name=name, **options)
    return Scene(site, queue, mapping, queue.send(*scenario.sent, group=scenario.group))

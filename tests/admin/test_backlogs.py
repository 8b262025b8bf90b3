"""Backlogs are asked of the sources seldom, together and not for long."""

from __future__ import annotations

import anyio
import pytest

from bridge.admin.backlogs import AT_ONCE, DEADLINE, KEPT, Backlogs
from bridge.errors import NotFound
from tests.admin.control import ScriptedControl, view
from tests.clock import SKIPPING

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return SKIPPING


class Asked(Backlogs):
    """With a clock of its own."""

    def __init__(self, control: ScriptedControl) -> None:
        self.now = 1000.0
        super().__init__(control, clock=lambda: self.now)


async def test_answers_are_kept_for_a_while() -> None:
    control = ScriptedControl(view("a"), view("b"))
    control.backlogs = {"a": 1, "b": 0}
    backlogs = Asked(control)
    assert await backlogs.ask(["a", "b"]) == {"a": 1, "b": 0}
    control.backlogs = {"a": 2, "b": 2}
    backlogs.now += KEPT - 0.1
    assert await backlogs.ask(["a"]) == {"a": 1}
    assert len(control.asked) == 2
    backlogs.now += 0.2
    assert await backlogs.ask(["a", "b"]) == {"a": 2, "b": 2}


async def test_nothing_is_asked_before_somebody_wants_to_know() -> None:
    control = ScriptedControl(view("a"))
    Asked(control)
    assert await Asked(control).ask([]) == {}
    assert control.asked == []


async def test_who_asks_at_the_same_time_shares_a_round() -> None:
    control = ScriptedControl(*(view(f"m{number}") for number in range(30)))
    control.backlogs = dict.fromkeys(control.mappings, 5)
    backlogs = Asked(control)
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(backlogs.ask, list(control.mappings))
    assert len(control.asked) == 30


async def test_a_source_that_fails_or_went_away_is_unknown_and_not_asked_again_at_once() -> None:
    control = ScriptedControl(view("a"), view("b"), view("c"))
    control.backlogs = {"a": NotFound(), "b": KeyError("b"), "c": 3}
    backlogs = Asked(control)
    for _ in range(2):
        assert await backlogs.ask(["a", "b", "c"]) == {"a": None, "b": None, "c": 3}
    assert len(control.asked) == 3


async def test_stuck_sources_hold_up_the_scrape_only_until_the_deadline() -> None:
    control = ScriptedControl(*(view(f"m{number}") for number in range(AT_ONCE + 5)))
    control.backlogs = dict.fromkeys(control.mappings, 7)
    control.stuck = {"m0", "m1"}
    started = anyio.current_time()
    answers = await Asked(control).ask(list(control.mappings))
    assert anyio.current_time() - started == pytest.approx(DEADLINE, abs=0.5)
    assert {name for name, backlog in answers.items() if backlog is None} == {"m0", "m1"}
    assert sum(backlog or 0 for backlog in answers.values()) == (AT_ONCE + 3) * 7

"""The waiting environments, on a clock of our own."""

from __future__ import annotations

import anyio
import pytest

from bridge.executors.idle import Idle
from tests.clock import SKIPPING

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return SKIPPING


class Member:
    killed = False

    def retire(self) -> None:
        self.killed = True


async def test_the_last_one_in_is_the_first_one_out() -> None:
    idle: Idle[Member] = Idle(300.0)
    one, two = Member(), Member()
    idle.put(one)
    idle.put(two)
    assert len(idle) == 2
    assert [idle.take(), idle.take(), idle.take()] == [two, one, None]
    idle.close()


async def test_each_is_retired_when_its_own_time_is_over() -> None:
    idle: Idle[Member] = Idle(300.0)
    old, young = Member(), Member()
    idle.put(old)
    await anyio.sleep(200)
    idle.put(young)
    await anyio.sleep(99)
    assert not old.killed
    await anyio.sleep(2)
    assert (old.killed, young.killed, len(idle)) == (True, False, 1)
    await anyio.sleep(200)
    assert young.killed
    assert idle.take() is None


async def test_work_starts_the_time_anew() -> None:
    idle: Idle[Member] = Idle(300.0)
    busy = Member()
    for _ in range(10):
        idle.put(busy)
        await anyio.sleep(200)
        assert idle.take() is busy
        await anyio.sleep(200)
    assert not busy.killed
    idle.put(busy)
    await anyio.sleep(301)
    assert busy.killed


async def test_one_that_ended_is_forgotten() -> None:
    idle: Idle[Member] = Idle(300.0)
    gone = Member()
    idle.put(gone)
    assert idle.remove(gone)
    assert not idle.remove(gone)
    await anyio.sleep(301)
    assert not gone.killed


async def test_closed_it_lets_go_of_all() -> None:
    idle: Idle[Member] = Idle(300.0)
    idle.put(member := Member())
    idle.close()
    await anyio.sleep(301)
    assert not member.killed
    assert len(idle) == 0

"""How soon an environment is started again."""

from __future__ import annotations

import asyncio

import pytest

from bridge.executors.restarts import FREE, LONGEST, Restarts
from tests.clock import SKIPPING

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return SKIPPING


async def test_some_bad_ends_cost_nothing() -> None:
    restarts = Restarts()
    for _ in range(FREE):
        restarts.ended_badly()
        assert restarts.delay == 0
        await restarts.pause()


async def test_more_of_them_cost_more_and_more_up_to_a_limit() -> None:
    restarts = Restarts()
    delays = []
    for _ in range(FREE + 12):
        restarts.ended_badly()
        delays.append(restarts.delay)
    assert delays[FREE:] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, *[LONGEST] * 7], abs=0.05)


async def test_an_answer_makes_up_for_all_of_them() -> None:
    restarts = Restarts()
    for _ in range(FREE + 5):
        restarts.ended_badly()
    restarts.answered()
    assert restarts.delay == 0
    restarts.ended_badly()
    assert restarts.delay == 0


async def test_the_pause_is_as_long_as_it_says() -> None:
    restarts = Restarts()
    for _ in range(FREE + 1):
        restarts.ended_badly()
    began = asyncio.get_running_loop().time()
    await restarts.pause()
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.1, abs=0.05)

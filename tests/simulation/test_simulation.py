"""Streams under whatever chance comes up with: some runs each time, one run again with ``BRIDGE_SEED=NUMBER``, more of
them with ``BRIDGE_SEEDS=COUNT``."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clock import wall
from tests.simulation.ledger import Broken, Ledger
from tests.simulation.plan import plan
from tests.simulation.play import play

SEEDS = int(os.environ.get("BRIDGE_SEEDS", "2000"))
PORTION = 100
ROOT = Path(__file__).parents[2]
REMEMBERED = (2987,)
"""Found something once that the first seeds do not: a merged shard whose second parent nobody knew yet."""


@pytest.fixture(autouse=True, scope="module")
def swept() -> Iterator[None]:
    """What is there already is not looked through again after each run."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def owned_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", wall)


def run(seed: int) -> Ledger:
    try:
        return play(plan(seed))
    except Broken as error:
        pytest.fail(f"{error}\n\nBRIDGE_SEED={seed} pytest tests/simulation -k same plays it again", pytrace=False)


@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
def test_promises_are_kept_whatever_happens(first: int) -> None:
    """KIN-27, 36, 50..53, 60..64, 71..77, 80, 88, 91..94, TW-21, 43, 45, 47: order by key, nothing lost, no position
    ahead of what is done, as many attempts as there may be."""
    ledgers = [run(seed) for seed in range(first, min(first + PORTION, SEEDS))]
    assert all(ledger.delivered for ledger in ledgers if ledger.wanted)


@pytest.mark.parametrize("seed", REMEMBERED)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    run(seed)


def test_a_run_is_the_same_in_another_process() -> None:
    """Whatever the order of sets is there."""
    seeds = (3, 8, 60, 184)
    code = f"""
import time
from tests.clock import wall
time.time = wall
from tests.simulation.plan import plan
from tests.simulation.play import play
for seed in {seeds}:
    print("\\n".join(play(plan(seed)).trail))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [line for seed in seeds for line in "\n".join(run(seed).trail).splitlines()]


def test_the_same_seed_is_the_same_run() -> None:
    seed = int(os.environ.get("BRIDGE_SEED") or random.randrange(10**9))
    first, second = run(seed), run(seed)
    assert first.trail == second.trail
    assert len(first.trail) > 3

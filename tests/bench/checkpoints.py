"""Checkpoints a second: shards that move their positions as fast as they are written, against a store that commits one
row at a time and flushes each (the obvious one). Rounds alternate on the same disk; the medians and their ratio count.

    python -m tests.bench.checkpoints [--seconds 1] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import monotonic

import anyio

from bridge.checkpoints import Checkpoints
from bridge.mapping import Mapping, SourceArn
from bridge.position import Position
from bridge.stores import open_store

ROUNDS = 3
SHARDS = (1, 100)
ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"

Move = Callable[[str, str], Awaitable[None]]


async def moving(move: Move, shards: int, seconds: float) -> float:
    """Positions that were written, a second."""
    count = 0
    end = monotonic() + seconds

    async def shard(name: str) -> None:
        nonlocal count
        number = 0
        while monotonic() < end:
            number += 1
            await move(name, f"49590338271490256608559692538361571095921575989{number:09}")
            count += 1

    async with anyio.create_task_group() as tasks:
        for number in range(shards):
            tasks.start_soon(shard, f"shardId-{number:012}")
    return count / seconds


async def ours(folder: Path, shards: int, seconds: float) -> float:
    """The checkpoints of bridge."""
    mapping = Mapping(name="m", uuid="m", function="f", source_arn=SourceArn.parse(ARN))
    async with open_store(f"sqlite:///{folder}/ours.db") as store, Checkpoints(store).running() as checkpoints:
        positions = checkpoints.of(mapping)
        await positions.load()
        return await moving(lambda name, number: positions.move({name: Position(position=number)}), shards, seconds)


async def naive(folder: Path, shards: int, seconds: float) -> float:
    """One row, one commit, one flush; in a thread, so that the loop goes on."""
    connection = sqlite3.connect(folder / "naive.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS positions (shard TEXT PRIMARY KEY, position TEXT)")
    turn = asyncio.Lock()

    async def move(name: str, number: str) -> None:
        async with turn:
            await asyncio.to_thread(
                connection.execute, "INSERT OR REPLACE INTO positions VALUES (?, ?)", (name, number)
            )

    try:
        return await moving(move, shards, seconds)
    finally:
        connection.close()


async def measure(folder: Path, shards: int, seconds: float) -> tuple[float, float]:
    """The medians of both, of alternating rounds."""
    rates = [(await ours(folder, shards, seconds), await naive(folder, shards, seconds)) for _ in range(ROUNDS)]
    mine, other = zip(*rates, strict=True)
    return median(mine), median(other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--folder", help="on the disk to measure; default: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for shards in SHARDS:
            mine, other = asyncio.run(measure(Path(folder), shards, args.seconds))
            goal = "   (goal 20)" if shards == max(SHARDS) else ""
            print(
                f"{shards:>4} shards: {mine:>9,.0f} a second, one by one {other:>7,.0f}, ratio {mine / other:.1f}{goal}"
            )


if __name__ == "__main__":
    main()

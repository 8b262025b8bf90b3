"""The peer: a consumer made with async-kinesis, the handler in its own process, positions in its memory.

    python -m tests.bench.async_kinesis BATCH_SIZE

It gives one record after the other, without its time; so many of them are what the other candidates call a batch.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from kinesis import Consumer, StringProcessor


async def main(size: int) -> None:
    file = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    options: dict[str, Any] = {
        "endpoint_url": os.environ["AWS_ENDPOINT_URL"],
        "region_name": "us-east-1",
        "processor": StringProcessor(),
        "shard_fetch_rate": 5,
        "sleep_time_no_records": 1,
        "idle_timeout": 0.5,
    }
    async with Consumer("x", **options) as consumer:
        while True:
            count = 0
            async for _ in consumer:  # ends when nothing has come for a while
                count += 1
                if count == size:
                    note(file, count)
                    count = 0
            if count:
                note(file, count)


def note(file: int, count: int) -> None:
    os.write(file, f"{count} 0 0 {time.time():.4f}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

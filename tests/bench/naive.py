"""The obvious consumer that the bridge is measured against: aiobotocore as it comes, one task per poller, each with a
worker process behind a socket pair; receive, build the event, invoke, delete, repeat.

    python -m tests.bench.naive QUEUE_URL HANDLER_FILE
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from aiobotocore.session import get_session

POLLERS = 5
WORKER = Path(__file__).with_name("naive_worker.py")


class Worker:
    """A child process that answers each length-prefixed JSON event with a length-prefixed JSON result."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket) -> None:
        self._process = process
        self._socket = ours

    @classmethod
    def start(cls, handler: str) -> Worker:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen([sys.executable, WORKER, str(theirs.fileno()), handler], pass_fds=[theirs.fileno()])
        theirs.close()
        return cls(process, ours)

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)

    async def invoke(self, event: dict[str, Any]) -> Any:
        body = json.dumps(event).encode()
        self._writer.write(len(body).to_bytes(4, "big") + body)
        await self._writer.drain()
        length = int.from_bytes(await self._reader.readexactly(4), "big")
        return json.loads(await self._reader.readexactly(length))

    def end(self) -> None:
        """Kills the child."""
        self._process.kill()
        self._process.wait()
        self._writer.close()


def record(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": message.get("MessageAttributes", {}),
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:q0",
        "awsRegion": "us-east-1",
    }


async def poll(client: Any, queue: str, worker: Worker) -> None:
    await worker.connect()
    while True:
        answer = await client.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=20,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            continue
        await worker.invoke({"Records": [record(message) for message in messages]})
        entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
        await client.delete_message_batch(QueueUrl=queue, Entries=entries)


async def main(queue: str, handler: str) -> None:
    async with get_session().create_client("sqs") as client, asyncio.TaskGroup() as pollers:
        for _ in range(POLLERS):
            pollers.create_task(poll(client, queue, Worker.start(handler)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))

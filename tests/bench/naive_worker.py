"""The child of naive.py: runs `handler` of the given file for each event that comes in on the given descriptor."""

from __future__ import annotations

import json
import runpy
import socket
import sys
from typing import Any


def serve(stream: Any, handler: Any) -> None:
    while header := stream.read(4):
        event = json.loads(stream.read(int.from_bytes(header, "big")))
        answer = json.dumps(handler(event, None)).encode()
        stream.write(len(answer).to_bytes(4, "big") + answer)
        stream.flush()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("rwb") as both_ways:
        serve(both_ways, runpy.run_path(sys.argv[2])["handler"])

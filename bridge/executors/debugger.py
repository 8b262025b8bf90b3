"""What has to be there before an environment can wait for a debugger: the debugger's package, and the port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import anyio

from bridge.errors import BridgeError, UsageError
from bridge.executors.launch import LOOPBACK, place
from bridge.function import Function

LOOK_LIMIT = 10.0
"""Seconds that an interpreter gets to say whether it has a package."""
PORT_LIMIT = 5.0
"""Seconds in which the environment before, or its debugger, has to let go of the port."""
PORT_EVERY = 0.05

_HAS_DEBUGPY = "import importlib.util, sys; sys.exit(importlib.util.find_spec('debugpy') is None)"


async def check_debugger(function: Function) -> None:
    """Raises UsageError when a Python function is to be debugged and its interpreter has no debugpy. Node.js has a
    debugger of its own."""
    if function.debug is None or function.kind != "python":
        return
    interpreter = function.python or sys.executable
    seen = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    found = False
    with anyio.move_on_after(LOOK_LIMIT):
        done = await anyio.run_process(
            [interpreter, "-c", _HAS_DEBUGPY],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            env=seen | {name: value for name, value in function.environment.items() if name == "PYTHONPATH"},
        )
        found = done.returncode == 0
    if not found:
        advice = f"install it ({interpreter} -m pip install debugpy), or remove this"
        raise UsageError(f"{place(function)}.debug: {interpreter} has no debugpy; {advice}")


async def free_port(port: int) -> None:
    """Waits until nobody listens at the debugger's port. Raises BridgeError."""
    deadline = anyio.current_time() + PORT_LIMIT
    while _taken(port):
        if anyio.current_time() > deadline:
            raise BridgeError(f"port {port} of {LOOPBACK} is taken, so that no debugger can be waited for there")
        await anyio.sleep(PORT_EVERY)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have ended do not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False

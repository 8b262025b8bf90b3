"""A daemon in small: a leash, an executor, an environment that waits and one that works.

Run as ``python -m tests.executors.daemon_like FOLDER``. Says ``up`` before it starts anything, then tells what is
there, then hangs. Its children carry FOLDER in their environment.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import anyio

from bridge.executors import Surroundings
from bridge.executors.process import ProcessExecutor
from bridge.invocation import Invocation, Succeeded
from bridge.leash import Leash
from bridge.telemetry.logs import configure
from tests.executors.surroundings import function


async def main(folder: Path) -> None:
    async with Leash() as leash, anyio.create_task_group() as group:
        leash.hold_folder(folder)
        worker = function("family.handler", timeout=600.0, environment={"FOLDER": str(folder)})
        print("up", flush=True)
        async with ProcessExecutor(worker, Surroundings(leash)) as executor:

            async def invoke(event: Any) -> Any:
                outcome = await executor.invoke(Invocation(json.dumps(event).encode(), str(uuid.uuid4())))
                assert isinstance(outcome, Succeeded), outcome
                return json.loads(outcome.payload)

            waits = await invoke(None)
            works = folder / "works.json"
            group.start_soon(invoke, str(works))  # in the same environment
            while not works.exists():
                await anyio.sleep(0.01)
            waits_too = await invoke(None)
            told = [waits, json.loads(works.read_text()), waits_too]
            print(json.dumps({"told": told, "guard": leash._guard.pid if leash._guard else 0}), flush=True)
            await anyio.sleep_forever()


if __name__ == "__main__":
    configure("warning")
    anyio.run(main, Path(sys.argv[1]))

"""The Python runtime client and the wire: spoken with a listener that says what ours never says, and with none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import anyio
import pytest

from bridge.executors.launch import RUNTIMES
from tests.executors.surroundings import gone

pytestmark = pytest.mark.anyio


class Scripted:
    """Answers each ``next`` with one of the events; keeps what is posted; then goes away."""

    def __init__(self, *events: tuple[dict[str, str], bytes], receipt: str = "202 Accepted") -> None:
        self._events = list(events)
        self._receipt = receipt
        self.posted: list[tuple[str, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            method, path, _ = head.split(" ", 2)
            if method == "POST":
                found = re.search(r"Content-Length: (\d+)", head)
                assert found is not None
                self.posted.append((path, await reader.readexactly(int(found[1]))))
                writer.write(f"HTTP/1.1 {self._receipt}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            elif self._events:
                headers, body = self._events.pop(0)
                given = {"Lambda-Runtime-Aws-Request-Id": "id-1", "Lambda-Runtime-Deadline-Ms": "0"} | headers
                lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body)
            else:
                break
        writer.close()

    async def run(self, code: Path, python: str = sys.executable) -> int:
        """The exit status of a client that works for us."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        variables = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "LAMBDA_TASK_ROOT": str(code),
            "_HANDLER": "app.handler",
        }
        async with server:
            with anyio.fail_after(20):
                process = await anyio.run_process(
                    [python, "-u", str(RUNTIMES / "python.py")], env=variables, cwd=code, check=False, stderr=None
                )
        return process.returncode


async def test_client_context_and_identity(tmp_path: Path) -> None:  # RT-3
    tmp_path.joinpath("app.py").write_text(
        dedent("""
        def handler(event, context):
            client, identity = context.client_context, context.identity
            return [client.custom, client.env, client.client.app_title, client.client.installation_id,
                    identity.cognito_identity_id, identity.cognito_identity_pool_id, repr(client), repr(identity),
                    context.tenant_id, context.get_remaining_time_in_millis()]
        """)
    )
    headers = {
        "Lambda-Runtime-Client-Context": '{"custom": {"a": 1}, "env": {"b": 2}, "client": {"app_title": "shop"}}',
        "Lambda-Runtime-Cognito-Identity": '{"cognitoIdentityId": "me", "cognitoIdentityPoolId": "pool"}',
        "Lambda-Runtime-Aws-Tenant-Id": "blue",
    }
    api = Scripted((headers, b"{}"))
    assert await api.run(tmp_path) == 1
    ((path, body),) = api.posted
    assert path == "/2018-06-01/runtime/invocation/id-1/response"
    told = json.loads(body)
    assert told[:6] == [{"a": 1}, {"b": 2}, "shop", None, "me", "pool"]
    assert told[6].startswith("ClientContext([client=Client([")
    assert told[7] == "CognitoIdentity([cognito_identity_id=me,cognito_identity_pool_id=pool])"
    assert told[8:] == ["blue", 0]


@pytest.mark.parametrize(
    ("headers", "body", "kind", "begin"),
    [
        ({}, b"no json", "Runtime.UnmarshalError", "Unable to unmarshal input: "),
        ({}, b"\xff", "Runtime.UnmarshalError", "Unable to unmarshal input: "),
        (
            {"Lambda-Runtime-Client-Context": "["},
            b"{}",
            "Runtime.LambdaContextUnmarshalError",
            "Unable to parse Client Context JSON: ",
        ),
        (
            {"Lambda-Runtime-Cognito-Identity": "[]"},
            b"{}",
            "Runtime.LambdaContextUnmarshalError",
            "Unable to parse Cognito Identity JSON: ",
        ),
    ],
)
async def test_events_that_cannot_be_read(
    tmp_path: Path, headers: dict[str, str], body: bytes, kind: str, begin: str
) -> None:
    tmp_path.joinpath("app.py").write_text("def handler(event, context):\n    return event\n")
    api = Scripted((headers, body))
    assert await api.run(tmp_path) == 1
    ((path, posted),) = api.posted
    assert path.endswith("/id-1/error")
    assert json.loads(posted)["errorType"] == kind
    assert json.loads(posted)["errorMessage"].startswith(begin)


async def test_an_event_that_is_no_json_comes_as_bytes(tmp_path: Path) -> None:
    tmp_path.joinpath("app.py").write_text("def handler(event, context):\n    return event[::-1]\n")
    api = Scripted(({"Content-Type": "text/plain"}, b"abc"))
    await api.run(tmp_path)
    assert api.posted[0][1] == b"cba"


@pytest.mark.parametrize(("receipt", "posts"), [("413 Too Large", 2), ("400 Bad Request", 1), ("500 Oh", 1)])
async def test_an_answer_that_is_refused(tmp_path: Path, receipt: str, posts: int) -> None:
    """One that is too large is the handler's fault; for all else the client ends (RT-7)."""
    tmp_path.joinpath("app.py").write_text("def handler(event, context):\n    return event\n")
    api = Scripted(({}, b"1"), ({}, b"2"), receipt=receipt)
    assert await api.run(tmp_path) == 1
    assert len(api.posted) == posts


async def test_without_a_listener_it_ends(python: str, tmp_path: Path) -> None:
    tmp_path.joinpath("app.py").write_text("def handler(event, context):\n    return event\n")
    assert await Scripted().run(tmp_path, python) == 1


async def test_it_dies_with_its_parent(python: str, tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can be asked for it")
    # Busy with its init, it does not look at its connection.
    tmp_path.joinpath("app.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    listener = socket.create_server(("127.0.0.1", 0))
    variables = os.environ | {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{listener.getsockname()[1]}",
        "LAMBDA_TASK_ROOT": str(tmp_path),
        "_HANDLER": "app.handler",
    }
    start = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-c", start, python, "-u", str(RUNTIMES / "python.py")]
    with listener:
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            pid = int(await anyio.to_thread.run_sync(parent.stdout.readline))
            parent.kill()
        await gone(pid)


def test_an_interpreter_that_is_too_old_is_told_so(tmp_path: Path) -> None:
    """The check stands before everything that an old interpreter does not know."""
    lines = (RUNTIMES / "python.py").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("import os"))
    script = tmp_path / "start.py"
    script.write_text("\n".join(lines[:first]).replace("(3, 9)", "(9, 9)"))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("handlers need Python 3.9 or newer; this is 3.")

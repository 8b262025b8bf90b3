"""Real AWS-compatible servers on free loopback ports, as context managers and as session-wide fixtures. What is not
installed skips the test (``tests.conftest.missing``)."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping as Dict, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bridge import local
from bridge.function import AwsSettings
from tests.conftest import missing

T = TypeVar("T")

REGION = "eu-west-1"
ACCOUNT = "123456789012"
START_LIMIT = 30.0
PRELOAD = Path(__file__).with_name("loopback.cjs")
SHIM = Path(__file__).with_name("loopback.c")
SHORT_SUBSCRIPTIONS = """
import sys
from ministack.app import main
from ministack.services import kinesis
kinesis.SUBSCRIPTION_SECONDS = float(sys.argv.pop())
main()
"""
_names = itertools.count(1)


class Server:
    """A running server. ``url`` is its endpoint."""

    def __init__(self, name: str, url: str, process: subprocess.Popen[bytes]) -> None:
        self.name, self.url, self.process = name, url, process
        self._clients: dict[tuple[str, str, str], Any] = {}

    def __repr__(self) -> str:
        return f"<{self.name} {self.url}, pid {self.process.pid}>"

    @property
    def settings(self) -> AwsSettings:
        """How our own code reaches it; the keys are in the environment (fixture ``aws_keys``)."""
        return AwsSettings(region=REGION, endpoint_url=self.url)

    def client(self, service: str = "sqs", *, region: str = REGION, account: str = ACCOUNT) -> Any:
        """A botocore client, closed with the server. ministack takes the account from the access key."""
        key = (service, region, account)
        if key not in self._clients:
            import botocore.session

            self._clients[key] = botocore.session.get_session().create_client(
                service,
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id=account,
                aws_secret_access_key="secret",
            )
        return self._clients[key]

    def queue(self, *, fifo: bool = False, name: str = "", **attributes: str) -> Queue:
        """A queue of its own for the calling test."""
        name = name or unique("queue") + (".fifo" if fifo else "")
        kind = {"FifoQueue": "true"} if fifo else {}
        url = self.client().create_queue(QueueName=name, Attributes={**kind, **attributes})["QueueUrl"]
        return Queue(self, name, url)

    def close(self) -> None:
        """Closes the clients and ends the process, by its own pid."""
        for client in self._clients.values():
            client.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(1)  # it may wait for long polls that nobody waits for any more
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Queue:
    """A queue on a server, with what tests do to it from the outside."""

    def __init__(self, server: Server, name: str, url: str) -> None:
        self.server, self.name, self.url = server, name, url

    def __repr__(self) -> str:
        return f"<Queue {self.url}>"

    @property
    def arn(self) -> str:
        return self.attributes()["QueueArn"]

    @property
    def api(self) -> Any:
        return self.server.client()

    def send(self, *bodies: str, group: str | None = None) -> list[str]:
        """The message ids, in order. With a ``group`` the bodies must differ within five minutes."""
        ids = []
        for start in range(0, len(bodies), 10):
            entries: list[dict[str, str]] = [
                {"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies[start : start + 10])
            ]
            if group is not None:
                for entry in entries:
                    entry |= {"MessageGroupId": group, "MessageDeduplicationId": unique("once")}
            answer = self.api.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not answer.get("Failed"), answer
            by_entry = {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}
            ids += [by_entry[entry["Id"]] for entry in entries]
        return ids

    def attributes(self) -> dict[str, str]:
        """All of them, as text."""
        answer = self.api.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        return dict(answer["Attributes"])

    def counts(self) -> tuple[int, int]:
        """How many messages are visible, and in flight."""
        found = self.attributes()
        return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])


def unique(what: str) -> str:
    """A name that no other test uses."""
    return f"{what}-{os.getpid()}-{next(_names)}"


def run(
    name: str, command: Sequence[str], port: int, variables: Dict[str, str] | None = None, folder: str | None = None
) -> Server:
    """Starts ``command`` in ``folder``, which listens on ``port``, and waits until it does. Raises RuntimeError with
    its output."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(variables or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        deadline = time.monotonic() + START_LIMIT
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                output.seek(0)
                raise RuntimeError(f"{name} does not start: {output.read().decode(errors='replace')[-2000:]}")
            time.sleep(0.01)
    return Server(name, f"http://127.0.0.1:{port}", process)


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def ministack(subscription: float = 0) -> Iterator[Server]:
    """The embedded endpoint's server, without what bridge.local builds around it. ``subscription``: seconds after which
    it ends what it pushes to consumers, five minutes unless given."""
    require(importlib.util.find_spec("ministack"), "ministack")
    port = local.free_port()
    command = [sys.executable, "-m", "ministack"]
    if subscription:
        command = [sys.executable, "-c", SHORT_SUBSCRIPTIONS, str(subscription)]
    with tempfile.TemporaryDirectory() as folder:
        variables = local.variables(port, Path(folder))
        with contextlib.closing(run("ministack", command, port, variables)) as server:
            yield server


@contextlib.contextmanager
def roto(port: int = 0) -> Iterator[Server]:
    """A second, unrelated server; 0: at any free port."""
    beside = Path(sys.executable).with_name("roto-server")
    program = str(beside) if beside.exists() else shutil.which("roto-server")
    port = port or local.free_port()
    command = [require(program, "roto-aws"), "--host", "127.0.0.1", "--port", str(port), "--ephemeral"]
    with contextlib.closing(run("roto", command, port)) as server:
        yield server


@contextlib.contextmanager
def fauxqs() -> Iterator[Server]:
    """A third one, for node: looked for in BRIDGE_NODE_MODULES and .ci/cache/node_modules. The host of its queue URLs
    does not resolve."""
    script = node_modules() / "fauxqs" / "dist" / "server.js"
    require(script.exists(), "fauxqs")
    port = local.free_port()
    command = [require(shutil.which("node"), "node"), "--require", str(PRELOAD), str(script)]
    with contextlib.closing(run("fauxqs", command, port, {"FAUXQS_PORT": str(port)})) as server:
        yield server


@contextlib.contextmanager
def kinesalite(port: int = 0, path: Path | None = None) -> Iterator[Server]:
    """Kinesis with shards that split and merge, for node: looked for like ``fauxqs``. It knows streams by their names
    alone. 0: at any free port. With a ``path`` it finds there what it had when it was killed."""
    script = node_modules() / "kinesalite" / "cli.js"
    require(script.exists(), "kinesalite")
    port = port or local.free_port()
    at_once = [f"--{what}StreamMs=0" for what in ("create", "delete", "update")]
    node = [require(shutil.which("node"), "node"), "--require", str(PRELOAD), str(script)]
    kept = [f"--path={path}"] if path else []
    command = [*node, f"--port={port}", "--shardLimit=1000", *at_once, *kept]
    with contextlib.closing(run("kinesalite", command, port)) as server:
        yield server


@contextlib.contextmanager
def kinesis_local() -> Iterator[Server]:
    """A second one, of another maker, likewise; it tells what follows the end of a shard."""
    folder = node_modules() / "kinesis-local"
    require((folder / "main.js").exists(), "kinesis-local")
    port, other = local.free_port(), local.free_port()
    works = ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "REGISTER_STREAM_CONSUMER")
    variables = {
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(other),
        "KINESIS_MOCK_CERT_PATH": str(folder / "server.json"),
        "SHARD_LIMIT": "1000",
        "LOG_LEVEL": "ERROR",
        **{f"{work}_DURATION": "10ms" for work in works},
    }
    command = [require(shutil.which("node"), "node"), "--require", str(PRELOAD), str(folder / "main.js")]
    with contextlib.closing(run("kinesis-local", command, port, variables)) as server:
        yield server


@contextlib.contextmanager
def dynamodb_local() -> Iterator[Server]:
    """Amazon's DynamoDB for one's own machine, with its streams: looked for like ``fauxqs``, needs Java. Its ARNs have
    a region and an account of their own."""
    folder = node_modules() / "amplify-dynamodb-simulator" / "emulator"
    require((folder / "DynamoDBLocal.jar").exists(), "DynamoDB Local")
    java = [require(shutil.which("java"), "java"), "-Djava.net.preferIPv4Stack=true", "-XX:TieredStopAtLevel=1"]
    port = local.free_port()
    jar = [f"-Djava.library.path={folder / 'DynamoDBLocal_lib'}", "-jar", str(folder / "DynamoDBLocal.jar")]
    command = [*java, *jar, "-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(port)]
    with tempfile.TemporaryDirectory() as made:
        shim = Path(made) / "loopback.so"
        compiler = require(shutil.which("cc"), "a C compiler")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, SHIM, "-ldl"], check=True)
        with contextlib.closing(run("DynamoDB Local", command, port, {"LD_PRELOAD": str(shim)}, made)) as server:
            yield server


def node_modules() -> Path:
    """Where npm's packages are."""
    cache = Path(__file__).parent.parent / ".ci" / "cache" / "node_modules"
    return Path(os.environ.get("BRIDGE_NODE_MODULES") or cache)


@contextlib.contextmanager
def fakeaws(**options: float) -> Iterator[Server]:
    """The stub of the benches, with the options of its README (underscores for hyphens)."""
    from tests.bench import server as bench

    require(shutil.which("cc"), "a C compiler")
    port = local.free_port()
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", f"{value:g}")]
    with contextlib.closing(run("fakeaws", [str(bench.built()), "--port", str(port), *words], port)) as server:
        yield server


def require(found: T | None, what: str) -> T:
    """Skips, or fails where everything must be there, unless ``found``."""
    if not found:
        missing(what)
    assert found
    return found


@pytest.fixture(scope="session")
def ministack_server() -> Iterator[Server]:
    with ministack() as server:
        yield server


@pytest.fixture(scope="session")
def roto_server() -> Iterator[Server]:
    with roto() as server:
        yield server


@pytest.fixture(scope="session")
def fauxqs_server() -> Iterator[Server]:
    with fauxqs() as server:
        yield server


@pytest.fixture(scope="session")
def kinesalite_server() -> Iterator[Server]:
    with kinesalite() as server:
        yield server


@pytest.fixture(scope="session")
def kinesis_local_server() -> Iterator[Server]:
    with kinesis_local() as server:
        yield server


@pytest.fixture(scope="session")
def dynamodb_local_server() -> Iterator[Server]:
    with dynamodb_local() as server:
        yield server


@pytest.fixture(scope="session", params=["ministack", "roto"])
def sqs_server(request: pytest.FixtureRequest) -> Server:
    """Each test runs on two unrelated servers: what passes on both tests us, not them."""
    server = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(server, Server)
    return server


@pytest.fixture
def aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that knows ACCOUNT's keys and nothing else of AWS: no profiles, no role of this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCOUNT)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

"""The embedded endpoint: what it makes of a configuration, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import msgspec
import pytest
from structlog.testing import capture_logs

from bridge.aws import Aws
from bridge.errors import BridgeError, UsageError
from bridge.function import AwsSettings, Function
from bridge.leash import Leash
from bridge.local import LocalEndpoint, free_port
from bridge.mapping import Mapping, SourceArn, StreamOptions
from tests.conftest import missing
from tests.servers import listens

EU, US = "eu-west-1", "us-east-1"
ALICE, BOB = "111111111111", "222222222222"


def mapping(queue: str, *, function: str = "worker", account: str = ALICE, region: str = EU) -> Mapping:
    arn = SourceArn("aws", "sqs", region, account, queue)
    return Mapping(name=queue, uuid="u", function=function, source_arn=arn, aws=AwsSettings(profile="dev"))


def function(name: str = "worker", timeout: float = 3.0) -> Function:
    arn = f"arn:aws:lambda:{EU}:{ALICE}:function:{name}"
    return Function(name=name, arn=arn, kind="python", timeout=timeout, aws=AwsSettings(role_arn="r"))


WORKER = {"worker": function()}


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        import ministack  # noqa: F401
    except ImportError:
        missing("ministack")


# The real server.


@pytest.fixture
async def leash() -> AsyncIterator[Leash]:
    async with Leash() as leash:
        yield leash


async def attributes(aws: Aws, settings: AwsSettings, queue: str) -> dict[str, str]:
    api = await aws.api("sqs", settings)
    url = (await api.call("GetQueueUrl", {"QueueName": queue}, timeout=10))["QueueUrl"]
    asked = {"QueueUrl": url, "AttributeNames": ["All"]}
    found: dict[str, str] = (await api.call("GetQueueAttributes", asked, timeout=10))["Attributes"]
    return found


@pytest.mark.anyio
async def test_the_sources_are_there(leash: Leash) -> None:
    mappings = [mapping("orders"), mapping("steps.fifo", account=BOB), mapping("orders", region=US)]
    async with LocalEndpoint(leash) as endpoint, Aws(credentials=endpoint.credentials) as aws:
        await endpoint.create_sources(mappings, WORKER)
        for one in mappings:
            local = endpoint.mapping(one)
            assert local.aws.profile is None  # nothing of the configured chain is used here
            found = await attributes(aws, local.aws, one.source_arn.resource)
            assert found["QueueArn"] == str(one.source_arn)
            assert found["VisibilityTimeout"] == "30"
            assert json.loads(found["RedrivePolicy"])["maxReceiveCount"] in (5, "5")
        letters = await attributes(aws, endpoint.mapping(mappings[1]).aws, "steps-dlq.fifo")
        assert letters["FifoQueue"] == "true"


STREAM = f"arn:aws:kinesis:{EU}:{ALICE}:stream/clicks"
TABLE = f"arn:aws:dynamodb:{EU}:{ALICE}:table/users"


def streaming(arn: str, **options: Any) -> Mapping:
    stream = StreamOptions(**options)
    return Mapping(name=arn, uuid="u", function="worker", source_arn=SourceArn.parse(arn), stream=stream)


@pytest.mark.anyio
async def test_streams_tables_and_what_is_told_are_there(leash: Leash) -> None:
    wanted = [
        streaming(STREAM, on_failure="arn:aws:s3:::failures"),
        streaming(f"{STREAM}/consumer/me:1700000000", on_failure=f"arn:aws:sns:{EU}:{ALICE}:alarms"),
        streaming(f"{TABLE}/stream/2026-01-01T00:00:00.000", on_failure=f"arn:aws:sqs:{EU}:{ALICE}:failures"),
    ]
    async with LocalEndpoint(leash) as endpoint, Aws(credentials=endpoint.credentials) as aws:
        for _ in range(2):  # twice is as once
            await endpoint.create_sources(wanted, WORKER)
            shared, fanned, table = (str(endpoint.mapping(it).source_arn) for it in wanted)
            assert shared == STREAM

            async def ask(service: str, operation: str, **params: Any) -> dict[str, Any]:
                api = await aws.api(service, endpoint.settings(wanted[0].source_arn))
                return await api.call(operation, params, timeout=10)

            assert (await ask("kinesis", "DescribeStreamSummary", StreamARN=shared))["StreamDescriptionSummary"][
                "StreamStatus"
            ] == "ACTIVE"
            assert fanned.startswith(f"{STREAM}/consumer/me:")
            consumer = (await ask("kinesis", "DescribeStreamConsumer", ConsumerARN=fanned))["ConsumerDescription"]
            assert consumer["ConsumerStatus"] == "ACTIVE"
            assert table.startswith(f"{TABLE}/stream/")
            described = (await ask("dynamodbstreams", "DescribeStream", StreamArn=table))["StreamDescription"]
            assert described["StreamViewType"] == "NEW_AND_OLD_IMAGES"
            assert [key["AttributeName"] for key in described["KeySchema"]] == ["id"]
            await ask("s3", "HeadBucket", Bucket="failures")
            topics = (await ask("sns", "ListTopics"))["Topics"]
            assert [topic["TopicArn"] for topic in topics] == [f"arn:aws:sns:{EU}:{ALICE}:alarms"]
            await ask("sqs", "GetQueueUrl", QueueName="failures")
        assert endpoint.export_lines(wanted)[0].startswith(f"export AWS_ENDPOINT_URL={endpoint.url} ")


@pytest.mark.anyio
async def test_creating_again_keeps_messages_and_brings_the_new_attributes(leash: Leash) -> None:
    async with LocalEndpoint(leash) as endpoint, Aws(credentials=endpoint.credentials) as aws:
        for name in ("orders", "steps.fifo"):
            await endpoint.create_sources([mapping(name)], WORKER)
        api = await aws.api("sqs", endpoint.mapping(mapping("orders")).aws)
        url = (await api.call("GetQueueUrl", {"QueueName": "orders"}, timeout=10))["QueueUrl"]
        await api.call("SendMessage", {"QueueUrl": url, "MessageBody": "still here"}, timeout=10)
        for name in ("orders", "steps.fifo"):
            await endpoint.create_sources([mapping(name)], {"worker": function(timeout=60)})
            found = await attributes(aws, endpoint.mapping(mapping(name)).aws, name)
            assert found["VisibilityTimeout"] == "360"
        assert (await attributes(aws, endpoint.settings(mapping("orders").source_arn), "orders"))[
            "ApproximateNumberOfMessages"
        ] == "1"


@pytest.mark.anyio
async def test_the_export_lines_lead_a_shell_to_the_sources(leash: Leash) -> None:
    mappings = [mapping("orders"), mapping("bills", account=BOB), mapping("other")]
    async with LocalEndpoint(leash) as endpoint:
        await endpoint.create_sources(mappings, WORKER)
        lines = endpoint.export_lines(mappings)
        assert len(lines) == 2
        code = "import botocore.session as s; print(*s.get_session().create_client('sqs').list_queues()['QueueUrls'])"
        for line, account, names in zip(lines, (ALICE, BOB), ("orders other", "bills"), strict=True):
            shell = f"{line}; exec {sys.executable} -c {json.dumps(code)}"
            done = await anyio.run_process(["sh", "-c", shell], env={"PATH": os.environ["PATH"]})
            queues = {f"{endpoint.url}/{account}/{name}{end}" for name in names.split() for end in ("", "-dlq")}
            assert set(done.stdout.decode().split()) == queues


@pytest.mark.anyio
async def test_a_mapping_keeps_its_client(leash: Leash) -> None:
    async with LocalEndpoint(leash) as endpoint:
        clients: tuple[Literal["fast", "sdk"] | None, ...] = (None, "fast", "sdk")
        for client in clients:
            there = msgspec.structs.replace(mapping("orders"), aws=AwsSettings(profile="dev", client=client))
            assert endpoint.mapping(there).aws.client == client
            assert endpoint.mapping(there).aws.profile is None


@pytest.mark.anyio
async def test_a_function_finds_its_own_account(leash: Leash) -> None:
    async with LocalEndpoint(leash) as endpoint, Aws(credentials=endpoint.credentials) as aws:
        local = endpoint.function(function())
        assert local.aws == AwsSettings(region=EU, endpoint_url=endpoint.url, account_id=ALICE)
        found = await aws.credentials(local.aws).current()
        assert found is not None
        assert (found.access_key, found.expiry) == (ALICE, None)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody else's endpoint is taken for ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def folders() -> set[Path]:
    """Those of embedded endpoints."""
    return set(Path(tempfile.gettempdir()).glob("bridge-local-*"))


def children(parent: int) -> set[int]:
    """The pids of the servers that a process started and has not reaped."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            of = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if of == parent and b"ministack" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


@pytest.mark.anyio
async def test_nothing_is_left_of_it(leash: Leash) -> None:
    before, others = folders(), children(os.getpid())
    async with LocalEndpoint(leash) as endpoint:
        port = int(endpoint.url.rpartition(":")[2])
        assert listens(port)
        (folder,) = folders() - before
        assert folder.stat().st_mode & 0o777 == 0o700
        assert children(os.getpid()) > others
    assert not listens(port)
    assert children(os.getpid()) == others
    assert folders() == before
    assert "0 held" in repr(leash)


@pytest.mark.anyio
async def test_a_failure_inside_comes_out_as_it_is(leash: Leash) -> None:
    before = folders()
    with pytest.raises(UsageError, match="somebody else's"):
        async with LocalEndpoint(leash):
            raise UsageError("somebody else's")
    assert folders() == before


@pytest.mark.anyio
async def test_it_listens_on_loopback_alone(leash: Leash) -> None:
    others = children(os.getpid())
    async with LocalEndpoint(leash):
        (pid,) = children(os.getpid()) - others
        assert {address for address, _ in listening(pid)} == {"127.0.0.1"}


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process accepts connections."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                address, port = local.split(":")
                readable = (
                    ".".join(str(byte) for byte in reversed(bytes.fromhex(address))) if table == "tcp" else address
                )
                found.add((readable, int(port, 16)))
    return found


@pytest.mark.anyio
async def test_it_is_started_again_with_its_sources(leash: Leash) -> None:
    others = children(os.getpid())
    moved = anyio.Event()
    table = streaming(f"{TABLE}/stream/2026-01-01T00:00:00.000")
    with capture_logs() as logs:
        async with (
            LocalEndpoint(leash, moved=moved.set) as endpoint,
            Aws(credentials=endpoint.credentials) as aws,
        ):
            await endpoint.create_sources([mapping("orders"), mapping("steps.fifo", account=BOB), table], WORKER)
            before = endpoint.mapping(table).source_arn
            url = endpoint.url
            (first,) = children(os.getpid()) - others
            os.kill(first, signal.SIGKILL)
            with anyio.fail_after(30):
                while not any(line["event"] == "local_endpoint_restarted" for line in logs):
                    await anyio.sleep(0.01)
            assert endpoint.url == url
            assert first not in children(os.getpid())
            settings = endpoint.mapping(mapping("steps.fifo", account=BOB)).aws
            assert (await attributes(aws, settings, "steps.fifo"))["FifoQueue"] == "true"
            assert moved.is_set()
            assert endpoint.mapping(table).source_arn != before
    events = [line["event"] for line in logs if line["log_level"] != "debug"]
    assert events == ["local_endpoint_died", "local_endpoint_restarted"]


# When it does not start.


@pytest.mark.anyio
async def test_without_the_extra_it_says_what_to_install(leash: Leash, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ministack", None)
    with pytest.raises(UsageError, match=r"pip install 'bridge\[local\]'"):
        async with LocalEndpoint(leash):
            pytest.fail("it was started")


def instead(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another server under the same name, in front of the real one."""
    (folder / "ministack.py").write_text(textwrap.dedent(code))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.anyio
async def test_a_server_that_fails_tells_its_last_words(
    leash: Leash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folders()
    instead(tmp_path, monkeypatch, "print('hello', flush=True); raise SystemExit('no disk left')")
    with pytest.raises(BridgeError, match=r"ended with status 1: (?s:.*)no disk left"):
        async with LocalEndpoint(leash):
            pytest.fail("it was started")
    assert folders() == before
    assert "0 held" in repr(leash)


@pytest.mark.anyio
async def test_a_port_that_somebody_else_was_given_is_no_trouble(
    leash: Leash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two tries end as a server does whose port is taken; the third is the real one."""
    instead(
        tmp_path,
        monkeypatch,
        """
        import pathlib, runpy, sys
        tries = pathlib.Path(__file__).with_name("tries")
        number = len(tries.read_text()) if tries.exists() else 0
        tries.write_text("x" * (number + 1))
        if number < 2:
            sys.exit("address already in use")
        sys.path.remove(str(tries.parent))
        del sys.modules["__main__"]
        runpy.run_module("ministack", run_name="__main__", alter_sys=True)
        """,
    )
    async with LocalEndpoint(leash) as endpoint:
        await endpoint.create_sources([mapping("orders")], WORKER)
    assert (tmp_path / "tries").read_text() == "xxx"


@pytest.mark.anyio
async def test_the_start_can_be_cancelled(leash: Leash, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, others = folders(), children(os.getpid())
    instead(
        tmp_path, monkeypatch, f"import pathlib, time; pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    )

    async def start() -> None:
        async with LocalEndpoint(leash):
            pytest.fail("it was started")

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start)
            while not (tmp_path / "up").exists():
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert children(os.getpid()) == others
    assert folders() == before


DAEMON = """
import anyio, sys
from bridge.leash import Leash
from bridge.local import LocalEndpoint

async def main():
    async with Leash() as leash, LocalEndpoint(leash) as endpoint:
        print(endpoint.url, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def test_nothing_outlives_a_killed_daemon(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True, env=environment)
    with daemon:
        assert daemon.stdout is not None
        port = int(daemon.stdout.readline().rpartition(":")[2])
        (server,) = children(daemon.pid)
        assert listens(port)
        assert list(tmp_path.glob("bridge-local-*"))
        daemon.kill()
    wait_for(lambda: not listens(port))
    wait_for(lambda: not Path(f"/proc/{server}").exists())
    wait_for(lambda: not list(tmp_path.glob("bridge-local-*")))


def wait_for(reached: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 15
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_free_ports_are_free() -> None:
    assert not listens(free_port())

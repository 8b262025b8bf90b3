"""Users' mistakes: one line that says what is wrong, exit status 2, no traceback, at once."""

from __future__ import annotations

import re
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NewSite
from tests.e2e.harness import Finished, Site
from tests.servers import Server

QUICK = 10.0
"""Seconds; it takes a tenth of that. Nothing may wait for a network, a disk or a time-out."""

ARN = "arn:aws:sqs:eu-west-1:123456789012:orders"


@pytest.fixture
def nowhere(new_site: NewSite) -> Site:
    """A good configuration, of an endpoint that nobody needs to reach."""
    site = new_site()
    site.config["aws"]["endpoint_url"] = "http://127.0.0.1:9"
    site.function()
    site.mapping(ARN, name="orders")
    return site


def refused(done: Finished, *parts: str) -> None:
    """It is one line, which says all of this."""
    assert done.status == 2, done
    assert len(done.lines) == 1, done.err
    assert "Traceback" not in done.err
    for part in parts:
        assert re.search(part, done.err), f"{part!r} is not in {done.err!r}"
    assert done.seconds < QUICK


Change = Callable[[dict[str, Any]], object]

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
MISTAKES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "unknown_key": (
        lambda config: config["mappings"]["orders"].update(BatchSise=5),
        (r"bridge\.yaml:\d+: mappings\.orders\.BatchSise: ", '"BatchSize"'),
    ),
    "unknown_top_key": (lambda config: config.update(funktions={}), (r"bridge\.yaml:\d+: funktions: ", '"functions"')),
    "wrong_type": (
        lambda config: config["mappings"]["orders"].update(BatchSize="many"),
        (r"mappings\.orders\.BatchSize: ", "many"),
    ),
    "out_of_range": (
        lambda config: config["mappings"]["orders"].update(BatchSize=20000),
        (r"mappings\.orders\.BatchSize: ", "20000", "10,?000"),
    ),
    "no_window_for_a_large_batch": (  # SQS-10
        lambda config: config["mappings"]["orders"].update(BatchSize=100),
        (r"mappings\.orders", "MaximumBatchingWindowInSeconds"),
    ),
    "a_window_for_fifo": (  # SQS-58
        lambda config: config["mappings"]["orders"].update(
            EventSourceArn=f"{ARN}.fifo", MaximumBatchingWindowInSeconds=1
        ),
        (r"mappings\.orders\.MaximumBatchingWindowInSeconds: ", "FIFO"),
    ),
    "missing_variable": (
        lambda config: config["aws"].update(region="${NO_SUCH_REGION}"),
        (r"aws\.region: ", "NO_SUCH_REGION"),
    ),
    "unknown_function": (
        lambda config: config["mappings"]["orders"].update(FunctionName="acter"),
        (r"mappings\.orders\.FunctionName: ", "acter", '"actor"'),
    ),
    "unsupported_arn": (
        lambda config: config["mappings"]["orders"].update(
            EventSourceArn="arn:aws:kafka:eu-west-1:123456789012:cluster/clicks/1-2-3"
        ),
        (r"mappings\.orders\.EventSourceArn: ", "kafka"),
    ),
    "no_start_of_a_stream": (  # ESM-32
        lambda config: config["mappings"]["orders"].update(EventSourceArn=STREAM),
        (r"mappings\.orders\.StartingPosition: ", "TRIM_HORIZON"),
    ),
    "a_start_in_the_future": (  # KIN-1
        lambda config: config["mappings"]["orders"].update(
            EventSourceArn=STREAM, StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp="2999-01-01T00:00:00Z"
        ),
        (r"mappings\.orders\.StartingPositionTimestamp: ", "future"),
    ),
    "a_streams_option_for_a_queue": (  # ESM-20
        lambda config: config["mappings"]["orders"].update(BisectBatchOnFunctionError=True),
        (r"mappings\.orders\.BisectBatchOnFunctionError: ", "SQS", "Kinesis"),
    ),
    "a_queues_option_for_a_stream": (  # ESM-41
        lambda config: config["mappings"]["orders"].update(
            EventSourceArn=STREAM, StartingPosition="LATEST", ScalingConfig={"MaximumConcurrency": 5}
        ),
        (r"mappings\.orders\.ScalingConfig: ", "Kinesis", "SQS"),
    ),
    "no_arn": (
        lambda config: config["mappings"]["orders"].update(EventSourceArn="orders"),
        (r"mappings\.orders\.EventSourceArn: ", "orders"),
    ),
    "invalid_filter": (
        lambda config: config["mappings"]["orders"].update(FilterCriteria={"Filters": [{"Pattern": '{"body": 5}'}]}),
        (r"mappings\.orders\.FilterCriteria", "body"),
    ),
    "filter_no_json": (
        lambda config: config["mappings"]["orders"].update(FilterCriteria={"Filters": [{"Pattern": "{"}]}),
        (r"mappings\.orders\.FilterCriteria", "JSON"),
    ),
    "no_function_of_a_known_runtime": (
        lambda config: config["functions"]["actor"].update(Runtime="pyton3.11"),
        (r"functions\.actor\.Runtime: ", "pyton3.11", "python3"),
    ),
    "no_handler_file": (
        lambda config: config["functions"]["actor"].update(Handler="aktor.handler"),
        (r"functions\.actor\.Handler: ", r"aktor\.py"),
    ),
    "no_handler_name": (
        lambda config: config["functions"]["actor"].update(Handler="actor"),
        (r"functions\.actor\.Handler: ", "MODULE.FUNCTION"),
    ),
    "the_same_source_twice": (  # ESM-11
        lambda config: config["mappings"].update(again=dict(config["mappings"]["orders"])),
        (r"mappings\.again", "orders"),
    ),
    "api_for_everybody": (
        lambda config: config.update(api={"listen": "0.0.0.0:3001"}),
        (r"bridge\.yaml:\d+: api\.listen", "write auth: sigv4"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_the_configuration(nowhere: Site, name: str) -> None:
    change, parts = MISTAKES[name]
    change(nowhere.config)
    refused(nowhere.cli("run", "-c", str(nowhere.write())), *parts)
    assert nowhere.left() == []


def test_every_mistake_at_once(nowhere: Site) -> None:
    names = ("unknown_key", "wrong_type", "unknown_function", "invalid_filter", "missing_variable")
    for name in names:
        MISTAKES[name][0](nowhere.config)
    done = nowhere.cli("run", "-c", str(nowhere.write()))
    assert (done.status, len(done.lines)) == (2, len(names)), done.err
    validated = nowhere.cli("validate", "-c", str(nowhere.file))
    assert (validated.status, validated.err) == (2, done.err)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("functions: [", r"bridge\.yaml:\d+: broken YAML"),
        ("a: b: c", r"bridge\.yaml:1: broken YAML"),
        ("- 1\n- 2", r"bridge\.yaml:1: "),
        ("\0", r"broken YAML"),
        ("functions: &a [*a]", r"bridge\.yaml:1: "),
    ],
)
def test_broken_files(nowhere: Site, text: str, part: str) -> None:
    nowhere.file.write_text(text)
    refused(nowhere.cli("run", "-c", str(nowhere.file)), part)


def test_no_file(nowhere: Site) -> None:
    refused(nowhere.cli("run"), "bridge.yaml, /etc/bridge/bridge.yaml", "-c FILE or BRIDGE_CONFIG")
    refused(nowhere.cli("run", "-c", "nothing.yaml"), "nothing.yaml: ")
    refused(nowhere.cli("run", "-c", str(nowhere.folder)), str(nowhere.folder))


def test_unknown_options(nowhere: Site) -> None:
    refused(nowhere.cli("run", "--lokal"), "--lokal", "--local")
    refused(nowhere.cli("rum"), '"run"')
    refused(nowhere.cli("run", "-c", str(nowhere.write()), "--set", "mappings.orders.BatchSize=0"), "BatchSize", "0")


def test_port_in_use(nowhere: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        nowhere.config["admin"] = {"listen": address}
        refused(nowhere.cli("run", "-c", str(nowhere.write())), address, "in use")
    assert nowhere.left() == []


def test_no_code(nowhere: Site) -> None:
    nowhere.function(code=nowhere.folder / "missing")
    refused(nowhere.cli("run", "-c", str(nowhere.write())), "functions.actor.CodeUri: ", "missing: no such folder")
    nowhere.function(code=nowhere.file)
    refused(nowhere.cli("run", "-c", str(nowhere.write())), "functions.actor.CodeUri: ", "is a file")
    nowhere.function(python="/no/such/python")
    refused(nowhere.cli("run", "-c", str(nowhere.write())), r"functions.actor.python: /no/such/python")
    assert nowhere.left() == []


# The state.


def newer(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute(f"PRAGMA application_id = {0x62726467}")
    connection.close()


def foreign(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda file: file.write_bytes(b"no database at all" * 100), "is damaged"),
        (lambda file: file.mkdir(), "is a folder"),
        (newer, "newer bridge"),
        (foreign, "belongs to another program"),
    ],
    ids=["corrupt", "folder", "newer", "foreign"],
)
def test_state_that_is_none(nowhere: Site, spoil: Callable[[Path], object], part: str) -> None:
    spoil(nowhere.folder / "state.db")
    refused(nowhere.cli("run", "-c", str(nowhere.write())), "state.db", part)
    assert nowhere.left() == []


@pytest.mark.parametrize("place", ["/proc/nobody/may/state.db", "bridge.yaml/state.db"])
def test_state_that_cannot_be_written(nowhere: Site, place: str) -> None:
    """Also for root, whom permissions do not stop."""
    nowhere.config["state"] = f"sqlite:///{nowhere.folder / place}"
    refused(nowhere.cli("run", "-c", str(nowhere.write())), "state file", place)


def test_a_second_daemon_on_the_same_state(tmp_path: Path, new_site: NewSite, roto_server: Server) -> None:
    first, second = (new_site(roto_server, name) for name in ("first", "second"))
    for site in (first, second):
        site.config["state"] = f"sqlite:///{tmp_path}/state.db"
        site.function()
        site.mapping(site.queue())
    with first.running() as bridge:
        done = second.cli("run", "-c", str(second.write()))
        refused(done, "state.db", f"another daemon .pid {bridge.pid}. uses it", "namespace=")
        assert second.left() == []
        second.config["state"] += "?namespace=me"  # as the line says
        with second.running():
            assert bridge.readiness()[0] == 200

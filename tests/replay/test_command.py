"""`bridge replay` as people and scripts call it, against queues behind HTTP."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bridge.commands import main
from tests.replay.post import Box, Post, redrives
from tests.wire import Wire


class World(NamedTuple):
    """Queues at an endpoint."""

    url: str
    post: Post
    source: Box
    dead: Box
    portal: BlockingPortal

    @property
    def visible(self) -> list[str]:
        """Ids of the dead letters that anybody could receive now."""
        return self.portal.call(lambda: self.dead.visible)

    def run(self, *words: str, dlq: str = "") -> int:
        """The command's exit status."""
        return main(["replay", "--dlq", dlq or self.dead.name, "--endpoint-url", self.url, *words])


@asynccontextmanager
async def served(post: Post) -> Any:
    wire = Wire()
    post.serve(wire)
    async with wire:
        yield wire.url


@contextmanager
def world(*, fifo: bool = False) -> Iterator[World]:
    suffix = ".fifo" if fifo else ""
    dead = Box(f"orders-dlq{suffix}")
    source = Box(f"orders{suffix}", attributes=redrives(dead))
    source.impatient = dead.impatient = True
    post = Post(source, dead)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served(post)) as url:
        yield World(url, post, source, dead, portal)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration is found by accident; the journal goes to the test's folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "BRIDGE_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "123456789012", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture
def orders() -> Iterator[World]:
    with world() as it:
        yield it


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


class TestConsent:
    """REPLAY-DO-11"""

    def test_without_a_terminal_it_needs_yes(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        orders.dead.put("a")
        assert orders.run() == 2
        assert "there is no terminal to ask for consent; say --yes" in capsys.readouterr().err
        assert not orders.post.calls

    @pytest.mark.parametrize(("answer", "status", "sent"), [("n\n", 2, []), ("\n", 2, []), ("y\n", 0, ["a"])])
    def test_it_asks_with_count_target_account_and_region(
        self,
        orders: World,
        answer: str,
        status: int,
        sent: list[str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        orders.dead.put("a")
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert orders.run() == status
        asked = capsys.readouterr().err
        assert "Send about 1 messages of orders-dlq (account 123456789012, eu-west-1)" in asked
        assert "to queue orders (account 123456789012, eu-west-1)" in asked
        assert "as arn:aws:iam::123456789012:user/somebody? [y/N]" in asked
        assert orders.source.bodies == sent


class TestStatus:
    def test_all_is_done(self, orders: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """REPLAY-DO-13"""
        for body in "abc":
            orders.dead.put(body)
        assert orders.run("--yes") == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines()[0] == (
            "read 3, matched 3, sent 3, deleted 3, failed 0, skipped 0, came back 0, possible duplicates 0, left 0"
        )
        (journal,) = (tmp_path / "state" / "bridge" / "replay").iterdir()
        assert err.splitlines()[1] == f"journal: {journal}"
        assert journal.name.startswith("orders-dlq-")
        assert journal.stat().st_mode & 0o777 == 0o600

    def test_an_empty_queue(self, orders: World) -> None:
        assert orders.run("--yes") == 0

    def test_an_empty_queue_that_nobody_uses(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        orders.post.sources = []
        assert orders.run("--yes") == 0
        assert capsys.readouterr().err == "orders-dlq is empty, and no queue uses it\n"

    def test_no_target(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        orders.post.sources = []
        orders.dead.put("a")
        assert orders.run("--yes") == 2
        assert "no queue uses orders-dlq as its dead-letter queue" in capsys.readouterr().err

    def test_some_are_left(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        for body in "abc":
            orders.dead.put(body)
        orders.source.fail_entries("SendMessageBatch", "InvalidMessageContents", sender=True, ids=["b"], times=9)
        assert orders.run("--yes") == 3
        err = capsys.readouterr().err
        assert "sent 2, deleted 2, failed 1" in err
        assert "  failed: 1 x InvalidMessageContents" in err

    def test_no_such_queue(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        assert orders.run("--yes", dlq="ordres") == 2
        assert "there is no queue ordres at http://" in capsys.readouterr().err

    def test_nobody_answers(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["replay", "--dlq", "orders", "--yes", "--endpoint-url", "http://127.0.0.1:1"]) == 1
        assert "does not answer" in capsys.readouterr().err

    def test_another_replay_is_writing_the_journal(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        import fcntl

        with Path("own.jsonl").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert orders.run("--yes", "--journal", "own.jsonl") == 2
        assert "another replay is writing this journal" in capsys.readouterr().err

    def test_an_interruption_gives_back_and_the_same_command_goes_on(
        self, orders: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """REPLAY-DO-6"""
        for number in range(60):
            orders.dead.put(f"{number}")
        command = [sys.executable, "-m", "bridge", "replay", "--dlq", "orders-dlq", "--endpoint-url", orders.url]
        with subprocess.Popen([*command, "--yes", "--rate", "10"], stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 30
            while not orders.source.accepted:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "interrupted: what was not sent was given back; the same command goes on" in err
        assert len(orders.visible) + len(orders.source.bodies) == 60
        assert orders.run("--yes", "--rate", "0") == 0
        assert sorted(map(int, orders.source.bodies)) == list(range(60))


class TestKilled:
    def test_the_same_command_goes_on(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        """REPLAY-DO-1"""
        for number in range(60):
            orders.dead.put(f"{number}")
        command = [sys.executable, "-m", "bridge", "replay", "--dlq", "orders-dlq", "--endpoint-url", orders.url]
        with subprocess.Popen([*command, "--yes", "--rate", "20"]) as process:
            deadline = time.monotonic() + 30
            while len(orders.source.accepted) < 8:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.kill()
        assert len(orders.visible) + len(orders.dead.deleted) < 60  # what it held is hidden still
        orders.dead.lapse()
        assert orders.run("--yes", "--rate", "0") == 0
        err = capsys.readouterr().err
        assert "an earlier run did not come to its end: going on" in err
        times = Counter(orders.source.bodies)
        assert set(times) == {f"{number}" for number in range(60)}
        named = re.search(r"possible duplicates (\d+)", err)
        assert named
        assert times.total() - 60 <= int(named[1])
        assert len(orders.dead.deleted) == 60


class TestShown:
    def test_a_peek_by_reason_with_expiry(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        """REPLAY-DO-8"""
        hours = str(int((time.time() - 3600 * 20 - 30) * 1000))
        orders.dead.put('{"n": 1}\x1b[31m', SentTimestamp=hours)
        orders.dead.put("x" * 500, attributes={"blob": {"DataType": "Binary", "BinaryValue": "AAH/"}})
        assert orders.run("--peek") == 0
        out, err = capsys.readouterr()
        assert "2 x no reason is known" in out
        assert "expires in 3 d 3 h" in out  # the clock runs since it was first sent
        assert "received 4 times" in out
        assert "\x1b" not in out
        assert f"{'x' * 200}… (500 characters)" in out
        assert "blob (Binary): 3 bytes" in out
        assert "2 messages looked at and given back" in err
        assert len(orders.visible) == 2

    def test_a_peek_for_scripts(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        body = "y" * 500
        message_id = orders.dead.put(body, attributes={"blob": {"DataType": "Binary", "BinaryValue": "AAH/"}})
        assert orders.run("--peek", "--json") == 0
        (line,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert (line["id"], line["body"], line["receives"]) == (message_id, body, 4)
        assert line["message_attributes"] == {"blob": {"type": "Binary", "value": "AAH/"}}

    def test_a_look_counts_and_says_so_where_it_matters(
        self, orders: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """REPLAY-DONT-12"""
        orders.dead.attributes |= redrives(Box("graveyard"), 7)
        assert orders.run("--peek") == 0
        err = capsys.readouterr().err
        assert "every receive counts, a look too, and after 7 of them a message goes to graveyard" in err

    def test_a_look_at_fifo(self, capsys: pytest.CaptureFixture[str]) -> None:
        """REPLAY-DONT-12"""
        with world(fifo=True) as it:
            it.dead.put("a", group="g")
            assert it.run("--peek") == 0
        assert "shows the head of each group only, and hides the group meanwhile" in capsys.readouterr().err

    def test_a_dry_run(self, orders: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """REPLAY-DONT-13"""
        wanted = orders.dead.put('{"kind": "order"}')
        orders.dead.put('{"kind": "other"}')
        assert orders.run("--dry-run", "--filter", '{"body": {"kind": ["order"]}}', "--rate", "5") == 0
        out, err = capsys.readouterr()
        assert out == f"would send {wanted} to {orders.source.arn}\n"
        assert "dry run: read 2, would send 1, changed nothing" in err
        assert not orders.source.accepted
        assert "SendMessageBatch" not in orders.post.calls
        assert len(orders.visible) == 2
        assert not list(tmp_path.iterdir())

    def test_a_line_for_each_message(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        ids = {body: orders.dead.put(body) for body in "ab"}
        orders.source.fail_entries("SendMessageBatch", "InvalidMessageContents", sender=True, ids=["b"], times=9)
        assert orders.run("--yes", "--json") == 3
        found = {line["id"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
        assert found[ids["a"]] == {
            "id": ids["a"], "outcome": "sent", "kind": "plain", "new_id": "orders-id-1", "target": orders.source.arn,
        }  # fmt: skip
        assert found[ids["b"]]["outcome"] == "failed"
        assert found[ids["b"]]["reason"] == "InvalidMessageContents"

    def test_a_bar_on_a_terminal_only(
        self, orders: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(40):
            orders.dead.put(f"{number}")
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        assert orders.run("--yes", "--rate", "100") == 0
        assert " of about 40, " in screen.getvalue()
        assert "[#" in screen.getvalue()


class TestDump:
    def test_out_edited_and_back(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        attributes = {
            "blob": {"DataType": "Binary.png", "BinaryValue": "AAH/"},
            "n": {"DataType": "Number", "StringValue": "5"},
        }
        first = orders.dead.put('{"total": "five"}', attributes=attributes)
        orders.dead.put("other")
        assert orders.run("--export", "dump.jsonl", "--filter", '{"body": {"total": [{"exists": true}]}}') == 0
        assert "1 messages written to dump.jsonl; they are in the queue still" in capsys.readouterr().err
        assert len(orders.visible) == 2
        dump = Path("dump.jsonl")
        assert dump.stat().st_mode & 0o777 == 0o600
        dump.write_text(dump.read_text().replace('\\"five\\"', "5"))
        assert orders.run("--import", "dump.jsonl", "--yes") == 0
        (entry,) = orders.source.accepted
        assert entry["MessageBody"] == '{"total": 5}'
        assert entry["MessageAttributes"]["blob"] == {"DataType": "Binary.png", "BinaryValue": "AAH/"}
        assert orders.dead.deleted == [first]
        assert len(orders.visible) == 1

    def test_a_file_that_is_there_is_not_overwritten(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        Path("dump.jsonl").write_text("mine")
        assert orders.run("--export", "dump.jsonl") == 2
        assert "dump.jsonl exists already" in capsys.readouterr().err
        assert Path("dump.jsonl").read_text() == "mine"

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("", "this is no dump of dead letters"),
            ('{"schema": 9, "dlq": "x"}\n', "of a newer bridge"),
            ('{"schema": 1, "dlq": "arn:aws:sqs:eu-west-1:1:other"}\n', "the file was exported from"),
            ('{"schema": 1, "dlq": "DLQ"}\n{"id": "a"}\n', "dump.jsonl:2: this is no message"),
            ('{"schema": 1, "dlq": "DLQ"}\n{"id": "a", "body": ""}\n{"id": "a", "body": ""}\n', "line 2 already"),
        ],
    )
    def test_what_is_no_dump(self, orders: World, text: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
        Path("dump.jsonl").write_text(text.replace("DLQ", orders.dead.arn))
        assert orders.run("--import", "dump.jsonl", "--yes") == 2
        assert error in capsys.readouterr().err
        assert not orders.source.accepted

    def test_the_same_file_twice_sends_once(self, orders: World) -> None:
        """An import that was interrupted before the originals were deleted goes on with the deletes."""
        ids = [orders.dead.put(body) for body in "ab"]
        assert orders.run("--export", "dump.jsonl") == 0
        orders.dead.fail_entries("DeleteMessageBatch", "AccessDenied", sender=True, ids=[ids[1]], times=1)
        assert orders.run("--import", "dump.jsonl", "--yes") == 3
        assert orders.run("--import", "dump.jsonl", "--yes") == 0
        assert sorted(orders.source.bodies) == ["a", "b"]
        assert sorted(orders.dead.deleted) == sorted(ids)


class TestNative:
    def test_aws_does_it(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        assert orders.run("--native", "--yes", "--to", "orders", "--rate", "20") == 0
        assert orders.post.tasks == [
            {
                "SourceArn": orders.dead.arn,
                "DestinationArn": orders.source.arn,
                "MaxNumberOfMessagesPerSecond": 20,
            }
        ]
        err = capsys.readouterr().err
        assert "no filter, no report for each message, at most 500 messages a second and 36 hours" in err
        assert "completed: 7 messages moved" in err

    @pytest.mark.parametrize(
        "words",
        [
            ("--filter", "{}"), ("--since", "02:00"), ("--max", "3"), ("--ids", "f"), ("--keep",), ("--journal", "f"),
            ("--dry-run",), ("--peek",), ("--json",), ("--export", "f"), ("--import", "f"), ("--max-failures", "3"),
            ("--concurrency", "3"),
        ],
    )  # fmt: skip
    def test_it_is_refused_when_anything_else_is_asked(
        self, orders: World, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert orders.run("--native", "--yes", *words) == 2
        assert f"{words[0]} " in capsys.readouterr().err
        assert not orders.post.calls


class TestWords:
    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("--peek", "--keep"), "--keep does not go with --peek; see bridge replay --help"),
            (("--peek", "--export", "f"), "does not go with"),
            (("--filter", '{"body": 1}'), "--filter: "),
            (("--since", "yesterday"), '--since: "yesterday" is no time; expected 2026-11-23T02:00'),
            (("--max", "0"), 'expected a whole number from 1 on, got "0"'),
            (("--rate", "-1"), 'expected a number from 0 on, got "-1"'),
            (("--rate", "nan"), 'expected a number from 0 on, got "nan"'),
            (("--ids", "nowhere"), "--ids: nowhere cannot be read: No such file"),
            (("--to", "arn:aws:sns:eu-west-1:1:topic"), "is no queue of SQS"),
        ],
    )
    def test_what_cannot_be_meant(
        self, orders: World, words: tuple[str, ...], error: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert orders.run(*words, "--yes") == 2 if "--peek" not in words else orders.run(*words) == 2
        assert error in capsys.readouterr().err

    def test_chosen_ids(self, orders: World) -> None:
        ids = [orders.dead.put(body) for body in "abc"]
        Path("ids").write_text(f"{ids[0]}\n\n{ids[2]}\n")
        assert orders.run("--yes", "--ids", "ids") == 0
        assert sorted(orders.source.bodies) == ["a", "c"]

    def test_kept(self, orders: World, capsys: pytest.CaptureFixture[str]) -> None:
        orders.dead.put("a")
        assert orders.run("--yes", "--keep", "--json") == 0
        assert json.loads(capsys.readouterr().out)["outcome"] == "kept"
        assert len(orders.visible) == 1

    def test_to_another_queue(self, orders: World) -> None:
        other = orders.post.boxes["other"] = Box("other")
        orders.dead.put("a")
        for word in ("other", other.arn, orders.post.url("other")):
            assert orders.run("--yes", "--keep", "--to", word) == 0
        assert other.bodies == ["a", "a", "a"]

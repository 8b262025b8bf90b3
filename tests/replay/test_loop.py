"""The loop of a replay against queues that err: what is sent, what is deleted, what stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest

from bridge.errors import UsageError
from bridge.replay.letter import Letter, Message
from bridge.replay.loop import peek
from bridge.replay.summary import Fate, Summary
from tests.replay.post import Box, Post, redrives
from tests.replay.running import CALLER, lines, orders, run, story

pytestmark = pytest.mark.anyio


async def test_messages_go_back_and_the_originals_are_gone(tmp_path: Path) -> None:
    post, source, dead = orders()
    ids = [dead.put(f"body {number}") for number in range(23)]
    summary = await run(post, tmp_path)
    assert sorted(source.bodies) == sorted(f"body {number}" for number in range(23))
    assert sorted(dead.deleted) == sorted(ids)
    assert (summary.read, summary.matched, summary.sent, summary.deleted) == (23, 23, 23, 23)
    assert summary.complete
    assert summary.left == 0


async def test_the_journal_tells_each_step_in_order(tmp_path: Path) -> None:
    """REPLAY-DO-1, REPLAY-DO-13"""
    post, source, dead = orders()
    first = dead.put("secret words")
    await run(post, tmp_path)
    assert story(tmp_path, first) == ["sending", "sent", "done"]
    sent = next(line for line in lines(tmp_path) if line["state"] == "sent")
    assert sent["new_id"] == "orders-id-1"
    assert sent["target"] == source.arn
    assert sent["caller"] == CALLER
    assert sent["outcome"] == "ok"
    assert len(sent["sha256"]) == 64
    assert sent["at"].endswith("Z")
    assert "secret words" not in (tmp_path / "journal.jsonl").read_text()  # REPLAY-DONT-13
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


class TestEntries:
    """REPLAY-DO-2"""

    async def test_only_what_was_taken_is_deleted(self, tmp_path: Path) -> None:
        """REPLAY-DONT-1, REPLAY-DONT-6"""
        post, source, dead = orders()
        ids = {body: dead.put(body) for body in ("a", "b", "c", "d")}
        source.fail_entries("SendMessageBatch", "InvalidMessageContents", sender=True, ids=["b"], times=9)
        fates: list[Fate] = []
        summary = await run(post, tmp_path, fates=fates)
        assert sorted(source.bodies) == ["a", "c", "d"]
        assert sorted(dead.deleted) == sorted(ids[body] for body in "acd")
        assert dead.visible == [ids["b"]]  # and visible again
        assert summary.failed == Counter({"InvalidMessageContents": 1})
        assert not summary.complete
        assert [fate.letter.id for fate in fates if fate.what == "failed"] == [ids["b"]]
        assert story(tmp_path, ids["b"]) == ["sending", "failed"]

    async def test_server_faults_are_tried_again(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for body in "abc":
            dead.put(body)
        source.fail_entries("SendMessageBatch", "InternalError", times=4)
        source.refuse("SendMessageBatch", "RequestThrottled")
        summary = await run(post, tmp_path, to="orders")
        assert sorted(source.bodies) == ["a", "b", "c"]
        assert summary.complete
        assert not summary.possible_duplicates

    async def test_what_the_answer_does_not_name_is_sent_again_and_named(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        message_id = dead.put("a")
        source.fail_entries("SendMessageBatch", "", times=1)
        summary = await run(post, tmp_path)
        assert source.bodies == ["a"]
        assert summary.duplicate_ids == [message_id]

    async def test_one_message_that_breaks_the_request_does_not_stop_the_others(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        bodies = [*"abcdefg", "h\ufffe", "i"]
        for body in bodies:
            dead.put(body)
        summary = await run(post, tmp_path)
        assert sorted(source.bodies) == [*"abcdefg", "i"]
        assert summary.failed.total() == 1
        assert summary.left == 1

    async def test_a_lost_answer_may_mean_a_duplicate(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        message_id = dead.put("a")
        source.cut_off("SendMessageBatch", times=1)
        summary = await run(post, tmp_path, to="orders")
        assert source.bodies == ["a", "a"]
        assert summary.duplicate_ids == [message_id]
        assert summary.sent == summary.deleted == 1

    async def test_another_body_than_was_sent_keeps_the_original(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        message_id = dead.put("a")
        source.wrong_digest = True
        summary = await run(post, tmp_path)
        assert not dead.deleted
        assert summary.duplicate_ids == [message_id]

    async def test_a_delete_that_fails_leaves_a_message_that_is_only_deleted_later(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        message_id = dead.put("a")
        dead.fail_entries("DeleteMessageBatch", "AccessDenied", sender=True, times=1)
        first = await run(post, tmp_path)
        assert first.undeleted == Counter({"AccessDenied": 1})
        assert not first.complete
        second = await run(post, tmp_path)
        assert (second.sent, second.deleted, second.resumed) == (0, 1, 1)
        assert source.bodies == ["a"]
        assert story(tmp_path, message_id) == ["sending", "sent", "done"]

    async def test_deletes_are_tried_again(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for body in "abcdef":
            dead.put(body)
        dead.fail_entries("DeleteMessageBatch", "InternalError", times=3)
        dead.fail_entries("DeleteMessageBatch", "", times=2)
        summary = await run(post, tmp_path)
        assert summary.deleted == 6
        assert len(source.bodies) == 6


class TestTarget:
    """REPLAY-DO-3"""

    async def test_each_message_goes_where_it_came_from(self, tmp_path: Path) -> None:
        dead = Box("dlq")
        first, second = Box("first", attributes=redrives(dead)), Box("second", attributes=redrives(dead))
        post = Post(dead, first, second)
        for number in range(6):
            dead.put(f"{number}", source=(first, second)[number % 2].arn)
        await run(post, tmp_path, dlq="dlq")
        assert sorted(first.bodies) == ["0", "2", "4"]
        assert sorted(second.bodies) == ["1", "3", "5"]

    async def test_several_candidates_are_an_error_that_lists_them(self, tmp_path: Path) -> None:
        """REPLAY-DONT-7"""
        dead = Box("dlq")
        post = Post(dead, Box("first", attributes=redrives(dead)), Box("second", attributes=redrives(dead)))
        dead.put("silent")
        with pytest.raises(UsageError, match=r"2 queues use dlq .* give one with --to: first, second"):
            await run(post, tmp_path, dlq="dlq")
        assert len(dead.visible) == 1

    async def test_no_candidate_is_an_error(self, tmp_path: Path) -> None:
        dead = Box("dlq")
        dead.put("silent")
        with pytest.raises(UsageError, match="no queue uses dlq as its dead-letter queue"):
            await run(Post(dead), tmp_path, dlq="dlq")

    async def test_a_source_that_is_gone_is_found_out_before_anything_is_sent(self, tmp_path: Path) -> None:
        dead = Box("dlq")
        dead.put("a", source="arn:aws:sqs:eu-west-1:123456789012:gone")
        with pytest.raises(UsageError, match="there is no queue arn:aws:sqs:eu-west-1:123456789012:gone"):
            await run(Post(dead), tmp_path, dlq="dlq")
        assert not dead.deleted

    async def test_one_message_of_a_queue_that_is_gone_stays(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        dead.put("a")
        lost = dead.put("b", source="arn:aws:sqs:eu-west-1:123456789012:gone")
        summary = await run(post, tmp_path)
        assert source.bodies == ["a"]
        assert dead.visible == [lost]
        assert summary.failed.total() == 1

    async def test_the_kind_must_be_the_same(self, tmp_path: Path) -> None:
        dead = Box("dlq")
        with pytest.raises(UsageError, match=r"dlq is a standard queue and other\.fifo is a FIFO queue"):
            await run(Post(dead, Box("other.fifo")), tmp_path, dlq="dlq", to="other.fifo")
        assert not dead.of("ReceiveMessage")

    async def test_not_into_itself(self, tmp_path: Path) -> None:
        """REPLAY-DONT-11"""
        dead = Box("dlq")
        with pytest.raises(UsageError, match="dlq is the dead-letter queue itself"):
            await run(Post(dead), tmp_path, dlq="dlq", to="dlq")
        assert not dead.of("ReceiveMessage")

    async def test_who_may_not_send_is_told_before_the_first_receive(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        dead.put("a")
        source.refuse("SendMessageBatch", "AccessDeniedException")
        with pytest.raises(Exception, match="AccessDenied"):
            await run(post, tmp_path)
        assert not dead.of("ReceiveMessage")

    async def test_a_server_that_cannot_list_sources_is_searched(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        post.refused["ListDeadLetterSourceQueues"] = "InvalidAction"
        dead.put("a")
        await run(post, tmp_path)
        assert source.bodies == ["a"]


class TestFifo:
    """REPLAY-DO-4"""

    async def test_groups_keep_their_order_and_stay_apart(self, tmp_path: Path) -> None:
        """REPLAY-DONT-2, REPLAY-DONT-3"""
        post, source, dead = orders(fifo=True)
        for number in range(30):
            dead.put(f"{number}", group=f"group {number % 3}", MessageDeduplicationId="the original's")
        await run(post, tmp_path, dlq="orders-dlq.fifo")
        for number in range(3):
            of_group = [entry for entry in source.accepted if entry["MessageGroupId"] == f"group {number}"]
            assert [int(entry["MessageBody"]) for entry in of_group] == list(range(number, 30, 3))
        tokens = [entry["MessageDeduplicationId"] for entry in source.accepted]
        assert len(set(tokens)) == 30
        assert "the original's" not in tokens

    async def test_one_message_of_a_group_is_on_its_way_at_a_time(self, tmp_path: Path) -> None:
        post, source, dead = orders(fifo=True)
        dead.ignores_groups = True  # hands out what it must not
        source.latency = 0.002
        for number in range(12):
            dead.put(f"{number}", group=f"group {number % 2}")
        await run(post, tmp_path, dlq="orders-dlq.fifo", concurrency=4)
        for call in source.of("SendMessageBatch"):
            groups = [entry["MessageGroupId"] for entry in call.params["Entries"]]
            assert len(set(groups)) == len(groups)
        for group in ("group 0", "group 1"):
            bodies = [int(it["MessageBody"]) for it in source.accepted if it["MessageGroupId"] == group]
            assert bodies == sorted(bodies)

    async def test_a_failure_stops_its_group_only(self, tmp_path: Path) -> None:
        post, source, dead = orders(fifo=True)
        for number in range(8):
            dead.put(f"{number}", group=f"group {number % 2}")
        source.fail_entries("SendMessageBatch", "InvalidMessageContents", sender=True, ids=["2"], times=9)
        summary = await run(post, tmp_path, dlq="orders-dlq.fifo")
        assert sorted(source.bodies) == ["0", "1", "3", "5", "7"]
        assert summary.failed.total() == 1
        assert summary.skipped.total() == 2
        assert summary.left == 3
        assert not dead.in_flight

    async def test_our_own_second_try_is_suppressed(self, tmp_path: Path) -> None:
        post, source, dead = orders(fifo=True)
        dead.put("a", group="g")
        source.cut_off("SendMessageBatch", times=1)
        summary = await run(post, tmp_path, dlq="orders-dlq.fifo", to="orders.fifo")
        assert source.bodies == ["a"]
        assert summary.sent == summary.deleted == 1


class TestWhole:
    """REPLAY-DO-5"""

    async def test_all_attributes_stay(self, tmp_path: Path) -> None:
        """REPLAY-DONT-4, REPLAY-DONT-9"""
        post, source, dead = orders()
        attributes = {
            "text": {"DataType": "String", "StringValue": "é"},
            "count": {"DataType": "Number.int", "StringValue": "5"},
            "blob": {"DataType": "Binary", "BinaryValue": "AAH/"},
            "image": {"DataType": "Binary.png", "BinaryValue": "iVBO"},
            "own": {"DataType": "String.uuid", "StringValue": "u"},
        }
        body = '{"a":  1.0,\n "é": "\\u00e9"}'
        dead.put(body, attributes=attributes, AWSTraceHeader="Root=1-5e3d83c1-e6a0db584850d61342823d4c")
        await run(post, tmp_path)
        (entry,) = source.accepted
        assert entry["MessageBody"] == body
        blobs = {"blob": b"\x00\x01\xff", "image": b"\x89PN"}
        assert entry["MessageAttributes"] == {
            name: {**value, "BinaryValue": blobs[name]} if name in blobs else value
            for name, value in attributes.items()
        }
        trace = {"DataType": "String", "StringValue": "Root=1-5e3d83c1-e6a0db584850d61342823d4c"}
        assert entry["MessageSystemAttributes"] == {"AWSTraceHeader": trace}
        assert set(entry) == {"Id", "MessageBody", "MessageAttributes", "MessageSystemAttributes"}  # nothing is added
        (receive,) = {str(call.params["MessageAttributeNames"]) for call in dead.of("ReceiveMessage")}
        assert receive == "['All']"

    async def test_a_group_of_a_fair_queue_stays(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        dead.put("a", MessageGroupId="tenant 7")
        await run(post, tmp_path)
        (entry,) = source.accepted
        assert entry["MessageGroupId"] == "tenant 7"
        assert "MessageDeduplicationId" not in entry

    @pytest.mark.parametrize("most", [1_048_576, 262_144])
    async def test_batches_by_bytes(self, tmp_path: Path, most: int) -> None:
        post, source, dead = orders()
        source.batch_bytes = most
        for number in range(9):
            dead.put(f"{number}" * 130_000)
        summary = await run(post, tmp_path)
        assert summary.complete
        assert len(source.bodies) == 9
        sizes = [sum(len(it["MessageBody"]) for it in call.params["Entries"]) for call in source.of("SendMessageBatch")]
        assert max(sizes) <= 1_048_576
        if most == 262_144:
            assert sum(size > most for size in sizes) == 1  # asked once, then it is known


class TestChosen:
    async def test_a_filter(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(30):
            dead.put(f'{{"kind": "{"order" if number % 3 == 0 else "other"}", "n": {number}}}')
        summary = await run(post, tmp_path, patterns=('{"body": {"kind": ["order"]}}',))
        assert len(source.bodies) == summary.matched == 10
        assert (summary.read, summary.left) == (30, 20)
        assert len(dead.visible) == 20  # REPLAY-DO-6: given back at once
        assert summary.complete

    async def test_so_many_and_no_more(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(30):
            dead.put(f"{number}")
        summary = await run(post, tmp_path, most=12)
        assert len(source.bodies) == summary.sent == summary.matched == 12
        assert len(dead.visible) == 18

    async def test_these_and_no_more(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        ids = [dead.put(f"{number}") for number in range(100)]
        summary = await run(post, tmp_path, ids=frozenset(ids[3:6]))
        assert sorted(source.bodies) == ["3", "4", "5"]
        assert summary.read < 100  # it does not look on when it has all of them

    async def test_a_time(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for second in range(10):
            dead.put(f"{second}", SentTimestamp=f"{(1_700_000_000 + second) * 1000}")
        await run(post, tmp_path, since=1_700_000_003.0, until=1_700_000_006.0)
        assert sorted(source.bodies) == ["3", "4", "5"]

    async def test_the_originals_stay(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for body in "abc":
            dead.put(body)
        for _ in range(2):
            assert (await run(post, tmp_path, keep=True)).complete
        assert sorted(source.bodies) == [*"aabbcc"]  # asked for twice, sent twice
        assert len(dead.visible) == 3

    async def test_what_was_kept_is_not_sent_again_when_an_interrupted_run_goes_on(self, tmp_path: Path) -> None:
        post, source, dead = orders()
        for number in range(20):
            dead.put(f"{number}")
        stop = anyio.Event()

        def after_some(summary: Summary) -> None:
            if summary.sent:
                stop.set()

        first = await run(post, tmp_path, keep=True, concurrency=1, stop=stop, on_progress=after_some)
        assert first.interrupted
        assert 0 < first.sent < 20
        await run(post, tmp_path, keep=True)
        assert sorted(map(int, source.bodies)) == list(range(20))
        assert len(dead.visible) == 20

    async def test_a_dry_run_changes_nothing(self, tmp_path: Path) -> None:
        """REPLAY-DONT-13"""
        post, source, dead = orders()
        for number in range(15):
            dead.put(f"{number}")
        fates: list[Fate] = []
        summary = await run(post, tmp_path, dry_run=True, fates=fates)
        assert {fate.what for fate in fates} == {"would_send"}
        assert {fate.target for fate in fates} == {source.arn}
        assert summary.matched == 15
        assert not source.calls[1:]  # its attributes were asked for
        assert {call.operation for call in dead.calls} <= {
            "GetQueueUrl", "GetQueueAttributes", "ReceiveMessage", "ChangeMessageVisibilityBatch",
        }  # fmt: skip
        assert len(dead.visible) == 15
        assert not list(tmp_path.iterdir())


async def test_a_look_gives_everything_back() -> None:
    post, _, dead = orders()
    for number in range(25):
        dead.put(f"{number}")
    found: list[Letter] = await peek(await post.shelf("orders-dlq"), 15)
    assert len({letter.id for letter in found}) == 15
    assert len(dead.visible) == 25
    assert not dead.deleted


async def test_receives_ask_for_time_enough() -> None:
    """REPLAY-DONT-5"""
    post, _, dead = orders()
    dead.visibility = 1
    dead.put("a")
    async with await post.shelf("orders-dlq") as shelf:
        (letter,) = await shelf.take(1)
        assert dead.hidden_for(letter.id) > 30
        assert shelf.holds(letter)
        assert not shelf.holds(Letter(message=Message(id="another", body="")))


async def test_a_message_of_which_the_hold_is_lost_is_not_sent(tmp_path: Path) -> None:
    """REPLAY-DONT-5: somebody else has it by then."""
    post, source, dead = orders()
    ids = [dead.put(f"{number}") for number in range(2)]
    dead.refuse("ChangeMessageVisibilityBatch", *["AccessDenied"] * 1000)

    def lose(_: Summary) -> None:
        if not dead.deleted and dead.in_flight == ids:
            dead.steal(ids[1])

    summary = await run(post, tmp_path, hold=2, rate=0.6, concurrency=2, on_progress=lose)
    assert sorted(source.bodies) == ["0"]
    assert (summary.matched, summary.sent, summary.left) == (1, 1, 1)

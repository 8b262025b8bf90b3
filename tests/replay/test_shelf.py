"""A dead-letter queue as a shelf: how long it holds, when it is empty, what it gives back. The tests own the clock."""

from __future__ import annotations

from hashlib import md5

import anyio
import pytest

from bridge.errors import RemoteError
from bridge.replay.queue import EMPTY_POLLS, HOLD, PARKED_HOLD, PATIENCE
from tests.clock import SKIPPING
from tests.replay.post import Box, Post

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> object:
    return SKIPPING


def dlq(name: str = "dlq") -> tuple[Post, Box]:
    dead = Box(name)
    return Post(dead), dead


class TestHolding:
    """REPLAY-DO-6, REPLAY-DONT-5"""

    @pytest.mark.parametrize("parked", [False, True])
    async def test_a_heartbeat_for_as_long_as_it_takes(self, parked: bool) -> None:
        post, dead = dlq()
        message_id = dead.put("a")
        async with await post.shelf("dlq") as shelf:
            letters = await shelf.take(10)
            if parked:
                shelf.park(letters)
            for _ in range(40):
                await anyio.sleep(HOLD / 2)
                assert dead.in_flight == [message_id]
                assert shelf.holds(letters[0])
            extensions = dead.of("ChangeMessageVisibilityBatch")
            seconds = {entry["VisibilityTimeout"] for call in extensions for entry in call.params["Entries"]}
            assert seconds == {PARKED_HOLD if parked else HOLD}
            assert len(extensions) <= (6 if parked else 55)
        assert dead.visible == [message_id]  # released with visibility 0

    async def test_ten_with_each_request(self) -> None:
        post, dead = dlq()
        for number in range(30):
            dead.put(f"{number}")
        async with await post.shelf("dlq") as shelf:
            for _ in range(3):
                await shelf.take(10)
            await anyio.sleep(HOLD)
            sizes = [len(call.params["Entries"]) for call in dead.of("ChangeMessageVisibilityBatch")]
            assert set(sizes) == {10}
        assert len(dead.visible) == 30

    async def test_what_somebody_else_has_got_is_not_ours(self) -> None:
        post, dead = dlq()
        message_id = dead.put("a")
        async with await post.shelf("dlq") as shelf:
            (letter,) = await shelf.take(1)
            dead.steal(message_id)
            await anyio.sleep(HOLD)
            assert not shelf.holds(letter)

    async def test_a_heartbeat_that_fails_lets_go_in_time(self) -> None:
        post, dead = dlq()
        dead.put("a")
        async with await post.shelf("dlq") as shelf:
            (letter,) = await shelf.take(1)
            dead.refuse("ChangeMessageVisibilityBatch", *["InternalError"] * 1000)
            await anyio.sleep(HOLD - 6)
            assert shelf.holds(letter)
            await anyio.sleep(2)
            assert not shelf.holds(letter)  # a while before somebody else can get it
            assert dead.in_flight
            dead.allow("ChangeMessageVisibilityBatch")

    async def test_a_heartbeat_survives_an_outage(self) -> None:
        post, dead = dlq()
        dead.put("a")
        async with await post.shelf("dlq") as shelf:
            (letter,) = await shelf.take(1)
            dead.refuse("ChangeMessageVisibilityBatch", "InternalError", "RequestThrottled")
            await anyio.sleep(3 * HOLD)
            assert shelf.holds(letter)

    async def test_a_message_that_comes_twice_is_taken_once(self) -> None:
        post, dead = dlq()
        message_id = dead.put("a")
        async with await post.shelf("dlq") as shelf:
            (letter,) = await shelf.take(10)
            dead.deliver_again(message_id)
            dead.put("b")
            others = await shelf.take(10)
            assert [other.message.body for other in others] == ["b"]
            assert await shelf.delete([letter]) == [""]  # by the later receipt: the earlier one is stale
        assert dead.deleted == [message_id]


class TestEmpty:
    """REPLAY-DO-7"""

    async def test_several_long_polls_and_the_count(self) -> None:
        post, dead = dlq()
        async with await post.shelf("dlq", poll=1) as shelf:
            assert await shelf.take(10) == []
        polls = dead.of("ReceiveMessage")
        assert len(polls) == EMPTY_POLLS
        assert all(call.params["WaitTimeSeconds"] >= 1 for call in polls)
        assert [call.operation for call in dead.calls][-1] == "GetQueueAttributes"

    async def test_a_count_above_nothing_is_polled_again(self) -> None:
        post, dead = dlq()
        dead.attributes["ApproximateNumberOfMessages"] = "1"  # of a server that is not sure of itself
        async with await post.shelf("dlq", poll=1) as shelf, anyio.create_task_group() as tasks:

            async def later() -> None:
                await anyio.sleep(5.5)
                dead.put("late")

            tasks.start_soon(later)
            (letter,) = await shelf.take(10)
            assert letter.message.body == "late"

    async def test_a_count_that_never_sinks_is_not_believed_for_ever(self) -> None:
        post, dead = dlq()
        dead.attributes["ApproximateNumberOfMessages"] = "1"
        async with await post.shelf("dlq", poll=1) as shelf:
            assert await shelf.take(10) == []

    async def test_what_we_hold_may_have_others_behind_it(self) -> None:
        post, dead = dlq("dlq.fifo")
        for body in "ab":
            dead.put(body, group="g")
        async with await post.shelf("dlq.fifo", poll=1) as shelf, anyio.create_task_group() as tasks:
            (first,) = await shelf.take(1)

            async def later() -> None:
                await anyio.sleep(30)
                await shelf.delete([first])

            tasks.start_soon(later)
            (second,) = await shelf.take(1)
            assert second.message.body == "b"

    async def test_what_a_killed_run_holds_is_waited_for_when_it_is_expected(self) -> None:
        post, dead = dlq()
        message_id = dead.put("a")
        dead.visibility = 40
        dead.steal(message_id)
        async with await post.shelf("dlq", poll=1) as shelf:
            shelf.expects = lambda: True
            (letter,) = await shelf.take(10)
        assert letter.id == message_id

    async def test_what_others_hold_is_not_waited_for_longer_than_a_run_can_have_hidden_it(self) -> None:
        post, dead = dlq()
        dead.visibility = 4000
        dead.steal(dead.put("a"))
        began = anyio.current_time()
        async with await post.shelf("dlq", poll=1) as shelf:
            shelf.expects = lambda: True
            assert await shelf.take(10) == []
        assert anyio.current_time() - began < HOLD + 10


async def test_a_damaged_message_is_left_alone_and_counted() -> None:
    post, dead = dlq()
    dead.put("a")
    bad = dead.put("b")
    dead._messages[bad].members["MD5OfBody"] = md5(b"c").hexdigest()
    async with await post.shelf("dlq", poll=1) as shelf:
        assert [letter.message.body for letter in await shelf.take(10)] == ["a"]
        assert (await shelf.count()).damaged == 1
        assert bad in dead.in_flight


async def test_an_outage_is_waited_out_for_a_while() -> None:
    post, dead = dlq()
    dead.put("a")
    async with await post.shelf("dlq", poll=1) as shelf:
        dead.refuse("ReceiveMessage", "InternalError", "RequestThrottled", "ServiceUnavailable")
        assert len(await shelf.take(10)) == 1
        dead.refuse("ReceiveMessage", *["InternalError"] * 10_000)
        began = anyio.current_time()
        with pytest.raises(RemoteError):
            await shelf.take(10)
        assert anyio.current_time() - began <= PATIENCE


async def test_ended_it_gives_nothing_more() -> None:
    post, dead = dlq()
    async with await post.shelf("dlq", poll=1) as shelf:
        shelf.end()
        dead.put("a")
        assert await shelf.take(10) == []

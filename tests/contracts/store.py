"""The specification of a store. Each store's tests begin by passing it: a subclass gives the fixture ``url``."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from bridge.attempt import Bounds, FailedBatch
from bridge.errors import HoldLost
from bridge.event import Event, Waiting
from bridge.position import Move, Position
from bridge.stores import glance, open_store

A, B = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
OTHER = "arn:aws:kinesis:eu-west-1:123456789012:stream/views"


def move(partition: str, position: str | None, *, mapping: str = A, source: str = STREAM, **options: Any) -> Move:
    at = None if position is None else Position(position=position, **options)
    return Move(mapping, source, partition, at)


def failed(number: int, *records: str, uuid: str = A, **options: Any) -> FailedBatch:
    """The invocation that failed in second ``number``."""
    known: dict[str, Any] = {"mapping": "orders", "partition": "q", "request_id": f"request-{number}"}
    return FailedBatch(
        id=number * 10**9,
        uuid=uuid,
        at=float(number),
        records=tuple((record, number) for record in records),
        **{"outcome": "function", **known, **options},
    )


def event(request_id: str = A, **options: Any) -> Event:
    known = {"function": "worker", "payload": b'{"n": 1}', "accepted_at": 1000.5, "due_at": 1000.5}
    return Event(request_id=request_id, **{**known, **options})


@pytest.mark.anyio
class StoreContract:
    """What every store promises; those that outlive their process declare ``durable``."""

    durable = True

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    async def test_nothing_is_paused_at_first(self, url: str) -> None:
        async with open_store(url) as store:
            assert await store.paused() == frozenset()

    async def test_a_pause_holds_until_resumed(self, url: str) -> None:
        async with open_store(url) as store:
            await store.pause(A)
            await store.pause(B)
            assert await store.paused() == {A, B}
            await store.resume(A)
            assert await store.paused() == {B}

    async def test_twice_is_as_once(self, url: str) -> None:
        async with open_store(url) as store:
            await store.pause(A)
            await store.pause(A)
            assert await store.paused() == {A}
            await store.resume(A)
            await store.resume(A)
            await store.resume(B)
            assert await store.paused() == frozenset()

    async def test_what_was_given_out_does_not_change(self, url: str) -> None:
        async with open_store(url) as store:
            before = await store.paused()
            await store.pause(A)
            assert before == frozenset()

    async def test_calls_may_overlap(self, url: str) -> None:
        async with open_store(url) as store:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(store.pause, f"{number}")
            assert await store.paused() == {f"{number}" for number in range(20)}

    async def test_a_pause_survives_exactly_where_that_is_promised(self, url: str) -> None:
        async with open_store(url) as store:
            await store.pause(A)
        async with open_store(url) as store:
            assert await store.paused() == ({A} if self.durable else frozenset())

    async def test_documents_are_kept_by_kind_and_key(self, url: str) -> None:
        async with open_store(url) as store:
            assert await store.documents("mapping") == {}
            await store.keep("mapping", A, b"one\x00\xff")
            await store.keep("mapping", B, b"two")
            await store.keep("tags", A, b"three")
            await store.keep("mapping", B, b"four")
            given = await store.documents("mapping")
            assert given == {A: b"one\x00\xff", B: b"four"}
            await store.forget("mapping", A)
            await store.forget("mapping", A)
            assert await store.documents("mapping") == {B: b"four"}
            assert await store.documents("tags") == {A: b"three"}
            assert given == {A: b"one\x00\xff", B: b"four"}

    async def test_a_document_survives_exactly_where_that_is_promised(self, url: str) -> None:
        async with open_store(url) as store:
            await store.keep("mapping", A, b"{}")
        async with open_store(url) as store:
            assert await store.documents("mapping") == ({A: b"{}"} if self.durable else {})

    async def test_it_says_how_it_is(self, url: str) -> None:
        async with open_store(url) as store:
            assert type(store).__name__ in repr(store)

    # Asynchronous events.

    async def test_there_are_no_events_at_first(self, url: str) -> None:
        async with open_store(url) as store:
            assert await store.waiting_events() == []
            assert await store.event(A) is None

    async def test_an_event_is_kept_as_it_was(self, url: str) -> None:  # ASY-2
        first = event(A, qualifier="prod", trace="Root=1-2-3", payload='{"grüße": 1}'.encode())
        second = event(B, function="other", attempts=1, deliveries=3, due_at=2000.25)
        async with open_store(url) as store:
            await store.change_events(added=[first, second])
            assert await store.event(A) == first
            assert await store.event(B) == second
            waiting = {it.request_id: it for it in await store.waiting_events()}
            assert waiting == {A: first.waiting, B: second.waiting}
            assert waiting[A].size == len(first.payload)

    async def test_an_event_is_not_accepted_twice(self, url: str) -> None:
        async with open_store(url) as store:
            await store.change_events(added=[event(A)])
            await store.change_events(added=[event(A, payload=b"2"), event(B)])
            assert await store.event(A) == event(A)
            assert len(await store.waiting_events()) == 2

    async def test_due_time_and_attempts_are_kept(self, url: str) -> None:  # ASY-4
        async with open_store(url) as store:
            await store.change_events(added=[event(A), event(B)])
            moved = msgspec.structs.replace(event(A).waiting, due_at=1060.5, attempts=1, deliveries=2)
            await store.change_events(moved=[moved])
            assert await store.event(A) == event(A, due_at=1060.5, attempts=1, deliveries=2)
            assert await store.event(B) == event(B)

    async def test_what_is_done_is_forgotten(self, url: str) -> None:
        async with open_store(url) as store:
            await store.change_events(added=[event(A), event(B)])
            await store.change_events(done=[A, "unknown"])
            await store.change_events(done=[A], moved=[event(A).waiting])
            assert await store.event(A) is None
            assert [it.request_id for it in await store.waiting_events()] == [B]

    async def test_one_change_may_do_all(self, url: str) -> None:
        async with open_store(url) as store:
            await store.change_events(added=[event(A), event(B)])
            later = Waiting(A, "worker", 8, 5000.0, 1000.5, 1, 1)
            await store.change_events(added=[event("c")], moved=[later], done=[B])
            assert {it.request_id: it.due_at for it in await store.waiting_events()} == {A: 5000.0, "c": 1000.5}

    async def test_events_survive_exactly_where_that_is_promised(self, url: str) -> None:
        async with open_store(url) as store:
            await store.change_events(added=[event(A)])
        async with open_store(url) as store:
            assert await store.event(A) == (event(A) if self.durable else None)

    # Positions.

    async def test_there_are_no_positions_at_first(self, url: str) -> None:
        async with open_store(url) as store:
            assert await store.positions(A, STREAM) == {}
            assert await store.positioned() == {}

    async def test_a_position_is_kept_as_it_was(self, url: str) -> None:  # SCO-1, TW-47
        first = Position(epoch=7, position="AFTER 49590338271490256608559692538361571095921575989136588898 ü")
        second = Position(position="TRIM_HORIZON", state=b"{}\x00\xff" * 1000, ended=True)
        async with open_store(url) as store:
            await store.move_positions([Move(A, STREAM, "s-1", first), Move(A, STREAM, "s-2", second)])
            assert await store.positions(A, STREAM) == {"s-1": first, "s-2": second}

    async def test_one_move_changes_all_of_a_position(self, url: str) -> None:  # TW-47
        async with open_store(url) as store:
            await store.move_positions([move("s-1", "1", state=b"open"), move("s-2", "1", state=b"open")])
            await store.move_positions([move("s-1", "2", ended=True, epoch=1)])
            known = await store.positions(A, STREAM)
            assert known["s-1"] == Position(position="2", ended=True, epoch=1)
            assert known["s-2"] == Position(position="1", state=b"open")

    async def test_mappings_and_sources_have_positions_of_their_own(self, url: str) -> None:
        async with open_store(url) as store:
            await store.move_positions(
                [move("s", "1"), move("s", "2", mapping=B), move("s", "3", source=OTHER), move("t", "4", source=OTHER)]
            )
            assert await store.positions(A, STREAM) == {"s": Position(position="1")}
            assert await store.positions(B, STREAM) == {"s": Position(position="2")}
            assert set(await store.positions(A, OTHER)) == {"s", "t"}
            assert await store.positioned() == {A: 3, B: 1}

    async def test_what_is_forgotten_has_no_position(self, url: str) -> None:  # KIN-94
        async with open_store(url) as store:
            await store.move_positions([move("s-1", "1"), move("s-2", "1"), move("s-1", "1", mapping=B)])
            await store.move_positions([move("s-1", None), move("s-3", "1"), move("unknown", None)])
            assert set(await store.positions(A, STREAM)) == {"s-2", "s-3"}
            assert set(await store.positions(B, STREAM)) == {"s-1"}

    async def test_moves_happen_in_their_order(self, url: str) -> None:
        async with open_store(url) as store:
            await store.move_positions([move("s", "1"), move("s", "2"), move("t", "1"), move("t", None)])
            assert await store.positions(A, STREAM) == {"s": Position(position="2")}
            await store.move_positions([move("s", None), move("s", "3")])
            assert await store.positions(A, STREAM) == {"s": Position(position="3")}

    async def test_a_mapping_forgets_all_its_positions(self, url: str) -> None:  # TW-54
        async with open_store(url) as store:
            await store.move_positions([move("s", "1"), move("s", "1", source=OTHER), move("s", "1", mapping=B)])
            await store.forget_positions(A)
            await store.forget_positions(A)
            assert await store.positioned() == {B: 1}
            assert await store.positions(A, STREAM) == {}

    async def test_an_owner_of_before_moves_nothing(self, url: str) -> None:  # SCO-32
        async with open_store(url) as store:
            await store.move_positions([move("s", "5", epoch=2), move("t", "5", epoch=1)])
            with pytest.raises(HoldLost):
                await store.move_positions([move("u", "6"), move("t", "6", epoch=1), move("s", "6", epoch=1)])
            assert await store.positions(A, STREAM) == {
                "s": Position(position="5", epoch=2),
                "t": Position(position="5", epoch=1),
            }
            await store.move_positions([move("s", "6", epoch=2), move("t", "6", epoch=3)])
            known = await store.positions(A, STREAM)
            assert {name: it.position for name, it in known.items()} == {"s": "6", "t": "6"}

    async def test_an_owner_of_before_is_noticed_within_one_write(self, url: str) -> None:
        async with open_store(url) as store:
            with pytest.raises(HoldLost):
                await store.move_positions([move("s", "1", epoch=2), move("s", "2", epoch=1)])
            assert await store.positions(A, STREAM) == {}

    async def test_positions_survive_exactly_where_that_is_promised(self, url: str) -> None:  # KIN-23
        async with open_store(url) as store:
            await store.move_positions([move("s", "1")])
        async with open_store(url) as store:
            assert await store.positions(A, STREAM) == ({"s": Position(position="1")} if self.durable else {})

    # Failed attempts.

    async def test_nothing_is_known_of_records_that_never_failed(self, url: str) -> None:
        async with open_store(url) as store:
            assert await store.attempts(["m-1"]) == {}
            assert await store.last_failed(A, 10) == []
            await store.trim_attempts(Bounds(), 0.0)

    async def test_an_attempt_is_kept_as_it_was(self, url: str) -> None:
        batch = failed(
            7, "m-1", "49590338271490256608559692538361571095921575989136588898", outcome="timeout",
            error_type="Sandbox.Timedout", message="grüße\n'; --", duration=3.25, log_tail="START\nlast words\0\n",
        )  # fmt: skip
        async with open_store(url) as store:
            await store.add_attempts([batch], Bounds())
            found = await store.attempts(["m-1", "unknown"])
            assert found == {"m-1": tuple(it for it in batch.attempts() if it.record == "m-1")}
            assert found["m-1"][0].number == 7
            (kept,) = await store.last_failed(A, 10)
            assert msgspec.structs.replace(kept, records=()) == msgspec.structs.replace(batch, records=())
            assert set(kept.records) == set(batch.records)

    async def test_attempts_come_in_their_order(self, url: str) -> None:
        async with open_store(url) as store:
            await store.add_attempts([failed(2, "m-1", "m-2"), failed(1, "m-1")], Bounds())
            await store.add_attempts([failed(3, "m-2", uuid=B)], Bounds())
            found = await store.attempts(["m-1", "m-2"])
            assert {record: [it.number for it in attempts] for record, attempts in found.items()} == {
                "m-1": [1, 2],
                "m-2": [2, 3],
            }
            assert [it.id for it in await store.last_failed(A, 1)] == [2 * 10**9]
            assert [it.id for it in await store.last_failed(A, 5)] == [2 * 10**9, 10**9]
            assert [it.records for it in await store.last_failed(B, 5)] == [(("m-2", 3),)]

    async def test_what_is_written_twice_is_kept_once(self, url: str) -> None:
        async with open_store(url) as store:
            await store.add_attempts([failed(1, "m-1")], Bounds())
            await store.add_attempts([failed(1, "m-1"), failed(2, "m-1")], Bounds())
            assert [it.number for it in (await store.attempts(["m-1"]))["m-1"]] == [1, 2]

    async def test_of_a_record_the_newest_attempts_are_kept(self, url: str) -> None:
        async with open_store(url) as store:
            for number in range(1, 6):
                await store.add_attempts([failed(number, "m-1"), failed(number + 10, "m-2")], Bounds(per_record=2))
            found = await store.attempts(["m-1", "m-2"])
            assert [it.number for it in found["m-1"]] == [4, 5]
            assert [it.number for it in found["m-2"]] == [14, 15]

    async def test_old_attempts_are_forgotten(self, url: str) -> None:
        async with open_store(url) as store:
            await store.add_attempts([failed(100, "m-1"), failed(200, "m-1"), failed(150, "m-2")], Bounds())
            await store.trim_attempts(Bounds(age=50), 201.0)
            assert [it.number for it in (await store.attempts(["m-1", "m-2"]))["m-1"]] == [200]
            assert [it.id for it in await store.last_failed(A, 10)] == [200 * 10**9]

    async def test_of_a_mapping_and_in_total_the_newest_are_kept(self, url: str) -> None:
        async with open_store(url) as store:
            mine = [failed(number, f"m-{number}") for number in range(1, 6)]
            theirs = [failed(number, f"n-{number}", uuid=B) for number in range(6, 8)]
            await store.add_attempts([*mine, *theirs], Bounds())
            await store.trim_attempts(Bounds(per_mapping=3), 10.0)
            assert [it.id // 10**9 for it in await store.last_failed(A, 10)] == [5, 4, 3]
            assert [it.id // 10**9 for it in await store.last_failed(B, 10)] == [7, 6]
            await store.trim_attempts(Bounds(total=3), 10.0)
            assert [it.id // 10**9 for it in await store.last_failed(A, 10)] == [5]
            assert set(await store.attempts([f"m-{number}" for number in range(6)])) == {"m-5"}

    async def test_attempts_survive_exactly_where_that_is_promised(self, url: str) -> None:
        async with open_store(url) as store:
            await store.add_attempts([failed(1, "m-1")], Bounds())
        async with open_store(url) as store:
            assert set(await store.attempts(["m-1"])) == ({"m-1"} if self.durable else set())

    async def test_a_glance_sees_what_others_have_written(self, url: str) -> None:
        expected = {"m-1"} if self.durable else set()
        assert await glance(url, ["m-1"]) == {}
        async with open_store(url) as store:
            assert await glance(url, ["m-1"]) == {}
            await store.add_attempts([failed(1, "m-1")], Bounds())
            assert set(await glance(url, ["m-1", "m-2"])) == expected
        assert set(await glance(url, ["m-1", "m-2"])) == expected

"""The specification of a store. Each store's tests begin by passing it: a subclass gives the fixture ``url``."""

from __future__ import annotations

import anyio
import pytest

from bridge.stores import open_store

A, B = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


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

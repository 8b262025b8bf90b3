"""What is held of a queue, as decisions: random servers, honest and faulty, against the promises of the group lock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.sources.groups import in_group_order
from bridge.sources.receipts import Receipt, Receipts

VISIBILITY = 30.0
GROUPS = "abc"


def receipt(number: int, group: str = "a", *, now: float = 0.0, handle: str = "") -> Receipt:
    return Receipt(
        id=f"{group}{number}",
        handle=handle or f"{group}{number}@{now}",
        hidden_until=now + VISIBILITY,
        returns_at=now + VISIBILITY,
        last=now + 43_200,
        group=group,
        sequence=number,
    )


def ids(receipts: Sequence[Receipt]) -> list[str]:
    return [one.id for one in receipts]


# Tables.


@pytest.mark.parametrize(
    ("page", "ordered"),
    [
        ("a1 b1 a2", "a1 b1 a2"),
        ("a2 b1 a1", "a1 b1 a2"),
        ("a3 a1 b2 a2 b1", "a1 a2 b1 a3 b2"),
        ("", ""),
    ],
)
def test_a_page_keeps_its_order_except_inside_a_group(page: str, ordered: str) -> None:
    receipts = [receipt(int(name[1:]), name[0]) for name in page.split()]
    assert ids(in_group_order(receipts)) == ordered.split()


def test_the_newest_handle_of_a_message_is_the_one_in_use() -> None:
    held = Receipts(fifo=False)
    first, second, third = (receipt(1, now=now) for now in (0.0, 5.0, 9.0))
    assert held.admit([first], 0.0) == (first,)
    assert not held.admit([second], 5.0)
    assert not held.admit([third], 9.0)
    assert (first.handle, first.hidden_until, first.returns_at) == ("a1@9.0", 39.0, 39.0)
    assert sorted(twin.handle for twin in first.twins) == ["a1@0.0", "a1@5.0"]
    assert held.done(first)
    assert {twin.handle for twin in held.deleted(first)} == {"a1@0.0", "a1@5.0"}
    assert len(held) == 0


def test_the_first_word_counts() -> None:
    held = Receipts(fifo=False)
    one = receipt(1)
    held.admit([one], 0.0)
    assert held.done(one)
    assert not held.done(one)
    assert not held.failed(one)
    assert not held.released(one, 1.0)
    held.deleted(one)
    assert not held.done(one)


def test_a_message_on_its_way_back_that_came_again_is_left_alone() -> None:
    held = Receipts(fifo=True)
    old, new = receipt(1), receipt(1, now=3.0)
    held.admit([old], 0.0)
    assert held.released(old, 1.0)
    assert held.admit([new], 3.0) == [new]
    assert old.state == "gone"  # its change of visibility would hit the new delivery
    held.drop(old)
    assert held.holds(new, 3.0)


def test_what_cannot_be_extended_any_more_is_not_asked_for() -> None:
    held = Receipts(fifo=False)
    one = receipt(1)
    held.admit([one], 0.0)
    assert held.due(5.0, 10.0, 2.0) == ([], 20.0)
    assert held.due(18.5, 10.0, 2.0)[0] == [one]
    one.last = one.hidden_until
    assert held.due(18.5, 10.0, 2.0)[0] == []


@pytest.mark.parametrize(
    ("state", "now", "last", "asked"),
    [
        ("open", 0.0, 43_200.0, 30),
        ("open", 43_180.0, 43_200.0, 20),  # SQS-82
        ("leaving", 25.0, 43_200.0, 5),
        ("leaving", 25.2, 43_200.0, 5),  # never earlier than it may (SQS-25)
        ("leaving", 31.0, 43_200.0, 0),
    ],
)
def test_the_visibility_that_is_asked_for(state: str, now: float, last: float, asked: int) -> None:
    one = receipt(1)
    one.state, one.last = state, last  # type: ignore[assignment]
    assert one.visibility(now, 30) == asked


# Any server.


class AnyServer(RuleBasedStateMachine):
    """Hands out whatever it likes, in pages; checks what may leave the group lock."""

    @initialize(fifo=st.booleans())
    def start(self, fifo: bool) -> None:
        self.fifo = fifo
        self.held = Receipts(fifo=fifo)
        self.now = 0.0
        self.out: list[Receipt] = []
        self.pages: dict[Receipt, int] = {}
        self.page = 0
        self.failed: dict[str, float] = {}

    @rule(names=st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 6)), max_size=10))
    def receive(self, names: list[tuple[str, int]]) -> None:
        page = [
            receipt(number, group, now=self.now, handle=f"{self.page}/{at}") for at, (group, number) in enumerate(names)
        ]
        before = list(self.out)
        admitted = self.held.admit(page, self.now)
        self.page += 1
        for one in page:
            self.failed.pop(one.id, None)
        for one in admitted:
            assert one.id not in {other.id for other in self.out}
            self.out.append(one)
            if self.fifo:
                assert one.group not in {other.group for other in before}  # SQS-59
                assert not self._owed_before(one)  # SQS-56
        if self.fifo:
            for group in GROUPS:
                order = [one.sequence for one in admitted if one.group == group]
                assert order == sorted(order)  # SQS-55

    def _owed_before(self, one: Receipt) -> bool:
        return any(
            name[0] == one.group and int(name[1:]) < one.sequence and until > self.now
            for name, until in self.failed.items()
        )

    @precondition(lambda self: self.out)
    @rule(data=st.data(), how=st.sampled_from(["done", "failed", "released", "lost"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        one = data.draw(st.sampled_from(self.out))
        self.out.remove(one)
        if how == "done":
            assert self.held.done(one)
            for twin in self.held.deleted(one):
                self.held.drop(twin)
        elif how == "failed":
            if self.held.failed(one):
                self.held.drop(one)
            self.failed[one.id] = one.returns_at
        elif how == "released":
            assert self.held.released(one, self.now)
            self.held.drop(one)
        else:
            self.held.drop(one)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due, _ = self.held.due(self.now, 10.0, 2.0)
        for one in due:
            one.hidden_until = self.now + VISIBILITY
        free, _ = self.held.free(self.now)
        for one in free:
            assert one.group not in {other.group for other in self.out}
            assert self.held.released(one, self.now)
            self.held.drop(one)

    @invariant()
    def nothing_else_is_held(self) -> None:
        held = list(self.held)
        assert {one for one in held if one.state == "open"} == set(self.out)
        assert {one.state for one in held} <= {"open", "parked", "twin"}

    def teardown(self) -> None:
        """When all is settled and time has passed, nothing is remembered."""
        for one in self.out:
            self.held.drop(one)
        for _ in range(3):
            self.now += 100.0
            self.held.due(self.now, 10.0, 2.0)
            self.held.free(self.now)
        assert len(self.held) == 0
        if self.fifo:
            assert "0 known" in repr(self.held)


TestAnyServer = pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")(AnyServer.TestCase)
AnyServer.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(1, 99)), max_size=30, unique=True))
def test_putting_a_page_in_order_loses_nothing(names: list[tuple[str, int]]) -> None:
    page = [receipt(number, group) for group, number in names]
    ordered = in_group_order(page)
    assert sorted(ids(ordered)) == sorted(ids(page))
    assert [one.group for one in ordered] == [one.group for one in page]

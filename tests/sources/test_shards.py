"""The order in which shards are read, over histories of splits, merges, trims, restarts and late listings."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bridge.errors import StateError
from bridge.position import Position
from bridge.sources.shards import TRIM_HORIZON, Lineage, Shard, Where, end_of


def ids(shards: Iterable[Shard]) -> list[str]:
    return [shard.id for shard in shards]


def lineage(*shards: Shard, **positions: str) -> Lineage:
    """``a="END"``: a tombstone."""
    made = Lineage(
        {
            shard: Position(position="TRIM_HORIZON" if text == "END" else text, ended=text == "END")
            for shard, text in positions.items()
        }
    )
    made.listed(shards)
    made.listed(shards)
    return made


def ends(lines: Lineage, shard: str) -> None:
    """It was read to its end."""
    lines.stored({shard: Position(position="TRIM_HORIZON", ended=True)})
    lines.finished(shard)


def starts(lines: Lineage) -> list[str]:
    """Starts all that is ready."""
    ready = ids(lines.ready())
    lines.stored({shard: Position(position=str(lines.start_of(shard))) for shard in ready if not lines.position(shard)})
    for shard in ready:
        lines.started(shard)
    return ready


A, B = Shard("a", last="9"), Shard("b", last="9")
SPLIT = (A, Shard("b", ("a",)), Shard("c", ("a",)))
MERGE = (A, B, Shard("c", ("a", "b")))


class TestWhere:
    @pytest.mark.parametrize(
        "text",
        [
            "TRIM_HORIZON",
            "AT_TIMESTAMP 1545084650.987",
            "AFTER_SEQUENCE_NUMBER 0",  # KIN-113
            "AFTER_SEQUENCE_NUMBER 49590338271490256608559692538361571095921575989136588898 1545084650.987",
        ],
    )
    def test_its_text_is_read_back(self, text: str) -> None:
        assert str(Where.parse(text)) == text

    def test_latest_is_stored_as_the_moment_that_it_was_asked_for(self) -> None:  # KIN-30
        where = Where("LATEST", at=1545084650.0)
        assert str(where) == "AT_TIMESTAMP 1545084650.000"
        assert where.resolved == Where.parse(str(where))

    @pytest.mark.parametrize("text", ["", "LATEST", "AT_TIMESTAMP", "AT_TIMESTAMP x", "AFTER_SEQUENCE_NUMBER -1", "v2"])
    def test_another_text_is_an_error_of_the_store(self, text: str) -> None:
        with pytest.raises(StateError, match="not understood"):
            Where.parse(text)


class TestBeginning:
    def test_latest_begins_with_what_is_open_whatever_was_listed(self) -> None:  # KIN-26, KIN-114
        lines = lineage(*SPLIT)
        lines.stored(lines.begin(Where("LATEST", at=7.0)))
        assert ids(lines.ready()) == ["b", "c"]
        assert lines.start_of("b") == Where("AT_TIMESTAMP", at=7.0)

    def test_of_a_stream_without_open_shards_latest_reads_nothing(self) -> None:  # DDB-10
        lines = lineage(A)
        lines.stored(lines.begin(Where("LATEST", at=7.0)))
        assert lines.ready() == []

    def test_the_trim_horizon_begins_with_the_parents(self) -> None:  # KIN-91
        lines = lineage(*SPLIT)
        lines.stored(lines.begin(TRIM_HORIZON))
        assert starts(lines) == ["a"]
        assert lines.ready() == []
        ends(lines, "a")
        assert starts(lines) == ["b", "c"]

    def test_a_timestamp_holds_for_all_that_is_there(self) -> None:  # KIN-114: what ended before it may be listed
        lines = lineage(*SPLIT)
        lines.stored(lines.begin(Where("AT_TIMESTAMP", at=7.0)))
        assert starts(lines) == ["a"]
        ends(lines, "a")
        assert lines.start_of("b") == Where("AT_TIMESTAMP", at=7.0)

    def test_older_shards_that_the_service_left_out_are_not_read_later(self) -> None:  # KIN-26
        lines = lineage(SPLIT[1], SPLIT[2])
        lines.stored(lines.begin(Where("LATEST", at=7.0)))
        lines.listed(SPLIT)
        assert ids(lines.ready()) == ["b", "c"]


class TestOrder:
    def test_a_merged_child_waits_for_both_parents(self) -> None:  # KIN-91, V14
        lines = lineage(*MERGE, a="TRIM_HORIZON", b="TRIM_HORIZON")
        assert starts(lines) == ["a", "b"]
        ends(lines, "a")
        assert lines.ready() == []
        ends(lines, "b")
        assert ids(lines.ready()) == ["c"]

    def test_a_child_that_appears_is_read_from_its_beginning(self) -> None:  # KIN-26, V18
        lines = lineage(Shard("a"), a="AT_TIMESTAMP 7.000")
        assert starts(lines) == ["a"]
        lines.listed(SPLIT)
        assert lines.ready() == []
        ends(lines, "a")
        assert starts(lines) == ["b", "c"]
        assert lines.start_of("b") == TRIM_HORIZON

    def test_an_announced_child_waits_for_a_parent_that_is_younger_than_the_listing(self) -> None:  # KIN-91, KIN-92
        lines = lineage(A, B)
        assert starts(lines) == ["a", "b"]
        ends(lines, "b")
        merged = Shard("e", ("d", "b"))  # of b and a child of a, which was split after the listing
        lines.announced([merged])
        assert starts(lines) == []
        assert lines.orphans() == ["b"]
        lines.listed([A, B])  # a late listing says no more
        assert starts(lines) == []
        lines.listed([A, B, Shard("c", ("a",)), Shard("d", ("a",), last="9"), merged])
        assert lines.orphans() == []
        assert starts(lines) == []
        ends(lines, "a")
        assert starts(lines) == ["c", "d"]
        ends(lines, "d")
        assert starts(lines) == ["e"]

    def test_announced_children_need_no_listing_and_survive_a_late_one(self) -> None:  # KIN-92
        lines = lineage(Shard("a"), a="TRIM_HORIZON")
        starts(lines)
        lines.announced([SPLIT[1], SPLIT[2]])
        ends(lines, "a")
        lines.listed([A])
        assert ids(lines.ready()) == ["b", "c"]

    def test_children_of_an_ended_shard_are_missed(self) -> None:  # KIN-92
        lines = lineage(A, a="END")
        assert lines.orphans() == ["a"]
        lines.listed(SPLIT)
        assert lines.orphans() == []

    def test_a_trimmed_parent_counts_as_finished(self) -> None:  # KIN-91
        assert ids(lineage(SPLIT[1], SPLIT[2]).ready()) == ["b", "c"]

    def test_a_shard_with_a_position_that_is_not_listed_is_looked_for_first(self) -> None:  # DDB-25
        lines = lineage(SPLIT[1], SPLIT[2], a="AFTER_SEQUENCE_NUMBER 5")
        assert starts(lines) == ["a"]
        ends(lines, "a")
        assert starts(lines) == ["b", "c"]

    def test_an_empty_listing_says_nothing(self) -> None:
        lines = lineage(*SPLIT, a="END")
        lines.listed([])
        assert ids(lines.ready()) == ["b", "c"]
        assert lines.spent() == []


class TestTombstones:
    def test_it_is_kept_while_its_shard_is_listed(self) -> None:  # KIN-94
        assert lineage(*SPLIT, a="END", b="TRIM_HORIZON", c="TRIM_HORIZON").spent() == []

    def test_it_is_kept_until_all_children_have_positions(self) -> None:  # KIN-94
        lines = lineage(SPLIT[1], SPLIT[2], a="END", b="TRIM_HORIZON")
        assert lines.spent() == []
        lines.stored({"c": Position(position="TRIM_HORIZON")})
        assert lines.spent() == ["a"]
        lines.forgot(["a"])
        assert lines.spent() == []

    def test_without_it_a_listed_shard_is_not_read_again(self) -> None:
        assert ids(lineage(*SPLIT, b="TRIM_HORIZON").ready()) == ["b", "c"]


class TestStreamsOfTheSameName:
    OLD, NEW = Where("AFTER_SEQUENCE_NUMBER", "500"), Shard("a", first="900")

    READ = OLD._replace(at=7.0)
    """Said by a record."""

    @pytest.mark.parametrize(
        ("shard", "position"),
        [
            (NEW, Position(position=str(OLD), ended=True)),
            (NEW, Position(position=str(READ), ended=True)),
            (NEW, Position(position=str(READ))),
            (Shard("a", first="900", last="950"), Position(position=str(READ), ended=True)),
        ],
        ids=str,
    )
    def test_what_the_older_one_left_is_a_stranger(self, shard: Shard, position: Position) -> None:
        child = Shard("b", ("a",), first="901")
        lines = Lineage({"a": position, "b": Position(epoch=3, position="TRIM_HORIZON", state=b"open")})
        lines.listed([shard, child])
        assert lines.strangers() == ["a"]
        anew = lines.begin_anew()
        lines.stored(anew)
        assert lines.strangers() == []
        assert starts(lines) == ["a"]
        ends(lines, "a")
        assert starts(lines) == ["b"]
        assert anew["b"] == Position(epoch=3, position="TRIM_HORIZON", state=b"open")

    @pytest.mark.parametrize(
        "shard",
        [Shard("a", first="100"), Shard("a", first="500"), Shard("a", first="900", last="950"), Shard("a"), Shard("b")],
        ids=str,
    )
    def test_no_other_is(self, shard: Shard) -> None:  # a listing may be late: the shard that ended is still open there
        lines = Lineage({"a": Position(position=str(self.OLD), ended=True), "b": Position(position=str(self.OLD))})
        lines.listed([shard])
        assert lines.strangers() == []

    def test_a_tombstone_has_a_number_where_the_shard_has_one(self) -> None:
        assert end_of(Shard("a", first="1", last="9"), "TRIM_HORIZON") == "AFTER_SEQUENCE_NUMBER 9"
        assert end_of(Shard("a", first="1"), "AT_TIMESTAMP 7.000") == "AFTER_SEQUENCE_NUMBER 1"
        assert end_of(Shard("a", first="1", last="9"), str(self.OLD)) == str(self.OLD)
        assert end_of(Shard("a"), "TRIM_HORIZON") == "TRIM_HORIZON"


class History:
    """A stream that splits, merges and trims at random."""

    def __init__(self) -> None:
        self.shards = {"0": Shard("0"), "1": Shard("1")}
        self.made = 2

    def open(self) -> list[str]:
        return [shard.id for shard in self.shards.values() if shard.last is None]

    def close(self, *parents: str, children: int) -> None:
        for parent in parents:
            self.shards[parent] = Shard(parent, self.shards[parent].parents, last="9")
        for _ in range(children):
            self.shards[str(self.made)] = Shard(str(self.made), parents)
            self.made += 1

    def trim(self) -> str | None:
        """The oldest shard goes, if it has ended."""
        oldest = next(iter(self.shards.values()))
        return self.shards.pop(oldest.id).id if oldest.last is not None else None


STEPS = st.lists(
    st.tuples(st.sampled_from(["split", "merge", "trim", "list", "late", "end", "end", "restart"]), st.integers(0, 99)),
    min_size=10,
    max_size=80,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from([TRIM_HORIZON, Where("LATEST", at=1.0), Where("AT_TIMESTAMP", at=1.0)]))
def test_each_shard_is_read_once_after_its_parents(steps: list[tuple[str, int]], start: Where) -> None:
    """KIN-26, KIN-90 to KIN-94, over restarts that know the stored positions alone."""
    stream, stored = History(), dict[str, Position]()
    lines, ended, trimmed, parents = Lineage({}), set[str](), set[str](), dict[str, tuple[str, ...]]()

    def look(lacks: int = -1) -> None:
        lines.listed(stream.shards.values())
        lines.listed(shard for number, shard in enumerate(stream.shards.values()) if number != lacks)
        parents.update({shard.id: shard.parents for shard in stream.shards.values()})
        moved = {} if stored else lines.begin(start)
        stored.update(moved)
        lines.stored(moved)
        for shard in lines.ready():
            assert shard.id not in ended, "read twice"
            for parent in shard.parents:
                assert parent in ended | trimmed, "a child before its parent"
            if shard.id not in stored:
                stored[shard.id] = Position(position=str(lines.start_of(shard.id)))
            lines.stored({shard.id: stored[shard.id]})
            lines.started(shard.id)
        spent = lines.spent()
        for shard_id in spent:
            del stored[shard_id]
        lines.forgot(spent)
        for shard in stream.shards.values():
            for parent in shard.parents:  # KIN-94
                assert parent not in ended - trimmed or parent in stored

    look()
    for what, number in steps:
        alive = stream.open()
        if what == "split":
            stream.close(alive[number % len(alive)], children=2)
        elif what == "merge" and len(alive) > 1:
            stream.close(*alive[:2], children=1)
        elif what == "trim" and (gone := stream.trim()):
            trimmed.add(gone)
        elif what == "end":
            may_end = sorted(it for it in lines.reading if it in trimmed or stream.shards[it].last)
            if may_end:
                shard = may_end[number % len(may_end)]
                stored[shard] = Position(position="TRIM_HORIZON", ended=True)
                ended.add(shard)
                ends(lines, shard)
                look()
        elif what == "restart":
            lines = Lineage(stored)
            look()
        elif what == "list":
            look()
        elif what == "late":
            look(lacks=number % len(stream.shards))

    for _ in range(200):  # to the end of all that there is
        look()
        closed = [it for it in lines.reading if it in trimmed or stream.shards[it].last]
        if not closed:
            break
        for shard in closed:
            stored[shard] = Position(position="TRIM_HORIZON", ended=True)
            ended.add(shard)
            ends(lines, shard)
    assert set(stream.open()) <= lines.reading, "an open shard that nobody reads"
    assert not lines.ready()

"""What is wrong with a stream and its mapping. Each check gets all facts and gives what it finds, without asking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf, isinf

from bridge.doctor.facts import Case, Stream
from bridge.doctor.findings import Finding, span
from bridge.mapping import Mapping, StreamOptions
from bridge.pipeline.streams import FIRST_BACKOFF, LONGEST_BACKOFF

LONG_BLOCK = 3600.0
READS = 5
"""A second and shard, of all who poll it (KIN-10)."""
MEGABYTES = 2
TABLE_READERS = 2  # DDB-8


class Sight:
    """A stream's facts that several checks need."""

    def __init__(self, case: Case, mapping: Mapping, stream: Stream) -> None:
        self.case, self.mapping, self.stream = case, mapping, stream
        self.options = mapping.stream or StreamOptions()

    @property
    def polls(self) -> bool:
        return "/consumer/" not in self.mapping.source_arn.resource

    @property
    def blocked_for(self) -> float:
        """Seconds that a record which always fails stops its lane."""
        return min(self.stream.retention, self.options.max_age, attempts_take(self.options.retries))


def attempts_take(retries: float) -> float:
    """Seconds until the attempts are used up, of a handler that fails at once; inf without a bound (KIN-62, KIN-69)."""
    if isinf(retries):
        return inf
    growing = min(int(retries), 5)  # 1, 2, 4, 8 and 16 s before luck, which halves them on average
    total: float = (FIRST_BACKOFF * (2**growing - 1) + (retries - growing) * LONGEST_BACKOFF) / 2
    return total


def blocking(sight: Sight) -> Iterator[Finding]:
    """KIN-60: what one record can do."""
    options, retention = sight.options, sight.stream.retention
    lanes = "this shard" if options.lanes == 1 else f"its lane, a part of this shard ({options.lanes} lanes),"
    fix = "set MaximumRetryAttempts (3, say) or MaximumRecordAgeInSeconds, BisectBatchOnFunctionError and a destination"
    if isinf(options.retries) and isinf(options.max_age):
        yield Finding(
            "no-retry-bound",
            f"no age or retry bound: one bad record stops {lanes} for {span(retention)}, until it is trimmed, and all"
            f" that comes meanwhile is as late",
            fix,
        )
    elif sight.blocked_for >= retention:
        bound = (
            f"MaximumRecordAgeInSeconds {options.max_age:g} is more than the {span(retention)} that the stream keeps"
            if isinf(options.retries)
            else f"{options.retries:g} retries take {span(attempts_take(options.retries))}, and the stream keeps"
        )
        more = "" if isinf(options.retries) else f" records {span(retention)}"
        yield Finding(
            "age-above-retention",
            f"{bound}{more}: the bound is never reached; one bad record stops {lanes} for {span(retention)} and is then"
            f" lost without a report",
            f"set MaximumRecordAgeInSeconds well below {int(retention)}, or fewer MaximumRetryAttempts",
        )
    elif sight.blocked_for > LONG_BLOCK:
        yield Finding(
            "blocks-long",
            f"one bad record stops {lanes} for {span(sight.blocked_for)}"
            f" (MaximumRetryAttempts {_or_none(options.retries)},"
            f" MaximumRecordAgeInSeconds {_or_none(options.max_age)})",
            "lower MaximumRetryAttempts or MaximumRecordAgeInSeconds",
        )


def _or_none(number: float) -> str:
    return "-1" if isinf(number) else f"{number:g}"


def giving_up(sight: Sight) -> Iterator[Finding]:
    """KIN-63, KIN-68: what is given up, and who hears of it."""
    options, mapping = sight.options, sight.mapping
    if isinf(options.retries) and isinf(options.max_age):
        return
    if not options.on_failure:
        yield Finding(
            "no-failure-destination",
            "records are given up after the bound, and no on-failure destination is told: only the log says that they"
            f" are gone, and after {span(sight.stream.retention)} they cannot be read again",
            "set DestinationConfig.OnFailure.Destination to a queue, topic or bucket",
        )
    if mapping.batch_size > 1 and not options.bisect and not mapping.partial and not isinf(options.retries):
        yield Finding(
            "good-records-given-up",
            f"neither bisect nor partial answers: with one bad record up to {mapping.batch_size - 1:,} good ones are"
            f" given up after {options.retries + 1:g} attempts",
            "set BisectBatchOnFunctionError: true, or ReportBatchItemFailures and answer with the first bad record",
        )


def state(sight: Sight) -> Iterator[Finding]:
    """DDB-10, KIN-32, KIN-106."""
    stream = sight.stream
    if stream.lost is not None:
        yield Finding(
            "position-trimmed",
            f"the stored position is {f'{span(stream.lost)} ' if stream.lost else ''}older than the oldest record that"
            " the stream still has: what lies between is lost, and reading goes on behind the gap",
            f"keep the bridge running, or raise the retention (now {span(stream.retention)})"
            if sight.mapping.source == "kinesis"
            else "keep the bridge running: a table's stream keeps 24 h",
        )
    if stream.status in ("DISABLED", "DISABLING"):
        yield Finding(
            "stream-ends",
            "the table's stream is disabled: what is in it can be read for 24 h, then nothing comes any more; enabling"
            " it again makes a new stream, which this mapping does not follow",
            "enable the stream, and put its new ARN into EventSourceArn",
        )
    if stream.status == "DELETING":
        yield Finding("stream-ends", "the stream is being deleted: nothing more will come", "name another stream")
    if stream.consumer is not None and stream.consumer != "ACTIVE":
        yield Finding(
            "consumer-not-active",
            f"the registered consumer is {stream.consumer}: nothing is pushed until it is ACTIVE",
            "wait until it is, or register another one",
        )


def readers(sight: Sight) -> Iterator[Finding]:
    """KIN-10, DDB-8: who else reads the same shards."""
    if not sight.polls:
        return
    others = [*sight.case.readers, *(f"Lambda's mapping {rival.uuid}" for rival in sight.case.rivals)]
    count = len(others) + 1
    names = ", ".join(others)
    if sight.mapping.source == "kinesis" and others:
        yield Finding(
            "shared-throughput",
            f"{count} readers ({names} besides) share {READS} reads and {MEGABYTES} MB a second of each shard: each"
            f" gets {READS / count:.1f} reads and {MEGABYTES / count:.1f} MB"
            + ("; polling while idle alone is more than that" if count > READS else ""),
            "register a consumer of its own for each (enhanced fan-out), or let one function do the work of both",
        )
    elif sight.mapping.source == "dynamodb" and count > TABLE_READERS:
        yield Finding(
            "shared-throughput",
            f"{count} readers ({names} besides) of one table's stream, of which DynamoDB advises {TABLE_READERS} at the"
            " most: more are throttled",
            "let one function do the work of several",
        )


CHECKS: tuple[Callable[[Sight], Iterator[Finding]], ...] = (blocking, giving_up, state, readers)

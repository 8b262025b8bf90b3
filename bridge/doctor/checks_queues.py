"""What is wrong with a queue and its mapping. Each check gets all facts and gives what it finds, without asking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf, isinf

from bridge.doctor.facts import Case, Queue
from bridge.doctor.findings import Finding, span
from bridge.function import Function
from bridge.mapping import Mapping
from bridge.pipeline.breaker import Breaker
from bridge.sources.sqs import SPARE_VISIBILITY

ADVISED_RECEIVES = 5  # SQS-37
ADVISED_TIMES = 6  # SQS-27
SHORT_BUDGET = 300.0
"""A deploy, or the restart of a database, takes minutes."""
LONG_VISIBILITY = 3600
LOOK_AHEAD, OLD_LOOK_AHEAD = 120_000, 20_000
"""Messages of a FIFO queue among which SQS looks for free groups, today and before November 2024."""
MOST_IN_FLIGHT = 120_000  # SQS-81
FIFO_CALLS = 300
"""Calls a second of each kind that a FIFO queue without high throughput takes."""
ELSEWHERE = frozenset({"url", "lambda"})
"""Kinds of functions that can be out of reach, or throttle."""


class Sight:
    """A queue's facts that several checks need."""

    def __init__(self, case: Case, mapping: Mapping, queue: Queue) -> None:
        self.case, self.mapping, self.queue = case, mapping, queue
        self.function: Function = case.function
        self.limit = case.function.timeout
        self.visibility = effective_visibility(mapping, self.limit, queue.visibility)

    @property
    def receives(self) -> int:
        return int(self.queue.max_receives)

    @property
    def has_letters(self) -> bool:
        return not isinf(self.queue.max_receives)


def effective_visibility(mapping: Mapping, limit: float, own: int) -> int:
    """Seconds for which a received message stays hidden (SQS-28, SQS-29), as the source asks for it."""
    needed = mapping.window + limit
    return int(needed) + SPARE_VISIBILITY if own == 0 or (mapping.window and needed > own) else own


def budget(receives: int, visibility: float, *, breaks: bool) -> float:
    """Seconds that an outage of the handler may last until the first healthy message has had all its receives.

    It is received at once whenever it is visible again: nothing is faster. ``breaks``: after failures in a row the
    mapping receives less often (the failing gate), of which the least delay counts.
    """
    breaker = Breaker() if breaks else Breaker(inf)
    now = 0.0
    for _ in range(min(receives, 1000) - 1):
        breaker.ended(failed=True, now=now, luck=0.0)
        now += max(visibility, breaker.pause(now))
    return now


def visibility(sight: Sight) -> Iterator[Finding]:
    """SQS-25 to SQS-29, ESM-37."""
    own, limit, window = sight.queue.visibility, sight.limit, sight.mapping.window
    advised = int(ADVISED_TIMES * limit + window)
    if own == 0:
        yield Finding(
            "visibility-zero",
            f"visibility timeout 0 s: messages are never hidden from other consumers; here each receive asks for"
            f" {sight.visibility} s, any other consumer gets them at once again",
            f"set VisibilityTimeout to {advised} s",
        )
    elif own < limit:
        yield Finding(
            "visibility-below-timeout",
            f"visibility {own} s < timeout {limit:g} s: AWS would refuse this mapping; here the heartbeat covers it,"
            f" but a crash or a second consumer delivers twice",
            f"set VisibilityTimeout to at least {int(limit)} s; AWS advises {advised} s",
        )
    elif window and own < window + limit:
        yield Finding(
            "visibility-below-window",
            f"visibility {own} s < window {window:g} s + timeout {limit:g} s: each receive asks for"
            f" {sight.visibility} s instead, so what fails comes back after {sight.visibility} s, not {own} s",
            f"set VisibilityTimeout to {advised} s",
        )
    elif own < advised:
        yield Finding(
            "visibility-below-advice",
            f"visibility {own} s is {own / (limit or 1):.1f} x timeout {limit:g} s; AWS advises 6 x timeout + window ="
            f" {advised} s: a function that is throttled or fails uses up a receive every {own} s",
            f"set VisibilityTimeout to {advised} s",
        )
    elif own >= LONG_VISIBILITY and own > 2 * advised:
        yield Finding(
            "visibility-long",
            f"visibility {span(own)}: a message that fails is tried again only after {span(own)}, and what a crashed"
            f" process held is hidden as long; the handler takes at most {span(limit)}",
            f"set VisibilityTimeout to {advised} s: the heartbeat extends it where a batch takes longer",
        )


def letters(sight: Sight) -> Iterator[Finding]:
    """SQS-37: whether messages get to a dead-letter queue."""
    queue = sight.queue
    if not sight.has_letters:
        times = max(1, int(queue.retention / max(1, sight.visibility)))
        yield Finding(
            "no-dlq",
            f"no redrive policy: a message that always fails comes again every {span(sight.visibility)}, about"
            f" {times:,} times, until it expires after {span(queue.retention)} and is gone"
            + ("; until then it blocks its message group" if queue.fifo else ""),
            f"set RedrivePolicy with a dead-letter queue and maxReceiveCount {ADVISED_RECEIVES} or more",
        )
        return
    if queue.fifo != queue.dlq.endswith(".fifo"):
        kind = ("FIFO", "standard") if queue.fifo else ("standard", "FIFO")
        yield Finding(
            "dlq-wrong-kind",
            f"the queue is {kind[0]}, its dead-letter queue {queue.dlq} is {kind[1]}: SQS cannot move messages"
            f" there, so they come again until they expire after {span(queue.retention)}",
            f"point RedrivePolicy at a {kind[0]} queue",
        )
    takes, keeps = sight.receives * sight.visibility, queue.retention
    if takes >= keeps:
        yield Finding(
            "expires-before-dlq",
            f"a message that always fails takes {span(takes)} at least to the dead-letter queue ({sight.receives}"
            f" receives, {span(sight.visibility)} apart); the queue keeps it for {span(keeps)}: it is gone before",
            "raise MessageRetentionPeriod, or lower the visibility timeout or maxReceiveCount",
        )


def dead_letters(sight: Sight) -> Iterator[Finding]:
    """How long they are kept, and how many there are."""
    queue, dlq = sight.queue, sight.case.dlq
    if dlq is None:
        return
    if dlq.retention <= queue.retention:
        yield Finding(
            "dlq-retention-short",
            f"the dead-letter queue keeps messages {span(dlq.retention)}, the queue {span(queue.retention)}: "
            + (
                f"a message has to be looked at within {span(dlq.retention)} of its arrival there"
                if queue.fifo
                else f"the clock does not restart there, so what failed for {span(dlq.retention)} is deleted on arrival"
            ),
            "set the dead-letter queue's MessageRetentionPeriod to 1209600 s (14 d), and the queue's below it",
        )
    if dlq.waiting + dlq.in_flight:
        yield Finding(
            "dlq-not-empty",
            f"{dlq.waiting + dlq.in_flight:,} messages lie in the dead-letter queue; each is deleted"
            f" {span(dlq.retention)} after it was {'moved' if dlq.fifo else 'first sent'}",
            f"bridge replay --dlq {sight.mapping.name} --peek shows why",
        )


def receives(sight: Sight) -> Iterator[Finding]:
    """What uses up receives besides a poison message: outages, deploys, throttling."""
    if not sight.has_letters:
        return
    count, hidden = sight.receives, sight.visibility
    if count == 1:
        yield Finding(
            "max-receives-one",
            "maxReceiveCount 1: each deploy sends running messages to the DLQ, and so does each crash and each single"
            " failure; what was received and not started goes there as well",
            f"set maxReceiveCount to {ADVISED_RECEIVES} or more",
        )
        return
    if count < ADVISED_RECEIVES:
        yield Finding(
            "max-receives-low",
            f"maxReceiveCount {count}: {count - 1} deploys, crashes or failures while it is held, and a healthy message"
            f" goes to the DLQ at the next one",
            f"set maxReceiveCount to {ADVISED_RECEIVES} or more",
        )
    lasts = budget(count, hidden, breaks=sight.function.kind not in ELSEWHERE)
    short = lasts < SHORT_BUDGET
    more = _receives_for(SHORT_BUDGET, hidden, breaks=sight.function.kind not in ELSEWHERE)
    yield Finding(
        "burn-budget-short" if short else "burn-budget",
        f"the handler may be out for {span(lasts)}: after that healthy messages reach the dead-letter queue"
        f" ({count} receives, {span(hidden)} apart at least)",
        f"for {span(SHORT_BUDGET)} set maxReceiveCount to {more}, or a longer visibility timeout" if short else "",
    )


def _receives_for(seconds: float, hidden: float, *, breaks: bool) -> int:
    count = 2
    while budget(count, hidden, breaks=breaks) < seconds and count < 1000:
        count += 1
    return count


def throttling(sight: Sight) -> Iterator[Finding]:
    """SQS-35: who is throttled keeps its batch until it is visible again."""
    remote, most = sight.case.remote, sight.mapping.maximum_concurrency
    if remote is None or remote.reserved is None or not sight.has_letters:
        return
    sent = min(most or sight.function.concurrency, sight.function.concurrency)
    if remote.reserved < sent:
        yield Finding(
            "throttle-receives",
            f"up to {sent} batches are sent at once to a function with {remote.reserved} reserved: the rest is"
            f" throttled, goes back after {span(sight.visibility)} with a receive used up, and after {sight.receives}"
            f" of them lies in the dead-letter queue without a handler having seen it",
            f"set MaximumConcurrency (2 at least) or max_environments to {remote.reserved}, or reserve {sent}",
        )


def load(sight: Sight) -> Iterator[Finding]:
    """SQS-81, and what FIFO queues cannot do."""
    queue = sight.queue
    if queue.in_flight >= MOST_IN_FLIGHT * 0.9:
        yield Finding(
            "in-flight-limit",
            f"{queue.in_flight:,} of at most {MOST_IN_FLIGHT:,} messages are in flight: at the limit nothing more is"
            f" received until some are deleted or visible again",
            "make handlers faster, lower concurrency, or look for a consumer that does not delete",
        )
    if not queue.fifo:
        return
    backlog = queue.waiting + queue.in_flight
    if backlog > OLD_LOOK_AHEAD:
        seen = LOOK_AHEAD if backlog > LOOK_AHEAD else OLD_LOOK_AHEAD
        until = "" if backlog > LOOK_AHEAD else " at endpoints with the older limit"
        yield Finding(
            "fifo-look-ahead",
            f"{backlog:,} messages wait: SQS looks for free groups among the first {seen:,} only{until}, so one slow or"
            f" poisoned group stops all groups behind it",
            "find the group that does not get on (bridge mappings show --why), or use more and smaller groups",
        )
    if not queue.high_throughput:
        rate = FIFO_CALLS * sight.mapping.batch_size
        drain = f"; the backlog of {backlog:,} takes {span(backlog / rate)} at least" if backlog > rate else ""
        yield Finding(
            "fifo-throughput",
            f"limits count for the whole queue: {FIFO_CALLS} receives and {FIFO_CALLS} deletes a second, so"
            f" {rate:,} messages a second with BatchSize {sight.mapping.batch_size}{drain}",
            "if that is too little: FifoThroughputLimit perMessageGroupId with DeduplicationScope messageGroup",
        )


def consumers(sight: Sight) -> Iterator[Finding]:
    """Who else takes messages."""
    case, flying = sight.case, sight.queue.in_flight
    if case.readers:
        yield Finding(
            "queue-shared",
            f"{', '.join(case.readers)} of this configuration read the same queue: each message goes to one of the"
            " functions, and nobody chooses which",
            "give each function a queue of its own (a topic in front copies messages), or filter in one function",
        )
    ours = case.view.in_flight if case.view else 0
    if not flying or flying <= ours:
        return
    if case.view is not None:
        settling = max(10, 10 * ours)  # deletes on their way, failed messages that stay hidden
        if flying <= settling or case.view.failed:
            return
    who = f"the daemon holds {ours:,}" if case.view else "no daemon of this configuration answers"
    yield Finding(
        "other-consumers",
        f"{flying:,} messages are in flight and {who}: somebody else receives from this queue (another bridge, a"
        f" Lambda mapping, a consumer that died less than {span(sight.visibility)} ago) and gets its share of messages",
        "stop the other consumer, or give it a queue of its own",
    )


CHECKS: tuple[Callable[[Sight], Iterator[Finding]], ...] = (
    visibility,
    letters,
    dead_letters,
    receives,
    throttling,
    load,
    consumers,
)

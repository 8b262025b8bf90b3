"""Judges the facts about mappings and functions: everything that is not a queue's or a stream's own, and all of it
together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isinf

from bridge.doctor import checks_queues, checks_streams
from bridge.doctor.facts import Case, Failed
from bridge.doctor.findings import LEVELS, Finding, span

OLD, EXPIRING = 0.5, 0.9
"""Shares of the retention."""
ENOUGH = 20
"""Records that say something about a filter; of so many, one that lets all through is no filter."""
SKEW = 5.0
"""Seconds. Endpoints tell whole ones."""
MONTH = 30 * 86_400
QUEUE_POLL, KINESIS_POLL, TABLE_POLL = 20.0, 1.0, 0.25  # SQS-4, KIN-20, DDB-20

FIXES = {
    "unreachable": "check aws.endpoint_url, the region, the network and proxies between",
    "no-answer": "check the endpoint and the network; --timeout gives it longer",
    "call-failed": "read what the service said",
    "credentials-refused": "check the profile, the keys and this machine's clock",
    "permission-missing": "bridge iam-policy prints all that is needed",
}


def findings(case: Case) -> list[Finding]:
    """All about one mapping or function, the gravest first."""
    found = [finding for check in CHECKS for finding in check(case)]
    if case.mapping and case.queue:
        sight = checks_queues.Sight(case, case.mapping, case.queue)
        found += [finding for queue_check in checks_queues.CHECKS for finding in queue_check(sight)]
    if case.mapping and case.stream:
        view = checks_streams.Sight(case, case.mapping, case.stream)
        found += [finding for stream_check in checks_streams.CHECKS for finding in stream_check(view)]
    return sorted(found, key=lambda finding: -LEVELS.index(finding.level))


def access(case: Case) -> Iterator[Finding]:
    """What could not be looked at: one finding for each kind of trouble and place."""
    told = set()
    for failed in case.failed:
        key = (failed.kind, failed.resource, failed.action if failed.kind == "permission-missing" else "")
        if key not in told:
            told.add(key)
            yield _missing(failed) if failed.kind == "missing" else _unanswered(failed)


def _missing(failed: Failed) -> Finding:
    match failed.about:
        case "source":
            return Finding(
                "source-missing",
                f"{failed.resource} does not exist: nothing is polled until it does",
                "create it, or correct EventSourceArn",
            )
        case "dlq":
            return Finding(
                "dlq-missing",
                f"the dead-letter queue {failed.resource} does not exist: SQS cannot move messages there, so what"
                " always fails comes again until it expires",
                "create it, or point RedrivePolicy at another queue",
            )
        case "function":
            return Finding(
                "function-missing",
                f"{failed.resource} does not exist: each batch waits until its time is over and uses up receives",
                "create it, or correct lambda",
            )
    return Finding(
        "destination-missing",
        f"{failed.resource} does not exist: what should be told there is tried for 60 s, counted and given up",
        "create it, or correct its ARN",
    )


def _unanswered(failed: Failed) -> Finding:
    if failed.kind == "permission-missing":
        return Finding(
            failed.kind, f"{failed.action} on {failed.resource} is denied: {failed.detail}", FIXES[failed.kind]
        )
    assert failed.kind != "missing"  # noqa: S101 - the caller tells these apart
    return Finding(failed.kind, f"{failed.resource}: {failed.detail}", FIXES[failed.kind])


def clocks(case: Case) -> Iterator[Finding]:
    """Of each endpoint, as its answers date themselves."""
    for endpoint, skew in case.skews.items():
        if abs(skew) > SKEW:
            ahead = "ahead of" if skew > 0 else "behind"
            yield Finding(
                "clock-skew",
                f"the clock of the {endpoint} endpoint is {span(abs(skew))} {ahead} this machine's: ages of"
                " records and AT_TIMESTAMP are wrong by that, and from 5 min on AWS refuses signatures",
                "set this machine's clock (NTP)",
            )


def function(case: Case) -> Iterator[Finding]:
    """What the function is able to do."""
    if case.function.concurrency == 0 and case.mapping:
        keeps = case.queue.retention if case.queue else case.stream.retention if case.stream else None
        lost = f", and records are lost after {span(keeps)}" if keeps else ""
        yield Finding(
            "function-stopped",
            f"ReservedConcurrentExecutions 0: nothing is received or invoked{lost}",
            "set it to 1 or more, or remove it",
        )
    if case.refused and case.function.endpoint:
        yield Finding(
            "function-unreachable",
            f"no connection to {case.function.endpoint.shown} ({case.refused}): each batch waits until it is visible"
            " again, and messages use up a receive each time",
            f"start what listens there, or correct url of functions.{case.function.name}",
        )
    if case.remote and case.remote.timeout > case.function.timeout:
        yield Finding(
            "function-timeout-longer",
            f"Lambda lets the function run for {case.remote.timeout:g} s, the bridge waits {case.function.timeout:g} s:"
            " what takes longer counts as failed here and is sent again while the first one still runs",
            f"set Timeout of functions.{case.function.name} to {case.remote.timeout:g} or more",
        )


def deploys(case: Case) -> Iterator[Finding]:
    """What a stop of the daemon does to what runs."""
    timeout = case.function.timeout
    if case.mapping and case.grace < timeout:
        again = "comes again and uses up a receive" if case.mapping.source == "sqs" else "is done again after the start"
        yield Finding(
            "grace-below-timeout",
            f"shutdown_grace {span(case.grace)} < timeout {span(timeout)}: a deploy cuts off what runs for longer,"
            f" which {again}",
            f"set shutdown_grace to {timeout:g}, and the service manager's own patience above it",
        )


def backlog(case: Case) -> Iterator[Finding]:
    """What waits, against the time for which it is kept."""
    age: float | None
    if case.queue:
        waits = case.queue.waiting + case.queue.in_flight
        keeps, age = float(case.queue.retention), case.view.lag_seconds if case.view and waits else None
    elif case.stream:
        keeps, age = case.stream.retention, case.stream.age
        if case.view:
            age = case.view.lag_seconds if case.view.lag_seconds is not None else case.view.behind
    else:
        return
    if age is None or isinf(keeps) or age < OLD * keeps:
        return
    left = keeps - age
    what = f"the oldest waiting record is {span(age)} old, and {span(keeps)} is how long they are kept"
    if age >= EXPIRING * keeps:
        when = f"in {span(left)}" if left > 0 else "now"
        yield Finding("backlog-expiring", f"{what}: records are lost from {when} on", _catch_up(case))
    else:
        yield Finding("backlog-old", f"{what}: {span(left)} are left to catch up", _catch_up(case))


def _catch_up(case: Case) -> str:
    knob = "MaximumConcurrency and max_environments" if case.queue else "ParallelizationFactor and BatchSize"
    return f"raise the retention first, then {knob}; bridge mappings show --why names what holds it"


def filters(case: Case) -> Iterator[Finding]:
    """SQS-65, KIN-39: from the running daemon's counters, else from records that were read to try it on."""
    if not case.mapping or not case.mapping.patterns:
        return
    if case.view:
        seen, kept, how = case.view.polled, case.view.polled - case.view.filtered, "received since the daemon started"
    elif case.stream:
        seen, kept, how = case.stream.seen, case.stream.matched, "read on trial"
    else:
        return
    if seen < ENOUGH:
        return
    if not kept:
        gone = "deleted, none of them in the dead-letter queue" if case.queue else "passed over"
        yield Finding(
            "filter-matches-nothing",
            f"none of {seen:,} records {how} matches FilterCriteria: what does not match is {gone}",
            'try the pattern on a record (bridge event, bridge.filtering); "data" or "body" has to hold JSON for it',
        )
    elif kept == seen:
        yield Finding(
            "filter-matches-everything",
            f"all of {seen:,} records {how} match FilterCriteria: it leaves nothing out",
            "remove it, if it should not",
        )


def polling(case: Case) -> Iterator[Finding]:
    """What the running daemon says."""
    if case.view and not case.view.ready:
        gate = case.view.gate
        why = f"{gate.name}: {gate.detail}" if gate and gate.detail else gate.name if gate else case.view.state
        yield Finding("not-polling", f"the running daemon does not poll ({why})", "look at bridge mappings show --why")


def cost(case: Case) -> Iterator[Finding]:
    """What an idle month of 30 days takes, in calls."""
    mapping = case.mapping
    if mapping is None or not (case.queue or case.stream):
        return
    pushed = "/consumer/" in mapping.source_arn.resource
    if case.queue:
        calls, how = (mapping.minimum_pollers or 1) * MONTH / QUEUE_POLL, "long polls of 20 s"
    elif mapping.source == "kinesis":
        shards = case.stream.shards if case.stream else 0
        each = 300.0 if pushed else KINESIS_POLL
        calls = shards * MONTH / each + MONTH / 60
        how = f"{_shards(shards)}, each {'subscribed every 5 min' if pushed else 'read once a second'}"
    else:
        shards = case.stream.shards if case.stream else 0
        calls, how = shards * MONTH / TABLE_POLL + MONTH / 30, f"{_shards(shards)}, each read 4 times a second"
    bill = "; DynamoDB charges for reads by others than Lambda" if mapping.source == "dynamodb" else ""
    yield Finding("idle-cost", f"while nothing comes: {calls:,.0f} API calls a month ({how}){bill}")


def _shards(count: int) -> str:
    return f"{count} shard{'' if count == 1 else 's'}"


def rivals(case: Case) -> Iterator[Finding]:
    """Lambda's own mappings of the same source."""
    for rival in case.rivals:
        each = (
            "each message goes to one of the two, and nobody chooses which"
            if case.queue or (case.mapping and case.mapping.source == "sqs")
            else "each record is handled by both"
        )
        yield Finding(
            "lambda-competes",
            f"Lambda's mapping {rival.uuid} ({rival.function}) is enabled on the same source: {each}",
            f"aws lambda update-event-source-mapping --uuid {rival.uuid} --no-enabled",
        )


CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    access, clocks, function, deploys, backlog, filters, polling, rivals, cost,
)  # fmt: skip

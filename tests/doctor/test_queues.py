"""What doctor finds about queues on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from bridge.snapshot import MappingView
from tests.admin.control import ScriptedControl, served, view
from tests.doctor.clinic import Clinic, redriven
from tests.servers import ACCOUNT, REGION, Server

Made = Callable[[str], Clinic]
LONG: dict[str, Any] = {"MessageRetentionPeriod": "1209600"}


def test_visibility_against_timeout_and_window(clinic: Made, sqs_server: Server) -> None:  # ESM-37, SQS-26 to SQS-29
    it = clinic(sqs_server.url)
    it.function(Timeout=60)
    for name, seconds in (("below", 30), ("advice", 120), ("window", 90), ("zero", 0), ("long", 43200), ("good", 360)):
        queue = sqs_server.queue(VisibilityTimeout=str(seconds), **redriven(sqs_server, 10, **LONG))
        it.mapping(name, queue, MaximumBatchingWindowInSeconds=60 if name == "window" else 0)
    found = it.examine()
    assert found.status == 0  # warnings do not count unless asked
    assert found["below"]["visibility-below-timeout"] == (
        "warning",
        (
            "visibility 30 s < timeout 60 s: AWS would refuse this mapping; here the heartbeat covers it, but a crash"
            " or a second consumer delivers twice"
        ),
        "set VisibilityTimeout to at least 60 s; AWS advises 360 s",
    )
    level, message, fix = found["advice"]["visibility-below-advice"]
    assert (level, fix) == ("note", "set VisibilityTimeout to 360 s")
    assert "visibility 120 s is 2.0 x timeout 60 s; AWS advises 6 x timeout + window = 360 s" in message
    assert (
        "each receive asks for 150 s instead, so what fails comes back after 150 s"
        in found["window"]["visibility-below-window"].message  # 60 + 60 + 30
    )
    assert found["window"]["visibility-below-window"].fix == "set VisibilityTimeout to 420 s"
    assert "each receive asks for 90 s" in found["zero"]["visibility-zero"].message
    assert "tried again only after 12 h" in found["long"]["visibility-long"].message
    assert found["good"].keys() == {"burn-budget", "idle-cost", "grace-below-timeout"}
    assert found["good"]["grace-below-timeout"].message == (
        "shutdown_grace 30 s < timeout 60 s: a deploy cuts off what runs for longer, which comes again and uses up a"
        " receive"
    )
    assert it.examine("--fail-on", "warning", "below").status == 1
    assert it.examine("--fail-on", "warning", "good").status == 0


def test_receives_and_the_burn_budget(clinic: Made, sqs_server: Server) -> None:  # SQS-37
    it = clinic(sqs_server.url)
    for name, receives in (("one", 1), ("two", 2), ("five", 5), ("many", 20)):
        it.mapping(name, sqs_server.queue(VisibilityTimeout="30", **redriven(sqs_server, receives, **LONG)))
    found = it.examine()
    assert found.status == 1
    assert found["one"]["max-receives-one"].level == "error"
    assert found["one"]["max-receives-one"].message.startswith(
        "maxReceiveCount 1: each deploy sends running messages to the DLQ"
    )
    assert found["two"]["max-receives-low"].message.startswith("maxReceiveCount 2: 1 deploys, crashes or failures")
    assert found["two"]["burn-budget-short"].message.startswith("the handler may be out for 30 s: after that healthy")
    # 4 x 30 s, all without the failing gate: it closes at the fifth failure
    assert found["five"]["burn-budget-short"] == (
        "warning",
        (
            "the handler may be out for 2 min: after that healthy messages reach the dead-letter queue (5 receives,"
            " 30 s apart at least)"
        ),
        "for 5 min set maxReceiveCount to 11, or a longer visibility timeout",
    )
    assert "max-receives-low" not in found["five"]
    assert found["many"]["burn-budget"].level == "note"


def test_dead_letter_queues(clinic: Made, sqs_server: Server) -> None:
    it = clinic(sqs_server.url)
    it.mapping("none", sqs_server.queue(VisibilityTimeout="30"))
    it.mapping("short", sqs_server.queue(**redriven(sqs_server, 20, MessageRetentionPeriod="345600")))
    full = sqs_server.queue(**redriven(sqs_server, 20, **LONG))
    letters = json.loads(full.attributes()["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    dead = sqs_server.queue(name=letters, MessageRetentionPeriod="1209600")
    dead.send("poison", "more poison")
    it.mapping("full", full)
    found = it.examine()
    assert found["none"]["no-dlq"].message.startswith(
        "no redrive policy: a message that always fails comes again every 30 s, about 11,520 times, until it expires"
        " after 4 d and is gone"
    )
    assert "what failed for 4 d is deleted on arrival" in found["short"]["dlq-retention-short"].message
    assert found["full"]["dlq-not-empty"].message.startswith("2 messages lie in the dead-letter queue; each is deleted")
    assert found["full"]["dlq-not-empty"].fix == "bridge replay --dlq full --peek shows why"
    assert "dlq-retention-short" not in found["full"]


def test_a_queue_that_forgets_before_its_messages_are_dead(clinic: Made, sqs_server: Server) -> None:
    it = clinic(sqs_server.url)
    queue: dict[str, Any] = {"VisibilityTimeout": "900", "MessageRetentionPeriod": "3600"}
    it.mapping("late", sqs_server.queue(**queue, **redriven(sqs_server, 4, **LONG)))
    it.mapping("good", sqs_server.queue(**queue, **redriven(sqs_server, 3, **LONG)))
    found = it.examine()
    assert found["late"]["expires-before-dlq"].message == (
        "a message that always fails takes 1 h at least to the dead-letter queue (4 receives, 15 min apart); the queue"
        " keeps it for 1 h: it is gone before"
    )
    assert "expires-before-dlq" not in found["good"]


def test_a_dead_letter_queue_that_is_gone(clinic: Made, sqs_server: Server) -> None:
    it = clinic(sqs_server.url)
    queue = sqs_server.queue(**redriven(sqs_server, 20, **LONG))
    letters = json.loads(queue.attributes()["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    sqs_server.client().delete_queue(QueueUrl=queue.url.replace(queue.name, letters))
    it.mapping("orders", queue)
    found = it.examine()
    assert found.status == 1
    assert found["orders"]["dlq-missing"].message.startswith(
        f"the dead-letter queue arn:aws:sqs:{REGION}:{ACCOUNT}:{letters} does not exist: SQS cannot move messages there"
    )


def test_fifo_limits_count_for_the_whole_queue(clinic: Made, sqs_server: Server) -> None:
    it = clinic(sqs_server.url)
    it.mapping("plain", sqs_server.queue(fifo=True, **redriven(sqs_server, 20, fifo=True, **LONG)), BatchSize=2)
    high = {"FifoThroughputLimit": "perMessageGroupId", "DeduplicationScope": "messageGroup"}
    it.mapping("high", sqs_server.queue(fifo=True, **high, **redriven(sqs_server, 20, fifo=True, **LONG)))
    found = it.examine()
    assert "so 600 messages a second with BatchSize 2" in found["plain"]["fifo-throughput"].message
    assert "fifo-throughput" not in found["high"]


def test_somebody_else_receives(clinic: Made, sqs_server: Server) -> None:
    it = clinic(sqs_server.url)
    queue = sqs_server.queue(VisibilityTimeout="600")
    queue.send("one", "two")
    taken = queue.api.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10)["Messages"]
    it.mapping("orders", queue)
    found = it.examine()
    assert found["orders"]["other-consumers"].message.startswith(
        f"{len(taken)} messages are in flight and no daemon of this configuration answers: somebody else receives"
    )
    assert queue.counts() == (2 - len(taken), len(taken))  # nothing was received by looking


@pytest.mark.parametrize(("holds", "flying", "told"), [(20, 20, False), (0, 5, False), (1, 20, True)])
def test_what_the_daemon_holds_is_nobody_elses(
    clinic: Made, ministack_server: Server, holds: int, flying: int, told: bool
) -> None:
    it = clinic(ministack_server.url)
    queue = ministack_server.queue(VisibilityTimeout="600")
    queue.send(*(str(number) for number in range(flying)))
    taken = 0
    while taken < flying:
        answer = queue.api.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10)
        taken += len(answer["Messages"])
    it.mapping("orders", queue, UUID="0a1b2c3d-0000-4000-8000-000000000001")
    with served(ScriptedControl(view("orders", in_flight=holds))) as url:
        found = it.examine("--admin", url)["orders"]
    assert ("other-consumers" in found) is told
    if told:
        assert "20 messages are in flight and the daemon holds 1: somebody" in found["other-consumers"].message


def test_two_mappings_of_one_queue(clinic: Made, ministack_server: Server) -> None:  # ESM-15
    it = clinic(ministack_server.url)
    queue = ministack_server.queue()
    for name in ("one", "two", "off"):
        it.function(name)
        it.mapping(name, queue, name, Enabled=name != "off")
    found = it.examine()
    assert found["one"]["queue-shared"].message.startswith("two of this configuration read the same queue: each")
    assert found["off"]["queue-shared"].message.startswith("one, two of this configuration read the same queue")


def test_nothing_is_received_and_nothing_changed(clinic: Made, sqs_server: Server) -> None:
    it = clinic(sqs_server.url)
    queue = sqs_server.queue()
    (sent,) = queue.send("{}")
    it.mapping("orders", queue, FilterCriteria={"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]})
    before = queue.attributes()
    it.examine()
    assert queue.attributes() == before
    (message,) = queue.api.receive_message(QueueUrl=queue.url, AttributeNames=["All"])["Messages"]
    assert message["MessageId"] == sent
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert not (it.folder / "state.db").exists()


def test_what_the_running_daemon_knows(clinic: Made, ministack_server: Server) -> None:
    it = clinic(ministack_server.url)
    queues = {name: ministack_server.queue() for name in ("old", "expiring", "deaf", "open", "stuck")}
    for name, queue in queues.items():
        queue.send("x")
        it.mapping(name, queue, FilterCriteria={"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]})
        it.config["mappings"][name]["UUID"] = f"0a1b2c3d-0000-4000-8000-{list(queues).index(name):012}"
    day = 86_400
    known = [
        view("old", lag_seconds=2.5 * day),
        view("expiring", lag_seconds=3.9 * day),
        view("deaf", polled=40, filtered=40),
        view("open", polled=40, filtered=0),
        view("stuck", ready=False, gate=None, state="Creating"),
    ]
    control = ScriptedControl(*(each_of(known, it, name) for name in queues))
    with served(control) as url:
        found = it.examine("--admin", url)
    assert found["old"]["backlog-old"].message.startswith("the oldest waiting record is 2.5 d old, and 4 d is how long")
    assert "records are lost from in 2.4 h on" in found["expiring"]["backlog-expiring"].message
    assert found["expiring"]["backlog-expiring"].level == "error"
    assert found["deaf"]["filter-matches-nothing"].message.startswith(  # SQS-65
        "none of 40 records received since the daemon started matches FilterCriteria: what does not match is deleted"
    )
    assert "all of 40 records" in found["open"]["filter-matches-everything"].message
    assert found["stuck"]["not-polling"].message == "the running daemon does not poll (Creating)"


def each_of(known: Sequence[MappingView], it: Clinic, name: str) -> MappingView:
    """The view with the UUID of the mapping in the configuration."""
    (found,) = (each for each in known if each.name == name)
    return msgspec.structs.replace(found, uuid=it.config["mappings"][name]["UUID"])


def test_a_function_that_is_stopped(clinic: Made, ministack_server: Server) -> None:
    it = clinic(ministack_server.url)
    it.function(ReservedConcurrentExecutions=0)
    it.mapping("orders", ministack_server.queue())
    found = it.examine()
    assert found["orders"]["function-stopped"].message == (
        "ReservedConcurrentExecutions 0: nothing is received or invoked, and records are lost after 4 d"
    )


@pytest.mark.parametrize(("pollers", "calls"), [(None, "129,600"), (3, "388,800")])
def test_what_idling_costs(clinic: Made, ministack_server: Server, pollers: int | None, calls: str) -> None:
    it = clinic(ministack_server.url)
    more: dict[str, Any] = (
        {"ProvisionedPollerConfig": {"MinimumPollers": pollers, "MaximumPollers": 5}} if pollers else {}
    )
    it.mapping("orders", ministack_server.queue(), **more)
    cost = it.examine()["orders"]["idle-cost"]
    assert cost == ("note", f"while nothing comes: {calls} API calls a month (long polls of 20 s)", "")

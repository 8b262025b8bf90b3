"""Trouble that is not ours: the daemon waits, says so once, and goes on by itself (users.md section 3)."""

from __future__ import annotations

from itertools import pairwise

from bridge.local import free_port
from tests import servers
from tests.e2e.conftest import NewSite
from tests.e2e.faulty import FaultyServer
from tests.e2e.harness import Bridge, Site, say
from tests.servers import Server


def names(bridge: Bridge, mapping: str) -> list[str]:
    """What was said about a mapping's trouble, in order."""
    told = ("mapping_waits", "mapping_failed", "mapping_stalled", "mapping_recovered")
    return [line["event"] for line in bridge.log() if line["event"] in told and line["mapping"] == mapping]


def reason(bridge: Bridge, mapping: str) -> str:
    """Why it is not ready."""
    status, body = bridge.readiness()
    assert (status, body["ready"]) == (503, False)
    return str(body["mappings"][mapping]["reason"])


def test_a_queue_that_comes_later(site: Site) -> None:
    assert isinstance(site.server, Server)
    name = servers.unique("later")
    site.function()
    site.mapping(f"arn:aws:sqs:eu-west-1:123456789012:{name}", name="orders")
    site.mapping(other := site.queue(), name="bills")
    with site.start() as bridge:
        bridge.said("ready")
        (line,) = bridge.said("mapping_failed", mapping="orders")
        assert line["level"] == "error"
        assert "exception" not in line
        assert "NonExistentQueue" in reason(bridge, "orders") or "QueueDoesNotExist" in reason(bridge, "orders")
        other.send("nobody waits for the others")
        bridge.empties(other)
        bridge.until(lambda: bridge.metric("bridge_source_api_requests_total", op="GetQueueUrl") >= 4)
        queue = site.server.queue(name=name)
        (sent,) = queue.send("at last")
        bridge.empties(queue)
        bridge.until(lambda: bridge.readiness()[0] == 200)
        assert sent in site.journal.ids(name)
        assert names(bridge, "orders") == ["mapping_failed", "mapping_recovered"]


def test_a_queue_that_is_deleted_and_made_again(one_site: Site) -> None:
    """Not on ministack: a poll that is parked there never hears of the deletion, and ends 20 s later."""
    site = one_site
    assert isinstance(site.server, Server)
    queue = site.queue()
    site.function()
    site.mapping(queue, name="orders", BatchSize=1)
    with site.running() as bridge:
        queue.send("before")
        bridge.empties(queue)
        queue.api.delete_queue(QueueUrl=queue.url)
        bridge.until(lambda: bridge.readiness()[0] == 503)
        again = site.server.queue(name=queue.name, VisibilityTimeout="2")
        (sent,) = again.send("after")
        bridge.until(lambda: sent in site.journal.ids())
        bridge.empties(again)
        bridge.until(lambda: bridge.readiness()[0] == 200)
        assert names(bridge, "orders")[-1] == "mapping_recovered"


def test_an_endpoint_that_goes_away_and_comes_back(new_site: NewSite) -> None:
    port = free_port()
    with servers.roto(port) as server:
        site = new_site(server)
        queue = site.queue(visibility=30)
        site.function()
        site.mapping(queue, name="orders")
        bridge = site.running()
        queue.send(say(sleep=1.5))
        bridge.until(site.journal.invocations)
        server.process.kill()
    with bridge:
        bridge.until(lambda: bridge.readiness()[0] == 503)
        assert f"http://127.0.0.1:{port}" in reason(bridge, "orders")
        assert "does not answer" in reason(bridge, "orders")
        assert bridge.get("/healthz")[0] == 200
        with servers.roto(port) as server:
            again = server.queue(name=queue.name, VisibilityTimeout="2")
            (sent,) = again.send("after")
            bridge.until(lambda: sent in site.journal.ids())
            bridge.empties(again)
            bridge.until(lambda: bridge.readiness()[0] == 200)
            said = names(bridge, "orders")
            assert said[-1] == "mapping_recovered"
            assert len(said) <= 4, "it is said once"
            bridge.stop()


def test_passing_faults_are_no_news(faulty_site: Site, faulty_server: FaultyServer) -> None:
    queue = faulty_server.queue(visibility=30)
    faulty_site.function()
    faulty_site.mapping(queue, name="orders")
    with faulty_site.running() as bridge:
        queue.ask(queue.fake.refuse, "ReceiveMessage", "ThrottlingException", "InternalFailure")
        queue.ask(queue.fake.refuse, "DeleteMessageBatch", "ServiceUnavailable", "RequestThrottled")
        queue.ask(queue.fake.cut_off, "DeleteMessageBatch")
        sent = queue.send("a", "b")
        bridge.until(lambda: bridge.metric("bridge_esm_deleted_events_total") == 2)
        assert sorted(faulty_site.journal.ids()) == sorted(sent), "a delete that failed is not a second delivery"
        assert bridge.metric("bridge_esm_poll_errors_total", mapping="orders") == 2
        assert bridge.readiness()[0] == 200
        assert names(bridge, "orders") == []


def test_lasting_faults_are_said_once(faulty_site: Site, faulty_server: FaultyServer) -> None:  # SQS-81
    faults = ("ThrottlingException", "OverLimit", "InternalFailure", "ExpiredToken")
    queues = {code: faulty_server.queue(visibility=30) for code in faults}
    faulty_site.function()
    for code, queue in queues.items():
        faulty_site.mapping(queue, name=code)
    with faulty_site.running() as bridge:
        for code, queue in queues.items():
            queue.ask(queue.fake.refuse, "ReceiveMessage", *[code] * 1000)
        for code in faults:
            (line,) = bridge.said("mapping_waits", mapping=code)
            assert code in line["detail"]
            assert code in reason(bridge, code)
        for queue in queues.values():
            queue.ask(queue.fake.allow, "ReceiveMessage")
        sent = [name for queue in queues.values() for name in queue.send("goes on")]
        bridge.empties(*queues.values())
        bridge.until(lambda: bridge.readiness()[0] == 200)
        assert sorted(faulty_site.journal.ids()) == sorted(sent)
        for code, queue in queues.items():
            assert names(bridge, code) == ["mapping_waits", "mapping_recovered"]
            assert len(queue.fake.of("ReceiveMessage")) < 40, "it backs off"


def test_without_credentials(one_site: Site) -> None:
    one_site.function()
    one_site.mapping(queue := one_site.queue(), name="orders")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del one_site.env[name]
    queue.send("waits")
    with one_site.start() as bridge:
        bridge.said("ready")
        (line,) = bridge.said("mapping_failed", mapping="orders")
        for part in ("credentials", "AWS_ACCESS_KEY_ID", "aws.profile"):
            assert part in line["error"]
        assert "credentials" in reason(bridge, "orders")
        bridge.stop()
    assert queue.counts() == (1, 0)


# A server that breaks its own promises.


def test_a_second_delivery_does_not_run_beside_the_first(faulty_site: Site, faulty_server: FaultyServer) -> None:
    queue = faulty_server.queue(visibility=30)
    faulty_site.function()
    faulty_site.mapping(queue, name="orders", BatchSize=1)
    with faulty_site.running() as bridge:
        (sent,) = queue.send(say(sleep=1.5))
        bridge.until(faulty_site.journal.invocations)
        for _ in range(3):
            queue.ask(queue.fake.deliver_again, sent)
        (other,) = queue.send("goes on")
        bridge.empties(queue)
    assert sorted(faulty_site.journal.ids()) == sorted([sent, other])
    assert sorted(set(queue.fake.deleted)) == sorted([sent, other])


def test_a_locked_group_stays_locked(faulty_site: Site, faulty_server: FaultyServer) -> None:  # SQS-59
    queue = faulty_server.queue(visibility=30, fifo=True)
    queue.fake.ignores_groups = True
    faulty_site.function()
    faulty_site.mapping(queue, name="orders", BatchSize=1)
    with faulty_site.running() as bridge:
        sent = queue.send(*(say(sleep=0.2, n=n) for n in range(6)), group="g")
        bridge.empties(queue)
    runs = faulty_site.journal.invocations()
    assert [run.ids for run in runs] == [[name] for name in sent]
    assert all((run.ended or run.at) <= later.at for run, later in pairwise(runs))

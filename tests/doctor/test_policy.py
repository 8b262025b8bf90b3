"""The policy of `bridge iam-policy` against every call that the daemon and doctor really make: none is outside, and
nothing is allowed that nobody uses."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from bridge.commands import main
from bridge.local import free_port
from tests.doctor.clinic import Clinic, Stream, redriven, table
from tests.doctor.proxy import Call, Judge, Proxy
from tests.doctor.test_places import on_lambda
from tests.e2e.harness import Site, eventually
from tests.servers import ACCOUNT, REGION, Server, unique
from tests.sources.test_stream_clients import HELLO

Made = Callable[[str], Clinic]
START: dict[str, Any] = {"StartingPosition": "TRIM_HORIZON"}
HANDLER = """
import json, time

def handler(event, context):
    text = json.dumps(event)
    if "slow" in text:
        time.sleep(2)
    if "poison" in text or "cG9pc29u" in text:
        raise ValueError("poison")
"""


class Policy:
    """Evaluates a policy as IAM does, as far as there are only statements that allow."""

    def __init__(self, document: dict[str, Any]) -> None:
        assert document["Version"] == "2012-10-17"
        self.statements: list[dict[str, Any]] = document["Statement"]
        sids = [statement["Sid"] for statement in self.statements]
        assert len(set(sids)) == len(sids)
        assert all(sid.isalnum() for sid in sids)
        assert all(statement["Effect"] == "Allow" for statement in self.statements)

    def allows(self, action: str, resource: str) -> bool:
        return any(self._matches(statement, action, resource) for statement in self.statements)

    def unused(self, needed: Iterable[tuple[str, str]]) -> set[str]:
        """Actions and resources of statements that allow none of these."""
        left: set[str] = set()
        for statement in self.statements:
            used = [need for need in needed if self._matches(statement, *need)]
            left |= {it for it in statement["Action"] if it not in {action for action, _ in used}}
            left |= {it for it in statement["Resource"] if not any(fnmatchcase(resource, it) for _, resource in used)}
        return left

    @staticmethod
    def _matches(statement: dict[str, Any], action: str, resource: str) -> bool:
        return action in statement["Action"] and any(fnmatchcase(resource, it) for it in statement["Resource"])


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[list[Site]]:
    made: list[Site] = []
    yield made
    for site in made:
        site.close()


Said = pytest.CaptureFixture[str]


def told(capsys: Said, command: str, site: Site, *arguments: str) -> Any:
    """What a command prints, in this process: JSON."""
    status = main([command, "-c", str(site.write()), *arguments])
    out, err = capsys.readouterr()
    assert status in (0, 1), err
    return json.loads(out)


def policy_of(capsys: Said, site: Site, *arguments: str) -> Policy:
    return Policy(told(capsys, "iam-policy", site, *arguments))


def send_event(port: int, function: str, event: object) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    path = f"/2015-03-31/functions/{function}/invocations"
    connection.request("POST", path, json.dumps(event), {"X-Amz-Invocation-Type": "Event"})
    assert connection.getresponse().status == 202
    connection.close()


def everything(site: Site, server: Server) -> str:
    """A configuration with each kind of source, function and destination. Gives the ARN of the table's stream."""
    (site.folder / "app.py").write_text(HANDLER)
    code = {"Runtime": "python3.11", "Handler": "app.handler", "CodeUri": str(site.folder), "Timeout": 5}
    bucket = unique("bucket")
    server.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    topic = server.client("sns").create_topic(Name=unique("topic"))["TopicArn"]
    bus = server.client("events").create_event_bus(Name=unique("bus"))["EventBusArn"]
    letters, real = server.queue().arn, on_lambda(server)
    functions, once = site.config["functions"], {"MaximumRetryAttempts": 0}

    def ends(success: str, failure: str) -> dict[str, Any]:
        to = {"OnSuccess": {"Destination": success}, "OnFailure": {"Destination": failure}}
        return {"EventInvokeConfig": {**once, "DestinationConfig": to}}

    functions["worker"] = code
    functions["one"] = {**code, **ends(letters, topic)}
    functions["two"] = {**code, **ends(bus, f"arn:aws:s3:::{bucket}")}
    functions["three"] = {**code, **ends(real, letters), "DeadLetterConfig": {"TargetArn": server.queue().arn}}
    functions["remote"] = {"lambda": real, "Timeout": 5}
    stream = Stream(server)
    stream.put('{"poison": 1}', '{"good": 1}')
    users = table(server, items=3)
    orders = site.queue(visibility=1, dead_after=5)
    orders.send("slow", "good")
    far = site.queue(visibility=10)
    far.send("good")
    failed: dict[str, Any] = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": letters}}}
    site.mapping(orders, "worker", name="orders")
    site.mapping(far, "remote", name="far")
    site.mapping(stream.arn, "worker", name="clicks", **START, **failed, BatchSize=1)
    site.mapping(users, "worker", name="users", **START)
    return users


def test_the_daemon_and_doctor_stay_inside_and_need_all_of_it(
    tmp_path: Path, capsys: Said, sites: list[Site], ministack_server: Server
) -> None:
    server = ministack_server
    with Proxy(server.url) as proxy:
        site = Site(tmp_path / "site", server)
        sites.append(site)
        judge = Judge(everything(site, server))
        site.config["aws"]["endpoint_url"] = proxy.url
        port = free_port()
        site.config["api"] = {"listen": f"127.0.0.1:{port}"}
        # What a role does is another identity's: the daemon only assumes it.
        role = f"arn:aws:iam::{ACCOUNT}:role/elsewhere"
        site.mapping(site.queue().arn, "worker", name="elsewhere", aws={"role_arn": role})
        policy, whole, roles = (
            policy_of(capsys, site),
            policy_of(capsys, site, "--for", "run"),
            policy_of(capsys, site, "--role", role),
        )
        del proxy.calls[:]
        with site.start() as bridge:
            bridge.said("started")
            for function in ("one", "two", "three"):
                send_event(port, function, "good")
                send_event(port, function, "poison")
            bridge.until(lambda: not whole.unused(mine(proxy.calls, judge)), every=0.2)
            bridge.until(lambda: not roles_missing(proxy.calls))
            daemon = mine(proxy.calls, judge)
            beside = told(capsys, "doctor", site, "--json", "--admin", bridge.url)
        codes = {row["code"] for row in beside if row["mapping"] != "elsewhere"}
        assert {"idle-cost", "no-retry-bound", "burn-budget-short"} <= codes
        assert codes & {"other-consumers", "not-polling", "call-failed", "permission-missing"} == set()
        assert [need for need in daemon if not whole.allows(*need)] == []
        assert whole.unused(daemon) == set()
        before = len(proxy.calls)
        codes = {row["code"] for row in told(capsys, "doctor", site, "--json")}
        assert codes & {"permission-missing", "call-failed"} == set()
        looked = {judge.needs(call)[0].partition(":")[2] for call in proxy.calls[before:]}
        assert [action for action in looked if not action.startswith(("Get", "List", "Describe", "Assume"))] == []
        needed = mine(proxy.calls, judge)
        assert [need for need in needed if not policy.allows(*need)] == []
        assert policy.unused(needed) == set()
        theirs = {judge.needs(call) for call in proxy.calls if call.key != ACCOUNT}
        assert theirs
        assert [need for need in theirs if not roles.allows(*need)] == []


def roles_missing(calls: list[Call]) -> bool:
    return not any(call.key != ACCOUNT for call in calls)


def mine(calls: list[Call], judge: Judge) -> set[tuple[str, str]]:
    """What the calls of our own identity need."""
    return {judge.needs(call) for call in tuple(calls) if call.key == ACCOUNT}


def test_a_consumer_of_its_own_is_not_polled(
    tmp_path: Path, capsys: Said, sites: list[Site], kinesis_local_server: Server
) -> None:  # KIN-100
    with Proxy(kinesis_local_server.url) as proxy:
        proxy.prefaces["SubscribeToShard"] = HELLO  # the one thing that keeps SDKs from reading its stream of events
        site = Site(tmp_path / "site", kinesis_local_server)
        sites.append(site)
        api, name = kinesis_local_server.client("kinesis"), unique("stream")
        api.create_stream(StreamName=name, ShardCount=1)
        stream = eventually(lambda: active(api, name))
        made = api.register_stream_consumer(StreamARN=stream, ConsumerName="own")["Consumer"]["ConsumerARN"]
        site.config["aws"]["endpoint_url"] = proxy.url
        site.function()
        site.mapping(made, name="clicks", **START)
        run, policy = policy_of(capsys, site, "--for", "run"), policy_of(capsys, site)
        judge = Judge(consumers={(stream, "own"): made})
        with site.running() as bridge:
            bridge.until(lambda: not run.unused(mine(proxy.calls, judge)))
        assert [need for need in mine(proxy.calls, judge) if not run.allows(*need)] == []
        assert not run.allows("kinesis:GetRecords", stream)
        told(capsys, "doctor", site, "--json")
        needed = {need for need in mine(proxy.calls, judge) if need[0] != "lambda:ListEventSourceMappings"}
        assert [need for need in needed if not policy.allows(*need)] == []


def active(api: Any, name: str) -> str:
    summary = api.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    return str(summary["StreamARN"]) if summary["StreamStatus"] == "ACTIVE" else ""


def test_the_same_configuration_gives_the_same_text(clinic: Made, ministack_server: Server) -> None:
    it = clinic(ministack_server.url)
    for name in ("b", "a"):
        it.mapping(name, ministack_server.queue(**redriven(ministack_server, 5)))
    status, first, _ = it.run("iam-policy")
    it.config["mappings"] = dict(reversed(it.config["mappings"].items()))
    assert (status, it.run("iam-policy")[1]) == (0, first)
    document = json.loads(first)
    sids = [statement["Sid"] for statement in document["Statement"]]
    assert sids == sorted(sids)
    assert all(statement["Resource"] == sorted(statement["Resource"]) for statement in document["Statement"])
    assert all("*" not in one for it in document["Statement"][1:] for one in it["Action"])


def test_replay_stays_inside(tmp_path: Path, capsys: Said, sites: list[Site], roto_server: Server) -> None:
    with Proxy(roto_server.url) as proxy:
        site = Site(tmp_path / "site", roto_server)
        sites.append(site)
        site.config["aws"]["endpoint_url"] = proxy.url
        site.function()
        orders = site.queue(visibility=30, dead_after=5)
        site.mapping(orders, name="orders")
        site.letters_of(orders).send("one", "two")
        policy = policy_of(capsys, site, "--for", "replay")
        del proxy.calls[:]
        replay = ["replay", "--dlq", "orders", "-c", str(site.write())]
        assert main([*replay, "--peek"]) == 0
        assert main([*replay, "--yes", "--journal", str(tmp_path / "journal")]) == 0
    # All may ask who they are; and at a server without ListDeadLetterSourceQueues each queue is looked at.
    judged = [Judge().needs(call) for call in proxy.calls if call.operation not in ("GetCallerIdentity", "ListQueues")]
    ours = (orders.arn, site.letters_of(orders).arn)
    assert {action for action, queue in judged if queue not in ours} <= {"sqs:GetQueueUrl", "sqs:GetQueueAttributes"}
    needed = {need for need in judged if need[1] in ours}
    assert {action for action, _ in needed} >= {"sqs:ReceiveMessage", "sqs:SendMessage", "sqs:DeleteMessage"}
    assert [need for need in needed if not policy.allows(*need)] == []
    tasks = {"sqs:StartMessageMoveTask", "sqs:ListMessageMoveTasks", "sqs:CancelMessageMoveTask"}
    assert policy.unused(needed) <= tasks, "beyond what --native takes"

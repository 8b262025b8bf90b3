"""``bridge replay`` hands letters to functions, by itself and through a running daemon: real handlers and servers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge import local
from tests.e2e import processes
from tests.e2e.conftest import NewSite, new_site
from tests.e2e.harness import ASK_EVERY, Site
from tests.e2e.streams import Stream, mapped, numbers, order, stream_site
from tests.servers import REGION, Server, unique

__all__ = ["new_site"]


def replayed(site: Site, *arguments: str) -> list[dict[str, Any]]:
    """What the command says about each letter."""
    done = site.cli("replay", *arguments, "-c", str(site.file), "--yes", "--json")
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]


def test_story_e(new_site: NewSite, ministack_server: Server, kinesalite_server: Server) -> None:
    """A pointer to a record of a shard that is closed by now, to another function, without any daemon."""
    site = stream_site(new_site(ministack_server))
    stream, letters = Stream(kinesalite_server), ministack_server.queue()
    options = {
        "BatchSize": 1,
        "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnFailure": {"Destination": letters.arn}},
    }
    clicks = mapped(site, stream, **options)
    site.function("fixed", Handler="actor.stream")
    bad = site.folder / "bad"
    bad.touch()
    with site.running() as bridge:
        stream.put(order(1), order(2, raises=str(bad)), order(3), key="k")
        bridge.until(lambda: stream.seen(site) == [1, 3], every=ASK_EVERY)
        bridge.until(lambda: letters.counts() == (1, 0), every=ASK_EVERY)
    stream.split()
    bad.unlink()
    (sent,) = replayed(site, "--dlq", clicks, "--to", "function:fixed", "--since", "02:00")
    assert (sent["outcome"], sent["kind"], sent["target"].rpartition(":")[2]) == ("sent", "pointer", "fixed")
    run = stream.runs(site)[-1]
    assert (run.function, numbers([run])) == ("fixed", [[2]])
    assert letters.counts() == (0, 0)


def test_through_the_daemon(new_site: NewSite, ministack_server: Server) -> None:
    """Stored batches of a bucket and asynchronous events of a queue, each to its own function."""
    site = stream_site(new_site(ministack_server))
    stream, letters, bucket = Stream(ministack_server), ministack_server.queue(), unique("failures")
    s3 = ministack_server.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    site.config["api"] = {"listen": f"127.0.0.1:{local.free_port()}"}
    on_failure = {"OnFailure": {"Destination": f"arn:aws:s3:::{bucket}"}}
    clicks = mapped(site, stream, MaximumRetryAttempts=0, DestinationConfig=on_failure)
    given_up = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": letters.arn}}}
    site.function("teller", Handler="actor.stream", EventInvokeConfig=given_up)
    bad = site.folder / "bad"
    bad.touch()
    change = {"NewImage": {"order": {"S": order(9, raises=str(bad))}}, "SequenceNumber": "7"}
    event = {"Records": [{"dynamodb": change, "eventSourceARN": "of nobody"}]}
    with site.running() as bridge:
        stream.put(order(1, raises=str(bad)), order(2), key="k")
        site.cli("invoke", "teller", "--async", "-e", "-", "-c", str(site.file), given=json.dumps(event))
        bridge.until(lambda: letters.counts() == (1, 0), every=ASK_EVERY)
        bridge.until(lambda: s3.list_objects_v2(Bucket=bucket).get("KeyCount"), every=ASK_EVERY)
        bad.unlink()
        (sent,) = replayed(site, "--dlq", clicks)
        assert (sent["outcome"], sent["kind"]) == ("sent", "object")
        run = stream.runs(site)[-1]
        assert (numbers([run]), run.function) == ([[1, 2]], "streamer")
        assert run.pid in {it.pid for it in processes.descendants(bridge.pid)}  # the daemon ran it
        assert not s3.list_objects_v2(Bucket=bucket).get("KeyCount")
        bare = new_site(ministack_server, "elsewhere")  # without a configuration
        api = ("--api", site.config["api"]["listen"], "--region", REGION)
        done = bare.cli("replay", "--dlq", letters.url, *api, "--yes", "--json")
        sent = json.loads(done.out)
        assert (sent["outcome"], sent["kind"]) == ("sent", "async")
        assert [it.records for it in site.journal.invocations() if it.function == "teller"] == [event["Records"]] * 2
        assert letters.counts() == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "function"), "name the daemon's API with --api URL, or the configuration with -c FILE"),
        (("--to", "function:worker", "--api", "127.0.0.1:1"), "is the daemon running, with api.listen set?"),
    ],
)
def test_without_a_configuration(
    new_site: NewSite, ministack_server: Server, arguments: tuple[str, ...], said: str
) -> None:
    site, letters = new_site(ministack_server), ministack_server.queue()
    told = site.cli("replay", "--dlq", letters.url, "--region", REGION, *arguments, "--yes")
    assert told.status in (1, 2)
    assert said in told.err
    assert len(told.lines) == 1

"""Dead letters on the dashboard of a real daemon: found, looked at with the reason of their death, tried dry, replayed
to their queue and to their function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from bridge.local import free_port
from tests.e2e.conftest import NewSite
from tests.e2e.harness import Bridge, Site
from tests.e2e.streams import Stream, mapped
from tests.servers import Server, unique

HANDLER = """
import pathlib

def handler(event, context):
    place = pathlib.Path(__file__).parent
    if not (place / "fixed").exists():
        print("looking for", sorted(event))
        raise ValueError("not fixed")
    (place / "done" / context.aws_request_id).write_text(repr(event))
"""


def code(folder: Path) -> Path:
    """A function that fails until it is fixed."""
    (folder / "done").mkdir(parents=True)
    (folder / "app.py").write_text(HANDLER)
    return folder


def post(bridge: Bridge, path: str, **body: Any) -> list[Any]:
    """The lines of the answer."""
    headers = {"Content-Type": "application/json", "X-Bridge": "test"}
    request = Request(f"{bridge.url}{path}", json.dumps(body).encode(), headers, method="POST")
    with urlopen(request, timeout=30) as answer:
        return [json.loads(line) for line in answer]


def test_a_message_is_sent_back_to_its_queue_once_the_function_is_fixed(one_site: Site) -> None:
    folder = code(one_site.folder / "code")
    queue = one_site.queue(visibility=1, dead_after=1)
    name = one_site.mapping(queue, one_site.function(code=folder, Handler="app.handler"))
    letters = one_site.letters_of(queue)
    with one_site.running() as bridge:
        (sent,) = queue.send('{"order": 7}')
        bridge.until(lambda: letters.counts()[0] == 1)
        ((place,),) = post(bridge, "/letters")
        assert (place["arn"], place["of"], place["waiting"]) == (letters.arn, [name], 1)
        (looked,) = post(bridge, "/letters/peek", place=letters.arn, most=1)
        (letter,) = looked["letters"]
        assert (letter["id"], letter["body"], letter["kind"]) == (sent, '{"order": 7}', "plain")
        (attempt,) = letter["attempts"]
        assert (attempt["error_type"], attempt["message"]) == ("ValueError", "not fixed")
        assert "looking for" in attempt["log_tail"]
        assert letter["expires_at"] > letter["at"]
        assert queue.name in looked["target"]
        (folder / "fixed").touch()
        dry = post(bridge, "/letters/replay", place=letters.arn, ids=[sent])[-1]["summary"]
        assert [fate["what"] for fate in dry["fates"]] == ["would_send"]
        assert letters.counts()[0] == 1
        end = post(bridge, "/letters/replay", place=letters.arn, ids=[sent], dry_run=False)[-1]["summary"]
        assert [fate["what"] for fate in end["fates"]] == ["sent"]
        bridge.until(lambda: list((folder / "done").iterdir()))
        bridge.empties(queue, letters)
        (journal,) = (one_site.folder / "replay").glob("*.jsonl")
        assert journal.stat().st_mode & 0o777 == 0o600
        assert "order" not in journal.read_text()
    assert '{"order": 7}' not in json.dumps(bridge.log())


def test_a_record_of_an_asynchronous_event_goes_to_its_function_in_this_daemon(one_site: Site) -> None:
    folder = code(one_site.folder / "code")
    ends = one_site.queue()
    one_site.config["api"] = {"listen": "127.0.0.1:0", "auth": "none"}
    invoke = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": ends.arn}}}
    one_site.function("worker", code=folder, Handler="app.handler", EventInvokeConfig=invoke)
    with one_site.running() as bridge:
        (started,) = bridge.said("started")
        one_site.cli(
            "invoke", "worker", "-e", "-", "--async", "--api", f"http://{started['api']}", given='{"event": 1}'
        )
        bridge.until(lambda: ends.counts()[0] == 1)
        (looked,) = post(bridge, "/letters/peek", place=ends.arn, most=1)
        (letter,) = looked["letters"]
        assert letter["kind"] == "async"
        assert "not fixed" in letter["reason"]
        assert letter["attempts"][0]["error_type"] == "ValueError"
        ids = [letter["id"]]
        failed = post(bridge, "/letters/replay", place=ends.arn, ids=ids, dry_run=False)[-1]["summary"]
        assert [fate["what"] for fate in failed["fates"]] == ["failed"]
        (folder / "fixed").touch()
        done = post(bridge, "/letters/replay", place=ends.arn, ids=ids, dry_run=False)[-1]["summary"]
        assert [fate["what"] for fate in done["fates"]] == ["sent"]
        (event,) = (folder / "done").iterdir()
        assert event.read_text() == "{'event': 1}"
        bridge.empties(ends)


def test_a_pointer_is_read_again_from_its_shard(
    new_site: NewSite, roto_server: Server, kinesalite_server: Server
) -> None:
    site = new_site(roto_server)
    folder = code(site.folder / "code")
    site.function("streamer", code=folder, Handler="app.handler")
    stream, told = Stream(kinesalite_server), site.queue()
    (number,) = stream.put('{"click": 3}')
    name = mapped(
        site,
        stream,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": told.arn}},
    )
    with site.running() as bridge:
        bridge.until(lambda: told.counts()[0] == 1)
        ((place,),) = post(bridge, "/letters")
        assert (place["arn"], place["of"]) == (told.arn, [name])
        (looked,) = post(bridge, "/letters/peek", place=told.arn, most=1)
        (letter,) = looked["letters"]
        assert letter["kind"] == "pointer"
        assert "RetryAttemptsExhausted" in letter["reason"]
        assert letter["attempts"][0]["error_type"] == "ValueError"
        assert "streamer" in looked["target"]
        (folder / "fixed").touch()
        end = post(bridge, "/letters/replay", place=told.arn, ids=[letter["id"]], dry_run=False)[-1]["summary"]
        assert [fate["what"] for fate in end["fates"]] == ["sent"]
        (event,) = (folder / "done").iterdir()
        assert number in event.read_text()
        bridge.empties(told)


def test_stored_failures_and_places_that_cannot_be_asked(new_site: NewSite, ministack_server: Server) -> None:
    site = new_site(ministack_server)
    folder = code(site.folder / "code")
    bucket = unique("bucket")
    ministack_server.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    site.config["api"] = {"listen": "127.0.0.1:0", "auth": "none"}
    stored = {"OnFailure": {"Destination": f"arn:aws:s3:::{bucket}"}}
    invoke = {"MaximumRetryAttempts": 0, "DestinationConfig": stored}
    site.function("worker", code=folder, Handler="app.handler", EventInvokeConfig=invoke)
    nowhere = {"endpoint_url": f"http://127.0.0.1:{free_port()}"}
    lost = site.mapping("arn:aws:sqs:eu-west-1:123456789012:lost", "worker", aws=nowhere)
    with site.start() as bridge:
        (started,) = bridge.said("started")
        site.cli("invoke", "worker", "-e", "-", "--async", "--api", f"http://{started['api']}", given='{"event": 1}')
        bridge.said("report_sent")
        ((place, unknown),) = post(bridge, "/letters")
        assert (place["of"], place["waiting"], place["trouble"]) == (["function worker"], 1, "")
        assert place["arn"] == f"s3://{bucket}/aws/lambda/async/worker/"
        assert (unknown["arn"], unknown["of"], unknown["waiting"]) == ("", [lost], None)
        assert unknown["trouble"]
        (looked,) = post(bridge, "/letters/peek", place=place["arn"])
        (letter,) = looked["letters"]
        assert letter["attempts"][0]["error_type"] == "ValueError"
        (folder / "fixed").touch()
        end = post(bridge, "/letters/replay", place=place["arn"], ids=[letter["id"]], dry_run=False)[-1]["summary"]
        assert [fate["what"] for fate in end["fates"]] == ["sent"]
        (event,) = (folder / "done").iterdir()
        assert event.read_text() == "{'event': 1}"
        assert post(bridge, "/letters/peek", place=place["arn"]) == [{**looked, "letters": []}]
        with pytest.raises(HTTPError) as refused:
            post(bridge, "/letters/peek", place=f"s3://{bucket}/")
        with refused.value as answer:
            assert answer.code == 404

"""Who runs functions: what is asked of an API, and what is said where nobody does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.aws import Aws, Credentials
from bridge.errors import RemoteError, Unreachable, UsageError
from bridge.function import AwsSettings, Function
from bridge.invocation import Failed, Succeeded
from bridge.mapping import StreamOptions
from bridge.replay.callers import ApiCaller, OwnCaller, checked_url, shown_url, told_mapping
from bridge.replay.functions import NEITHER, to_function
from bridge.settings import load
from tests.e2e.conftest import NewSite, new_site

__all__ = ["new_site"]

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws_keys")]


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("127.0.0.1:3001", "http://127.0.0.1:3001"),
        ("http://[::1]:3001/", "http://[::1]:3001/"),
        ("https://lambda.eu-west-1.amazonaws.com", "https://lambda.eu-west-1.amazonaws.com"),
    ],
)
async def test_addresses(given: str, whole: str) -> None:
    assert checked_url(given) == whole


@pytest.mark.parametrize("given", ["ftp://x", "http://", "http://x:port", "http://x:99999", "", "://"])
async def test_what_is_no_address(given: str) -> None:
    with pytest.raises(UsageError, match="is no address of an API"):
        checked_url(given)


async def test_no_secret_of_an_address_is_shown() -> None:
    assert shown_url("http://me:secret@127.0.0.1:3001/x") == "http://127.0.0.1:3001"
    assert "secret" not in ApiCaller("http://me:secret@127.0.0.1:3001", AwsSettings()).what


@pytest.mark.parametrize("arn", [None, "", "orders", "arn:aws:kafka:eu-west-1:123456789012:cluster/c/1"])
async def test_mappings_of_other_kinds_are_not_looked_at(arn: str | None) -> None:
    assert told_mapping({"EventSourceArn": arn, "FunctionArn": "f", "UUID": "u"}) is None


async def test_nobody_runs_functions() -> None:
    async with Aws() as aws:
        with pytest.raises(UsageError) as told:
            await to_function(aws, None, AwsSettings(), shelf="")
    assert str(told.value) == NEITHER


def a_site(new_site: NewSite, **api: Any) -> Any:
    site = new_site()
    site.config["api"] = {"listen": "127.0.0.1:0", **api}
    stream = {"StartingPosition": "LATEST", "BatchSize": 7, "TumblingWindowInSeconds": 9}
    pattern = {"Filters": [{"Pattern": '{"data": {"a": [1]}}'}]}
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
    site.mapping(arn, "echo:3", name="clicks", partial=True, FilterCriteria=pattern, Enabled=False, **stream)
    site.mapping("arn:aws:sqs:eu-west-1:123456789012:orders", "echo", name="orders", Enabled=False)
    site.function(
        "echo", code=site.folder, Handler="echo.handler", Timeout=7, versions={"3": {"CodeUri": str(site.folder)}}
    )
    (site.folder / "echo.py").write_text(
        "def handler(event, context):\n"
        "    if event == 'raise':\n"
        "        raise ValueError('told to')\n"
        "    return event\n"
    )
    return site


async def test_a_daemons_api(new_site: NewSite) -> None:  # INV-1, INV-20
    site = a_site(new_site, auth="sigv4", access_keys={"AKIDOFTHEBRIDGE": "a-secret"})
    with site.running() as bridge:
        (started,) = bridge.said("started")
        url, settings = f"http://{started['api']}", AwsSettings(region="eu-west-1")
        file = load(str(site.file), {}, ())
        assert file.api_port is not None
        async with ApiCaller(url, settings) as stranger:
            with pytest.raises(RemoteError, match="UnrecognizedClientException"):
                await stranger.find("echo", "")
        async with ApiCaller(url, settings, keys=Credentials("AKIDOFTHEBRIDGE", "a-secret")) as caller:
            assert await caller.answers()
            function = await caller.find("echo", "")
            assert (function.name, function.timeout, function.arn.rpartition(":")[2]) == ("echo", 7.0, "echo")
            for qualifier in ("", "3"):
                done = await caller.invoke(function, b'{"a": 1.50}', qualifier, mapping="m", trace="")
                assert isinstance(done, Succeeded)
                assert (json.loads(done.payload), done.version) == ({"a": 1.5}, qualifier or "$LATEST")
            failed = await caller.invoke(function, b'"raise"', "", mapping="m", trace="")
            assert isinstance(failed, Failed)
            assert (failed.kind, json.loads(failed.error)["errorType"]) == ("function", "ValueError")
            told = {it.uuid: it for it in await caller.mappings()}
            for name, mapping in file.mappings.items():
                learnt = told[mapping.uuid]
                assert learnt.stream == (None if name == "orders" else StreamOptions(tumbling_window=9.0))
                assert (learnt.source_arn, learnt.function, learnt.qualifier, learnt.batch_size) == (
                    mapping.source_arn, mapping.function, mapping.qualifier, mapping.batch_size,
                )  # fmt: skip
                assert (learnt.partial, [json.loads(it) for it in learnt.patterns]) == (
                    mapping.partial, [json.loads(it) for it in mapping.patterns],
                )  # fmt: skip
            with pytest.raises(UsageError, match="has no such function"):
                await caller.find("ech", "")
    async with ApiCaller(url, settings) as nobody:
        assert not await nobody.answers()
        with pytest.raises(Unreachable, match=r"is the daemon running, with api\.listen set"):
            await nobody.find("echo", "")


async def test_this_process(new_site: NewSite) -> None:
    site = a_site(new_site)
    settings = load(str(site.write()), site.env, ())
    lines: list[str] = []

    def keep(line: str, **_: str) -> None:
        lines.append(line)

    async with Aws() as aws, OwnCaller(settings.functions, settings.file, aws, keep) as caller:
        function = await caller.find("echo", "3")
        done = await caller.invoke(function, b"[1, 2]", "3", mapping="", trace="")
        assert isinstance(done, Succeeded)
        assert json.loads(done.payload) == [1, 2]
        failed = await caller.invoke(function, b'"raise"', "", mapping="", trace="")
        assert isinstance(failed, Failed)
        assert any("ValueError: told to" in line for line in lines)
    assert not site.left()


async def test_one_that_can_never_run_is_told(tmp_path: Path) -> None:
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:f"
    function = Function(name="f", arn=arn, kind="provided", code=tmp_path)
    async with Aws() as aws, OwnCaller({"f": function}, "bridge.yaml", aws) as caller:
        with pytest.raises(UsageError, match="bootstrap"):
            await caller.invoke(function, b"1", "", mapping="", trace="")

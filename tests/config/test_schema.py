"""The committed schema, the commented example and the small examples agree with the declared options."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bridge.config.options import Options
from bridge.config.reader import metas, options_of, section_type
from bridge.config.schema import example, schema
from bridge.settings import load
from tests.configured import HOME
from tests.conftest import missing

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLE = CONFIG / "bridge.example.yaml"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))
STREAM_KEYS = {
    "StartingPosition", "StartingPositionTimestamp", "ParallelizationFactor", "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError", "TumblingWindowInSeconds", "on_delivery_failure",
    "DestinationConfig", "kpl_deaggregation", "arn_in_events",
}  # fmt: skip
ENVIRON = {**HOME, "BRIDGE_ADMIN_TOKEN": "secret"}


def options(model: type[msgspec.Struct] = Options) -> Iterator[tuple[str, Any]]:
    """Every declared option, however deep: its key and its declaration."""
    for key, type_ in options_of(model).items():
        yield key, type_
        section = section_type(type_)
        inner = section.__args__[1] if hasattr(section, "__args__") else section
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield from options(inner)


def sentence(type_: Any) -> str:
    return " ".join(meta.description for meta in metas(type_) if meta.description)


@pytest.fixture(scope="module")
def validator() -> Any:
    try:
        jsonschema: Any = import_module("jsonschema")
    except ImportError:
        missing("jsonschema")
    parsed = json.loads(schema())
    jsonschema.Draft202012Validator.check_schema(parsed)
    return jsonschema.Draft202012Validator(parsed)


def test_each_option_has_its_sentence() -> None:
    for key, type_ in options():
        assert sentence(type_)[:1].isupper(), f"{key} is declared without a sentence"
        assert sentence(type_).endswith("."), key


class TestSchema:
    def test_the_committed_one_is_current(self) -> None:
        assert (CONFIG / "bridge.schema.json").read_text() == schema(), (
            "run: bridge config-schema > config/bridge.schema.json"
        )

    def test_it_names_every_option(self) -> None:
        text = schema()
        assert all(f'"{key}"' in text for key, _ in options())

    @pytest.mark.parametrize("file", [EXAMPLE, *EXAMPLES], ids=lambda file: file.stem)
    def test_the_examples_fit(self, validator: Any, file: Path) -> None:
        document = yaml.safe_load(
            file.read_text().replace("${BRIDGE_ADMIN_TOKEN}", "x").replace("${USERS_BATCH_SIZE:-10}", "10")
        )
        assert [error.message for error in validator.iter_errors(document)] == []

    @pytest.mark.parametrize(
        "text",
        [
            "unknown: 1", "admin: on", "log: {level: loud}", "max_buffered_bytes: 3XiB", "shutdown_grace: -1",
            "functions: {a b: {Runtime: python3.11, Handler: a.b, CodeUri: .}}",
            "functions: {a: {Handler: a.b, CodeUri: .}}",
            "mappings: {m: {FunctionName: f}}", "mappings: {m: {EventSourceArn: a}}",
            "mappings: {m: {FunctionName: f, EventSourceArn: a, BatchSize: 10001}}",
            "mappings: {m: {FunctionName: f, EventSourceArn: a, ScalingConfig: {MaximumConcurrency: 1}}}",
            "mappings: {m: {FunctionName: f, EventSourceArn: a, StartingPosition: OLDEST}}",
            "mappings: {m: {FunctionName: f, EventSourceArn: a, ParallelizationFactor: 11}}",
            "mappings: {m: {FunctionName: f, EventSourceArn: a, on_delivery_failure: wait}}",
        ],
    )  # fmt: skip
    def test_what_is_wrong_does_not(self, validator: Any, text: str) -> None:
        assert not validator.is_valid(yaml.safe_load(text))

    @pytest.mark.parametrize(
        "text",
        ["admin: off", "admin: 'off'", "{}", "mappings: {m: {FunctionArn: f, EventSourceArn: a, LastModified: 1}}"],
    )
    def test_what_is_right_does(self, validator: Any, text: str) -> None:
        assert validator.is_valid(yaml.safe_load(text))


class TestExample:
    def test_the_committed_one_is_current(self) -> None:
        assert EXAMPLE.read_text() == example(), "run: bridge config-schema --example > config/bridge.example.yaml"

    def test_it_has_every_option(self) -> None:
        lines = [line.strip().removeprefix("# ") for line in EXAMPLE.read_text().splitlines()]
        text = "\n".join(lines)
        for key, _ in options():
            assert any(line.startswith(f"{key}:") for line in lines) or f"{{{key}:" in text or f", {key}:" in text, key

    def test_each_comes_after_its_sentence(self) -> None:
        text = " ".join(line.strip().lstrip("# ") for line in EXAMPLE.read_text().splitlines())
        words = " ".join(text.split())
        for key, type_ in options():
            assert sentence(type_) in words, key

    def test_it_loads_without_advice(self) -> None:
        loaded = load(EXAMPLE, ENVIRON)
        assert list(loaded.mappings) == ["orders"]
        assert loaded.functions["my-worker"].code == CONFIG / "examples" / "handlers"

    def test_each_line_can_be_uncommented_by_itself(self, tmp_path: Path) -> None:
        lines = EXAMPLE.read_text().splitlines()
        known = {key for key, _ in options()}
        (tmp_path / "examples").symlink_to(CONFIG / "examples")
        tried = 0
        for number, line in enumerate(lines):
            bare = line.replace("# ", "", 1)
            if bare == line or bare.strip().partition(":")[0] not in known or line.lstrip().startswith("#   "):
                continue
            if bare.strip().startswith("python:"):
                bare = bare.replace("/srv/app/.venv/bin/python", "sh")
            if bare.strip().startswith("token_file:"):
                (tmp_path / "token").write_text("hush")
                bare = bare.partition(":")[0] + f": {tmp_path / 'token'}"
            text = "\n".join([*lines[:number], bare, *lines[number + 1 :]])
            key = bare.strip().partition(":")[0]
            if key in ("url", "lambda", "headers", "verify", "ca_file"):  # in place of a runtime
                text = re.sub(r"^    (Runtime|Handler|CodeUri):.*", "", text, flags=re.MULTILINE)
            if key in ("headers", "verify", "ca_file"):
                text = text.replace("    # url: http:", "    url: https:")
            if key == "aliases":
                text = text.replace("# versions:", "versions:")
            if key in STREAM_KEYS:  # on a mapping of a stream
                start = "AT_TIMESTAMP" if key == "StartingPositionTimestamp" else "LATEST"
                besides = "" if key == "StartingPosition" else f"    StartingPosition: {start}\n"
                told = "    DestinationConfig: {OnFailure: {Destination: 'arn:aws:s3:::given-up'}}\n"
                besides += told if key == "on_delivery_failure" else ""
                consumer = "/consumer/bridge" if key == "arn_in_events" else ""
                text = text.replace(
                    "    EventSourceArn: arn:aws:sqs:eu-west-1:123456789012:my-queue\n",
                    f"    EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream/clicks{consumer}\n{besides}",
                )
            if bare.strip().startswith("BatchSize: 100"):
                text = text.replace("# MaximumBatchingWindowInSeconds", "MaximumBatchingWindowInSeconds")
            file = tmp_path / "bridge.yaml"
            file.write_text(text)
            assert load(file, HOME).mappings, bare
            tried += 1
        assert tried >= 30


class TestSmallExamples:
    @pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
    def test_each_loads_without_advice(self, file: Path) -> None:
        loaded = load(file, ENVIRON)
        own_version = [line for line in loaded.warnings if "the handler will run under python" not in line]
        assert own_version == []
        assert loaded.mappings
        here = [function for function in loaded.functions.values() if function.runtime]
        assert all(function.code == CONFIG / "examples" / "handlers" for function in here)

    def test_they_show_what_they_say(self) -> None:
        loaded = {file.stem: load(file, ENVIRON) for file in EXAMPLES}
        assert len(loaded["filter"].mappings["orders"].patterns) == 2
        assert loaded["fifo"].mappings["payments"].source_arn.resource.endswith(".fifo")
        assert loaded["batching-window"].mappings["clicks"].window == 20
        assert loaded["partial-responses"].mappings["orders"].partial
        assert loaded["concurrency"].mappings["bulk"].maximum_concurrency == 5
        assert loaded["provisioned-pollers"].mappings["orders"].maximum_pollers == 50
        endpoints = {mapping.aws.endpoint_url for mapping in loaded["endpoints"].mappings.values()}
        assert len(endpoints) == 3
        assert loaded["environment-variables"].functions["worker"].environment["GREETING"] == "costs $5"
        assert loaded["admin-token"].admin_token == "secret"
        assert loaded["pasted-from-aws"].notices
        assert loaded["minimal"].mappings
        streams = {file: mapping.stream for file, it in loaded.items() for mapping in it.mappings.values()}
        bisect, windows, lanes = streams["bisect"], streams["tumbling-window"], streams["parallelization"]
        assert bisect
        assert (bisect.bisect, bisect.block) == (True, True)
        assert windows
        assert windows.tumbling_window == 60
        assert lanes
        assert (lanes.lanes, lanes.starting_timestamp) == (4, 1768469400)
        assert loaded["kinesis"].mappings["clicks"].source == "kinesis"
        assert loaded["dynamodb"].mappings["new-users"].source == "dynamodb"
        assert "/consumer/" in loaded["fan-out"].mappings["clicks"].source_arn.resource
        assert loaded["versions"].mappings["orders"].qualifier == "live"
        assert loaded["versions"].functions["worker"].aliases["live"].weights == {"2": 0.1}
        functions = loaded["functions-elsewhere"].functions
        assert [function.kind for function in functions.values()] == ["url", "url", "lambda"]

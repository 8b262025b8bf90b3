"""The settings as a whole: where the file is found, defaults, addresses, state, advice, and that nothing breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings as hypothesis_settings, strategies as st

from bridge.config.options import Options
from bridge.config.options_functions import FunctionOptions
from bridge.config.options_mappings import MappingOptions
from bridge.config.reader import options_of
from bridge.errors import ConfigError
from bridge.settings import find, load
from bridge.stores import StateUrl
from tests.configured import HOME, QUEUE, RUNTIME, WORKER, mapped, problem, problems, settings, warnings, write


class TestFile:
    def test_a_named_one_is_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, mapped())
        monkeypatch.chdir(tmp_path)
        assert load("bridge.yaml", HOME).file == "bridge.yaml"
        assert load(None, {**HOME, "BRIDGE_CONFIG": str(tmp_path / "bridge.yaml")}).file == str(
            tmp_path / "bridge.yaml"
        )

    def test_the_argument_goes_before_the_environment(self) -> None:
        assert find("a.yaml", {"BRIDGE_CONFIG": "b.yaml"}) == "a.yaml"
        assert find(None, {"BRIDGE_CONFIG": "b.yaml"}) == "b.yaml"

    def test_the_one_in_the_folder_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, mapped())
        monkeypatch.chdir(tmp_path)
        assert find(None, {}) == "bridge.yaml"

    def test_none_is_an_error_that_lists_the_places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match=r"tried: bridge\.yaml, /etc/bridge/bridge\.yaml"):
            find(None, {})

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("nowhere.yaml", "No such file"), (".", "Is a directory"), ("x" * 300, "File name too long")],
    )
    def test_one_that_cannot_be_read(self, tmp_path: Path, name: str, reason: str) -> None:
        with pytest.raises(ConfigError, match=f"the configuration file cannot be read: {reason}"):
            load(tmp_path / name, HOME)

    def test_one_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "f.yaml").write_bytes(b"a: 1\nb: \xff\n")
        with pytest.raises(ConfigError, match=r"f\.yaml:2: broken YAML: it is not UTF-8"):
            load(tmp_path / "f.yaml", HOME)

    def test_one_that_is_far_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "f.yaml").write_bytes(b"#" * (5 << 20))
        with pytest.raises(ConfigError, match="this is no configuration file"):
            load(tmp_path / "f.yaml", HOME)

    def test_a_byte_order_mark_is_passed_over(self, tmp_path: Path) -> None:
        write(tmp_path, "")
        (tmp_path / "bridge.yaml").write_text(mapped(), encoding="utf-8-sig")
        assert load(tmp_path / "bridge.yaml", HOME).mappings

    @pytest.mark.parametrize("text", ["- a\n", "text", "5"])
    def test_one_without_options(self, tmp_path: Path, text: str) -> None:
        assert "expected options such as functions and mappings" in problem(tmp_path, text)


def test_defaults(tmp_path: Path) -> None:
    loaded = settings(tmp_path, "")
    assert (loaded.shutdown_grace, loaded.max_buffered_bytes) == (30.0, 256 << 20)
    assert (loaded.log_level, loaded.log_format) == ("info", None)
    assert (loaded.admin_host, loaded.admin_port, loaded.admin_token) == ("127.0.0.1", 9464, None)
    assert (dict(loaded.functions), dict(loaded.mappings)) == ({}, {})
    assert loaded.aws.region is None


def test_settings_are_immutable_and_hide_secrets(tmp_path: Path) -> None:
    loaded = settings(tmp_path, f"admin: {{token: hush}}\n{mapped()}")
    assert loaded.admin_token == "hush"
    assert "hush" not in repr(loaded)
    with pytest.raises(AttributeError):
        loaded.shutdown_grace = 5.0  # type: ignore[misc]


def test_every_problem_comes_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = f"""shutdown_grce: 5
log: {{level: loud}}
functions:
  worker: {{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: ., Timeout: 901}}
mappings:
  orders:
    FunctionName: wroker
    EventSourceArn: {QUEUE}
    batchsize: 5
"""
    found = problems(tmp_path, text, {"BRIDGE_LOG__FORMAT": "xml"}, ["nonsense"])
    assert [line.split(": ")[:2] for line in found] == [
        ["bridge.yaml:1", "shutdown_grce"],
        ["bridge.yaml:2", "log.level"],
        ["bridge.yaml:4", "functions.worker.Timeout"],
        ["bridge.yaml:7", "mappings.orders.FunctionName"],
        ["bridge.yaml:9", "mappings.orders.batchsize"],
        ["--set nonsense", "expected path=value, such as mappings.orders.BatchSize=5"],
        ["BRIDGE_LOG__FORMAT", "log.format"],
    ]
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reload: true", "bridge.yaml:1: reload: unknown option; known are: aws, "),
        ("shutdown_grace: soon", 'bridge.yaml:1: shutdown_grace: expected a number, got "soon"'),
        ("shutdown_grace: -1", "bridge.yaml:1: shutdown_grace: -1 is less than 0, the least that is allowed"),
        ("log: loud", 'bridge.yaml:1: log: expected options below it, got "loud"'),
        ("log: {format: xml}", 'bridge.yaml:1: log.format: "xml" is not one of console, json'),
        ("functions: [a]", "bridge.yaml:1: functions: expected options below it, got a list"),
        ("functions: {a: 5}", "bridge.yaml:1: functions.a: expected options below it, got 5"),
        ("mappings: 5", "bridge.yaml:1: mappings: expected options below it, got 5"),
        (
            "mappings: {a.b: {}}",
            'bridge.yaml:1: mappings.a.b: "a.b" is no name; expected 1 to 64 letters, digits, - and _',
        ),
        ("admin: on", "bridge.yaml:1: admin: "),
        ("state: ${NOPE}", "bridge.yaml:1: state: the environment variable NOPE is not set"),
        ("aws: {region: ${NOPE}}", "bridge.yaml:1: aws.region: the environment variable NOPE is not set"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path, text).startswith(expected)


def test_null_is_the_default(tmp_path: Path) -> None:
    text = "".join(f"{key}:\n" for key in options_of(Options))
    assert settings(tmp_path, text).shutdown_grace == 30


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("1", 1),
            ("268435456", 256 << 20),
            ("64MiB", 64 << 20),
            ("1 GiB", 1 << 30),
            ("5KiB", 5120),
            ("'7'", 7),
            ("9B", 9),
        ],
    )
    def test_with_and_without_unit(self, tmp_path: Path, text: str, size: int) -> None:
        assert settings(tmp_path, f"max_buffered_bytes: {text}").max_buffered_bytes == size

    @pytest.mark.parametrize("text", ["3XiB", "-1", "0", "1.5MiB", "many", "[1]", "64MB", "1e6", "''"])
    def test_others(self, tmp_path: Path, text: str) -> None:
        assert "max_buffered_bytes: " in problem(tmp_path, f"max_buffered_bytes: {text}")


class TestAdmin:
    @pytest.mark.parametrize(
        ("listen", "address"),
        [
            ("127.0.0.1:9464", ("127.0.0.1", 9464)),
            ("localhost:0", ("localhost", 0)),
            ("'[::1]:80'", ("::1", 80)),
            ("0.0.0.0:65535", ("0.0.0.0", 65535)),
            ("off", (None, None)),
        ],
    )
    def test_addresses(self, tmp_path: Path, listen: str, address: tuple[str | None, int | None]) -> None:
        loaded = settings(tmp_path, f"admin: {{listen: {listen}}}")
        assert (loaded.admin_host, loaded.admin_port) == address

    @pytest.mark.parametrize("off", ["admin: off", "admin: 'off'", "admin: {listen: 'off'}"])
    def test_off(self, tmp_path: Path, off: str) -> None:
        assert settings(tmp_path, off).admin_host is None

    @pytest.mark.parametrize(
        "listen", ["9464", "':9464'", "localhost", "'localhost:'", "'localhost:x'", "'h:65536'", "'::1:80'", "'[x]:80'",
                   "'http://h:80'", "'a b:80'", "'h:-1'", "'h:٣'"],
    )  # fmt: skip
    def test_what_is_none(self, tmp_path: Path, listen: str) -> None:
        assert "is no address; expected HOST:PORT, such as 127.0.0.1:9464" in problem(
            tmp_path, f"admin: {{listen: {listen}}}"
        )

    @pytest.mark.parametrize("token", ["hush hush", "hush-ü", '"hush\\0"', "[hush]", "{hush: hush}"])
    def test_a_token_is_never_shown(self, tmp_path: Path, token: str) -> None:
        found = problem(tmp_path, f"admin: {{token: {token}}}")
        assert found.startswith("bridge.yaml:1: admin.token: ")
        assert "hush" not in found

    def test_a_token_may_stand_in_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("hush\n")
        loaded = settings(tmp_path, f"admin: {{token_file: secret, listen: '0.0.0.0:1'}}\n{mapped()}")
        assert loaded.admin_token == "hush"
        assert not [line for line in loaded.warnings if "admin" in line]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "secret cannot be read: No such file or directory"),
            ("", "secret: expected one line of visible ASCII characters"),
            ("hush hush", "secret: expected one line of visible ASCII characters"),
            ("hush\nhush", "secret: expected one line of visible ASCII characters"),
            ("hüsh", "secret cannot be read: it is no text of ASCII characters"),
        ],
    )
    def test_a_file_without_a_token(self, tmp_path: Path, content: str | None, says: str) -> None:
        if content is not None:
            (tmp_path / "secret").write_text(content)
        assert problem(tmp_path, "admin: {token_file: secret}") == f"bridge.yaml:1: admin.token_file: {says}"

    def test_a_token_stands_in_one_place(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("hush")
        found = problem(tmp_path, "admin: {token: hush, token_file: secret}")
        assert found == "bridge.yaml:1: admin.token_file: token says it as well; remove one of them"

    def test_other_hosts_without_a_token_are_advice(self, tmp_path: Path) -> None:
        (line,) = [
            line for line in warnings(tmp_path, f"admin: {{listen: '0.0.0.0:1'}}\n{mapped()}") if "admin" in line
        ]
        assert "pause and resume are refused to them without admin.token" in line
        assert not warnings(tmp_path, f"admin: {{listen: '0.0.0.0:1', token: x}}\n{mapped()}")


class TestState:
    def state(self, folder: Path, text: str = "", **environ: str) -> str:
        write(folder, text)
        return load(folder / "bridge.yaml", environ).state

    def test_its_default(self, tmp_path: Path) -> None:
        assert self.state(tmp_path, HOME="/home/x") == "sqlite:////home/x/.local/state/bridge/state.db"
        assert self.state(tmp_path, HOME="/home/x", XDG_STATE_HOME="/xdg") == "sqlite:////xdg/bridge/state.db"
        assert self.state(tmp_path, HOME="/home/x", XDG_STATE_HOME="relative") == (
            "sqlite:////home/x/.local/state/bridge/state.db"
        )
        everything = {"HOME": "/h", "XDG_STATE_HOME": "/xdg", "STATE_DIRECTORY": "/var/lib/bridge:/var/lib/other"}
        assert self.state(tmp_path, **everything) == "sqlite:////var/lib/bridge/state.db"

    def test_without_a_home_it_has_to_be_given(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="state is missing, and there is neither HOME nor STATE_DIRECTORY"):
            self.state(tmp_path)
        assert self.state(tmp_path, "state: 'memory:'") == "memory:"

    def test_local_runs_keep_it_in_memory_unless_it_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, "")
        assert load(tmp_path / "bridge.yaml", {}, local=True).state == "memory:"
        assert load(tmp_path / "bridge.yaml", {}, ["state=sqlite:////x/y"], local=True).state == "sqlite:////x/y"

    @pytest.mark.parametrize(
        "given", ["sqlite:////var/lib/bridge/state.db", "sqlite:////a/b.db?namespace=me", "'memory:'", "memory"]
    )
    def test_a_given_one(self, tmp_path: Path, given: str) -> None:
        assert self.state(tmp_path, f"state: {given}", HOME="/h").startswith(given.strip("'"))

    def test_a_relative_one_starts_at_the_file(self, tmp_path: Path) -> None:
        folder = tmp_path / "a folder % ?"
        folder.mkdir()
        url = self.state(folder, "state: sqlite:///state.db?namespace=me", HOME="/h")
        assert StateUrl.parse(url) == ("sqlite", folder / "state.db", "me")

    @pytest.mark.parametrize(
        "given", ["sqlight:////x", "/var/lib/x.db", "sqlite:x", "sqlite:////x?mode=ro", "memory://x", "''"]
    )
    def test_what_is_none(self, tmp_path: Path, given: str) -> None:
        assert problem(tmp_path, f"state: {given}").startswith("bridge.yaml:1: state: ")


class TestAdvice:
    def test_nothing_to_do(self, tmp_path: Path) -> None:
        assert warnings(tmp_path, WORKER) == ["bridge.yaml:1: mappings: there are none, so nothing will be polled"]

    @pytest.mark.parametrize(
        ("function", "mapping", "part"),
        [
            ("ReservedConcurrentExecutions: 0", "", "ReservedConcurrentExecutions: 0 stops this function"),
            ("ReservedConcurrentExecutions: 4", "", "4 is less than 5, with which AWS's mappings begin"),  # SQS-17
            ("ReservedConcurrentExecutions: 6", "ScalingConfig: {MaximumConcurrency: 7}", "6 is less than 7"),  # SQS-17
            ("max_environments: 6", "ScalingConfig: {MaximumConcurrency: 7}", "max_environments: 6 is less than 7"),
            ("ReservedConcurrentExecutions: 7", "ScalingConfig: {MaximumConcurrency: 7}", ""),
            ("ReservedConcurrentExecutions: 5", "", ""),
            ("max_environments: 1", "", ""),
        ],
    )
    def test_concurrency(self, tmp_path: Path, function: str, mapping: str, part: str) -> None:
        lines = warnings(tmp_path, mapped(mapping).replace("CodeUri: .", f"CodeUri: ., {function}"))
        assert len(lines) == (1 if part else 0)
        assert all(line.startswith("bridge.yaml:1: functions.worker.") and part in line for line in lines)

    def test_all_mappings_of_a_function_count_together(self, tmp_path: Path) -> None:
        text = f"""{WORKER.replace("CodeUri: .", "CodeUri: ., ReservedConcurrentExecutions: 11")}mappings:
  a: {{FunctionName: worker, EventSourceArn: '{QUEUE}', ScalingConfig: {{MaximumConcurrency: 6}}}}
  b: {{FunctionName: worker, EventSourceArn: '{QUEUE}2', ScalingConfig: {{MaximumConcurrency: 6}}}}
"""
        (line,) = warnings(tmp_path, text)
        assert "11 is less than 12, the MaximumConcurrency of its mappings together" in line


# Nothing that can stand in a file gives anything but settings or a ConfigError.

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 20_000), st.floats(), st.text(max_size=20),
    st.sampled_from([
        QUEUE, f"{QUEUE}.fifo", "arn:aws:kinesis:r:123456789012:stream/x", "worker", "app.handler", RUNTIME, ".",
        "off", "${NOPE}", "${HOME}", "$$", "memory:", "sqlite:///x", '{"body": {"a": [1]}}', "{", "127.0.0.1:1",
        "Enabled", "\0", "4a1e6b0c-5c2d-4f83-9b7a-2d1f0c3e5a68", "64MiB", "x" * 300,
    ]),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from([*options_of(Options), *options_of(FunctionOptions), *options_of(MappingOptions)]),
    st.sampled_from(["Filters", "Pattern", "Variables", "MaximumConcurrency", "MinimumPollers", "Topics", "body"]),
    st.text(max_size=5),
)  # fmt: skip
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=15
)


def shaped(model: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(options_of(model), TREES))


FUNCTION = st.fixed_dictionaries(
    {"Runtime": st.just(RUNTIME), "Handler": st.just("app.handler"), "CodeUri": st.just(".")}
)
MAPPING = st.builds(lambda some, more: {**some, **more}, shaped(MappingOptions), st.fixed_dictionaries(
    {"FunctionName": st.just("worker"), "EventSourceArn": st.sampled_from([QUEUE, f"{QUEUE}.fifo"])}
))  # fmt: skip
DOCUMENTS = st.one_of(
    TREES,
    shaped(Options),
    st.fixed_dictionaries(
        {
            "functions": st.fixed_dictionaries({"worker": FUNCTION | shaped(FunctionOptions)}),
            "mappings": st.dictionaries(st.sampled_from(["a", "b", "c d"]), MAPPING | shaped(MappingOptions) | TREES),
        },
        optional={key: TREES for key in options_of(Options) if key not in ("functions", "mappings")},
    ),
)


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def load_anything(text: str) -> None:
    with folder() as place, suppress(ConfigError):
        loaded = settings(place, text)
        assert loaded.file
        for mapping in loaded.mappings.values():
            assert mapping.function in loaded.functions


@hypothesis_settings(max_examples=400, deadline=None)
@given(document=DOCUMENTS)
def test_any_tree_gives_settings_or_a_config_error(document: Any) -> None:
    load_anything(yaml.safe_dump(document))


@hypothesis_settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("ab: \n-[]{}'\"&*!|>%@`#?,$0.5\t~<=mappings"), max_size=60))
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    load_anything(text)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    environ=st.dictionaries(
        st.lists(st.sampled_from(["ADMIN", "MAPPINGS", "FUNCTIONS", "worker", "orders", "BatchSize", "", "LISTEN"]))
        .map("__".join).map("BRIDGE_{}".format),
        st.text(max_size=20) | st.sampled_from(["5", "{a: b}", "[", "\udcff"]), max_size=4,
    ),
    sets=st.lists(st.text("abc.=5[{:", max_size=10) | st.sampled_from(["mappings=5", "functions.worker=x"])),
)  # fmt: skip
def test_any_override_gives_settings_or_a_config_error(environ: dict[str, str], sets: list[str]) -> None:
    with folder() as place, suppress(ConfigError):
        assert settings(place, mapped(), environ, sets).file

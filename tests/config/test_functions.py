"""Functions: ranges, runtimes, folders, interpreters, variables, and where they live."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge.config.functions import RESERVED_VARIABLES
from bridge.executors import EXECUTORS
from bridge.function import Function, Logging
from bridge.settings import Settings, load
from tests.configured import HOME, QUEUE, RUNTIME, mapped, problem, problems, settings, warnings, write


def one(options: str = "", runtime: str = RUNTIME) -> str:
    return f"functions: {{worker: {{Runtime: {runtime}, Handler: app.handler, CodeUri: ., {options}}}}}\n"


def worker(folder: Path, text: str) -> Function:
    return settings(folder, text).functions["worker"]


def test_defaults_are_those_of_aws(tmp_path: Path) -> None:
    function = worker(tmp_path, one())
    assert (function.timeout, function.memory, function.environment) == (3.0, 128, {})
    assert (function.reserved_concurrency, function.max_environments, function.concurrency) == (None, 16, 16)
    assert (function.idle_timeout, function.credentials, function.python) == (300.0, "inherit", None)
    assert (function.runtime, function.handler, function.code) == (RUNTIME, "app.handler", tmp_path)
    assert function.where == str(tmp_path / "bridge.yaml:1")
    assert function.kind in EXECUTORS


def test_every_option_arrives(tmp_path: Path) -> None:
    text = one(
        "Timeout: 900, MemorySize: 10240, Environment: {Variables: {A_B: x, N_1: 5, T_1: true, E_1: ''}},"
        " ReservedConcurrentExecutions: 4, max_environments: 7, idle_timeout: 1.5, credentials: none,"
        f" python: {sys.executable}"
    )
    function = worker(tmp_path, text)
    assert (function.timeout, function.memory, function.idle_timeout) == (900.0, 10240, 1.5)
    assert function.environment == {"A_B": "x", "N_1": "5", "T_1": "true", "E_1": ""}, (
        "unquoted values are taken as written"
    )
    assert (function.reserved_concurrency, function.concurrency, function.max_environments) == (4, 4, 7)
    assert (function.credentials, function.python) == ("none", sys.executable)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("Timeout: 0", "Timeout: 0 is less than 1"),
        ("Timeout: 901", "Timeout: 901 is more than 900"),  # RT-32
        ("Timeout: 1.5", "Timeout: expected a whole number, got 1.5"),
        ("MemorySize: 127", "MemorySize: 127 is less than 128"),
        ("MemorySize: 10241", "MemorySize: 10241 is more than 10240"),
        ("ReservedConcurrentExecutions: -1", "ReservedConcurrentExecutions: -1 is less than 0"),
        ("max_environments: 0", "max_environments: 0 is less than 1"),
        ("idle_timeout: 0", "idle_timeout: 0 is less than 1"),
        ("idle_timeout: .nan", "idle_timeout: expected a number, got nan"),
        ("credentials: some", 'credentials: "some" is not one of inherit, none'),
        ("python: /nowhere/python", "python: /nowhere/python: no such program"),
        ("python: no-such-python-here", "python: no-such-python-here: no such program"),
        ("python: ./app.py", "python: ./app.py: no such program"),
        ("Environment: {AWS: x}", "Environment.AWS: unknown option; known are: Variables"),
        ("Environment: {Variables: {X_1: null}}", "Environment.Variables.X_1: expected text, got null"),
        ("Environment: {Variables: {X_1: [a]}}", "Environment.Variables.X_1: expected text, got a list"),
        ("Environment: {Variables: [a]}", "Environment.Variables: expected options below it, got a list"),
        ("timeout: 5", 'timeout: unknown option; did you mean "Timeout"?'),
        ("Role: x", "Role: an option of AWS Lambda that has no meaning here; remove it"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: str, part: str) -> None:
    assert problem(tmp_path, one(options) + "mappings: {}\n") == problem(tmp_path, one(options))
    assert problem(tmp_path, one(options)).startswith(f"bridge.yaml:1: functions.worker.{part}")


def test_logging(tmp_path: Path) -> None:  # RT-55
    assert worker(tmp_path, one()).logging == Logging()
    text = "LoggingConfig: {LogFormat: JSON, ApplicationLogLevel: TRACE, SystemLogLevel: WARN, LogGroup: /a/b}"
    expected = Logging(json=True, application="TRACE", system="WARN", group="/a/b")
    assert worker(tmp_path, one(text)).logging == expected
    assert worker(tmp_path, one("LoggingConfig: {LogFormat: JSON}")).logging == Logging(json=True, application="INFO")


@pytest.mark.parametrize("key", ["ApplicationLogLevel", "SystemLogLevel"])
def test_levels_need_json(tmp_path: Path, key: str) -> None:  # RT-55
    expected = (
        f"bridge.yaml:1: functions.worker.LoggingConfig.{key}: levels need LogFormat JSON; add it, or remove this"
    )
    assert problem(tmp_path, one(f"LoggingConfig: {{{key}: INFO}}")) == expected


def test_null_asks_for_nothing(tmp_path: Path) -> None:
    assert worker(tmp_path, one("url: null, versions: null")).kind == "python"


def test_code_is_reloaded_where_it_is_developed(tmp_path: Path) -> None:
    for text, local, expected in (("", False, False), ("", True, True), ("reload: true", False, True)):
        assert load(write(tmp_path, one(text)), HOME, local=local).functions["worker"].reload is expected
    assert not load(write(tmp_path, one("reload: false")), HOME, local=True).functions["worker"].reload


def test_a_debugger_is_waited_for_at_a_port(tmp_path: Path) -> None:
    assert worker(tmp_path, one()).debug is None
    made = worker(tmp_path, one("debug: 5678, ReservedConcurrentExecutions: 4"))
    assert (made.debug, made.reserved_concurrency, made.concurrency) == (5678, 4, 1)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("debug: true", "debug: expected a whole number, got true"),
        ("debug: 80", "debug: 80 is less than 1024, the least that is allowed"),
        ("debug: 65536", "debug: 65536 is more than 65535, the most that is allowed"),
        ("debug: 127.0.0.1:5678", 'debug: expected a whole number, got "127.0.0.1:5678"'),
    ],
)
def test_a_debuggers_port_is_a_number(tmp_path: Path, options: str, part: str) -> None:
    assert problem(tmp_path, one(options)) == f"bridge.yaml:1: functions.worker.{part}"


def test_a_program_of_its_own_has_a_debugger_of_its_own(tmp_path: Path) -> None:
    text = "functions: {worker: {Runtime: provided.al2023, command: [/bin/true], debug: 5678}}"
    expected = "an option of python and nodejs runtimes; remove it, and start the program under its own debugger"
    assert problem(tmp_path, text).startswith(f"bridge.yaml:1: functions.worker.debug: {expected}")


def test_a_debuggers_port_serves_one_function(tmp_path: Path) -> None:
    each = f"{{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: ., debug: 5678}}"
    expected = "bridge.yaml:3: functions.b.debug: 5678 is the port of functions.a; each debugger needs its own"
    assert problem(tmp_path, f"functions:\n  a: {each}\n  b: {each}\n") == expected


def test_a_debuggers_port_serves_one_environment(tmp_path: Path) -> None:
    said = "does not count while there is a `debug`: one port, one environment"
    text = one("debug: 5678, max_environments: 4, ProvisionedConcurrentExecutions: 2")
    assert [line for line in warnings(tmp_path, text) if said in line] == [
        f"bridge.yaml:1: functions.worker.{option}: {said}"
        for option in ("ProvisionedConcurrentExecutions", "max_environments")
    ]


@pytest.mark.parametrize(
    ("option", "limit"),
    [
        ("ReservedConcurrentExecutions: 4", "4, the ReservedConcurrentExecutions"),
        ("ReservedConcurrentExecutions: 0", "0, the ReservedConcurrentExecutions"),
        ("max_environments: 3", "3, the max_environments"),
    ],
)
def test_provisioned_concurrency_is_a_part_of_the_reserved(tmp_path: Path, option: str, limit: str) -> None:  # RT-62
    text = one(f"ProvisionedConcurrentExecutions: 5, {option}")
    assert problem(tmp_path, text).endswith(f"ProvisionedConcurrentExecutions: 5 is more than {limit}")
    text = one("ProvisionedConcurrentExecutions: 5, ReservedConcurrentExecutions: 5")
    assert worker(tmp_path, text).provisioned == 5


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path, "functions:\n  worker:\n") == [
        "bridge.yaml:2: functions.worker: Runtime is missing, for example python3.11",
        "bridge.yaml:2: functions.worker: Handler is missing, for example app.handler",
        "bridge.yaml:2: functions.worker: CodeUri is missing, for example ./examples/handlers",
    ]


class TestRuntimes:
    @pytest.mark.parametrize("minor", [9, 10, 12, 13, 14, 15])
    def test_pythons_from_3_9_on(self, tmp_path: Path, minor: int) -> None:
        text = one(f"python: {sys.executable}", f"python3.{minor}")
        assert worker(tmp_path, text).kind == "python"

    @pytest.mark.parametrize(
        "runtime",
        [
            "pyton3.11",
            "python3.8",
            "python3",
            "python",
            "python3.011",
            "python2.7",
            "python3.11x",
            "ruby3.3",
            "''",
            "nodejs",
            "nodejs16.x",
            "nodejs20",
            "nodejs020.x",
            "node20.x",
            "provided.AL2",
            "providedal2",
        ],
    )
    def test_others_name_the_known(self, tmp_path: Path, runtime: str) -> None:
        found = problem(tmp_path, one(runtime=runtime))
        assert "functions.worker.Runtime: no runtime " in found
        assert "known are: python3.9 to " in found
        assert "nodejs18.x to nodejs24.x, provided.*" in found

    def test_with_the_nearest(self, tmp_path: Path) -> None:
        assert problem(tmp_path, one(runtime="pyton3.11")).endswith('; did you mean "python3.11"?')

    @pytest.mark.parametrize("runtime", ["nodejs18.x", "nodejs20.x", "nodejs26.x"])
    def test_node(self, tmp_path: Path, runtime: str) -> None:
        (tmp_path / "app.mjs").touch()
        function = worker(tmp_path, one(f"node: {sys.executable}", runtime))
        assert (function.kind, function.node, function.runtime) == ("nodejs", sys.executable, runtime)

    @pytest.mark.parametrize(
        ("handler", "part"),
        [
            ("app", "is no handler; expected MODULE.FUNCTION"),
            ("../app.handler", "is no handler; expected MODULE.FUNCTION"),
            ("nowhere.handler", "nowhere.mjs, nor one that ends in .js or .cjs"),
        ],
    )
    def test_node_handlers(self, tmp_path: Path, handler: str, part: str) -> None:
        text = f"functions: {{worker: {{Runtime: nodejs20.x, Handler: {handler}, CodeUri: ., node: {sys.executable}}}}}"
        assert part in problem(tmp_path, text)

    @pytest.mark.parametrize("runtime", ["provided", "provided.al2", "provided.al2023"])
    def test_a_bootstrap(self, tmp_path: Path, runtime: str) -> None:
        text = f"functions: {{worker: {{Runtime: {runtime}, CodeUri: .}}}}"
        where = "bridge.yaml:1: functions.worker.CodeUri: "
        assert problem(tmp_path, text) == (
            where + "bootstrap: no such file; put the runtime's program there, or name it with `command`"
        )
        (tmp_path / "bootstrap").touch(mode=0o600)
        assert problem(tmp_path, text) == where + "bootstrap is not executable; chmod +x it"
        (tmp_path / "bootstrap").chmod(0o700)
        assert (worker(tmp_path, text).kind, worker(tmp_path, text).handler) == ("provided", "")

    def test_a_command(self, tmp_path: Path) -> None:
        (tmp_path / "worker").touch(mode=0o700)
        function = worker(tmp_path, "functions: {worker: {command: [./worker, --flag]}}")
        assert (function.kind, function.command) == ("provided", (str(tmp_path / "worker"), "--flag"))
        assert (function.runtime, function.code) == ("", tmp_path)
        function = worker(tmp_path, "functions: {worker: {Runtime: provided.al2023, command: [sh, -e]}}")
        assert Path(function.command[0]).is_absolute()

    @pytest.mark.parametrize(("option", "kind"), [("command: [./x]", "provided"), ("node: ./x", "nodejs")])
    def test_options_of_other_runtimes_are_advice(self, tmp_path: Path, option: str, kind: str) -> None:
        key = option.partition(":")[0]
        expected = f"functions.worker.{key}: an option of {kind} runtimes; it has no effect on {RUNTIME}"
        assert any(line.endswith(expected) for line in warnings(tmp_path, one(option)))

    @pytest.mark.parametrize("command", ["[]", "[./nowhere]", "[no-such-program-here, x]"])
    def test_a_command_that_is_not_there(self, tmp_path: Path, command: str) -> None:
        found = problems(tmp_path, f"functions: {{worker: {{command: {command}}}}}")
        assert any("functions.worker.command: " in line or "Runtime is missing" in line for line in found)

    def test_another_version_than_the_bridges_own_is_advice(self, tmp_path: Path) -> None:
        advice = [line for line in warnings(tmp_path, one(runtime="python3.99")) if "Runtime" in line]
        assert len(advice) == 1
        assert f"the handler will run under python 3.{sys.version_info[1]}, the bridge's own" in advice[0]
        with_interpreter = one(f"python: {sys.executable}", "python3.99")
        assert not any("Runtime" in line for line in warnings(tmp_path, with_interpreter))


class TestPaths:
    def test_relative_ones_start_at_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, one().replace("CodeUri: .", "CodeUri: ./code"))
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "app.py").write_text("handler = print\n")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        assert load("../bridge.yaml", HOME).functions["worker"].code == elsewhere / ".." / "code"

    def test_an_interpreter_beside_the_file(self, tmp_path: Path) -> None:
        program = tmp_path / "bin" / "python"
        program.parent.mkdir()
        program.symlink_to(sys.executable)
        assert worker(tmp_path, one("python: bin/python")).python == str(program)

    def test_an_interpreter_by_name(self, tmp_path: Path) -> None:
        assert worker(tmp_path, one("python: sh")).python in ("/bin/sh", "/usr/bin/sh")

    @pytest.mark.parametrize(
        ("folder", "part"),
        [("nowhere", "no such folder"), ("app.py", "is a file; unpack it into a folder"), ("'\\0'", "")],
    )
    def test_a_folder_that_is_none(self, tmp_path: Path, folder: str, part: str) -> None:
        text = one().replace("CodeUri: .", f"CodeUri: {folder}")
        assert "functions.worker.CodeUri: " in problem(tmp_path, text)
        assert part in problem(tmp_path, text)

    def test_a_name_that_no_file_can_have(self, tmp_path: Path) -> None:
        assert "no such folder" in problem(tmp_path, one().replace("CodeUri: .", f"CodeUri: {'x' * 300}"))
        assert "contains a NUL" in problem(tmp_path, one().replace("CodeUri: .", 'CodeUri: "a\\0b"'))


class TestVariables:
    @pytest.mark.parametrize("name", sorted(RESERVED_VARIABLES))
    def test_reserved_ones_are_refused(self, tmp_path: Path, name: str) -> None:  # RT-20
        found = problem(tmp_path, one(f"Environment: {{Variables: {{{name}: secret}}}}"))
        assert found.endswith(
            f"functions.worker.Environment.Variables.{name}: reserved: the runtime sets this variable itself"
        )

    def test_all_reserved_ones_are_known(self) -> None:  # RT-20
        rule = (
            (Path(__file__).parents[1] / "spec" / "runtime-api.md").read_text().split("- RT-20")[1].split("- RT-21")[0]
        )
        assert set(rule.split("`")[1::2]) == RESERVED_VARIABLES

    @pytest.mark.parametrize("name", ["A", "1AB", "A-B", "_AB", "'A B'", "ÄB"])
    def test_names(self, tmp_path: Path, name: str) -> None:  # RT-23
        assert "a name begins with a letter" in problem(
            tmp_path, one(f"Environment: {{Variables: {{{name}: secret}}}}")
        )

    @pytest.mark.parametrize("name", ["LANG", "PATH", "TZ", "PYTHONPATH", "AB", "a1"])
    def test_others_may_be_set(self, tmp_path: Path, name: str) -> None:  # RT-21
        assert worker(tmp_path, one(f"Environment: {{Variables: {{{name}: x}}}}")).environment == {name: "x"}

    def test_they_have_4_kb_together(self, tmp_path: Path) -> None:  # RT-23
        assert worker(tmp_path, one(f"Environment: {{Variables: {{AB: {'x' * 4094}}}}}")).environment["AB"]
        assert "4097 bytes are more than 4096" in problem(
            tmp_path, one(f"Environment: {{Variables: {{AB: {'ä' * 2047}x}}}}")
        )

    def test_no_message_and_no_repr_shows_a_value(self, tmp_path: Path) -> None:
        for name in ("A", "AWS_REGION"):
            assert "hush" not in problem(tmp_path, one(f"Environment: {{Variables: {{{name}: hush}}}}"))
        loaded = settings(tmp_path, one("Environment: {Variables: {AB: hush}}"))
        assert "hush" not in repr(loaded) + repr(loaded.functions["worker"])


class TestHome:
    def arn(self, folder: Path, text: str, **environ: str) -> str:
        loaded: Settings = settings(folder, text, environ)
        function = loaded.functions["worker"]
        assert function.arn.split(":")[3:5] == [function.aws.region, function.aws.account_id]
        return function.arn

    def test_without_anything(self, tmp_path: Path) -> None:
        assert self.arn(tmp_path, one()) == "arn:aws:lambda:us-east-1:000000000000:function:worker"

    def test_by_its_mapping(self, tmp_path: Path) -> None:
        assert self.arn(tmp_path, mapped()) == "arn:aws:lambda:eu-west-1:123456789012:function:worker"

    def test_by_the_arn_that_the_mapping_gives(self, tmp_path: Path) -> None:
        arn = "arn:aws:lambda:eu-west-1:210987654321:function:worker"
        text = f"{one()}mappings: {{m: {{FunctionArn: '{arn}', EventSourceArn: '{QUEUE}'}}}}"
        assert self.arn(tmp_path, text) == arn

    def test_by_the_settings(self, tmp_path: Path) -> None:
        text = f"aws: {{region: cn-north-1, account_id: '999999999999'}}\n{mapped()}"
        assert self.arn(tmp_path, text) == "arn:aws-cn:lambda:cn-north-1:999999999999:function:worker"

    def test_a_handler_has_a_client_of_its_own(self, tmp_path: Path) -> None:
        assert "functions.worker.aws.client: a handler calls" in problem(tmp_path, one("aws: {client: sdk}"))
        assert settings(tmp_path, f"aws: {{client: sdk}}\n{one()}").functions["worker"].aws.endpoint_url is None

    def test_by_its_own_block(self, tmp_path: Path) -> None:
        text = f"aws: {{region: us-west-2, endpoint_url: 'http://a:1'}}\n{one('aws: {region: us-gov-west-1}')}"
        assert self.arn(tmp_path, text) == "arn:aws-us-gov:lambda:us-gov-west-1:000000000000:function:worker"
        assert settings(tmp_path, text).functions["worker"].aws.endpoint_url == "http://a:1"

    def test_by_the_environment(self, tmp_path: Path) -> None:
        assert ":ap-south-1:" in self.arn(tmp_path, one(), AWS_DEFAULT_REGION="ap-south-1")
        assert ":eu-north-1:" in self.arn(tmp_path, one(), AWS_DEFAULT_REGION="ap-south-1", AWS_REGION="eu-north-1")


@pytest.mark.parametrize("name", ["a b", "x" * 65, "a.b", "ä", "''"])
def test_names(tmp_path: Path, name: str) -> None:
    quoted = "''" if name == "''" else f"'{name}'"
    assert "is no name; expected 1 to 64 letters, digits, - and _" in problem(
        tmp_path, f"functions: {{{quoted}: {{Runtime: {RUNTIME}, Handler: app.handler, CodeUri: .}}}}"
    )

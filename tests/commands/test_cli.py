"""The dispatcher: what is imported, how errors are said, exit statuses."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import bridge
from bridge.commands import COMMANDS, NOT_YET, main
from bridge.errors import BridgeError, ConfigError, StateError, UsageError
from tests.configured import mapped, write

HEAVY = ("asyncio", "aiohttp", "anyio", "structlog", "botocore", "aiobotocore", "prometheus_client", "tenacity")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Adds the command `probe`, which does what it is given."""

    def add(run: Callable[[argparse.Namespace], int]) -> None:
        module = types.ModuleType("probe")
        module.__dict__.update(HELP="Probes.", EXAMPLE="bridge probe", add_arguments=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, "tests.probe", module)
        monkeypatch.setitem(COMMANDS, "probe", ("tests.probe", "probes"))

    return add


def failing(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def started(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environ},
    )  # fmt: skip


class TestOverview:
    def test_it_lists_every_command_with_its_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            main(["--help"])
        assert exited.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        for name, (_, line) in COMMANDS.items():
            assert any(shown.split()[:1] == [name] and shown.endswith(line) for shown in lines), name

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            main(["--version"])
        assert exited.value.code == 0
        assert capsys.readouterr().out == f"bridge {bridge.__version__}\n"

    def test_nothing_asked_for_is_a_usage_error_with_the_overview(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        captured = capsys.readouterr()
        assert "commands:" in captured.err
        assert captured.out == ""

    @pytest.mark.parametrize("name", COMMANDS)
    def test_each_command_explains_itself_with_an_example(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        command = import_module(COMMANDS[name][0])
        with pytest.raises(SystemExit) as exited:
            main([name, "--help"])
        assert exited.value.code == 0
        shown = capsys.readouterr().out
        assert f"example:\n  {command.EXAMPLE}" in shown
        assert command.HELP.splitlines()[0] in shown
        assert command.EXAMPLE.partition("|")[2].strip().startswith("bridge") or command.EXAMPLE.startswith("bridge")


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["valdate"], 'bridge: no command "valdate"; did you mean "validate"?'),
            (["zzzzz"], 'bridge: no command "zzzzz"; see bridge --help'),
            (["--verson"], "bridge: unrecognized arguments: --verson; did you mean \"--version\"?; see bridge --help"),
            (["validate", "--confg", "x"],
             'bridge: unrecognized arguments: --confg x; did you mean "--config"?; see bridge validate --help'),
            (["validate", "-c"], "bridge: argument -c/--config: expected one argument; see bridge validate --help"),
        ],
    )  # fmt: skip
    def test_it_is_one_line_and_status_2(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 2
        assert capsys.readouterr().err == f"{said}\n"

    @pytest.mark.parametrize("name", NOT_YET)
    def test_later_commands_say_so(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([name, "--anything"]) == 2
        assert capsys.readouterr().err == f"bridge: {name} is not implemented yet\n"


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "status", "said"),
        [
            (UsageError("no such queue"), 2, "bridge: no such queue\n"),
            (StateError("is locked\nby another"), 2, "bridge: is locked by another\n"),
            (ConfigError("f.yaml:1: a: b", "f.yaml:2: c: d"), 2, "f.yaml:1: a: b\nf.yaml:2: c: d\n"),
            (BridgeError("the daemon does not answer"), 1, "bridge: the daemon does not answer\n"),
            (ValueError("x"), 1, "bridge: unexpected ValueError: x (a bug of bridge; --debug shows where)\n"),
            (KeyboardInterrupt(), 130, ""),
            (ExceptionGroup("", [UsageError("a"), ExceptionGroup("", [UsageError("b")])]), 2, "bridge: a\nbridge: b\n"),
            (ExceptionGroup("", [UsageError("a"), BridgeError("b")]), 1, "bridge: a\nbridge: b\n"),
            (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
        ],
        ids=repr,
    )
    def test_each_is_one_line(
        self,
        command: Callable[[Callable[[argparse.Namespace], int]], None],
        error: BaseException,
        status: int,
        said: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        command(failing(error))
        assert main(["probe"]) == status
        assert capsys.readouterr().err == said

    @pytest.mark.parametrize("arguments", [["--debug", "probe"], ["probe", "--debug"]])
    def test_debug_shows_the_trace(
        self,
        command: Callable[[Callable[[argparse.Namespace], int]], None],
        arguments: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        command(failing(UsageError("no")))
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("Traceback (most recent call last)")
        assert said.endswith("bridge: no\n")

    def test_the_status_of_a_command_is_passed_on(
        self, command: Callable[[Callable[[argparse.Namespace], int]], None]
    ) -> None:
        command(lambda args: 3)
        assert main(["probe"]) == 3

    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "bridge", "config-schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(timeout=60) == 1


class TestStart:
    """What `bridge --help` and `bridge validate` may import: tests/bench/startup.py has the figures."""

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["--version"], ["validate", "-c", "FILE"], ["validate", "--help"]]
    )
    def test_nothing_heavy_is_imported(self, tmp_path: Path, arguments: list[str]) -> None:
        file = write(tmp_path, mapped("FilterCriteria: {Filters: [{Pattern: {body: {a: [1]}}}]}"))
        arguments = [str(file) if argument == "FILE" else argument for argument in arguments]
        process = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "bridge", *arguments],
            capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        imported = {
            line.rpartition("|")[2].strip() for line in process.stderr.splitlines() if line.startswith("import time:")
        }
        assert "bridge.commands" in imported
        assert not {name for name in imported if name.partition(".")[0] in HEAVY}

    def test_help_reads_no_configuration(self) -> None:
        process = started("--help", BRIDGE_CONFIG="/nowhere")
        assert (process.returncode, process.stderr) == (0, "")

    def test_the_console_script_is_the_module(self) -> None:
        script = Path(sys.executable).with_name("bridge")
        if not script.exists():
            pytest.skip("the project is not installed here")
        process = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
        assert process.stdout == started("--version").stdout

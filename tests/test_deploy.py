"""What is shipped for running it: systemd unit, Compose file, and the image's recipe, built by .ci/container.sh."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.commands import COMMANDS
from bridge.settings import Settings, load
from tests.conftest import missing

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "bridge.service"
DROP_INS = DEPLOY / "systemd" / "bridge.service.d"


def unit_options(path: Path) -> dict[str, list[str]]:
    """Key -> values, in the order of the file; systemd's lists are repeated keys."""
    options: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            key, value = line.split("=", 1)
            options.setdefault(key, []).append(value)
    return options


# systemd


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        missing("systemd-analyze")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(
    params=[(), ("python-only.conf",), ("cgroups.conf", "credentials.conf"), ("python-only.conf", "cgroups.conf")],
    ids=str,
)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as it is installed, its program a file that is here, with and without the drop-ins."""
    program = tmp_path / "bridge"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("ExecStart=/opt/bridge/bin/bridge ", f"ExecStart={program} "))
    (tmp_path / DROP_INS.name).mkdir()
    for name in request.param:
        shutil.copy(DROP_INS / name, tmp_path / DROP_INS.name / name)
    return installed


def test_unit_is_understood_to_the_last_key(unit: Path) -> None:
    done = systemd_analyze("verify", unit)  # unknown keys are only printed, so its silence is what counts
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unit_is_hardly_exposed(unit: Path) -> None:
    done = systemd_analyze("security", "--offline=yes", "--threshold=15", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_drop_in_forbids_executable_memory(unit: Path) -> None:
    done = systemd_analyze("security", "--offline=yes", unit)
    (line,) = [line for line in done.stdout.splitlines() if "MemoryDenyWriteExecute" in line]
    assert ("✓" in line) == (unit.parent / DROP_INS.name / "python-only.conf").exists()


def test_control_groups_are_delegated_and_writable(unit: Path) -> None:
    done = systemd_analyze("security", "--offline=yes", unit)
    (line,) = [line for line in done.stdout.splitlines() if "ProtectControlGroups" in line]
    assert ("✓" in line) != (unit.parent / DROP_INS.name / "cgroups.conf").exists()
    assert unit_options(DROP_INS / "cgroups.conf") == {"Delegate": ["memory"], "ProtectControlGroups": ["no"]}


def test_credentials_reach_the_daemon_by_file(tmp_path: Path) -> None:
    options = unit_options(DROP_INS / "credentials.conf")
    loaded = [credential.split(":")[0] for credential in options["LoadCredential"]]
    environ = dict(line.replace("%d", str(tmp_path)).split("=", 1) for line in options["Environment"])
    assert sorted(environ.values()) == sorted(str(tmp_path / name) for name in loaded)
    (tmp_path / "admin-token").write_text("hush\n")
    (tmp_path / "bridge.yaml").write_text("{}")
    settings = load(tmp_path / "bridge.yaml", environ={**environ, "HOME": "/nowhere"})
    assert settings.admin_token == "hush"


def test_unit_fits_what_the_daemon_promises() -> None:
    options = unit_options(UNIT)
    program, command, *_ = shlex.split(options["ExecStart"][0])
    assert (Path(program).name, command in COMMANDS) == ("bridge", True)
    assert options["Type"] == ["notify"]
    assert options["KillMode"] == ["mixed"]  # SIGTERM to the daemon alone; what is left of its children dies with it
    assert options["ExecReload"] == ["kill -HUP $MAINPID"]
    assert options["RestartPreventExitStatus"] == ["2"]  # a configuration error
    assert options["WatchdogSec"] == ["30"]
    assert float(options["TimeoutStopSec"][0]) > Settings(file="").shutdown_grace
    assert options["StateDirectory"] == ["bridge"]
    assert options["MemoryDenyWriteExecute"] == ["no"]  # Node and Java need it


# Compose


@pytest.fixture
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return parsed


def test_compose_runs_the_bridge_locked_down(compose: dict[str, Any]) -> None:
    bridge = compose["services"]["bridge"]
    assert bridge["read_only"] is True
    assert bridge["cap_drop"] == ["ALL"]
    assert bridge["security_opt"] == ["no-new-privileges:true"]
    assert bridge["healthcheck"]["test"] == ["CMD", "bridge", "health"]
    assert float(bridge["stop_grace_period"].removesuffix("s")) > Settings(file="").shutdown_grace
    assert "privileged" not in bridge
    assert "user" not in bridge  # the image's own: 10001


def test_compose_publishes_on_loopback_alone_and_pins_images(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        if "build" not in service:
            assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", service["image"]), name


def test_compose_mounts_what_is_here(compose: dict[str, Any]) -> None:
    assert (DEPLOY / compose["services"]["bridge"]["build"]["context"] / "Dockerfile").is_file()
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"]]
    sources = [mount.split(":")[0] for mount in mounts]
    assert {source for source in sources if not source.startswith(".")} <= set(compose["volumes"])
    assert [source for source in sources if source.startswith(".") and not (DEPLOY / source).exists()] == []


def test_compose_configuration_fits_its_services(compose: dict[str, Any]) -> None:
    settings = load(DEPLOY / "compose" / "bridge.yaml", environ={"HOME": "/nowhere"})
    assert set(settings.functions) == {"orders-worker"}
    host, _, port = str(settings.aws.endpoint_url).removeprefix("http://").partition(":")
    published = {entry.split(":")[-1] for entry in compose["services"][host]["ports"]}
    assert port in published
    assert str(settings.admin_port) in {entry.split(":")[-1] for entry in compose["services"]["bridge"]["ports"]}
    queues = (DEPLOY / "compose" / "elasticmq.conf").read_text()
    for mapping in settings.mappings.values():
        assert re.search(rf"^  {mapping.source_arn.resource} {{", queues, re.MULTILINE)


def test_compose_handler_fails_only_what_is_no_order() -> None:
    bodies = ['{"id": 7}', "not JSON", "[]", '{"name": "x"}']
    records = [{"messageId": str(number), "body": body} for number, body in enumerate(bodies)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bridge",
            "invoke",
            "orders-worker",
            "-e",
            "-",
            "-c",
            DEPLOY / "compose" / "bridge.yaml",
        ],
        cwd=ROOT,
        input=json.dumps({"Records": records}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == {"batchItemFailures": [{"itemIdentifier": number} for number in "123"]}


# The image


def dockerfile_steps() -> list[str]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line and not line.startswith("#")]


def test_image_runs_as_a_numeric_user_and_knows_its_health() -> None:
    steps = dockerfile_steps()
    last = dict(step.split(" ", 1) for step in stages(steps)["FROM ${PYTHON_IMAGE} AS bridge"])
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last["USER"])
    assert json.loads(last["ENTRYPOINT"]) == ["bridge"]  # exec form: it is process 1 and gets the signals itself
    assert json.loads(last["CMD"])[0] in COMMANDS
    assert json.loads(last["HEALTHCHECK"].partition("CMD ")[2]) == ["bridge", "health"]
    assert last["STOPSIGNAL"] == "SIGTERM"


def stages(steps: list[str]) -> dict[str, list[str]]:
    """The steps of each stage by its first one."""
    made: dict[str, list[str]] = {}
    for step in steps:
        made.setdefault(step if step.startswith("FROM ") else list(made)[-1] if made else "", []).append(step)
    return made


def test_the_image_with_node_differs_in_node_alone() -> None:
    made = stages(dockerfile_steps())
    *_, (node, added), (last, nothing) = made.items()
    assert (node, last, nothing) == ("FROM bridge AS node", "FROM bridge", ["FROM bridge"])
    assert added[1:] == ["COPY --from=nodejs /usr/local/bin/node /usr/local/bin/node"]


def test_image_is_built_from_a_pinned_base_and_only_from_what_is_sent() -> None:
    steps = dockerfile_steps()
    (base,) = [step for step in steps if step.startswith("ARG PYTHON_IMAGE=")]
    assert re.fullmatch(r"ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+", base)
    (node,) = [step for step in steps if step.startswith("ARG NODE_IMAGE=")]
    assert re.fullmatch(r"ARG NODE_IMAGE=node:\d+\.\d+\.\d+-[a-z]+-slim", node)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for step in steps
        if step.startswith("COPY ") and "--from" not in step
        for word in step.removeprefix("COPY ").split(" ")[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)

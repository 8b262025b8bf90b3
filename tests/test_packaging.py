"""What is built and what it holds: the wheel has everything that runs, the source archive everything that builds it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge import __version__
from tests.conftest import missing

ROOT = Path(__file__).parents[1]


class Built(NamedTuple):
    wheel: Path
    archive: Path


def build(source: Path, target: Path) -> Built:
    """A wheel and a source archive, by the build backend itself: it needs no network and no environment of its own."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", target], cwd=source, check=True)
    (wheel,), (archive,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(wheel, archive)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if importlib.util.find_spec("hatchling") is None:
        missing("hatchling")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def files_of_the_package() -> set[str]:
    """All that lies below bridge/, but for what running it leaves behind."""
    files = (path for path in (ROOT / "bridge").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def files_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as opened:
        return set(opened.namelist())


def test_wheel_has_the_whole_package_and_nothing_else(built: Built) -> None:
    inside = {name for name in files_in(built.wheel) if ".dist-info/" not in name}
    assert inside == files_of_the_package()
    assert "bridge/py.typed" in inside
    assert "bridge/runtimes/python.py" in inside
    assert any(name.startswith("bridge/samples/handlers/") for name in inside)
    assert any(name.startswith("bridge/samples/events/") and name.endswith(".json") for name in inside)


def test_wheel_says_what_it_is(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as opened:
        (metadata,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        text = opened.read(metadata).decode()
        scripts = opened.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert f"Version: {__version__}\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert "License-File: LICENSE\n" in text
    assert scripts == "[console_scripts]\nbridge = bridge.__main__:main\n"


def test_source_archive_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.archive) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    for needed in ("LICENSE", "README.md", "CHANGELOG.md", "config", "deploy", "tests/conftest.py"):
        assert (source / needed).exists(), needed
    assert files_in(build(source, tmp_path / "dist").wheel) == files_in(built.wheel)


class Installed(NamedTuple):
    """A fresh virtual environment with the wheel; its dependencies are this environment's, so nothing is fetched."""

    folder: Path

    def run(self, program: str, *arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "LANG": "C.UTF-8"}
        command = [str(self.folder / "bin" / program), *arguments]
        return subprocess.run(
            command, cwd=cwd, input=stdin, env=environment, capture_output=True, check=True, timeout=60
        )


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    if importlib.util.find_spec("pip") is None:
        missing("pip")
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(built.wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return Installed(folder)


def test_installed_package_is_the_wheel(installed: Installed, tmp_path: Path) -> None:
    answer = installed.run("python", "-c", "import bridge; print(bridge.__file__)", cwd=tmp_path)
    assert Path(answer.stdout.decode().strip()).is_relative_to(installed.folder)
    assert installed.run("bridge", "--version", cwd=tmp_path).stdout.decode() == f"bridge {__version__}\n"


def test_installed_command_invokes_a_handler_with_a_sample_event(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "def handler(event, context):\n    return [record['body'] for record in event['Records']]\n"
    )
    (tmp_path / "bridge.yaml").write_text(
        f"""
        functions:
          bodies:
            Runtime: python{sys.version_info.major}.{sys.version_info.minor}
            Handler: app.handler
            CodeUri: .
        mappings:
          orders:
            FunctionName: bodies
            EventSourceArn: arn:aws:sqs:eu-west-1:123456789012:orders
        """
    )
    event = installed.run("bridge", "event", "sqs", "--body", "hello", "-n", "2", cwd=tmp_path).stdout
    answer = installed.run("bridge", "invoke", "bodies", "-e", "-", cwd=tmp_path, stdin=event)
    assert json.loads(answer.stdout) == ["hello", "hello"]

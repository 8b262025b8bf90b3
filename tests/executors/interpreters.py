"""The Python interpreters of this machine that handlers may run under."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

OLDEST = (3, 9)
NEWEST = (3, 20)


@cache
def interpreters() -> dict[str, str]:
    """``3.11`` -> its path, in order; of one version the first that is found and starts."""
    found: dict[tuple[int, int], str] = {}
    for candidate in _candidates():
        version, path = _asked(candidate)
        if version >= OLDEST:
            found.setdefault(version, path)
    return {"{}.{}".format(*version): found[version] for version in sorted(found)}


def _candidates() -> Iterator[str]:
    """On the path, and where pyenv, uv, Debian, python.org's builds and CI images put them."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], NEWEST[1])]
    on_path = filter(None, (shutil.which(name) for name in (*names, "python3")))
    yield sys.executable
    yield from (path for path in on_path if Path(path).parent.name != "shims")  # pyenv's, which lead elsewhere
    home = Path.home()
    folders = {
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions": "*/bin/python3",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")): "*/bin/python3",
        Path(os.environ.get("AGENT_TOOLSDIRECTORY", "/opt/hostedtoolcache")) / "Python": "*/*/bin/python3",
        Path("/opt/python"): "*/bin/python3",
        Path("/usr/local/bin"): "python3.*",
        Path("/usr/bin"): "python3.*",
    }
    yield from map(str, chain.from_iterable(sorted(folder.glob(name)) for folder, name in folders.items()))


@cache
def _asked(path: str) -> tuple[tuple[int, int], str]:
    """Its version, and where it really is; version 0.0: no CPython, or a stand-in that does not lead to one."""
    question = "import platform, sys; print(platform.python_implementation(), *sys.version_info[:2], sys.executable)"
    try:
        told = subprocess.run(
            [path, "-I", "-c", question], capture_output=True, check=True, timeout=20, text=True
        ).stdout
        implementation, major, minor, executable = told.rstrip().split(" ", 3)
    except (OSError, ValueError, subprocess.SubprocessError):
        return (0, 0), path
    return ((int(major), int(minor)) if implementation == "CPython" else (0, 0)), executable

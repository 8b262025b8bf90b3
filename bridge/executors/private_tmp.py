"""The literal ``/tmp`` of an execution environment: its private folder, mounted there for its processes alone, where
the kernel lets us (Linux with mount namespaces)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from bridge.function import Function

TMP = Path("/tmp")  # noqa: S108 - this is the one that handlers name
PROBE_LIMIT = 5.0
"""Seconds."""


def wrapper(function: Function, command: Sequence[str], folder: Path) -> tuple[str, ...]:
    """What goes before the private folder and the ``command``, so that it sees that folder as ``/tmp``. Nothing where
    there is no way to, where the function has something below ``/tmp`` (its code, its program, what its variables
    name), or a ``TMPDIR`` of its own. Blocks."""
    needs = any(map(_below_tmp, (folder, *map(Path, command)))) or any(map(_shares, function.environment.values()))
    return () if needs or "TMPDIR" in function.environment else _way()


def _shares(value: str) -> bool:
    """A variable names something below ``/tmp`` that is there, or that would be made in a folder which is."""
    path = Path(value)
    with suppress(OSError):  # a name that no file can have
        return path != TMP and _below_tmp(path) and (path.exists() or (path.parent != TMP and path.parent.exists()))
    return False


@cache
def _way() -> tuple[str, ...]:
    """The first that works here."""
    for way in _ways():
        with suppress(OSError, subprocess.TimeoutExpired):
            tried = subprocess.run(
                [*way, "/", "test", "-d", f"{TMP}/proc"],  # it is the root that is seen there
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PROBE_LIMIT,
                check=False,
            )
            if tried.returncode == 0:
                return way
    return ()


def _ways() -> Iterator[tuple[str, ...]]:
    """Each becomes, in place, what it is to start: neither process nor process group is another one. As a plain user it
    takes a user namespace, whose capabilities end with the mount. A function may change PATH, hence whole paths."""
    unshare, mount, setpriv, sh = (shutil.which(name) for name in ("unshare", "mount", "setpriv", "sh"))
    if sys.platform != "linux" or not (unshare and mount and sh):
        return
    apart, bound = ("--mount", "--propagation", "private", "--", sh, "-c"), f'{mount} --no-mtab --bind "$0" {TMP}'
    yield unshare, *apart, f'{bound} && exec "$@"'
    if setpriv:
        powerless = f"{setpriv} --ambient-caps=-all --inh-caps=-all --"
        yield unshare, "--user", "--map-current-user", "--keep-caps", *apart, f'{bound} && exec {powerless} "$@"'


def _below_tmp(path: Path) -> bool:
    """As it is named, or where it leads."""
    return path.is_absolute() and (path.is_relative_to(TMP) or path.resolve().is_relative_to(TMP.resolve()))

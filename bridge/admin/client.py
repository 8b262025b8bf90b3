"""How commands find the running daemon and talk to it; standard library only, and no proxy in between."""

from __future__ import annotations

import os
from collections.abc import Mapping as Dict, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

from bridge.errors import AccessDenied, ConfigError, RemoteError, StateError, Unreachable, UsageError

if TYPE_CHECKING:
    from bridge.attempt import Attempt, FailedBatch
    from bridge.config.tree import Table
    from bridge.snapshot import Forgotten, MappingView, Snapshot

View = TypeVar("View")

TIMEOUT = 10.0
PAUSE_TIMEOUT = 1000.0
"""A pause waits for running invocations, which may take 15 minutes."""
MOST_BYTES = 64 << 20


class Address(NamedTuple):
    """Where the daemon listens, and the token that belongs there."""

    url: str
    token: str = ""


def find(given: str | None, token: str | None, environ: Dict[str, str] = os.environ) -> Address:
    """The daemon's address: ``given`` (`--admin`), else BRIDGE_ADMIN, else ``admin.listen`` of the configuration that
    is found, else the default. Other mistakes in that configuration do not matter here.

    Raises UsageError for an address that is none, and where the configuration turns the admin interface off.
    """
    token = token or environ.get("BRIDGE_ADMIN_TOKEN", "")
    if named := given or environ.get("BRIDGE_ADMIN"):
        return Address(named, token)
    listen, configured = _configured(environ)
    if listen == "off":
        raise UsageError("the configuration says admin.listen: off, so the daemon cannot be asked; set HOST:PORT there")
    return Address(_reachable(listen), token or configured)


class Client:
    """Asks one daemon. Every call raises Unreachable, RemoteError or UsageError with one line that says what to do."""

    def __init__(self, address: Address) -> None:
        url = address.url if "://" in address.url else f"http://{address.url}"
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host = ""
        if not self._host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
            raise UsageError(f'"{address.url}" is no address of a daemon; expected such as http://127.0.0.1:9464')
        if not (address.token.isascii() and address.token.isprintable()):
            raise UsageError("the token has characters that no token has; expected visible ASCII characters")
        self._tls = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._token = address.token
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._prefix}"

    def get(self, path: str, timeout: float = TIMEOUT) -> tuple[int, bytes]:
        """The status and body, whatever the status is."""
        return self._request("GET", path, None, timeout)

    def snapshot(self) -> Snapshot:
        """The daemon at this moment."""
        from bridge.snapshot import Snapshot

        status, body = self.get("/state")
        if status != 200:
            raise self._refused("/state", status, body)
        return self._decoded(body, Snapshot)

    def pause(self, name: str, *, wait: bool) -> MappingView:
        """Pauses a mapping; with ``wait``, returns when nothing of it runs any more."""
        from bridge.snapshot import MappingView

        return self._change(name, "pause", MappingView, {"wait": wait}, PAUSE_TIMEOUT if wait else TIMEOUT)

    def resume(self, name: str) -> MappingView:
        """Resumes a mapping."""
        from bridge.snapshot import MappingView

        return self._change(name, "resume", MappingView)

    def forget(self, name: str) -> Forgotten:
        """Drops the positions of a mapping that is gone."""
        from bridge.snapshot import Forgotten

        return self._change(name, "forget", Forgotten)

    def attempts(self, records: Sequence[str]) -> dict[str, tuple[Attempt, ...]]:
        """What the daemon knows about records with these ids, the oldest attempt first; others are absent."""
        from bridge.attempt import Attempt

        status, body = self._request("POST", "/attempts", {"records": list(records)}, TIMEOUT)
        if status != 200:
            raise self._refused("/attempts", status, body)
        return self._decoded(body, dict[str, tuple[Attempt, ...]])

    def failed(self, name: str, most: int = 10) -> tuple[FailedBatch, ...]:
        """The last invocations of a mapping that failed, the newest first."""
        from bridge.attempt import FailedBatch

        path = f"/mappings/{quote(name, safe='')}/attempts"
        status, body = self._request("POST", path, {"most": most}, TIMEOUT)
        if status != 200:
            raise self._refused(path, status, body)
        return self._decoded(body, tuple[FailedBatch, ...])

    def _change(
        self, name: str, change: str, kind: type[View], body: dict[str, bool] | None = None, timeout: float = TIMEOUT
    ) -> View:
        path = f"/mappings/{quote(name, safe='')}/{change}"
        status, answer = self._request("POST", path, body or {}, timeout)
        if status != 200:
            raise self._refused(path, status, answer)
        return self._decoded(answer, kind)

    def _request(self, method: str, path: str, body: dict[str, Any] | None, timeout: float) -> tuple[int, bytes]:
        import http.client
        import json

        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"{self._prefix}{path}", data, headers)
            answer = connection.getresponse()
            content = answer.read(MOST_BYTES)
            if answer.length:
                raise ValueError(f"its answer lacks {answer.length} bytes")
            return answer.status, content
        except TimeoutError:
            raise Unreachable(f"the daemon at {self.url} did not answer within {timeout:.0f} s") from None
        except (http.client.HTTPException, ValueError) as error:
            raise RemoteError(f"{self.url} does not speak as a daemon does ({error!r:.200})") from None
        except OSError as error:
            reason = error.strerror or str(error)
            advice = "start it with bridge run, or name its address with --admin URL"
            raise Unreachable(f"no daemon answers at {self.url} ({reason}); {advice}") from None
        finally:
            connection.close()

    def _decoded(self, body: bytes, kind: type[View]) -> View:
        import msgspec

        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteError(f"{self.url} is no daemon of this version of bridge ({error})") from None

    def _refused(self, path: str, status: int, body: bytes) -> Exception:
        import json

        try:
            reason = str(json.loads(body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return RemoteError(
                f"{self.url}{path} answers {status}, as no daemon does; name its address with --admin URL"
            )
        match status:
            case 401:
                return AccessDenied(f"{reason}; give it with --token or BRIDGE_ADMIN_TOKEN")
            case 403:
                return AccessDenied(reason)
            case 404 | 422:
                return UsageError(reason)
            case 507:
                return StateError(reason)
            case _:
                return RemoteError(f"{reason} ({status})")


def _configured(environ: Dict[str, str]) -> tuple[str, str]:
    """``admin.listen`` and the token of file and environment, as far as they can be read."""
    from bridge.config.options import AdminOptions, Options
    from bridge.config.overrides import lay_environment
    from bridge.config.tree import Scalar, Table

    root = _file(environ)
    try:
        root = lay_environment(root, Options, environ, [])
    except ConfigError:  # a variable of some other option; the file alone will do
        root = _file(environ)
    admin = root.items.get("admin")
    if isinstance(admin, Scalar) and admin.text == "off":
        return "off", ""
    options = admin.items if isinstance(admin, Table) else {}

    def text(key: str) -> str:
        option = options.get(key)
        return option.text if isinstance(option, Scalar) and option.value is not None else ""

    return text("listen") or AdminOptions().listen, text("token") or _held(text("token_file"), root.place.name)


def _held(token_file: str, configuration: str) -> str:
    """The token in a file that the configuration names; empty where there is none, or it is not for us to read."""
    try:
        return (Path(configuration).absolute().parent / token_file).read_text().strip() if token_file else ""
    except (OSError, ValueError):
        return ""


def _file(environ: Dict[str, str]) -> Table:
    """The configuration file as a tree; empty where there is none, or it cannot be read."""
    from bridge.config.tree import Place, Table, parse
    from bridge.settings import find as find_file

    try:
        file = find_file(None, environ)
        root = parse(Path(file).read_text("utf-8-sig"), file, environ, [])
    except (ConfigError, OSError, ValueError):
        root = Table({}, Place(""))
    return root if isinstance(root, Table) else Table({}, Place(""))


def _reachable(listen: str) -> str:
    """The URL for what the daemon was told to listen on."""
    host, _, port = listen.rpartition(":")
    if port == "0":
        raise UsageError(
            "the daemon listens on a free port (admin.listen ends in :0); name its address with --admin URL"
        )
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  every address: also loopback
    return f"http://{host}:{port}"

"""The settings of the daemon: one immutable object, read from file, environment and ``--set``, and checked before
anything starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping as Dict, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from bridge.config.aws import check_aws
from bridge.config.functions import function
from bridge.config.handler import found
from bridge.config.mappings import Home, mapping
from bridge.config.options import NAME, AdminOptions, ApiOptions, Options
from bridge.config.overrides import lay_environment, lay_sets
from bridge.config.reader import Report, Section, read, shown
from bridge.config.tree import Node, Place, Problem, Scalar, Table, parse
from bridge.errors import ConfigError, StateError
from bridge.function import AwsSettings, Function
from bridge.mapping import Mapping
from bridge.stores import StateUrl

PLACES = ("bridge.yaml", "/etc/bridge/bridge.yaml")
"""Where the file is looked for when neither ``-c`` nor ``BRIDGE_CONFIG`` names one."""
MOST_BYTES = 4 << 20
"""Of the file."""

ACCESS_KEY = "[A-Za-z0-9]{3,128}"

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the configuration says, checked. Seconds and bytes."""

    file: str
    """As it was named or found."""
    aws: AwsSettings = AwsSettings()
    """The block at the top. Those of mappings and functions have been laid over it already."""
    state: str = "memory:"
    """The state store's URL; a path in it is absolute."""
    shutdown_grace: float = 30.0
    max_buffered_bytes: int = 256 << 20
    log_level: str = "info"
    log_format: Literal["console", "json"] | None = None
    """``console`` or ``json``; none: console on a terminal, else json."""
    admin_host: str | None = None
    """None: nothing listens."""
    admin_port: int | None = None
    admin_token: str | None = None
    api_host: str | None = None
    """None: the API is off."""
    api_port: int | None = None
    api_keys: Dict[str, str] | None = None
    """Access key id -> secret; none: callers need not sign (loopback only)."""
    functions: Dict[str, Function] = {}
    mappings: Dict[str, Mapping] = {}
    notices: tuple[str, ...] = ()
    """What was understood and dropped, to be said once."""
    warnings: tuple[str, ...] = ()
    """Advice, ``FILE:LINE: path: message``: it runs like this, but perhaps not as intended."""

    def __repr__(self) -> str:
        return f"<Settings of {self.file}: {len(self.mappings)} mappings, {len(self.functions)} functions>"


def load(
    path: str | Path | None = None,
    environ: Dict[str, str] | None = None,
    sets: Sequence[str] = (),
    *,
    local: bool = False,
) -> Settings:
    """Reads the configuration: defaults < file < environment < ``sets`` (``path=value`` each).

    ``local`` keeps the state in memory unless the configuration names a store, and reloads code unless it says
    otherwise. Raises ConfigError with every problem at once, one line each: ``FILE:LINE: path: message``.
    """
    environ = os.environ if environ is None else environ
    file = find(path, environ)
    report = Report()
    root = parse(_text(file), file, environ, report.problems)
    if not isinstance(root, Table):
        raise ConfigError(f"{root.place}: expected options such as functions and mappings, got no mapping of them")
    root = lay_environment(_off_as_table(_off_as_table(root, "admin"), "api"), Options, environ, report.problems)
    root = lay_sets(root, Options, sets, report.problems)
    settings = _settings(root, file, environ, report, local=local)
    if report.problems:
        raise ConfigError(*_lines(report.problems))
    return settings


def find(path: str | Path | None, environ: Dict[str, str]) -> str:
    """The configuration file: the one that is named, by ``path`` or by BRIDGE_CONFIG, else the first of PLACES that is
    there. Raises ConfigError, which lists what was tried.
    """
    named = str(path) if path is not None else environ.get("BRIDGE_CONFIG")
    if named:
        return named
    for place in PLACES:
        if found(Path(place)) == "file":
            return place
    raise ConfigError(f"no configuration file; tried: {', '.join(PLACES)}; name one with -c FILE or BRIDGE_CONFIG")


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{file}: the configuration file cannot be read: {reason}") from None
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{file}: more than {MOST_BYTES} bytes; this is no configuration file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: broken YAML: it is not UTF-8 text") from None


def _lines(problems: Sequence[Problem]) -> list[str]:
    """In the order of the file, then what came from elsewhere, each once; without what follows from another."""
    settled = {problem.path for problem in problems if problem.settled}
    left = (problem for problem in problems if problem.settled or problem.path not in settled)
    ordered = sorted(left, key=lambda problem: (problem.place.line == 0, problem.place.line))
    return list(dict.fromkeys(map(str, ordered)))


def _off_as_table(root: Table, key: str) -> Table:
    """``admin: off`` as ``admin: {listen: off}``, so that the environment can set the options below it."""
    node = root.items.get(key)
    if not isinstance(node, Scalar) or node.text != "off":
        return root
    return Table({**root.items, key: Table({"listen": node}, node.place)}, root.place)


def _settings(root: Table, file: str, environ: Dict[str, str], report: Report, *, local: bool) -> Settings:
    whole = Section(root, "", report)
    rest = {key: node for key, node in root.items.items() if key not in ("functions", "mappings")}
    top = Section(Table(rest, root.place), "", report)
    options = read(top, Options)
    check_aws(options.aws, top, "aws.")
    folder = Path(file).absolute().parent
    mappings, homes = _mappings(whole, options.aws)
    functions = _functions(whole, options.aws, homes, environ, folder, local=local)
    _advise(whole, functions, mappings)
    host, port, token = _admin(options, top, folder)
    api_host, api_port, api_keys = _api(options, top)
    return Settings(
        file=file,
        aws=options.aws,
        state=_state(options.state, top, environ, folder, local=local),
        shutdown_grace=options.shutdown_grace,
        max_buffered_bytes=_bytes(options.max_buffered_bytes),
        log_level=options.log.level,
        log_format=options.log.format,
        admin_host=host,
        admin_port=port,
        admin_token=token,
        api_host=api_host,
        api_port=api_port,
        api_keys=api_keys,
        functions=functions,
        mappings=mappings,
        notices=_notices(file, report),
        warnings=tuple(_lines(report.warnings)),
    )


def _sections(whole: Section, key: str) -> Iterator[tuple[str, Section]]:
    """The named entries below ``functions`` or ``mappings``."""
    for name, node in Section(
        whole.table.items.get(key, Table({}, whole.place)), key, whole.report
    ).table.items.items():
        section = Section(node, f"{key}.{name}", whole.report)
        if not re.fullmatch(NAME, name):
            section.problem("", f"{shown(name)} is no name; expected 1 to 64 letters, digits, - and _")
        elif isinstance(node, Table) or whole.node(key, name) is None:
            yield name, section


def _mappings(whole: Section, aws: AwsSettings) -> tuple[dict[str, Mapping], dict[str, Home]]:
    functions = whole.node("functions")
    names = {name: _qualifiers(node) for name, node in functions.items.items()} if isinstance(functions, Table) else {}
    mappings: dict[str, Mapping] = {}
    homes: dict[str, Home] = {}
    claims: dict[tuple[str, ...], str] = {}
    for name, section in _sections(whole, "mappings"):
        made = mapping(name, section, names, aws, homes)
        if not made:
            continue
        mappings[name] = made
        first = claims.setdefault((str(made.source_arn), made.function, made.qualifier), name)
        if first != name:  # ESM-11
            what = f"an event source mapping of {made.source_arn} and function {made.function}"
            section.problem("EventSourceArn", f"{what} already exists: mappings.{first}; keep one of the two")
        first = claims.setdefault((made.uuid,), name)
        if first != name:
            section.problem("UUID", f"mappings.{first} has the same UUID {made.uuid}; each mapping needs its own")
    return mappings, homes


def _qualifiers(function: Node) -> tuple[str, ...]:
    """The versions and aliases of a function."""
    named = [function.items.get(key) for key in ("versions", "aliases")] if isinstance(function, Table) else []
    return tuple(name for node in named if isinstance(node, Table) for name in node.items)


def _functions(
    whole: Section, aws: AwsSettings, homes: Dict[str, Home], environ: Dict[str, str], folder: Path, *, local: bool
) -> dict[str, Function]:
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    functions = {}
    ports: dict[int, str] = {}
    for name, section in _sections(whole, "functions"):
        home = homes.get(name, Home(region, "000000000000"))
        located = AwsSettings(region=aws.region or home.region, account_id=aws.account_id or home.account).over(aws)
        functions[name] = made = function(name, section, located, folder, local=local)
        first = ports.setdefault(made.debug, name) if made.debug else name
        if first != name:
            section.problem("debug", f"{made.debug} is the port of functions.{first}; each debugger needs its own")
    return functions


def _advise(whole: Section, functions: Dict[str, Function], mappings: Dict[str, Mapping]) -> None:
    """Advice about functions and their mappings together, which needs no network."""
    if not mappings and not whole.report.problems:
        whole.warn("mappings", "there are none, so nothing will be polled")
    for name, made in functions.items():
        section = Section(whole.node("functions", name) or Table({}, whole.place), f"functions.{name}", whole.report)
        wanted = [it.maximum_concurrency for it in mappings.values() if it.function == name]
        _advise_concurrency(made, [number for number in wanted if number is not None], bool(wanted), section)


def _advise_concurrency(made: Function, wanted: Sequence[int], is_mapped: bool, section: Section) -> None:
    reserved, most = made.reserved_concurrency, sum(wanted)
    if reserved == 0:
        section.warn("ReservedConcurrentExecutions", "0 stops this function: nothing is invoked")
    elif reserved is not None and reserved < most:  # SQS-17
        section.warn(
            "ReservedConcurrentExecutions",
            f"{reserved} is less than {most}, the MaximumConcurrency of its mappings together",
        )
    elif reserved is not None and reserved < 5 and is_mapped:  # SQS-17
        section.warn("ReservedConcurrentExecutions", f"{reserved} is less than 5, with which AWS's mappings begin")
    elif reserved is None and made.max_environments < most:
        section.warn(
            "max_environments",
            f"{made.max_environments} is less than {most}, the MaximumConcurrency of its mappings together",
        )


def _admin(options: Options, section: Section, folder: Path) -> tuple[str | None, int | None, str | None]:
    admin = options.admin if isinstance(options.admin, AdminOptions) else AdminOptions(listen="off")
    token = _token(admin, section, folder)
    if admin.listen == "off":
        return None, None, token
    address = _address(admin.listen, "admin.listen", 9464, section)
    if not address:
        return None, None, None
    if not _is_loopback(address[0]) and not token:
        section.warn(
            "admin.listen", "other hosts may look, but pause and resume are refused to them without admin.token"
        )
    return *address, token


def _token(admin: AdminOptions, section: Section, folder: Path) -> str | None:
    """It is never shown."""
    if admin.token_file is None:
        if admin.token is not None and not _is_visible_ascii(admin.token):
            section.problem("admin.token", "expected visible ASCII characters without spaces")
        return admin.token
    if admin.token:
        section.problem("admin.token_file", "token says it as well; remove one of them")
    try:
        token = (folder / admin.token_file).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text of ASCII characters"
        section.problem("admin.token_file", f"{admin.token_file} cannot be read: {reason}")
        return None
    if not token or not _is_visible_ascii(token):
        section.problem("admin.token_file", f"{admin.token_file}: expected one line of visible ASCII characters")
    return token


def _api(options: Options, section: Section) -> tuple[str | None, int | None, Dict[str, str] | None]:
    api = options.api if isinstance(options.api, ApiOptions) else ApiOptions(listen="off")
    if api.auth == "none" and api.access_keys:
        section.problem("api.access_keys", "auth is none, so that nobody would be asked for a key; write auth: sigv4")
    for key, secret in api.access_keys.items():
        if not (re.fullmatch(ACCESS_KEY, key) and secret and _is_visible_ascii(secret)):
            section.problem(
                f"api.access_keys.{key}" if re.fullmatch(ACCESS_KEY, key) else "api.access_keys",
                "expected an id of 3 to 128 letters and digits, and a secret of visible ASCII without spaces",
            )
    if api.auth == "sigv4" and not api.access_keys:
        section.problem("api.auth", "sigv4 needs at least one entry in api.access_keys: {ID: SECRET}")
    if api.listen == "off":
        return None, None, None
    address = _address(api.listen, "api.listen", 3001, section)
    if not address:
        return None, None, None
    if not _is_loopback(address[0]) and api.auth == "none":
        section.problem(
            "api.listen",
            f"auth: none lets anybody who reaches {address[0]} run every function; write auth: sigv4 with access_keys,"
            " or listen at 127.0.0.1",
        )
    return *address, api.access_keys if api.auth == "sigv4" else None


def _address(listen: str, key: str, port_for_example: int, section: Section) -> tuple[str, int] | None:
    """Host and port; none, and reported, when it is neither."""
    host, _, port = listen.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host.removeprefix("[").removesuffix("]") if bracketed else host
    is_host = ":" in host if bracketed else bool(host) and not set(host) & set(":/[]@ ")
    if is_host and _is_visible_ascii(host) and port.isdecimal() and port.isascii() and int(port[:6]) <= 65535:
        return host, int(port)
    expected = f"expected HOST:PORT, such as 127.0.0.1:{port_for_example} or [::1]:{port_for_example}, or off"
    section.problem(key, f"{shown(listen)} is no address; {expected}")
    return None


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _is_visible_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    number = size.rstrip("BiKMG ")
    return int(number) * _UNITS[size.removeprefix(number).strip()]


def _state(url: str | None, section: Section, environ: Dict[str, str], folder: Path, *, local: bool) -> str:
    """The store's URL with an absolute path."""
    if url is None:
        return "memory:" if local else _default_state(section, environ)
    if url == "memory":  # `state: memory:` is no YAML without quotes
        return "memory:"
    try:
        parsed = StateUrl.parse(url)
    except StateError as error:
        section.problem("state", str(error).removeprefix("state: "))
        return url
    if parsed.scheme == "memory":
        return url
    query = f"?namespace={parsed.namespace}" if parsed.namespace else ""
    return f"{_sqlite(folder / parsed.path)}{query}"


def _default_state(section: Section, environ: Dict[str, str]) -> str:
    file = state_file(environ)
    if file is None:
        section.problem(
            "", "state is missing, and there is neither HOME nor STATE_DIRECTORY to put it; give sqlite:////PATH"
        )
        return "memory:"
    return _sqlite(file)


def state_file(environ: Dict[str, str]) -> Path | None:
    """Where the state is kept when nobody says it; none: there is no place."""
    folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd lists several with colons
    if folder:
        return Path(folder) / "state.db"
    state_home = environ.get("XDG_STATE_HOME", "")
    if Path(state_home).is_absolute():
        return Path(state_home) / "bridge" / "state.db"
    home = environ.get("HOME", "")
    return Path(home) / ".local/state/bridge/state.db" if Path(home).is_absolute() else None


def _sqlite(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


def _notices(file: str, report: Report) -> tuple[str, ...]:
    """One notice for all that pasted mappings hold of AWS's answers."""
    dropped = [f"{path}: {', '.join(keys)}" for path, keys in report.dropped.items() if keys]
    if not dropped:
        return ()
    return (str(Problem(Place(file), "", f"dropped, for they are AWS's answers and no options: {'; '.join(dropped)}")),)

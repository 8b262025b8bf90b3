"""Every option of the file, declared once: name, type, range, default and one sentence. The keys, the environment
variables, the paths of ``--set``, the JSON Schema and the commented example all come from here; those of functions and
of mappings stand in files of their own beside this one.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridge.config.options_functions import FunctionOptions
from bridge.config.options_mappings import MappingOptions
from bridge.function import AwsSettings

NAME = "^[a-zA-Z0-9_-]{1,64}$"
"""Names of functions and mappings."""
SIZE = "^[0-9]{1,15} ?(B|KiB|MiB|GiB)?$"
"""Bytes with a unit."""


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least level that is logged: debug, info, warning or error.", examples=["debug"]),
    ] = "info"
    format: Annotated[
        Literal["console", "json"] | None,
        Meta(
            description="One JSON object a line, or lines for people. Default: console on a terminal, else json.",
            examples=["json"],
        ),
    ] = None


class AdminOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics, health, readiness, state and what `bridge mappings` asks for."""

    listen: Annotated[
        str,
        Meta(
            description="HOST:PORT to listen at; port 0 takes a free one; off: nothing listens.",
            examples=["0.0.0.0:9464"],
        ),
    ] = "127.0.0.1:9464"
    token: Annotated[
        str | None,
        Meta(
            description="Secret that lets other hosts pause, resume and see payloads; without it only this host may.",
            examples=["${BRIDGE_ADMIN_TOKEN:-}"],
        ),
    ] = None
    token_file: Annotated[
        str | None,
        Meta(
            description="File that holds the token, in place of `token`: a credential of systemd, a mounted secret.",
            examples=["/run/credentials/bridge.service/admin-token"],
        ),
    ] = None


class ApiOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The API that the AWS CLI and every SDK speak with Lambda."""

    listen: Annotated[
        str,
        Meta(
            description="HOST:PORT to listen at; port 0 takes a free one; off: nothing listens.",
            examples=["127.0.0.1:3001"],
        ),
    ] = "127.0.0.1:3001"
    auth: Annotated[
        Literal["none", "sigv4"],
        Meta(
            description="Who may call: none (anybody who reaches it; on loopback only), or sigv4 (whoever signs with"
            " one of the access_keys).",
            examples=["sigv4"],
        ),
    ] = "none"
    access_keys: Annotated[
        dict[str, str],
        Meta(
            description="Access key id -> secret access key, for auth: sigv4.",
            examples=[{"AKIDEXAMPLE": "a-secret-of-your-own"}],
        ),
    ] = {}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of bridge."""

    aws: Annotated[
        AwsSettings,
        Meta(
            description="Where AWS is and who we are there; what is absent comes from the usual AWS environment and"
            " profile. A mapping or a function may carry a block of its own, which goes over this one.",
        ),
    ] = AwsSettings()
    state: Annotated[
        str | None,
        Meta(
            description="What survives a restart: sqlite:////absolute/path, with ?namespace=ME to share the file, or"
            " memory to keep nothing. Default: state.db in $STATE_DIRECTORY, else in $XDG_STATE_HOME/bridge, else in"
            " ~/.local/state/bridge.",
            examples=["sqlite:////var/lib/bridge/state.db"],
        ),
    ] = None
    shutdown_grace: Annotated[
        Annotated[float, Meta(ge=0, le=43200)],
        Meta(description="Seconds that running invocations get to end when the daemon stops.", examples=[60]),
    ] = 30
    max_buffered_bytes: Annotated[
        Annotated[int, Meta(ge=1)] | Annotated[str, Meta(pattern=SIZE)],
        Meta(
            description="Most bytes of received and unfinished payloads together: a number, or one with KiB, MiB or"
            " GiB.",
            examples=["64MiB"],
            extra={"expected": "bytes, such as 268435456 or 256MiB"},
        ),
    ] = "256MiB"
    log: Annotated[LogOptions, Meta(description="What is logged, on stderr.")] = LogOptions()
    admin: Annotated[
        AdminOptions | Literal["off"],
        Meta(description="Metrics, health, readiness, state, and what `bridge mappings` asks for; or off."),
    ] = AdminOptions()
    api: Annotated[
        ApiOptions | Literal["off"],
        Meta(
            description="The Lambda-compatible API (invoke, event source mappings, concurrency); off unless this"
            " stands here.",
            examples=[
                {
                    "listen": "127.0.0.1:3001",
                    "auth": "sigv4",
                    "access_keys": {"AKIDEXAMPLE": "a-secret-of-your-own"},
                }
            ],
        ),
    ] = "off"
    functions: Annotated[
        dict[str, FunctionOptions],
        Meta(
            description="Functions by name: up to 64 letters, digits, - and _.",
            extra_json_schema={"propertyNames": {"pattern": NAME}},
        ),
    ] = {}
    mappings: Annotated[
        dict[str, MappingOptions],
        Meta(
            description="Event source mappings by name: up to 64 letters, digits, - and _. A mapping as AWS prints it"
            " (get-event-source-mapping) can be pasted below its name.",
            extra_json_schema={"propertyNames": {"pattern": NAME}},
        ),
    ] = {}

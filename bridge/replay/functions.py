"""Finds out who runs functions for a replay, and what is known of the letters' mappings: from the command line, the
configuration and the daemon that may run with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.aws import Credentials
from bridge.errors import UsageError
from bridge.function import AwsSettings
from bridge.replay.aims import Known
from bridge.replay.callers import ApiCaller, Caller, OwnCaller
from bridge.replay.to_function import ToFunction

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.executors.output import OutputSink
    from bridge.settings import Settings

NEITHER = (
    "a function is run by a daemon, or by this process with a configuration: name the daemon's API with --api URL, or"
    " the configuration with -c FILE"
)


async def to_function(
    aws: Aws,
    settings: Settings | None,
    given: AwsSettings,
    *,
    shelf: str,
    word: str = "",
    function: str = "",
    api: str = "",
    output: OutputSink | None = None,
) -> ToFunction:
    """The target, to be entered and checked. ``given``: what the command line says about AWS; it goes before the
    configuration. ``shelf``: ARN of where the letters lie; ``word``: what the user called it, perhaps a mapping or a
    function of the configuration. ``function``: NAME, NAME:QUALIFIER or ARN, empty: each letter's own. ``api``: URL;
    empty: the daemon at the configuration's api.listen if it answers, else this process. Raises UsageError,
    RemoteError."""
    caller = await _caller(aws, settings, given, api, output)
    mappings = dict(settings.mappings) if settings else {}
    own = mappings.get(word)
    functions = settings.functions if settings else {}
    known = Known(
        mappings=mappings,
        mapping=own,
        function="" if own else word if word in functions else _owner(settings, shelf),
        aws=given.over(settings.aws) if settings else given,
        given=given,
        shelf=shelf,
        learn=caller.mappings if isinstance(caller, ApiCaller) else None,
    )
    return ToFunction(caller, aws, known, function)


def _owner(settings: Settings | None, shelf: str) -> str:
    """The function whose dead-letter queue or failure destination this is, if it is that of one alone."""
    functions = settings.functions.values() if settings else ()
    names = [it.name for it in functions if shelf in (it.dead_letter, it.event_invoke.on_failure)]
    return names[0] if len(names) == 1 else ""


async def _caller(
    aws: Aws, settings: Settings | None, given: AwsSettings, api: str, output: OutputSink | None
) -> Caller:
    if api:
        return ApiCaller(api, given.over(settings.aws) if settings else given, output=output)
    if settings is None:
        raise UsageError(NEITHER)
    if settings.api_host is not None:
        host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        keys = next((Credentials(*pair) for pair in (settings.api_keys or {}).items()), None)
        daemon = ApiCaller(f"http://{host}:{settings.api_port}", settings.aws, keys=keys, output=output)
        async with daemon:
            is_there = await daemon.answers()
        if is_there:
            return daemon
    return OwnCaller(settings.functions, settings.file, aws, output)

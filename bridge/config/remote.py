"""Functions that run elsewhere: behind a ``url``, or on ``lambda``."""

from __future__ import annotations

import re
from collections.abc import Mapping as Dict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bridge.config.aws import partition_of
from bridge.config.events import dead_letter, event_invoke
from bridge.config.options_functions import FunctionOptions, HeaderOptions
from bridge.config.reader import Section, shown
from bridge.function import AwsSettings, Endpoint, Function, HeaderFile

LONGEST_TIMEOUT = 900

_LAMBDA_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):lambda:(?P<region>[a-z]{2,6}(-[a-z]+)+-[0-9]{1,2}):[0-9]{12}:function"
    r":[a-zA-Z0-9_-]{1,64}(:(\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
).fullmatch
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_OUR_HEADERS = frozenset((
    "connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip
_OF_URL = ("headers", "verify", "ca_file")
_OF_PROCESSES = (
    "Runtime", "Handler", "CodeUri", "command", "MemorySize", "Environment", "python", "node", "idle_timeout",
    "credentials", "ProvisionedConcurrentExecutions", "LoggingConfig", "reload", "debug", "versions", "aliases",
)  # fmt: skip
"""What says how the bridge itself runs a handler."""


def function_arn(name: str, settings: AwsSettings) -> str:
    """The ARN that a function of this name has here."""
    return f"arn:{partition_of(settings.region)}:lambda:{settings.region}:{settings.account_id}:function:{name}"


def check_local(section: Section) -> None:
    """Reports what has a meaning only with ``url``, on a function without."""
    for key in _OF_URL:
        if section.node(key):
            section.problem(key, "has a meaning only together with url; remove it")


def remote_function(
    name: str, options: FunctionOptions, section: Section, settings: AwsSettings, folder: Path
) -> Function:
    """The function that ``url`` or ``lambda`` names. ``settings`` are those of its ``aws`` block over the top-level
    ones; relative paths start at ``folder``.
    """
    kind = "url" if section.node("url") else "lambda"
    where = "behind its url" if kind == "url" else "on AWS Lambda"
    for key in _OF_PROCESSES:
        if section.node(key):
            section.problem(key, f"a function with `{kind}` runs {where}, with its own settings; remove one of the two")
    if kind == "url" and section.node("lambda"):
        section.problem("lambda", "a function runs behind a url or on lambda; remove one of the two")
    if kind == "lambda":
        check_local(section)
    arn = function_arn(name, settings)
    return Function(
        name=name,
        arn=arn,
        kind=kind,
        code=folder,
        timeout=float(LONGEST_TIMEOUT if kind == "lambda" and not section.node("Timeout") else options.Timeout),
        reserved_concurrency=options.ReservedConcurrentExecutions,
        max_environments=options.max_environments,
        event_invoke=event_invoke(options.EventInvokeConfig, arn, section),
        dead_letter=dead_letter(options.DeadLetterConfig, section),
        where=str(section.place),
        **(_behind(options, section, settings, folder) if kind == "url" else _on_lambda(options, section, settings)),
    )


def _behind(options: FunctionOptions, section: Section, settings: AwsSettings, folder: Path) -> dict[str, Any]:
    url = options.url or ""
    scheme = _checked_scheme(url, section)
    if scheme == "http":
        for key in ("verify", "ca_file"):
            if section.node(key):
                section.problem(key, "has a meaning only with an https url; remove it")
    elif options.verify is False:
        if options.ca_file is not None:
            section.problem("ca_file", "has no meaning with `verify: false`; remove one of the two")
        section.warn("verify", "false: whoever is between the bridge and this server can read and answer events")
    endpoint = Endpoint(
        url=url,
        headers=_headers(options.headers, section, folder),
        verify=options.verify is not False,
        ca_file=None if options.ca_file is None else folder / options.ca_file,
    )
    return {"aws": settings, "endpoint": endpoint}


def _checked_scheme(url: str, section: Section) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.fragment
    except ValueError:
        good = False
    if good and parts.username is not None:
        section.problem("url", "holds a user name, which would be shown; put an Authorization header under headers")
    elif not good or re.search(r"\s", url) or not url.isprintable():
        expected = "expected one such as http://worker:8080/2015-03-31/functions/function/invocations"
        section.problem("url", f"{shown(url.partition('?')[0])} is no URL; {expected}")
    return parts.scheme if good else ""


def _headers(given: Dict[str, str | HeaderOptions], section: Section, folder: Path) -> dict[str, str | HeaderFile]:
    """Values are never shown."""
    headers: dict[str, str | HeaderFile] = {}
    for name, value in given.items():
        text = value.prefix if isinstance(value, HeaderOptions) else value
        if not _HEADER(name):
            section.problem(f"headers.{name}", "is no name of a header")
        elif name.lower() in _OUR_HEADERS or name.lower().startswith("lambda-runtime-"):
            section.problem(f"headers.{name}", "is a header that the bridge itself sets; remove it")
        elif not text.isprintable() or not text.isascii():
            section.problem(f"headers.{name}", "a header's value has printable ASCII characters only")
        elif isinstance(value, str):
            headers[name] = value
        elif value.file is None:
            section.problem(f"headers.{name}", "file is missing, for example /run/credentials/bridge.service/token")
        else:
            headers[name] = HeaderFile(folder / value.file, value.prefix)
    return headers


def _on_lambda(options: FunctionOptions, section: Section, settings: AwsSettings) -> dict[str, Any]:
    arn = options.lambda_ or ""
    found = _LAMBDA_ARN(arn)
    if not found:
        expected = "expected one such as arn:aws:lambda:eu-west-1:123456789012:function:NAME, or with :ALIAS behind it"
        section.problem("lambda", f"{shown(arn)} is no ARN of a function; {expected}")
        return {"aws": settings, "lambda_arn": arn}
    if options.aws.region not in (None, found["region"]):
        section.problem("aws.region", f"{options.aws.region} is not the region of {arn}; remove it")
    return {"aws": msgspec.structs.replace(settings, region=found["region"]), "lambda_arn": arn}

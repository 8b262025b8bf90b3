"""A function as the file has it, and the checks that make a ``Function`` of it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from bridge.config.aws import check_aws, partition_of
from bridge.config.events import dead_letter, event_invoke
from bridge.config.handler import check_handler, found
from bridge.config.options import FunctionOptions
from bridge.config.reader import Section, check_required, read, shown
from bridge.config.tree import Node, Scalar
from bridge.function import AwsSettings, Function
from bridge.nearest import did_you_mean

OLDEST_PYTHON = 9
NEWEST_PYTHON = 14

RESERVED_VARIABLES = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
})  # fmt: skip
"""RT-20: what the configuration of a function may not set."""

MOST_VARIABLE_BYTES = 4096
"""RT-23: names and values of all variables together."""

_NOT_YET = frozenset({
    "ProvisionedConcurrentExecutions", "command", "url", "lambda", "reload",
    "versions", "aliases", "debug",
})  # fmt: skip
_RUNTIMES_NOT_YET = ("nodejs", "provided")
_WITHOUT_MEANING_HERE = frozenset({
    "Architectures", "Code", "CodeSigningConfigArn", "CodeSize", "Description", "EphemeralStorage", "FileSystemConfigs",
    "FunctionName", "ImageConfig", "KMSKeyArn", "LastModified", "Layers", "LoggingConfig", "PackageType", "Publish",
    "Role", "RuntimeManagementConfig", "SnapStart", "Tags", "TracingConfig", "Version", "VpcConfig",
})  # fmt: skip


_OTHER_KINDS = ("url", "lambda", "command")


def function(name: str, section: Section, aws: AwsSettings, folder: Path) -> Function:
    """The function of this name. ``aws`` are the top-level settings, with the region and account that its mappings give
    where the settings leave them open; relative paths start at ``folder``, which is absolute.
    """
    options = read(section, FunctionOptions, _refuse)
    if not any(section.node(kind) for kind in _OTHER_KINDS):
        check_required(FunctionOptions, section)
    check_aws(options.aws, section, "aws.")
    if options.aws.client:
        section.problem("aws.client", "a handler calls AWS by its own client; this is for mappings, or for all of them")
    _check_variables(options.Environment.Variables, section)
    kind = _kind(options, section)
    python = _interpreter(options, section, folder)
    code = _folder(options, section, folder)
    if kind == "python" and code and options.Handler:
        check_handler(options.Handler, code, python, options.Environment.Variables, section)
    settings = options.aws.over(aws)
    arn = f"arn:{partition_of(settings.region)}:lambda:{settings.region}:{settings.account_id}:function:{name}"
    return Function(
        name=name,
        arn=arn,
        kind=kind,
        runtime=options.Runtime or "",
        handler=options.Handler or "",
        code=code or folder,
        timeout=float(options.Timeout),
        memory=options.MemorySize,
        environment=options.Environment.Variables,
        reserved_concurrency=options.ReservedConcurrentExecutions,
        max_environments=options.max_environments,
        idle_timeout=options.idle_timeout,
        python=python,
        credentials=options.credentials,
        event_invoke=event_invoke(options.EventInvokeConfig, arn, section),
        dead_letter=dead_letter(options.DeadLetterConfig, section),
        aws=settings,
        where=str(section.place),
    )


def _refuse(key: str, node: Node) -> str | None:
    if key in _NOT_YET:
        asks_for_nothing = isinstance(node, Scalar) and node.value in (None, False)
        return "" if asks_for_nothing else "not implemented yet; remove it"
    if key in _WITHOUT_MEANING_HERE:
        return "an option of AWS Lambda that has no meaning here; remove it"
    return None


def _kind(options: FunctionOptions, section: Section) -> str:
    """The key of EXECUTORS that the Runtime asks for; empty when there is none."""
    runtime = options.Runtime
    if runtime is None:
        return ""
    family = next((family for family in ("python", *_RUNTIMES_NOT_YET) if runtime.startswith(family)), "")
    minor = runtime.removeprefix("python3.")
    if minor.isdecimal() and runtime == f"python3.{int(minor[:4])}" and int(minor) >= OLDEST_PYTHON:
        _advise_version(f"3.{minor}", section)
        return family
    words = [f"python3.{minor}" for minor in range(OLDEST_PYTHON, NEWEST_PYTHON + 1)]
    known = f"known are: {words[0]} to {words[-1]}"
    if family in _RUNTIMES_NOT_YET:
        section.problem("Runtime", f"{shown(runtime)}: {family} runtimes are not implemented yet; {known}")
    else:
        known += " (nodejsX.x and provided.* are not implemented yet)"
        section.problem("Runtime", f"no runtime {shown(runtime)}; {known}{did_you_mean(runtime, words)}")
    return ""


def _advise_version(version: str, section: Section) -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version != own and section.node("python") is None:
        section.warn(
            "Runtime",
            f"the handler will run under python {own}, the bridge's own; name another interpreter with `python`",
        )


def _check_variables(variables: dict[str, str], section: Section) -> None:
    """RT-20 and RT-23. Values are never shown."""
    for key in variables:
        path = f"Environment.Variables.{key}"
        if key in RESERVED_VARIABLES:
            section.problem(path, "reserved: the runtime sets this variable itself")
        elif not re.fullmatch("[a-zA-Z][a-zA-Z0-9_]+", key):
            section.problem(path, "a name begins with a letter and has at least two letters, digits and underscores")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in variables.items())
    if size > MOST_VARIABLE_BYTES:
        message = f"{size} bytes are more than {MOST_VARIABLE_BYTES}, the most for names and values together"
        section.problem("Environment.Variables", message)


def _folder(options: FunctionOptions, section: Section, folder: Path) -> Path | None:
    """The code's folder, absolute; none when it is not there."""
    if options.CodeUri is None:
        return None
    path = folder / options.CodeUri
    there = found(path)
    if there == "folder":
        return path
    section.problem("CodeUri", f"{path} is a file; unpack it into a folder" if there else f"{path}: no such folder")
    return None


def _interpreter(options: FunctionOptions, section: Section, folder: Path) -> str | None:
    """The interpreter's path; none: the bridge's own."""
    if options.python is None:
        return None
    if os.sep in options.python:
        path = folder / options.python
        program = str(path) if found(path) == "file" and os.access(path, os.X_OK) else None
    else:
        from shutil import which

        program = which(options.python)
    if not program:
        section.problem("python", f"{options.python}: no such program; give the path of an interpreter")
    return program

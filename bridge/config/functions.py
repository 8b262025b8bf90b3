"""A function as the file has it, and the checks that make a ``Function`` of it."""

from __future__ import annotations

import re
from pathlib import Path

from bridge.config.aws import check_aws
from bridge.config.events import dead_letter, event_invoke
from bridge.config.handler import check_bootstrap, check_handler, check_node_handler, found
from bridge.config.options_functions import FunctionOptions, LoggingOptions
from bridge.config.reader import Section, check_required, read
from bridge.config.remote import check_local, function_arn, remote_function
from bridge.config.runtimes import Programs, check_debug, needless, programs
from bridge.config.tree import Node
from bridge.config.versions import aliases, versions
from bridge.function import AwsSettings, Function, Logging

RESERVED_VARIABLES = frozenset({
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
})  # fmt: skip
"""RT-20: what the configuration of a function may not set."""

MOST_VARIABLE_BYTES = 4096
"""RT-23: names and values of all variables together."""

_WITHOUT_MEANING_HERE = frozenset({
    "Architectures", "Code", "CodeSigningConfigArn", "CodeSize", "Description", "EphemeralStorage", "FileSystemConfigs",
    "FunctionName", "ImageConfig", "KMSKeyArn", "LastModified", "Layers", "PackageType", "Publish",
    "Role", "RuntimeManagementConfig", "SnapStart", "Tags", "TracingConfig", "Version", "VpcConfig",
})  # fmt: skip


def function(name: str, section: Section, aws: AwsSettings, folder: Path, *, local: bool = False) -> Function:
    """The function of this name. ``aws`` are the top-level settings, with the region and account that its mappings give
    where the settings leave them open; relative paths start at ``folder``, which is absolute. ``local``: the
    defaults are those of development.
    """
    options = read(section, FunctionOptions, _refuse)
    check_aws(options.aws, section, "aws.")
    if options.aws.client:
        section.problem("aws.client", "a handler calls AWS by its own client; this is for mappings, or for all of them")
    if section.node("url") or section.node("lambda"):
        return remote_function(name, options, section, options.aws.over(aws), folder)
    check_required(FunctionOptions, section, needless(options))
    check_local(section)
    _check_provisioned(options, section)
    check_debug(options, section)
    _check_variables(options.Environment.Variables, section)
    runs = programs(options, section, folder)
    code = _folder("CodeUri", folder / options.CodeUri, section) if options.CodeUri is not None else None
    numbered = versions(options, section, folder)
    found_versions = [_folder(f"versions.{number}.CodeUri", path, section) for number, path in numbered.items()]
    for place in dict.fromkeys((code, *found_versions)):
        if place:
            _check_code(place, runs, options, section)
    settings = options.aws.over(aws)
    arn = function_arn(name, settings)
    return Function(
        name=name,
        arn=arn,
        kind=runs.kind,
        runtime=options.Runtime or "",
        handler=options.Handler or "",
        code=code or folder,
        versions=numbered,
        aliases=aliases(options, section),
        timeout=float(options.Timeout),
        memory=options.MemorySize,
        environment=options.Environment.Variables,
        reserved_concurrency=options.ReservedConcurrentExecutions,
        provisioned=options.ProvisionedConcurrentExecutions,
        max_environments=options.max_environments,
        idle_timeout=options.idle_timeout,
        python=runs.python,
        node=runs.node,
        command=runs.command,
        reload=local if options.reload is None else options.reload,
        debug=options.debug,
        credentials=options.credentials,
        event_invoke=event_invoke(options.EventInvokeConfig, arn, section),
        dead_letter=dead_letter(options.DeadLetterConfig, section),
        aws=settings,
        logging=_logging(options.LoggingConfig, section),
        where=str(section.place),
    )


def _refuse(key: str, node: Node) -> str | None:  # noqa: ARG001 - whatever it says
    if key in _WITHOUT_MEANING_HERE:
        return "an option of AWS Lambda that has no meaning here; remove it"
    return None


def _logging(options: LoggingOptions, section: Section) -> Logging:
    is_json = options.LogFormat == "JSON"
    for key in ("ApplicationLogLevel", "SystemLogLevel"):
        if getattr(options, key) and not is_json:  # RT-55
            section.problem(f"LoggingConfig.{key}", "levels need LogFormat JSON; add it, or remove this")
    return Logging(
        json=is_json,
        application=(options.ApplicationLogLevel or "INFO") if is_json else "",
        system=options.SystemLogLevel or "INFO",
        group=options.LogGroup or "",
    )


def _check_provisioned(options: FunctionOptions, section: Section) -> None:
    """RT-62: it is a part of what the function has."""
    wanted, reserved = options.ProvisionedConcurrentExecutions, options.ReservedConcurrentExecutions
    name, limit = "ReservedConcurrentExecutions", reserved
    if limit is None:
        name, limit = "max_environments", options.max_environments
    if wanted > limit:
        section.problem("ProvisionedConcurrentExecutions", f"{wanted} is more than {limit}, the {name}")


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


def _check_code(code: Path, runs: Programs, options: FunctionOptions, section: Section) -> None:
    """Reports what the folder ``code`` lacks."""
    if runs.kind == "python" and options.Handler:
        check_handler(options.Handler, code, runs.python, options.Environment.Variables, section)
    elif runs.kind == "nodejs" and options.Handler:
        check_node_handler(options.Handler, code, section)
    elif runs.kind == "provided" and not runs.command:
        check_bootstrap(code, section)


def _folder(key: str, path: Path, section: Section) -> Path | None:
    """The code's folder, absolute; none when it is not there."""
    there = found(path)
    if there == "folder":
        return path
    section.problem(key, f"{path} is a file; unpack it into a folder" if there else f"{path}: no such folder")
    return None

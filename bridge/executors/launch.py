"""How an execution environment is started: its command, and the variables its process sees."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Mapping as Dict
from datetime import UTC, datetime
from pathlib import Path

from bridge.errors import UsageError
from bridge.function import Function

RUNTIMES = Path(__file__).parent.parent / "runtimes"
WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"
LOOPBACK = "127.0.0.1"
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

_SERVICE_IDS = {"dynamodbstreams": "DYNAMODB_STREAMS", "events": "EVENTBRIDGE"}
"""Where the name of a service's client and its variable ``AWS_ENDPOINT_URL_<SERVICE>`` differ by more than case."""


def command(function: Function) -> tuple[str, ...]:
    """What is started for the function. Raises UsageError when it is not there.

    ``AWS_LAMBDA_EXEC_WRAPPER`` (RT-24) is started through ``env``, which ends with status 127 as Lambda's own start
    script does when the wrapper is missing.
    """
    words = _COMMANDS[function.kind](function)
    wrapper = function.environment.get(WRAPPER)
    return ("/usr/bin/env", "--", wrapper, *words) if wrapper and function.kind != "provided" else words


def _python(function: Function) -> tuple[str, ...]:
    found = sys.executable
    if function.python is not None:
        advice = "give the path of a Python interpreter, or leave it out for the bridge's own"
        found = _program(function, "python", function.python, advice)
    if function.debug is None:
        return found, "-u", str(RUNTIMES / "python.py")
    # The modules that Python has frozen are closed to debuggers, which would warn about it.
    debugger = ("-X", "frozen_modules=off", "-m", "debugpy", "--listen", f"{LOOPBACK}:{function.debug}")
    return found, "-u", *debugger, "--wait-for-client", str(RUNTIMES / "python.py")


def _nodejs(function: Function) -> tuple[str, ...]:
    advice = "install Node.js, or give the path of its interpreter"
    found = _program(function, "node", function.node or "node", advice)
    return found, str(RUNTIMES / "node.mjs"), *(("--debug", str(function.debug)) if function.debug else ())


def _provided(function: Function) -> tuple[str, ...]:
    if function.command:
        program, *arguments = function.command
        return _program(function, "command", program, "name a program that may be executed"), *arguments
    bootstrap = str(code_folder(function) / "bootstrap")
    return (_program(function, "CodeUri", bootstrap, "put a program of this name there, and chmod +x it"),)


_COMMANDS = {"python": _python, "nodejs": _nodejs, "provided": _provided}
"""``Function.kind`` -> its command."""


def _program(function: Function, option: str, name: str, advice: str) -> str:
    """Where the program is; not resolved, as the link of a virtual environment is what makes it one."""
    found = shutil.which(name)
    if found is None:
        raise UsageError(f"{place(function)}.{option}: {name} is no executable file; {advice}")
    return str(Path(found).absolute())


def code_folder(function: Function) -> Path:
    """Where the handler's code is. Raises UsageError when it is no folder."""
    folder = function.code.absolute()
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UsageError(f"{place(function)}.CodeUri: {folder} {what}; give the folder that holds the handler's module")
    return folder


def variables(
    function: Function,
    folder: Path,
    credentials: Dict[str, str],
    runtime_api: str,
    *,
    scratch: Path | None = None,
    provisioned: bool = False,
) -> dict[str, str]:
    """All that a child sees, for one environment; of our own environment only what is named here. ``scratch`` is its
    folder for temporary files; ``provisioned``: it is started ahead.
    """
    inherited = os.environ
    return {
        "PATH": inherited.get("PATH", DEFAULT_PATH),
        "HOME": inherited.get("HOME", "/"),
        "LANG": "en_US.UTF-8",  # RT-21
        "TZ": ":UTC",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        **({"TMPDIR": str(scratch)} if scratch else {}),
        # Python trusts bytecode whose source has the same size and, to the second, the same age.
        **({"PYTHONDONTWRITEBYTECODE": "1"} if function.reload else {}),
        **_logging(function),
        **_chain(function),
        **function.environment,
        **_reserved(function, folder, runtime_api, provisioned=provisioned),
        **credentials,
    }


def _reserved(function: Function, folder: Path, runtime_api: str, *, provisioned: bool) -> dict[str, str]:
    """RT-20: a function's own variables cannot change these."""
    region = _region(function)
    reserved = {
        "_HANDLER": function.handler,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency" if provisioned else "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": function.logging.group or f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{secrets.token_hex(16)}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "LAMBDA_TASK_ROOT": str(folder),
        "LAMBDA_RUNTIME_DIR": str(RUNTIMES),
    }
    if function.runtime and function.kind != "provided":  # RT-22: custom runtimes have none
        reserved["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{function.runtime}"
    return reserved


def _logging(function: Function) -> dict[str, str]:
    """RT-21."""
    if not function.logging.json:
        return {}
    return {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": function.logging.application or "INFO"}


def _chain(function: Function) -> dict[str, str]:
    """Where AWS is, and where SDKs must not look for keys: who a child is there, we alone say."""
    if function.credentials == "none":
        return {
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,  # HOME may lead to somebody's profiles
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
    found = {name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT_URL")}
    if function.aws.endpoint_url:
        # What the configuration names counts for all services that it does not name one by one.
        found = {"AWS_ENDPOINT_URL": function.aws.endpoint_url}
    for service, url in function.aws.endpoint_urls.items():
        found[f"AWS_ENDPOINT_URL_{_service_id(service)}"] = url
    found["AWS_EC2_METADATA_DISABLED"] = "true"
    return found


def _service_id(service: str) -> str:
    return _SERVICE_IDS.get(service.lower(), service.upper().replace("-", "_").replace(" ", "_"))


def _region(function: Function) -> str:
    inherited = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return function.aws.region or inherited or function.arn.split(":")[3]


def place(function: Function) -> str:
    """How errors name it."""
    return f"{function.where}: functions.{function.name}" if function.where else f"functions.{function.name}"

"""The runtime client of Python handlers: fetches events from the Lambda Runtime API and calls the handler with them, as
the client in AWS's own Python runtimes does. Standard library only, Python 3.9 or newer.

Started as ``python -u python.py``; everything else is said by environment variables (RT-20).
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 9):  # noqa: UP036  it runs under the handler's interpreter, not the bridge's
    sys.exit("handlers need Python 3.9 or newer; this is %s" % sys.version.split()[0])  # noqa: UP031

import os

if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):  # noqa: PTH100, PTH120  pathlib is slow to import
    del sys.path[0]  # what lies beside this file is not for handlers

import importlib
import json
import logging
import re
import socket
import time
import traceback
from typing import Any, Callable, NamedTuple, NoReturn  # noqa: UP035

Handler = Callable[[Any, Any], Any]

API = "/2018-06-01/runtime/"
AGENT = "bridge-python/{}.{}.{}".format(*sys.version_info)
SIGKILL = 9
PR_SET_PDEATHSIG = 1
JSON_LOGS = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
JSON_TIME = "%Y-%m-%dT%H:%M:%SZ"
LEVELS = {"TRACE": 10, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "FATAL": 50, "CRITICAL": 50}

_request_id = ""


class Fault(Exception):
    """An error with a type of the runtime's own, and no stack trace (INV-25)."""

    def __init__(self, kind: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace or []


def main() -> None:
    die_with_parent()
    connection = Connection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    root = os.environ.get("LAMBDA_TASK_ROOT", os.curdir)
    sys.path.insert(0, root)
    set_up_logging()
    try:
        handler = load(os.environ["_HANDLER"])
    except Exception as error:  # noqa: BLE001  the handler's module may raise anything
        connection.send(connection.post("init/error", report(error)))
        connection.receive()
        sys.exit(1)
    serve(connection, handler)


def serve(connection: Connection, handler: Handler) -> NoReturn:
    ask = connection.get("invocation/next")
    connection.send(ask)
    while True:
        headers, event = connection.receive()
        answer = connection.post(*answer_to(headers, event, handler))
        connection.send(answer + ask)  # together: the next event is worth waiting for, the receipt is not
        receipt, text = connection.receive()
        if receipt[":status"] not in ("202", "413"):
            sys.exit(f"the Runtime API refused an answer: {text.decode(errors='replace')}")


def answer_to(headers: dict[str, str], event: bytes, handler: Handler) -> tuple[str, bytes]:
    """Where to post what."""
    global _request_id
    _request_id = request_id = headers["lambda-runtime-aws-request-id"]
    trace = headers.get("lambda-runtime-trace-id")
    if trace is None:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    else:
        os.environ["_X_AMZN_TRACE_ID"] = trace  # RT-9
    try:
        context = LambdaContext(headers)
        answer = marshal(handler(unmarshal(event, headers), context))
    except Exception as error:  # noqa: BLE001  a handler may raise anything
        return f"invocation/{request_id}/error", report(error, request_id)
    return f"invocation/{request_id}/response", answer


# The handler.


def load(name: str) -> Handler:
    """``pkg/mod.func`` or ``pkg.mod.func``, found from the folder of the code on."""
    try:
        module_name, function_name = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{name}': {error}") from None
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault(
            "Runtime.BuiltInModuleConflict", f"Cannot use built-in module {module_name} as a handler module"
        ) from None
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Fault("Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}") from None
    except SyntaxError as error:
        trace = [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}']
        raise Fault("Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}", trace) from None
    try:
        handler: Handler = getattr(module, function_name)
    except AttributeError:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        raise Fault("Runtime.HandlerNotFound", message) from None
    return handler


# Events and answers.


def unmarshal(event: bytes, headers: dict[str, str]) -> Any:
    if headers.get("content-type", "application/json") != "application/json":
        return event
    try:
        return json.loads(event)
    except ValueError as error:
        raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from None


def marshal(answer: object) -> bytes:
    if isinstance(answer, bytes):
        return answer
    try:
        text = _encode(answer)
        if _NUMBER in text:
            text = re.sub(f'"{_NUMBER}([^"]*)"', r"\1", text)
        return text.encode()
    except Exception as error:  # noqa: BLE001  it runs methods of the handler's own classes
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {error}") from None


def _plain(value: object) -> object:
    """What AWS's client writes beyond the json module: decimals digit by digit, and bytes that are text."""
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return float("nan") if value.is_nan() else f"{_NUMBER}{value}"
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_NUMBER = os.urandom(16).hex()
"""Marks the text of a decimal until it stands without its quotes."""
# AWS's client writes characters as they are from Python 3.12 on.
_encode = json.JSONEncoder(default=_plain, ensure_ascii=sys.version_info < (3, 12)).encode


# Errors.


def report(error: BaseException, request_id: str = "") -> bytes:
    """Logs the error as on Lambda (RT-53); gives the object to post (INV-21)."""
    if isinstance(error, Fault):
        kind, message, trace = error.kind, error.message, error.trace
    else:
        kind, message, trace = type(error).__name__, _text(error), _trace(error)
    shape = {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}
    if JSON_LOGS:
        lines = [json.dumps({"timestamp": time.strftime(JSON_TIME, time.gmtime()), "level": "ERROR", **shape})]
    else:
        lines = [f"[ERROR] {kind}: {message}" if message else f"[ERROR] {kind}"]
        if trace:
            lines += ("Traceback (most recent call last):", *(line for entry in trace for line in entry.splitlines()))
    try:
        sys.stdout.write("\n".join(lines).encode(errors="backslashreplace").decode() + "\n")
    except Exception:  # noqa: BLE001  the handler closed or replaced stdout: the report itself counts more
        os.write(2, b"[ERROR] standard output cannot be written\n")
    return json.dumps(shape).encode()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  its __str__ is the handler's
        return ""


def _trace(error: BaseException) -> list[str]:
    """Without our own frames, which come first."""
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename == __file__:
        del frames[0]
    return traceback.format_list(frames)


# The context object.


class CognitoIdentity:
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self, given: dict[str, Any]) -> None:
        self.cognito_identity_id = given.get("cognitoIdentityId")
        self.cognito_identity_pool_id = given.get("cognitoIdentityPoolId")

    def __repr__(self) -> str:
        return _shown(self, self.__slots__)


class Client:
    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")

    def __init__(self, given: dict[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, given.get(name))

    def __repr__(self) -> str:
        return _shown(self, self.__slots__)


class ClientContext:
    __slots__ = ("client", "custom", "env")

    def __init__(self, given: dict[str, Any]) -> None:
        self.custom = given.get("custom")
        self.env = given.get("env")
        client = given.get("client")
        self.client = Client(client) if isinstance(client, dict) else None

    def __repr__(self) -> str:
        return _shown(self, self.__slots__)


class LambdaContext:
    """What a handler is told besides its event."""

    def __init__(self, headers: dict[str, str]) -> None:
        variables = os.environ
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.log_group_name = variables.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = variables.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = variables.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = variables.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        context = _json_header(headers, "lambda-runtime-client-context", "Client Context")
        self.client_context = None if context is None else ClientContext(context)
        identity = _json_header(headers, "lambda-runtime-cognito-identity", "Cognito Identity")
        self.identity = CognitoIdentity(identity or {})
        self._epoch_deadline_time_in_ms = int(headers["lambda-runtime-deadline-ms"])

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._epoch_deadline_time_in_ms - int(time.time() * 1000))

    def log(self, message: object) -> None:
        sys.stdout.write(str(message))

    def __repr__(self) -> str:
        return _shown(self, [name for name in vars(self) if not name.startswith("_")])


def _json_header(headers: dict[str, str], name: str, what: str) -> dict[str, Any] | None:
    text = headers.get(name)
    if not text:
        return None
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise Fault("Runtime.LambdaContextUnmarshalError", f"Unable to parse {what} JSON: {error}") from None
    return value


def _shown(value: object, names: tuple[str, ...] | list[str]) -> str:
    return "{}([{}])".format(type(value).__name__, ",".join(f"{name}={getattr(value, name)}" for name in names))


# Logs.


class LogHandler(logging.Handler):
    """Writes to whatever ``sys.stdout`` is at that time."""

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = _request_id
        try:
            sys.stdout.write(self.format(record))
        except Exception:  # noqa: BLE001  as logging's own handlers: a log line must not break the handler
            self.handleError(record)


class JsonFormatter(logging.Formatter):
    """One object a line (RT-54), with whatever ``extra`` gave besides."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": time.strftime(JSON_TIME, time.gmtime(record.created)),
            "level": record.levelname,
            "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, trace = record.exc_info
            line["stackTrace"] = traceback.format_tb(trace)
            line["errorType"] = kind.__name__
            line["errorMessage"] = _text(error)
            line["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        line["requestId"] = _request_id
        for name, value in vars(record).items():
            if name not in _OF_EVERY_RECORD:
                line.setdefault(name, value)
        return (
            json.dumps(
                {name: value for name, value in line.items() if value is not None}, default=str, ensure_ascii=False
            )
            + "\n"
        )


_OF_EVERY_RECORD = frozenset(
    (*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "aws_request_id", "asctime", "message", "taskName")
)


def set_up_logging() -> None:
    """The root logger as on Lambda (RT-53, RT-54); without JSON its level stays WARNING."""
    logging.Formatter.converter = time.gmtime
    handler = LogHandler()
    if JSON_LOGS:
        handler.setFormatter(JsonFormatter())
        level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "INFO").upper()
        logging.getLogger().setLevel(LEVELS.get(level, logging.INFO))  # RT-55
    else:
        handler.setFormatter(
            logging.Formatter(
                "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n", "%Y-%m-%dT%H:%M:%S"
            )
        )
    logging.getLogger().addHandler(handler)


# The wire.


class Reply(NamedTuple):
    """``headers`` by lower-case name; ``:status`` among them."""

    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection, kept for good. When the other end is gone, so is what we are for: the process ends."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host = address
        self._rest = b""
        try:
            self._socket = socket.create_connection((host, int(port)))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            orphaned()

    def get(self, path: str) -> bytes:
        return f"GET {API}{path} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: {AGENT}\r\n\r\n".encode()

    def post(self, path: str, body: bytes) -> bytes:
        head = (
            f"POST {API}{path} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: {AGENT}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def send(self, request: bytes) -> None:
        try:
            self._socket.sendall(request)
        except OSError:
            orphaned()

    def receive(self) -> Reply:
        """The reply to the oldest request that has none yet."""
        data = self._rest
        while True:
            head, found, rest = data.partition(b"\r\n\r\n")
            if found:
                break
            data += self._more()
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {":status": first.split(" ", 2)[1]}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            parts, missing = [rest], length - len(rest)
            while missing > 0:
                parts.append(self._more())
                missing -= len(parts[-1])
            rest = b"".join(parts)
        self._rest = rest[length:]
        return Reply(headers, rest[:length])

    def _more(self) -> bytes:
        try:
            data = self._socket.recv(262144)
        except OSError:
            orphaned()
        return data or orphaned()


def orphaned() -> NoReturn:
    """At once: threads of the handler must not keep us alive."""
    os._exit(1)


def die_with_parent() -> None:
    """Asks Linux for it. Elsewhere, or where it is refused, the loss of the connection and the bridge's guard do."""
    if not sys.platform.startswith("linux"):
        return
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    except (ImportError, OSError, AttributeError):
        return


if __name__ == "__main__":
    main()

"""The options of functions, as bridge/config/options.py says of all of them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bridge.config.options_versions import AliasOptions, VersionOptions
from bridge.function import AwsSettings


class EnvironmentOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Variables of the handler."""

    Variables: Annotated[
        dict[str, str],
        Meta(description="Environment variables of the handler, 4 KB together.", examples=[{"TABLE_NAME": "users"}]),
    ] = {}


class HeaderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header whose value is kept in a file."""

    file: Annotated[
        str | None,
        Meta(
            description="File that holds the value, read for each request, so that it may be renewed.",
            examples=["/run/credentials/bridge.service/worker-token"],
            extra={"required": True},
        ),
    ] = None
    prefix: Annotated[str, Meta(description="Text before it.", examples=["Bearer "])] = ""


class LoggingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the handler and the platform log (LoggingConfig of CreateFunction)."""

    LogFormat: Annotated[
        Literal["Text", "JSON"],
        Meta(description="Text, or JSON with one object a line.", examples=["JSON"]),
    ] = "Text"
    ApplicationLogLevel: Annotated[
        Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] | None,
        Meta(description="Least level of the handler's lines; only with JSON. Default: INFO.", examples=["WARN"]),
    ] = None
    SystemLogLevel: Annotated[
        Literal["DEBUG", "INFO", "WARN"] | None,
        Meta(description="Least level of the platform's lines; only with JSON. Default: INFO.", examples=["WARN"]),
    ] = None
    LogGroup: Annotated[
        str | None,
        Meta(
            description="Log group that the handler is told. Default: /aws/lambda/ and the function's name.",
            examples=["/my/group"],
        ),
    ] = None


class DestinationOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One destination."""

    Destination: Annotated[
        str | None,
        Meta(
            description="ARN of an SQS standard queue, SNS standard topic, EventBridge bus, function, or (of failures)"
            " S3 bucket.",
            examples=["arn:aws:sqs:eu-west-1:123456789012:done"],
        ),
    ] = None


class DestinationConfigOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told how asynchronous events end."""

    OnSuccess: Annotated[
        DestinationOptions,
        Meta(
            description="Gets a record about each event that succeeded.",
            examples=[{"Destination": "arn:aws:sqs:eu-west-1:123456789012:done"}],
        ),
    ] = DestinationOptions()
    OnFailure: Annotated[
        DestinationOptions,
        Meta(
            description="Gets a record about each event that is given up.",
            examples=[{"Destination": "arn:aws:s3:::failed-events"}],
        ),
    ] = DestinationOptions()


class EventInvokeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of asynchronous events."""

    MaximumRetryAttempts: Annotated[
        Annotated[int, Meta(ge=0, le=2)] | None,
        Meta(description="Retries after function errors, 0 to 2: after 60 s, then 120 s. Default: 2.", examples=[1]),
    ] = None
    MaximumEventAgeInSeconds: Annotated[
        Annotated[int, Meta(ge=60, le=21600)] | None,
        Meta(description="Seconds after which an event is given up, 60 to 21,600. Default: 21,600.", examples=[3600]),
    ] = None
    DestinationConfig: Annotated[
        DestinationConfigOptions,
        Meta(
            description="Who is told how events end.",
            examples=[{"OnFailure": {"Destination": "arn:aws:sqs:eu-west-1:123456789012:failed"}}],
        ),
    ] = DestinationConfigOptions()


class DeadLetterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where asynchronous events go that are given up."""

    TargetArn: Annotated[
        str | None,
        Meta(
            description="ARN of an SQS standard queue or SNS standard topic.",
            examples=["arn:aws:sqs:eu-west-1:123456789012:dead"],
        ),
    ] = None


class FunctionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One function: AWS's names mean what they mean in CreateFunction, the others are the bridge's own."""

    Runtime: Annotated[
        str | None,
        Meta(
            description="Language and version of the handler: python3.9 and later, nodejs18.x and later, or provided.*"
            " for a program that speaks the Lambda Runtime API itself.",
            examples=["python3.11"],
            extra={"required": True},
        ),
    ] = None
    Handler: Annotated[
        str | None,
        Meta(
            description="Module and function that handle events: app.handler is handler() in app.py or app.mjs. A"
            " provided runtime gets it as it is, and may go without.",
            examples=["app.handler"],
            extra={"required": True},
        ),
    ] = None
    CodeUri: Annotated[
        str | None,
        Meta(
            description="Folder of the code, relative to this file. For a provided runtime without a command it holds"
            " the executable bootstrap.",
            examples=["./examples/handlers"],
            extra={"required": True},
        ),
    ] = None
    url: Annotated[
        str | None,
        Meta(
            description="In place of Runtime, Handler and CodeUri: where events are POSTed. Lambda's runtime interface"
            " emulator, or any web server: a 2xx body is the answer, 429 and 503 throttle, all else is an error.",
            examples=["http://worker:8080/2015-03-31/functions/function/invocations"],
        ),
    ] = None
    headers: Annotated[
        dict[str, str | HeaderOptions],
        Meta(
            description="With url: headers of each request. A value is a text, or stands in a file: {file: PATH}, with"
            " prefix: TEXT if something belongs before it.",
            examples=[{"X-Stage": "${STAGE:-test}"}],
        ),
    ] = {}
    verify: Annotated[
        bool | None,
        Meta(
            description="With an https url: whether the server's certificate is checked. Default: true.",
            examples=[True],
        ),
    ] = None
    ca_file: Annotated[
        str | None,
        Meta(
            description="With an https url: PEM file of the authorities to trust. Default: the system's.",
            examples=["/etc/ssl/certs/private-ca.pem"],
        ),
    ] = None
    lambda_: Annotated[
        str | None,
        Meta(
            description="In place of Runtime, Handler and CodeUri: ARN of a function on AWS Lambda, which is invoked"
            " there, by version or alias if the ARN ends in one.",
            examples=["arn:aws:lambda:eu-west-1:123456789012:function:real"],
        ),
    ] = msgspec.field(default=None, name="lambda")
    Timeout: Annotated[
        Annotated[int, Meta(ge=1, le=900)],
        Meta(
            description="Seconds that one invocation may take; then its environment is killed, or the request given up."
            " Of a lambda function the default is 900: Lambda has a timeout of its own.",
            examples=[30],
        ),
    ] = 3
    MemorySize: Annotated[
        Annotated[int, Meta(ge=128, le=10240)],
        Meta(description="MiB that an environment may use; one that uses more is killed (on Linux).", examples=[256]),
    ] = 128
    Environment: Annotated[EnvironmentOptions, Meta(description="Variables of the handler.")] = EnvironmentOptions()
    ReservedConcurrentExecutions: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Invocations of this function at once, all its mappings together; 0 stops them all."
            " Default: max_environments.",
            examples=[4],
        ),
    ] = None
    ProvisionedConcurrentExecutions: Annotated[
        Annotated[int, Meta(ge=0)],
        Meta(description="Environments that are started ahead and kept.", examples=[1]),
    ] = 0
    LoggingConfig: Annotated[
        LoggingOptions,
        Meta(
            description="How the handler and the platform log: as text, or as JSON with a least level for each.",
            examples=[
                {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "WARN", "LogGroup": "/my/group"}
            ],
        ),
    ] = LoggingOptions()
    DeadLetterConfig: Annotated[
        DeadLetterOptions,
        Meta(
            description="Gets the asynchronous events that are given up, as they came.",
            examples=[{"TargetArn": "arn:aws:sqs:eu-west-1:123456789012:dead"}],
        ),
    ] = DeadLetterOptions()
    EventInvokeConfig: Annotated[
        EventInvokeOptions,
        Meta(
            description="What becomes of asynchronous events.",
            examples=[
                {
                    "MaximumRetryAttempts": 1,
                    "MaximumEventAgeInSeconds": 3600,
                    "DestinationConfig": {
                        "OnSuccess": {"Destination": "arn:aws:sqs:eu-west-1:123456789012:done"},
                        "OnFailure": {"Destination": "arn:aws:s3:::failed-events"},
                    },
                }
            ],
        ),
    ] = EventInvokeOptions()
    versions: Annotated[
        dict[str, VersionOptions],
        Meta(
            description="Versions beside $LATEST, by number: each has its own CodeUri, and all else of the function.",
            examples=[{"1": {"CodeUri": "./examples/handlers"}, "2": {"CodeUri": "./examples/handlers"}}],
        ),
    ] = {}
    aliases: Annotated[
        dict[str, AliasOptions],
        Meta(
            description="Names for versions, which callers and mappings put behind the function's name:"
            " my-worker:live.",
            examples=[
                {
                    "live": {
                        "FunctionVersion": "1",
                        "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.1}},
                        "Description": "a canary",
                    }
                }
            ],
        ),
    ] = {}
    python: Annotated[
        str | None,
        Meta(
            description="Interpreter that runs the handler, by path or by name. Default: the bridge's own.",
            examples=["/srv/app/.venv/bin/python"],
        ),
    ] = None
    node: Annotated[
        str | None,
        Meta(
            description="Interpreter of nodejs runtimes, by path or by name. Default: the node that is on the PATH.",
            examples=["/opt/node20/bin/node"],
        ),
    ] = None
    command: Annotated[
        tuple[str, ...],
        Meta(
            description="What a provided runtime starts in place of bootstrap: a program, relative to this file or on"
            " the PATH, and its arguments.",
            examples=[["./bin/worker", "--flag"]],
        ),
    ] = ()
    max_environments: Annotated[
        Annotated[int, Meta(ge=1, le=10000)],
        Meta(
            description="Execution environments (processes) at once where ReservedConcurrentExecutions is not set.",
            examples=[4],
        ),
    ] = 16
    idle_timeout: Annotated[
        Annotated[float, Meta(ge=1, le=86400)],
        Meta(description="Seconds until an unused environment is retired.", examples=[60]),
    ] = 300
    reload: Annotated[
        bool | None,
        Meta(
            description="Whether a change to the code replaces the environments, once they have finished what they run."
            " Default: true under --local, else false.",
            examples=[True],
        ),
    ] = None
    debug: Annotated[
        Annotated[int, Meta(ge=1024, le=65535)] | None,
        Meta(
            description="Port of loopback where a debugger is waited for before the handler's code is loaded: debugpy"
            " of python runtimes, the inspector of nodejs ones. One environment at a time, and no timeouts meanwhile.",
            examples=[5678],
        ),
    ] = None
    credentials: Annotated[
        Literal["inherit", "none"],
        Meta(description="Whether the handler gets the bridge's AWS credentials: inherit or none.", examples=["none"]),
    ] = "inherit"
    aws: Annotated[
        AwsSettings,
        Meta(
            description="What differs for this function from the aws block at the top: what its handler sees.",
            examples=[{"region": "eu-central-1", "endpoint_url": "http://127.0.0.1:4567"}],
        ),
    ] = AwsSettings()

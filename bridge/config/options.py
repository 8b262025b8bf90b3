"""Every option of the file, declared once: name, type, range, default and one sentence. The keys, the environment
variables, the paths of ``--set``, the JSON Schema and the commented example all come from here.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.config.options_versions import AliasOptions, VersionOptions
from bridge.function import AwsSettings

NAME = "^[a-zA-Z0-9_-]{1,64}$"
"""Names of functions and mappings."""
SIZE = "^[0-9]{1,15} ?(B|KiB|MiB|GiB)?$"
"""Bytes with a unit."""


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


class FilterOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event pattern."""

    Pattern: Annotated[
        str | dict[str, Any] | None,
        Meta(
            description="Event pattern, as JSON text or as a YAML mapping.",
            examples=['{"body": {"kind": ["order"]}}'],
            extra={"required": True},
        ),
    ] = None


class FilterCriteriaOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which records reach the function."""

    Filters: Annotated[
        tuple[FilterOptions, ...],
        Meta(
            description="Up to 10 filters; a record that matches none of them is deleted from its queue.",
            examples=[[{"Pattern": '{"body": {"kind": ["order"]}}'}]],
        ),
    ] = ()


class ScalingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a mapping scales."""

    MaximumConcurrency: Annotated[
        Annotated[int, Meta(ge=2, le=1000)] | None,
        Meta(description="Most invocations of this mapping at once, 2 to 1000.", examples=[10]),
    ] = None


class PollerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Provisioned mode: how many pollers stand ready."""

    MinimumPollers: Annotated[
        Annotated[int, Meta(ge=2, le=200)] | None,
        Meta(description="Pollers that are always there, 2 to 200. Default, if the other is given: 2.", examples=[2]),
    ] = None
    MaximumPollers: Annotated[
        Annotated[int, Meta(ge=2, le=10000)] | None,
        Meta(description="Most pollers, 2 to 10,000. Default, if the other is given: 200.", examples=[20]),
    ] = None


class MetricsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Metrics of the mapping."""

    Metrics: Annotated[
        tuple[Literal["EventCount"], ...],
        Meta(description="Understood and always on: EventCount.", examples=[["EventCount"]]),
    ] = ()


class MappingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mapping: AWS's names mean what they mean in CreateEventSourceMapping, the others are the bridge's own."""

    FunctionName: Annotated[
        str | None,
        Meta(
            description="Function of this file that gets the batches: its name, or an ARN that ends in it.",
            examples=["my-worker"],
            extra={"required": True},
        ),
    ] = None
    EventSourceArn: Annotated[
        str | None,
        Meta(
            description="ARN of the queue; one that ends in .fifo is a FIFO queue.",
            examples=["arn:aws:sqs:eu-west-1:123456789012:my-queue"],
            extra={"required": True},
        ),
    ] = None
    Enabled: Annotated[bool | None, Meta(description="Whether the mapping polls. Default: true.", examples=[False])] = (
        None
    )
    BatchSize: Annotated[
        int | None,
        Meta(
            description="Most records in one batch: 1 to 10,000, for a FIFO queue 1 to 10; above 10 it needs a batching"
            " window. Default: 10.",
            examples=[100],
            extra_json_schema={"minimum": 1, "maximum": 10000},
        ),
    ] = None
    MaximumBatchingWindowInSeconds: Annotated[
        int | None,
        Meta(
            description="Seconds from a batch's first record until it is invoked although not full: 0 to 300, not for"
            " FIFO queues. Default: 0, what one receive gives is a batch.",
            examples=[5],
            extra_json_schema={"minimum": 0, "maximum": 300},
        ),
    ] = None
    FilterCriteria: Annotated[
        FilterCriteriaOptions,
        Meta(
            description="Which records reach the function. A record that matches no filter is deleted from its queue.",
            examples=[{"Filters": [{"Pattern": '{"body": {"kind": ["order"]}}'}]}],
        ),
    ] = FilterCriteriaOptions()
    FunctionResponseTypes: Annotated[
        tuple[Literal["ReportBatchItemFailures"], ...],
        Meta(
            description="Whether the function's answer names the records that failed (batchItemFailures).",
            examples=[["ReportBatchItemFailures"]],
        ),
    ] = ()
    ScalingConfig: Annotated[
        ScalingOptions,
        Meta(description="How far this mapping scales.", examples=[{"MaximumConcurrency": 10}]),
    ] = ScalingOptions()
    ProvisionedPollerConfig: Annotated[
        PollerOptions,
        Meta(
            description="Provisioned mode: pollers that stand ready; not together with ScalingConfig.",
            examples=[{"MinimumPollers": 2, "MaximumPollers": 20}],
        ),
    ] = PollerOptions()
    MetricsConfig: Annotated[
        MetricsOptions,
        Meta(description="Understood: all metrics are always on.", examples=[{"Metrics": ["EventCount"]}]),
    ] = MetricsOptions()
    UUID: Annotated[
        str | None,
        Meta(
            description="Id under which the mapping's state is kept. Default: one that follows from its name.",
            examples=["0fb0e1a3-6b2f-4c1d-8d0e-2f3a4b5c6d7e"],
        ),
    ] = None
    FunctionArn: Annotated[
        str | None,
        Meta(
            description="What AWS prints for FunctionName; one of the two.",
            examples=["arn:aws:lambda:eu-west-1:123456789012:function:my-worker"],
        ),
    ] = None
    State: Annotated[
        Literal["Creating", "Enabling", "Enabled", "Updating", "Disabling", "Disabled"] | None,
        Meta(description="What AWS prints for Enabled: Disabled and Disabling are false.", examples=["Enabled"]),
    ] = None
    delete_linger: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(
            description="Seconds that a delete may wait for others to fill its request, 0 to 1: fewer requests, and"
            " more duplicates after a crash.",
            examples=[0.05],
        ),
    ] = 0
    aws: Annotated[
        AwsSettings,
        Meta(
            description="What differs for this mapping's queue from the aws block at the top.",
            examples=[{"endpoint_url": "http://127.0.0.1:9324", "role_arn": "arn:aws:iam::123456789012:role/queue"}],
        ),
    ] = AwsSettings()


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

"""A function: which code runs, and under which limits."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LATEST = "$LATEST"
"""The version that is no version: the code as it is now."""


class AwsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where AWS is and who we are there. Absent values come from the usual AWS chain of environment and profile."""

    region: Annotated[
        str | None,
        Meta(description="Region. A mapping's own is the one in its EventSourceArn.", examples=["eu-west-1"]),
    ] = None
    endpoint_url: Annotated[
        str | None,
        Meta(
            description="Endpoint for all services in place of AWS's; in an aws block of a mapping or a function it"
            " also replaces the endpoint_urls above it.",
            examples=["http://127.0.0.1:4566"],
        ),
    ] = None
    endpoint_urls: Annotated[
        dict[str, str],
        Meta(description="Endpoints of single services.", examples=[{"sqs": "http://127.0.0.1:9324"}]),
    ] = {}
    account_id: Annotated[
        str | None,
        Meta(
            description="Account in the ARNs of functions. Default: the one of the function's first mapping, else"
            " 000000000000.",
            examples=["123456789012"],
        ),
    ] = None
    profile: Annotated[str | None, Meta(description="Profile of the AWS config files.", examples=["dev"])] = None
    role_arn: Annotated[
        str | None,
        Meta(
            description="Role to assume, for queues or handlers of another account.",
            examples=["arn:aws:iam::123456789012:role/bridge"],
        ),
    ] = None

    client: Annotated[
        Literal["fast", "sdk"] | None,
        Meta(
            description="What receives, deletes and changes messages: fast, a client of the bridge's own which costs a"
            " fraction of the SDK's CPU, or sdk. Default: fast.",
            examples=["sdk"],
        ),
    ] = None

    def over(self, base: AwsSettings) -> AwsSettings:
        """These settings, and what they leave open from ``base``. An own ``endpoint_url`` leaves none of the services
        at the base's endpoints.
        """
        inherited = {} if self.endpoint_url else base.endpoint_urls
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name))}
        return msgspec.structs.replace(base, **{**given, "endpoint_urls": {**inherited, **self.endpoint_urls}})


DEBUGGED = 43_200.0
"""Seconds that whatever is debugged may take, its start included: as long as SQS lets a message be held (SQS-82)."""


class HeaderFile(msgspec.Struct, frozen=True):
    """A header's value in a file, such as a mounted credential: ``prefix`` and the file's content, stripped."""

    file: Path
    prefix: str = ""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a ``url`` function is called."""

    url: str
    headers: Dict[str, str | HeaderFile] = {}
    verify: bool = True
    """Whether the server has to prove with a certificate that it is the one meant."""
    ca_file: Path | None = None
    """Certificates of authorities to trust, PEM; none: those of the system."""

    @property
    def shown(self) -> str:
        """The URL as it may be shown: a query may hold a secret."""
        return self.url.partition("?")[0]

    def __repr__(self) -> str:
        return f"<Endpoint {self.shown}>"  # never its headers


class Logging(msgspec.Struct, frozen=True, kw_only=True):
    """How a function logs (RT-54, RT-55). ``application`` empty: all levels."""

    json: bool = False
    application: str = ""
    """The least level of the handler's own lines: TRACE, DEBUG, INFO, WARN, ERROR or FATAL."""
    system: str = "INFO"
    """The least level of the platform's lines: DEBUG, INFO or WARN."""
    group: str = ""
    """``AWS_LAMBDA_LOG_GROUP_NAME``, where it is not the usual one."""


class EventInvoke(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the asynchronous events of a function, version or alias (ASY-20): AWS's EventInvokeConfig."""

    retries: int | None = None
    """``MaximumRetryAttempts``, 0 to 2; none: 2 (ASY-4)."""
    max_age: float | None = None
    """``MaximumEventAgeInSeconds``, 60 to 21,600; none: 21,600 (ASY-6)."""
    on_success: str = ""
    """ARN of the destination; empty: none."""
    on_failure: str = ""

    @property
    def empty(self) -> bool:
        """It says nothing: AWS's defaults hold, and there is nothing to be shown."""
        return self == EventInvoke()


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a version, and perhaps for a share of another."""

    version: str
    weights: Dict[str, float] = {}
    """``AdditionalVersionWeights``: another version -> its share of the invocations, 0 to 1."""
    description: str = ""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A handler's settings, checked. Seconds, MiB for ``memory`` (as AWS)."""

    name: str
    arn: str
    """Unqualified, ``arn:aws:lambda:REGION:ACCOUNT:function:NAME``."""
    kind: str
    """A key of ``EXECUTORS``."""
    runtime: str = ""
    handler: str = ""
    code: Path = Path()
    version: str = LATEST
    """Whose code that is; of the function itself always ``$LATEST``."""
    versions: Dict[str, Path] = {}
    """Number -> its code."""
    aliases: Dict[str, Alias] = {}
    timeout: float = 3.0
    memory: int = 128
    environment: Dict[str, str] = {}
    reserved_concurrency: int | None = None
    """``ReservedConcurrentExecutions``; 0 throttles everything."""
    provisioned: int = 0
    """``ProvisionedConcurrentExecutions``: environments that are started ahead and kept."""
    max_environments: int = 16
    idle_timeout: float = 300.0
    python: str | None = None
    """Interpreter of python runtimes; none: the bridge's own."""
    node: str | None = None
    """Interpreter of nodejs runtimes; none: the one on the path."""
    command: tuple[str, ...] = ()
    """What provided runtimes start; empty: ``bootstrap`` in ``code``."""
    reload: bool = False
    """Whether environments are replaced when the code changes."""
    debug: int | None = None
    """The port of loopback at which its one environment waits for a debugger before it starts."""
    credentials: str = "inherit"
    """``inherit`` or ``none``: whether children get the configured AWS chain."""
    event_invoke: EventInvoke = EventInvoke()
    """Of the unqualified function; versions and aliases do not inherit it (ASY-20)."""
    dead_letter: str = ""
    """``DeadLetterConfig.TargetArn``, for all versions (DST-20); empty: none."""
    aws: AwsSettings = AwsSettings()
    endpoint: Endpoint | None = None
    """Of a ``url`` function."""
    lambda_arn: str = ""
    """Of a ``lambda`` function: what Invoke is asked for, with its qualifier if there is one."""
    logging: Logging = Logging()
    where: str = ""
    """``FILE:LINE`` where it is configured."""

    @property
    def concurrency(self) -> int:
        """How many invocations may run at once."""
        return self.most_at_once(self.reserved_concurrency)

    def most_at_once(self, reserved: int | None) -> int:
        """The same with another reserved concurrency. A debugger's port serves one environment."""
        most = self.max_environments if reserved is None else reserved
        return most if self.debug is None else min(most, 1)

    @property
    def limit(self) -> float:
        """Seconds that one invocation may take: ``timeout``, which does not count while somebody debugs."""
        return self.timeout if self.debug is None else DEBUGGED

    @property
    def qualifiers(self) -> tuple[str, ...]:
        """What may stand behind its name: ``$LATEST``, versions, aliases."""
        return LATEST, *self.versions, *self.aliases

    def qualified(self, qualifier: str) -> str:
        """The ARN with the qualifier that somebody gave (ESM-10), empty: without."""
        return f"{self.arn}:{qualifier}" if qualifier else self.arn

    def __repr__(self) -> str:
        return f"<Function {self.name} of {self.where}>"  # never its variables

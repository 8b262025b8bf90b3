"""Asks services, each question within its time, and writes down which were not answered and why, and how far the
endpoints' clocks are off."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping as Dict
from typing import Any

from bridge.aws import Api, Aws
from bridge.doctor.facts import About, Case, Failed, Trouble
from bridge.errors import (
    AccessDenied,
    ExpiredCredentials,
    NotFound,
    RemoteError,
    Throttled,
    Unreachable,
)
from bridge.faults import Backoff
from bridge.function import AwsSettings
from bridge.iam import action

CALL_TIMEOUT = 5.0
"""Seconds for one call: an endpoint that takes longer for a description is one that does not answer."""
TRIES = 3
"""Of a call that is throttled: describing is limited to a few a second for a whole account."""

DENIALS = frozenset({
    "AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException",
    "KMSAccessDeniedException", "KmsAccessDenied", "KMS.AccessDeniedException", "NotAuthorized",
    "UnauthorizedOperation", "403",
})  # fmt: skip
"""Codes that mean a missing permission; others of AccessDenied mean wrong keys or a wrong clock."""


class Inquiry:
    """All questions about one mapping. What fails is written into its case."""

    def __init__(self, aws: Aws, case: Case) -> None:
        self._aws = aws
        self._case = case
        self.pending = ""
        """What is being asked: told when the time is over."""

    async def ask(
        self,
        service: str,
        settings: AwsSettings,
        region: str | None,
        operation: str,
        params: Dict[str, Any],
        *,
        resource: str,
        about: About = "source",
    ) -> dict[str, Any] | None:
        """The answer; none when there is none, which is written down."""
        try:
            api = await self.api(service, settings, region, resource)
            return await api.call(operation, params, timeout=CALL_TIMEOUT)
        except RemoteError as error:
            self.note(error, about, resource)
            return None

    async def api(self, service: str, settings: AwsSettings, region: str | None, resource: str) -> Witness:
        """A client for questions about ``resource``. Raises RemoteError."""
        if settings.role_arn:
            self.pending = f"sts:AssumeRole on {settings.role_arn}"
            try:
                await self._aws.credentials(settings, region).current()
            except RemoteError as error:
                error.asked = action("sts", "AssumeRole"), settings.role_arn  # type: ignore[attr-defined]
                raise
        self.pending = f"{service}: {resource}"
        return Witness(await self._aws.api(service, settings, region), service, resource, self)

    def note(self, error: RemoteError, about: About, resource: str) -> None:
        """Writes down what failed; ``resource``: what was wanted, where the failed call does not say."""
        asked, at = getattr(error, "asked", ("", resource))
        self._case.failed.append(Failed(trouble(error), asked, at, str(error), about))

    def dated(self, api: Api, endpoint: str, before: float) -> None:
        """Compares the clocks after an answer. The endpoint's is told in whole seconds, rounded down."""
        theirs, after = api.now(), time.time()
        if theirs is None:
            return
        skew = theirs - after if theirs > after else min(0.0, theirs + 1 - before)
        self._case.skews[endpoint] = min(skew, self._case.skews.get(endpoint, skew), key=abs)


class Witness:
    """An ``Api`` that says at each failure which action and resource it was about."""

    def __init__(self, api: Api, service: str, resource: str, inquiry: Inquiry) -> None:
        self._api, self._service, self._resource, self._inquiry = api, service, resource, inquiry

    def __repr__(self) -> str:
        return f"<Witness of {self._api!r}>"

    async def call(self, operation: str, params: Dict[str, Any], *, timeout: float) -> dict[str, Any]:
        import anyio

        asked = action(self._service, operation)
        self._inquiry.pending = f"{asked} on {self._resource}"
        backoff = Backoff(0.2, 1.0)
        for left in reversed(range(TRIES)):
            before = time.time()
            try:
                answer = await self._api.call(operation, params, timeout=min(timeout, CALL_TIMEOUT))
            except RemoteError as error:
                if left and isinstance(error, Throttled):
                    await anyio.sleep(backoff.next())
                    continue
                error.asked = asked, self._resource  # type: ignore[attr-defined]
                raise
            self._inquiry.dated(self._api, self._service, before)
            return answer
        raise AssertionError("the last try returns or raises")

    def events(self, operation: str, params: Dict[str, Any], *, timeout: float) -> AsyncGenerator[dict[str, Any]]:
        return self._api.events(operation, params, timeout=timeout)

    def now(self) -> float | None:
        return self._api.now()


def trouble(error: RemoteError) -> Trouble:
    """What kind of trouble an error is."""
    if isinstance(error, NotFound):
        return "missing"
    if isinstance(error, AccessDenied):
        return "permission-missing" if error.code.rpartition("#")[2] in DENIALS else "credentials-refused"
    if isinstance(error, ExpiredCredentials):
        return "credentials-refused"
    return "unreachable" if isinstance(error, Unreachable) else "call-failed"

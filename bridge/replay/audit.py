"""What a replay writes down besides its letters: who carries it out, and where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.errors import RemoteError, UsageError
from bridge.function import AwsSettings

if TYPE_CHECKING:
    from bridge.aws import Aws

CALLER_TIMEOUT = 5.0


async def caller_arn(aws: Aws, settings: AwsSettings, arn: str) -> str:
    """Who we are to whoever keeps ``arn``; empty where nobody tells."""
    try:
        sts = await aws.api("sts", settings, arn.split(":")[3] or None)
        answer = await sts.call("GetCallerIdentity", {}, timeout=CALLER_TIMEOUT)
    except RemoteError:
        return ""
    return str(answer.get("Arn") or "")


def state_file(url: str | None) -> Path:
    """The file that journals lie beside: that of the state, else, for one in memory or none, the usual one. Raises
    UsageError where there is none."""
    from bridge.settings import state_file as usual
    from bridge.stores import StateUrl

    if url is not None:
        state = StateUrl.parse(url)
        if state.scheme != "memory":
            return state.path
    found = usual(os.environ)
    if found is None:
        raise UsageError(
            "there is neither HOME nor STATE_DIRECTORY for the journal; set one, or name it with --journal"
        )
    return found

"""Checks of the ``aws`` blocks."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from bridge.config.reader import Section, shown
from bridge.function import AwsSettings

_REGION = r"[a-z]{2,6}(-[a-z]+)+-[0-9]{1,2}"
_ROLE = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}"


def check_aws(settings: AwsSettings, section: Section, prefix: str = "") -> None:
    """Reports what no AWS SDK could use. ``prefix`` is the block's path in the section, with its dot."""
    if settings.region is not None and not re.fullmatch(_REGION, settings.region):
        section.problem(f"{prefix}region", f"{shown(settings.region)} is no region; expected one such as eu-west-1")
    if settings.account_id is not None and not re.fullmatch("[0-9]{12}", settings.account_id):
        section.problem(f"{prefix}account_id", f"{shown(settings.account_id)} is no account; expected 12 digits")
    if settings.role_arn is not None and not re.fullmatch(_ROLE, settings.role_arn):
        expected = "expected one such as arn:aws:iam::123456789012:role/bridge"
        section.problem(f"{prefix}role_arn", f"{shown(settings.role_arn)} is no role; {expected}")
    if settings.endpoint_url is not None:
        _check_url(settings.endpoint_url, f"{prefix}endpoint_url", section)
    for service, url in settings.endpoint_urls.items():
        _check_url(url, f"{prefix}endpoint_urls.{service}", section)
        if not re.fullmatch("[a-z0-9_-]{2,40}", service):
            section.problem(f"{prefix}endpoint_urls.{service}", "no service; expected a name such as sqs")


def partition_of(region: str | None) -> str:
    """The partition of ARNs in this region."""
    prefixes = {"cn": "aws-cn", "us-gov": "aws-us-gov"}
    return next((name for prefix, name in prefixes.items() if (region or "").startswith(f"{prefix}-")), "aws")


def _check_url(url: str, keys: str, section: Section) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.username
    except ValueError:
        good = False
    if not good or re.search(r"\s", url):
        section.problem(keys, f"{shown(url)} is no endpoint; expected one such as http://127.0.0.1:4566")

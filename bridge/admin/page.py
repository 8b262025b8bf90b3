"""The dashboard's page, and the policy that lets a browser run what stands in it and nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple


class Page(NamedTuple):
    """An HTML page, and the headers that belong to it."""

    body: bytes
    headers: dict[str, str]


def dashboard() -> Page:
    """The page as it is shipped."""
    text = files("bridge.admin").joinpath("dashboard.html").read_text("utf-8")
    return Page(text.encode(), {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy(text)})


def policy(page: str) -> str:
    """A Content-Security-Policy for ``page``: its own script and style by their hashes, connections to where it comes
    from, and no way at all to make markup out of text."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(page, 'script')}",
            f"style-src {_hashes(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hashes(page: str, element: str) -> str:
    found = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in found) or "'none'"

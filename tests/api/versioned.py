"""A site with a function that has versions and aliases, each of which says who it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.harness import Endpoint, Site

CODE = """
import json, os

def handler(event, context):
    client = context.client_context
    answer = {
        "code": "%s",
        "version": context.function_version,
        "arn": context.invoked_function_arn,
        "variable": os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        "stream": context.log_stream_name.rpartition("/")[2].partition("]")[0] + "]",
        "started": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
        "pid": os.getpid(),
        "client": None if client is None else [client.custom, client.env, client.client.app_title],
    }
    with open(os.environ["JOURNAL"], "a") as file:
        file.write(json.dumps({**answer, "event": event}) + "\\n")
    if event == "fail":
        raise ValueError("as asked")
    return answer
"""
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:shop"


def versioned_site(folder: Path, server: Endpoint | None = None) -> Site:
    """Function `shop`: versions 1 and 2, `live` for 1, `canary` for 1 and half of the time 2, `next` for $LATEST."""
    for name in ("now", "one", "two"):
        (folder / name).mkdir(parents=True)
        (folder / name / "app.py").write_text(CODE % name)
    site = Site(folder, server)
    site.config["aws"]["account_id"] = "123456789012"
    site.config["api"] = {"listen": "127.0.0.1:0"}
    site.function(
        "shop",
        code=folder / "now",
        Handler="app.handler",
        max_environments=6,
        versions={"1": {"CodeUri": str(folder / "one")}, "2": {"CodeUri": str(folder / "two")}},
        aliases={
            "live": {"FunctionVersion": "1", "Description": "what customers use"},
            "canary": {"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}},
            "next": {"FunctionVersion": "$LATEST"},
        },
    )
    return site


def journal(site: Site) -> list[dict[str, Any]]:
    """What the handlers wrote down, in order."""
    if not site.journal.file.exists():
        return []
    return [json.loads(line) for line in site.journal.file.read_text().splitlines()]

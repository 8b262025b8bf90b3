"""``bridge iam-policy``: the least that IAM has to allow, as a policy document."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping as Dict, Sequence
from typing import TYPE_CHECKING

from bridge.errors import UsageError
from bridge.nearest import did_you_mean

if TYPE_CHECKING:
    from bridge.doctor.letters import Asked
    from bridge.iam import Identity, Need
    from bridge.settings import Settings

HELP = """Print the least IAM policy that a configuration needs, as JSON: exact actions on exact resources.

Which dead-letter queues the queues have is asked of them (two calls each, nothing is changed); --offline does without,
and --dlq NAME=ARN says it. Remarks on what a policy cannot know, such as KMS keys, are on stderr."""
EXAMPLE = "bridge iam-policy -c bridge.yaml > policy.json"

TASKS = ("run", "doctor", "replay")
DEFAULT = ("run", "doctor")
PATIENCE = 10.0
QUOTED_NOTHING = "''"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which file, for what, and for whom."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="default: BRIDGE_CONFIG, bridge.yaml, /etc/bridge/bridge.yaml"
    )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="sets", help="override one setting"
    )
    parser.add_argument(
        "--for",
        choices=(*TASKS, "all"),
        action="append",
        dest="tasks",
        help="what it is needed for, may be repeated; default: run and doctor",
    )
    parser.add_argument("--role", metavar="ARN", help="the policy of this role_arn; default: of who assumes the roles")
    parser.add_argument("--profile", metavar="NAME", help="the policy of this profile; default: the one of aws.profile")
    parser.add_argument("--offline", action="store_true", help="ask no queue for its dead-letter queue")
    parser.add_argument(
        "--dlq", metavar="MAPPING=ARN", action="append", default=[], dest="dlqs", help="a mapping's dead-letter queue"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the policy. Raises ConfigError, and UsageError for a role, profile or mapping that is none."""
    from bridge.iam import Identity, needs, policy
    from bridge.settings import load

    settings = load(args.config, os.environ, args.sets)
    said = dict(_said(settings, args.dlqs))
    asked = {} if args.offline else _ask(settings)
    letters = {queue: about.dlq for queue, about in asked.items() if about.dlq} | said
    every = needs(settings, letters)
    who = Identity(args.profile if args.profile is not None else settings.aws.profile or "", args.role or "")
    _check(who, every)
    tasks = set(TASKS) if "all" in (args.tasks or ()) else set(args.tasks or DEFAULT)
    print(json.dumps(policy(need for need in every if need.identity == who and need.task in tasks), indent=2))
    for remark in _remarks(settings, who, every, tasks, asked, said, offline=args.offline):
        print(f"remark: {remark}", file=sys.stderr)
    return 0


def _said(settings: Settings, given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The queue's ARN and that of its dead-letter queue."""
    from bridge.mapping import SourceArn

    for text in given:
        name, _, arn = text.partition("=")
        if name not in settings.mappings:
            raise UsageError(f'{settings.file} has no mapping "{name}"{did_you_mean(name, settings.mappings)}')
        try:
            service = SourceArn.parse(arn).service
        except ValueError:
            service = ""
        if service != "sqs":
            raise UsageError(f'--dlq {text}: expected MAPPING=ARN, with the ARN of a queue, got "{arn}"')
        yield str(settings.mappings[name].source_arn), arn


def _check(who: Identity, every: Sequence[Need]) -> None:
    """Somebody who needs nothing at all was not meant."""
    known = {need.identity for need in every}
    roles = sorted({identity.role for identity in known if identity.role})
    if who.role and who.role not in roles:
        hint = f"; it has {', '.join(roles)}" if roles else "; it has none"
        raise UsageError(f'the configuration has no role_arn "{who.role}"{did_you_mean(who.role, roles) or hint}')
    if who not in known and known:
        raise UsageError(f"nobody calls so in this configuration; try bridge iam-policy {_way(min(known))}")


def _ask(settings: Settings) -> Dict[str, Asked]:
    """What the queues tell."""
    import anyio

    from bridge.doctor.letters import ask
    from bridge.telemetry import logs

    logs.configure("error", settings.log_format, sys.stderr)
    return anyio.run(ask, settings, PATIENCE)


def _remarks(
    settings: Settings,
    who: Identity,
    every: Sequence[Need],
    tasks: set[str],
    asked: Dict[str, Asked],
    said: Dict[str, str],
    *,
    offline: bool,
) -> Iterator[str]:
    """What the policy does not say."""
    from bridge.doctor.letters import Asked
    from bridge.iam import identity, told_by

    for mapping in settings.mappings.values():
        arn = str(mapping.source_arn)
        if mapping.source != "sqs" or identity(mapping.aws) != who:
            continue
        told = asked.get(arn) or Asked(trouble="--offline" if offline else "no answer")
        if told.trouble and arn not in said and tasks & {"doctor", "replay"}:
            why = told.trouble
            yield f"{mapping.name}: its dead-letter queue is not known ({why}); --dlq {mapping.name}=ARN adds it"
        elif told.key and tasks & {"run", "replay"}:
            yield f"{mapping.name}: the queue is encrypted with {told.key}: add kms:Decrypt on that key"
    if any(mapping.source != "sqs" for mapping in settings.mappings.values()):
        yield "streams that are encrypted with a key of your own need kms:Decrypt on that key"
    sends = any(told_by(function) for function in settings.functions.values()) or any(
        mapping.stream and mapping.stream.on_failure for mapping in settings.mappings.values()
    )
    if sends and "run" in tasks:
        yield "destinations with a key of your own need kms:GenerateDataKey and kms:Decrypt on that key"
    for other in sorted({need.identity for need in every} - {who}):
        yield f"somebody else calls, too: bridge iam-policy {_way(other)}"
    yield "what handlers call themselves, and mappings that are made through the API, are not in it"


def _way(who: Identity) -> str:
    """The options that ask for the policy of somebody."""
    options = [f"--role {who.role}"] if who.role else []
    if who.profile or not who.role:
        options.append(f"--profile {who.profile or QUOTED_NOTHING}")
    return " ".join(options)

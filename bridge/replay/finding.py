"""Which place QUEUE means: a name, URL or ARN, or a mapping or function of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bridge.errors import UsageError
from bridge.function import AwsSettings, Function
from bridge.mapping import Mapping
from bridge.replay import objects
from bridge.replay.queues import find, region_of

if TYPE_CHECKING:
    from bridge.aws import Aws
    from bridge.settings import Settings


class Place(msgspec.Struct, frozen=True):
    """Where dead letters lie."""

    word: str
    """Name, URL or ARN; of a queue unless it is an ARN of something else."""
    aws: AwsSettings
    meant: str = ""
    """What it was called, where that is not its own name: ``mapping orders``."""


async def resolve(aws: Aws, word: str, settings: Settings | None, given: AwsSettings) -> Place:
    """``given``: what the command line says about AWS; it goes before the configuration. Raises UsageError, and
    RemoteError when a mapping's queue has to be asked."""
    top = given.over(settings.aws) if settings else given
    if word.startswith(("arn:", "s3://")):
        return Place(word, top)
    if "://" in word:
        return Place(word, _at(word, top))
    if settings is None:
        return Place(word, top)
    places = []
    if word in settings.mappings:
        mapping = settings.mappings[word]
        function = settings.functions.get(mapping.function)
        places.append(await of_mapping(aws, mapping, function, given))
    if word in settings.functions:
        places += of_function(settings.functions[word], given)
    if len({place.word for place in places}) > 1:
        lines = ", ".join(f"{place.word} of {place.meant}" for place in places)
        raise UsageError(f'"{word}" means several places: {lines}; give the ARN of one')
    if not places and word in settings.functions:
        raise UsageError(
            f"function {word} has neither DeadLetterConfig nor an on-failure destination; give a queue's name, URL or"
            " ARN, or the name of its mapping"
        )
    return places[0] if places else Place(word, top)


def _at(url: str, settings: AwsSettings) -> AwsSettings:
    """A queue's URL says where its endpoint is, unless that is AWS's or somebody said it."""
    if settings.endpoint_url or "sqs" in settings.endpoint_urls or region_of(url):
        return settings
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    if host.endswith(("amazonaws.com", "amazonaws.com.cn")):
        return settings
    return msgspec.structs.replace(settings, endpoint_url=f"{scheme}://{host}")


async def of_mapping(aws: Aws, mapping: Mapping, function: Function | None, given: AwsSettings) -> Place:
    """Where the dead letters of a mapping, which feeds ``function``, lie. Raises UsageError when there is no such
    place, RemoteError."""
    settings, meant = given.over(mapping.aws), f"mapping {mapping.name}"
    if mapping.source != "sqs":
        if not mapping.stream or not mapping.stream.on_failure:
            raise UsageError(f"{meant} has no on-failure destination; give a queue's name, URL or ARN")
        if function is not None:  # it is told of failures with the function's own settings
            settings = given.over(function.aws)
        return Place(_stored(mapping.stream.on_failure, mapping.uuid), settings, meant)
    source = await find(aws, settings, str(mapping.source_arn))
    if not source.dead_letters:
        raise UsageError(f"{meant}: {source.name} has no redrive policy, so no dead-letter queue; give a queue's name")
    return Place(source.dead_letters, settings, meant)


def _stored(arn: str, folder: str) -> str:
    """Of a bucket the part where Lambda stores what is meant (KIN-85, DST-13)."""
    bucket = objects.Place.parse(arn)
    return str(bucket._replace(prefix=f"{objects.FOLDER}{folder}/")) if bucket else arn


def of_function(function: Function, given: AwsSettings) -> list[Place]:
    """Where failed asynchronous events of a function end up; topics, buses and functions keep nothing."""
    settings = given.over(function.aws)
    return [
        Place(_stored(arn, f"async/{function.name}"), settings, f"{what} of function {function.name}")
        for arn, what in (
            (function.dead_letter, "DeadLetterConfig"),
            (function.event_invoke.on_failure, "on-failure destination"),
        )
        if arn
    ]

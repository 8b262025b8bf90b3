"""Which function a letter is for, and by which mapping's rules: from the configuration where there is one, else from
the letter itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping as Dict
from typing import NamedTuple

import anyio
import msgspec

from bridge.aws import Aws
from bridge.errors import UsageError
from bridge.function import LATEST, AwsSettings, Function
from bridge.mapping import Mapping, SourceArn, StreamOptions
from bridge.replay.callers import Caller
from bridge.replay.handing import Terms
from bridge.sources import SOURCES, source_class
from bridge.sources.kinesis import stream_of

NOBODY = "nobody says whose it is; name the function with --to function:NAME"
MOST_RECORDS = 10_000
"""KIN-1."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known besides the letters. Without a configuration there are no mappings."""

    mappings: Dict[str, Mapping] = {}
    mapping: Mapping | None = None
    """Whose dead letters these are, where that was said."""
    function: str = ""
    """Likewise the name of a function."""
    aws: AwsSettings = AwsSettings()
    """For streams that none of the mappings reads."""
    given: AwsSettings = AwsSettings()
    """What goes before a mapping's own."""
    shelf: str = ""
    """ARN of where the letters lie."""
    learn: Callable[[], Awaitable[Iterable[Mapping]]] | None = None
    """Tells of more mappings. Raises RemoteError."""


class Aim(NamedTuple):
    """The function that a letter is for."""

    function: Function
    qualifier: str
    chosen: bool = False
    """Somebody named it, whoever the letter was for."""

    @property
    def arn(self) -> str:
        return self.function.qualified(self.qualifier)


class Aims:
    """Finds function and rules, each once. ``given``: the one function for all letters, as NAME, NAME:QUALIFIER or ARN;
    empty: each has its own."""

    def __init__(self, caller: Caller, aws: Aws, known: Known, given: str = "") -> None:
        self._caller, self._aws, self._known = caller, aws, known
        self._given = named(given) if given else None
        self._mappings = {mapping.uuid: mapping for mapping in known.mappings.values()}
        self._learnt = known.learn is None
        self._learning = anyio.Lock()
        self._found: dict[tuple[str, str], Function] = {}
        self._terms: dict[tuple[str, str, bool], Terms] = {}

    def __repr__(self) -> str:
        return f"<Aims {self._given or 'of each letter'}: {list(self._found)}>"

    async def learn(self) -> None:
        """Of mappings that the configuration does not have. Raises RemoteError, each time anew."""
        async with self._learning:
            if not self._learnt and self._known.learn:
                told = {it.uuid: msgspec.structs.replace(it, aws=self._known.aws) for it in await self._known.learn()}
                self._mappings = told | self._mappings
                self._learnt = True

    async def usual(self) -> Aim | None:
        """The function that all letters go to, or would go to unless they say otherwise; none: each says its own.
        Raises UsageError when there is no such function; RemoteError."""
        known = self._known
        own = whose(known.mapping) or known.function
        return await self.of("", own) if self._given or own else None

    async def of(self, arn: str, name: str) -> Aim:
        """The function that was given; else the one with this ARN, else the one with this name. Raises UsageError when
        it is not there, or nobody says which; RemoteError."""
        wanted = self._given or (named(arn) if arn else named(name) if name else None)
        if wanted is None:
            raise UsageError(NOBODY)
        if wanted not in self._found:
            self._found[wanted] = await self._caller.find(*wanted)
        return Aim(self._found[wanted], wanted[1], chosen=self._given is not None)

    def arn(self, arn: str, name: str) -> str:
        """The same as far as it is known without asking: an ARN, else what is said of it."""
        wanted = self._given or (named(arn) if arn else named(name) if name else None)
        if wanted is None:
            return ""
        function = self._found.get(wanted)
        if function is not None:
            return function.qualified(wanted[1])
        return arn.removesuffix(f":{LATEST}") or ":".join(filter(None, wanted))

    def mapping(self, source: SourceArn, function_arn: str) -> Mapping | None:
        """The mapping of this queue or stream: the one whose function this is, else the one that was said, else one of
        another version of the function, else the only one."""
        own = self._known.mapping
        candidates = [it for it in self._mappings.values() if _reads(it, source)]
        name, qualifier = named(function_arn)
        for fits in (
            [it for it in candidates if (it.function, it.qualifier.replace(LATEST, "")) == (name, qualifier)],
            [own] if own is not None and _reads(own, source) else [],
            [it for it in candidates if it.function == name],
            candidates,
        ):
            if len(fits) == 1:
                return fits[0]
        return None

    def terms(self, aim: Aim, mapping: Mapping | None, source: SourceArn, *, windowed: bool = False) -> Terms:
        """The rules of this mapping, or those that hold where it is not known. ``windowed``: what is handed over has
        the members of a tumbling window."""
        rules = mapping or self._unknown(source)
        rules = msgspec.structs.replace(rules, aws=self._known.given.over(rules.aws))
        if rules.stream is not None and not windowed:
            rules = msgspec.structs.replace(rules, stream=msgspec.structs.replace(rules.stream, tumbling_window=0.0))
        key = rules.uuid, aim.arn, windowed
        if key not in self._terms:
            self._terms[key] = Terms(rules, aim.function, self._aws, known=mapping is not None)
        return self._terms[key]

    def _unknown(self, source: SourceArn) -> Mapping:
        most = int(source_class(source.service).limits(str(source)).batch_size.most)
        return Mapping(
            name=source.resource,
            uuid=str(source),  # no mapping has this one
            function="",
            source_arn=source,
            batch_size=min(most, MOST_RECORDS),
            stream=None if source.service == "sqs" else StreamOptions(),
            aws=self._known.aws,
        )


def whose(mapping: Mapping | None) -> str:
    """The function of a mapping, with the qualifier that it names; empty: there is no mapping."""
    return ":".join(filter(None, (mapping.function, mapping.qualifier))) if mapping else ""


def named(text: str) -> tuple[str, str]:
    """Name and qualifier of NAME, NAME:QUALIFIER or the ARN of a function; ``$LATEST`` is no qualifier."""
    parts = text.split(":")
    if parts[0] == "arn" and len(parts) >= 7:
        parts = parts[6:]
    qualifier = parts[1] if len(parts) > 1 else ""
    return parts[0], "" if qualifier == LATEST else qualifier


def _reads(mapping: Mapping, source: SourceArn) -> bool:
    """A consumer's mapping reads the stream."""
    arn = mapping.source_arn
    if arn.service not in SOURCES or arn.service != source.service:
        return False
    return (stream_of(arn) if arn.service == "kinesis" else arn) == source

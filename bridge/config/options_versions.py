"""The options of a function's versions and aliases, declared as all others are in options.py."""

from typing import Annotated

import msgspec
from msgspec import Meta


class VersionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a function: what differs is its code."""

    CodeUri: Annotated[
        str | None,
        Meta(
            description="Folder of this version's code, relative to this file.",
            examples=["./examples/handlers"],
            extra={"required": True},
        ),
    ] = None


class RoutingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an alias shares its invocations."""

    AdditionalVersionWeights: Annotated[
        dict[str, Annotated[float, Meta(ge=0, le=1)]],
        Meta(
            description="One more version, and its share of the invocations: 0.1 is one in ten.",
            examples=[{"2": 0.1}],
        ),
    ] = {}


class AliasOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One alias of a function."""

    FunctionVersion: Annotated[
        str | None,
        Meta(description="The version that it names, or $LATEST.", examples=["1"], extra={"required": True}),
    ] = None
    RoutingConfig: Annotated[
        RoutingOptions,
        Meta(
            description="Gives a share of the invocations to another version.",
            examples=[{"AdditionalVersionWeights": {"2": 0.1}}],
        ),
    ] = RoutingOptions()
    Description: Annotated[
        Annotated[str, Meta(max_length=256)] | None,
        Meta(description="What it is for.", examples=["what customers use"]),
    ] = None

"""The JSON Schema and the commented example, both made from the declared options."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from bridge.config.mappings import RESPONSE_ONLY
from bridge.config.options import Options
from bridge.config.options_functions import FunctionOptions, HeaderOptions
from bridge.config.options_mappings import MappingOptions
from bridge.config.reader import is_required, metas, options_of, section_type
from bridge.function import AwsSettings

_NAMES = {"functions": "my-worker", "mappings": "orders"}

_HEAD = """\
The configuration of bridge, with every option there is. A line that begins with # and a key is an option that you may
uncomment by itself; without it the default holds.

PascalCase is AWS Lambda's own name and means exactly what it means there; snake_case is the bridge's. ${NAME} and
${NAME:-default} are taken from the environment, $$ is a dollar sign. Relative paths start at this file's folder.

Every option is also an environment variable, its path joined by two underscores (BRIDGE_ADMIN__LISTEN,
BRIDGE_MAPPINGS__orders__BatchSize), and a --set (--set mappings.orders.BatchSize=5). Order: defaults < file <
environment < --set. `bridge validate` checks a file."""


def schema() -> str:
    """The JSON Schema of the file, draft 2020-12, as text."""
    _, definitions = msgspec.json.schema_components((Options,), ref_template="#/$defs/{name}")
    root = definitions.pop(Options.__name__)
    mapping = definitions[MappingOptions.__name__]
    mapping["properties"] |= {key: {"description": "Dropped: AWS's answer."} for key in sorted(RESPONSE_ONLY)}
    function = definitions[FunctionOptions.__name__]
    required = [key for key, type_ in options_of(FunctionOptions).items() if is_required(type_)]
    function["anyOf"] = [
        {"required": required},
        {"required": ["Runtime", "CodeUri"], "properties": {"Runtime": {"pattern": "^provided"}}},
        {"required": ["command"]},
        {"required": ["url"]},
        {"required": ["lambda"]},
    ]
    definitions[HeaderOptions.__name__]["required"] = ["file"]
    mapping["required"] = ["EventSourceArn"]
    mapping["anyOf"] = [{"required": ["FunctionName"]}, {"required": ["FunctionArn"]}]
    root["properties"]["admin"]["anyOf"].append({"const": False})  # how YAML 1.1 reads an unquoted off
    for definition in (root, *definitions.values()):
        definition["properties"] = {key: _or_null(option) for key, option in definition["properties"].items()}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bridge",
        "$comment": "Printed by `bridge config-schema`.",
        **{key: value for key, value in root.items() if key != "title"},
        "$defs": definitions,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _or_null(option: dict[str, Any]) -> dict[str, Any]:
    """The schema of an option that may also be null, as the reader allows: then the default holds."""
    kinds = {key: option[key] for key in ("$ref", "type", "enum") if key in option}
    alternatives = option.get("anyOf") or ([kinds] if kinds else [])
    if not alternatives or {"type": "null"} in alternatives:
        return option
    rest = {key: value for key, value in option.items() if key not in ("anyOf", *kinds)}
    return {**rest, "anyOf": [*alternatives, {"type": "null"}]}


def example() -> str:
    """Every option, commented, as YAML text; what is not commented out is the least that runs."""
    lines: list[str] = []
    for paragraph in _HEAD.split("\n\n"):
        lines += [*_comment(paragraph, ""), "#"]
    lines[-1] = ""
    for option in msgspec.structs.fields(Options):
        lines += _named(option) if option.name in _NAMES else _option(option, "")
        lines.append("")
    return "\n".join(lines)


def _named(option: FieldInfo) -> Iterator[str]:
    yield from _comment(_sentence(option), "")
    yield f"{option.encode_name}:"
    yield f"  {_NAMES[option.name]}:"
    _, model = get_args(section_type(option.type))
    for inner in msgspec.structs.fields(model):
        yield from _option(inner, "    ")


def _option(option: FieldInfo, pad: str) -> Iterator[str]:
    """One option: its sentence, and a line that can be uncommented by itself; a block of options one by one."""
    yield from _comment(_sentence(option), pad)
    section = section_type(option.type)
    examples = [example for meta in metas(option.type) for example in meta.examples or ()]
    if examples:
        for part in () if section is AwsSettings else _fields(section):
            yield from _part(part, pad, "  ")
        yield f"{pad}{'' if is_required(option.type) else '# '}{option.encode_name}: {_flow(examples[0])}"
        return
    yield f"{pad}{option.encode_name}:"
    for part in msgspec.structs.fields(section):
        yield from _option(part, pad + "  ")


def _part(part: FieldInfo, pad: str, inset: str) -> Iterator[str]:
    """An option below one that has an example: its sentence, then those of the options below it."""
    yield from _comment(f"{part.encode_name}: {_sentence(part)}", pad, inset)
    for below in _fields(section_type(part.type)):
        yield from _part(below, pad, inset + "  ")


def _fields(section: Any) -> tuple[FieldInfo, ...]:
    """The options of a section, or of each entry of a table of sections."""
    item = get_args(section)[1] if get_origin(section) is dict else section
    return msgspec.structs.fields(item) if isinstance(item, type) and issubclass(item, msgspec.Struct) else ()


def _comment(text: str, pad: str, inset: str = "") -> Iterator[str]:
    for line in textwrap.wrap(text, 110 - len(pad), break_on_hyphens=False, subsequent_indent=inset and "  "):
        yield f"{pad}# {inset}{line}"


def _sentence(option: FieldInfo) -> str:
    """What the declaration says, and the default where that is a plain value."""
    text = " ".join(meta.description for meta in metas(option.type) if meta.description)
    has_plain_default = isinstance(option.default, bool | int | float | str) and "Default" not in text
    return f"{text} Default: {option.default}." if has_plain_default else text


def _flow(value: object) -> str:
    """A value on one line of YAML: plain text where that is safe, else JSON."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and not value.startswith("{"):
        return json.dumps(value) if value.isdigit() else value
    return json.dumps(value) if not isinstance(value, str) else f"'{value}'"

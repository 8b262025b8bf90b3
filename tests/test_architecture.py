"""Imports point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridge

ROOT = Path(bridge.__file__).parent

LAYERS = [
    {"errors", "nearest", "record", "invocation", "function", "mapping", "filtering", "operators", "snapshot",
     "attempt", "event", "gates", "station", "lineage", "position", "versions"},
    {"pipeline"},
    {
        "leash", "init", "listening", "aws", "aws_sdk", "aws_fast", "aws_http", "sigv4", "faults", "notify", "signals",
        "telemetry", "sources",
        "executors", "stores", "samples", "runtimes", "destinations",
        "checkpoints",
    },
    {"settings", "config"},
    {"iam"},
    {"doctor"},
    {"invoker", "flow"},
    {"runner"},
    {"crew"},
    {"supervised"},
    {"supervisor"},
    {"asynchronous"},
    {"local_sources"},
    {"local"},
    {"daemon", "admin", "api", "ledger", "replay"},
    {"demo"},
    {"commands", "__main__"},
]  # fmt: skip
"""From the bottom to the top. A module imports from its own layer and those below it."""

SIBLINGS = {
    ("sources", "executors"), ("executors", "sources"), ("telemetry", "sources"), ("stores", "sources"),
    ("sources", "stores"), ("destinations", "sources"), ("destinations", "stores"), ("sources", "destinations"),
}  # fmt: skip
"""Pairs of one layer that must not know each other."""


def layer(package: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if package in names)


def imports(file: Path) -> Iterator[str]:
    """What a module imports from bridge when it runs; imports for type checkers alone do not count."""
    tree = ast.parse(file.read_text())
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bridge."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("bridge."))


MODULES = sorted(
    file.relative_to(ROOT) for file in ROOT.rglob("*.py") if file.name != "__init__.py" or file.parent != ROOT
)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_arrows(module: Path) -> None:
    package = module.parts[0].removesuffix(".py")
    if package == "runtimes":
        assert not list(imports(ROOT / module)), "programs in children use the standard library alone"
    for imported in imports(ROOT / module):
        assert layer(imported) <= layer(package), f"{module} imports {imported}, which is above it"
        assert (package, imported) not in SIBLINGS, f"{module} imports {imported}, its sibling"


def test_every_module_has_a_place() -> None:
    known = set().union(*LAYERS)
    assert {module.parts[0].removesuffix(".py") for module in MODULES} <= known


def test_only_the_border_knows_the_sdk() -> None:
    for module in MODULES:
        if module.name in ("aws.py", "aws_sdk.py"):
            continue
        text = (ROOT / module).read_text()
        assert "import aiobotocore" not in text, module
        assert "import botocore" not in text, module
        assert "from aiobotocore" not in text, module
        assert "from botocore" not in text, module

"""How ``bridge doctor`` shows what it found: pages for people, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.doctor.facts import Case
from bridge.doctor.findings import LEVELS, Finding

Found = Sequence[tuple[Case, Sequence[Finding]]]


def as_json(found: Found) -> str:
    """An array with an object for each finding."""
    return json.dumps([_row(case, finding) for case, about in found for finding in about], indent=2)


def pages(found: Found) -> str:
    """A paragraph for each mapping and function, and a line that counts."""
    return "\n\n".join(["\n".join(_page(case, about)) for case, about in found] + [_summary(found)])


def _row(case: Case, finding: Finding) -> dict[str, Any]:
    mapping = case.mapping
    return {
        "mapping": mapping.name if mapping else None,
        "function": case.function.name,
        "source_arn": str(mapping.source_arn) if mapping else None,
        "code": finding.code,
        "level": finding.level,
        "message": finding.message,
        "fix": finding.fix,
    }


def _page(case: Case, about: Sequence[Finding]) -> Iterator[str]:
    yield f"{case.subject} ({case.mapping.source_arn})" if case.mapping else case.subject
    if not about:
        yield "  nothing to say"
    for finding in about:
        yield f"  {finding.level:<8} {finding.code}: {_plain(finding.message)}"
        if finding.fix:
            yield f"  {'':<8} fix: {_plain(finding.fix)}"


def _summary(found: Found) -> str:
    counted = Counter(finding.level for _, about in found for finding in about)
    mappings = sum(case.mapping is not None for case, _ in found)
    levels = ", ".join(f"{counted[level]} {level}{'' if counted[level] == 1 else 's'}" for level in reversed(LEVELS))
    return f"{mappings} mapping{'' if mappings == 1 else 's'}: {levels}"


def _plain(text: str) -> str:
    """One line that cannot steer the terminal, whatever a server wrote into it."""
    return "".join(character if character.isprintable() else " " for character in text)

"""The known word nearest to a mistyped one, for messages."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean "NEAREST"?``, or nothing when no known word is near. Case and separators count for little."""
    from difflib import get_close_matches

    spelled = {_bare(name): name for name in known}
    near = get_close_matches(_bare(word[:100]), spelled, n=1, cutoff=0.6)
    return f'; did you mean "{spelled[near[0]]}"?' if near else ""


def _bare(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")

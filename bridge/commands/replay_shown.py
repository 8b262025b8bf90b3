"""How ``bridge replay`` shows letters, progress and what it has done."""

from __future__ import annotations

import json
import shutil
import sys
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping as Dict, Sequence
from types import MappingProxyType
from typing import Any

from bridge.attempt import Attempt
from bridge.commands.mappings_shown import ending, last_words
from bridge.replay.letter import Letter
from bridge.replay.summary import Fate, Summary
from bridge.snapshot import iso

BODY_SHOWN = 200
"""Characters of a body that people are shown; ``--json`` prints all of it."""
NAMED = 20
"""Possible duplicates that are named; the journal has all."""
PAUSE = 0.1
"""Seconds between two drawings of the bar."""
BAR = 24


class Bar:
    """Progress on stderr, on a terminal only. ``total``: letters that are expected, 0: not known."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = sys.stderr.isatty()
        self._began = self._drawn = time.monotonic()

    def draw(self, done: int, line: str) -> None:
        """So many are done with."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < PAUSE:
            return
        self._drawn = now
        rate = done / max(now - self._began, 0.001)
        share = min(1.0, done / self._total) if self._total else 0.0
        bar = f"[{'#' * round(share * BAR):<{BAR}}] " if self._total else ""
        of = f" of about {self._total}" if self._total else ""
        text = f"{bar}{done}{of}, {rate:.0f}/s, {line}"
        print(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes it away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress(summary: Summary) -> tuple[int, str]:
    """How many letters are done with, and the rest in words."""
    failed = summary.failures
    done = summary.sent + summary.resumed + summary.failed.total() + summary.skipped.total()
    return done, f"{summary.sent} sent, {failed} failed"


def outcome(summary: Summary, *, dry_run: bool) -> Iterator[str]:
    """The summary's lines."""
    if dry_run:
        yield f"dry run: read {summary.read}, would send {summary.matched}, changed nothing"
    else:
        left = "unknown" if summary.left is None else str(summary.left)
        yield (
            f"read {summary.read}, matched {summary.matched}, sent {summary.sent}, deleted {summary.deleted},"
            f" failed {summary.failed.total() + summary.undeleted.total()}, skipped {summary.skipped.total()},"
            f" came back {summary.came_back}, possible duplicates {summary.possible_duplicates}, left {left}"
        )
    for word, counted in (
        ("failed", summary.failed),
        ("sent, but not deleted", summary.undeleted),
        ("skipped", summary.skipped),
    ):
        for reason, count in counted.most_common():
            yield f"  {word}: {count} x {plain(reason)}"
    if summary.resumed:
        yield f"  {summary.resumed} had been sent by an earlier run: deleted only"
    if summary.damaged:
        yield f"  {summary.damaged} came damaged and were left alone"
    if summary.came_back:
        yield f"  {summary.came_back} were dead letters again during the run and were not sent a second time"
    if summary.possible_duplicates:
        more = ", …" if summary.possible_duplicates > NAMED else ""
        yield f"  perhaps sent twice: {', '.join(map(plain, summary.duplicate_ids[:NAMED]))}{more}"
    if summary.stopped:
        yield f"stopped: {plain(summary.stopped)}"
    if summary.interrupted:
        yield "interrupted: what was not sent was given back; the same command goes on"


def fate_json(fate: Fate) -> str:
    """What became of a letter, for scripts; never its body."""
    line: dict[str, Any] = {"id": fate.letter.id, "outcome": fate.what, "kind": fate.letter.kind}
    for name in ("new_id", "target", "reason", "detail"):
        if value := getattr(fate, name):
            line[name] = value
    if fate.maybe_twice:
        line["possible_duplicate"] = True
    return json.dumps(line)


def fate_line(fate: Fate) -> str:
    """The same for people."""
    target = f" to {fate.target}" if fate.target else ""
    return (
        f"{fate.what.replace('_', ' ')} {plain(fate.letter.id)}{target}{f': {plain(fate.reason)}' * bool(fate.reason)}"
    )


def letter_json(letter: Letter, attempts: Sequence[Attempt] = ()) -> str:
    """All of a letter, for scripts. Values of Binary attributes are base64."""
    it, reason = letter.message, letter.reason
    line = {
        "id": it.id,
        "kind": letter.kind,
        "at": None if letter.at is None else iso(letter.at),
        "expires_at": None if letter.expires_at is None else iso(letter.expires_at),
        "receives": it.receives,
        "source_arn": letter.origin.source_arn,
        "function_arn": letter.origin.function_arn,
        "reason": None
        if reason is None
        else {name: value for name in reason.__struct_fields__ if (value := getattr(reason, name)) not in ("", None)},
        "attempts": [
            {
                "at": iso(tried.at),
                "attempt": tried.number,
                "request_id": tried.request_id,
                "outcome": tried.outcome,
                "error_type": tried.error_type,
                "message": tried.message,
                "duration": tried.duration,
                "log_tail": tried.log_tail,
            }
            for tried in attempts
        ],
        "hindrance": letter.hindrance,
        "body": it.body,
        "attributes": dict(it.attributes),
        "message_attributes": {
            name: {
                "type": value.type,
                "value": b64encode(value.value).decode() if isinstance(value.value, bytes) else value.value,
            }
            for name, value in it.message_attributes.items()
        },
    }
    return json.dumps(line)


def letters(
    found: Sequence[Letter], now: float, attempts: Dict[str, Sequence[Attempt]] = MappingProxyType({})
) -> Iterator[str]:
    """The letters for people, by reason, the most frequent first. ``attempts``: what is known of them, by letter."""
    groups: dict[str, list[Letter]] = {}
    for letter in found:
        groups.setdefault(reason_line(letter, attempts.get(letter.id, ())), []).append(letter)
    for reason, these in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield f"{len(these)} x {plain(reason)}"
        for letter in these:
            yield from _letter(letter, now, attempts.get(letter.id, ()))


def reason_line(letter: Letter, attempts: Sequence[Attempt] = ()) -> str:
    """Why it is dead, in a line that is the same for the same cause: by its own word, else by its last attempt."""
    reason = letter.reason
    if reason is None and attempts:
        return ending(attempts[-1])
    if reason is None:
        source = letter.origin.source_arn.rpartition(":")[2]
        return f"no reason is known{f', from {source}' if source else ''}"
    error = ": ".join(filter(None, (reason.error_type, reason.message)))
    tried = "" if reason.attempts is None else f"after {reason.attempts} attempts"
    return ", ".join(filter(None, (reason.condition, error, tried))) or "no reason is known"


def _letter(letter: Letter, now: float, attempts: Sequence[Attempt]) -> Iterator[str]:
    it = letter.message
    facts = [f"sent {iso(it.sent_at, 'seconds')}" if it.sent_at is not None else "", expiry(letter, now)]
    facts += [f"received {it.receives} times", f"group {plain(it.group)}" if it.group else ""]
    facts += [letter.kind if letter.kind != "plain" else ""]
    yield f"  {plain(it.id)}: {', '.join(filter(None, facts))}"
    for tried in attempts:
        yield f"    attempt {tried.number}, {iso(tried.at)}: {plain(ending(tried))}, request {tried.request_id}"
    for line in last_words(attempts[-1].log_tail) if attempts else ():
        yield f"      | {plain(line)}"
    if letter.hindrance:
        yield f"    cannot be replayed: {plain(letter.hindrance)}"
    body = plain(it.body[: BODY_SHOWN + 1])
    yield f"    {body if len(it.body) <= BODY_SHOWN else f'{body[:BODY_SHOWN]}… ({len(it.body)} characters)'}"
    for name, value in it.message_attributes.items():
        text = f"{len(value.value)} bytes" if isinstance(value.value, bytes) else value.value[:BODY_SHOWN]
        yield f"    {plain(name)} ({plain(value.type)}): {plain(text)}"


def expiry(letter: Letter, now: float) -> str:
    """When the queue drops it: a standard queue's clock runs since the message was first sent."""
    if letter.expires_at is None:
        return ""
    left = letter.expires_at - now
    return f"expires in {duration(left)}" if left > 0 else "expired"


def duration(seconds: float) -> str:
    """Its two largest units."""
    minutes = int(seconds // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{int(seconds)} s"


def plain(text: str) -> str:
    """One line that cannot steer the terminal, whatever somebody sent."""
    return "".join(character if character.isprintable() else " " for character in text)

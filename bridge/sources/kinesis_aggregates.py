"""Records of the Kinesis Producer Library, which packs many records of its users into one of the stream (KIN-45)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from hashlib import md5
from typing import NamedTuple

MAGIC = b"\xf3\x89\x9a\xc2"
ENCODED_MAGIC = b64encode(MAGIC[:3]).decode()
"""What the base64 text of one begins with."""
DIGEST = 16
"""Bytes of the MD5 that one ends with."""
_VARINT, _BYTES = 0, 2


class Part(NamedTuple):
    """One of the user's records."""

    key: str
    data: str
    """Base64 text."""


def parts(data: str) -> list[Part]:
    """Those in a record with this data (base64 text); empty: it is none of the library, or a broken one, and is handed
    on as it is."""
    if not data.startswith(ENCODED_MAGIC):
        return []
    try:
        raw = b64decode(data, validate=True)
        message = raw[len(MAGIC) : -DIGEST]
        if not raw.startswith(MAGIC) or md5(message, usedforsecurity=False).digest() != raw[-DIGEST:]:
            return []
        return _parts(message)
    except (ValueError, LookupError):
        return []


def _parts(message: bytes) -> list[Part]:
    """``AggregatedRecord``: 1 the table of keys, 2 that of hash keys, 3 the records: 1 the key's index, 3 the data."""
    keys: list[str] = []
    records: list[bytes] = []
    for number, value in _fields(message):
        if isinstance(value, bytes):
            if number == 1:
                keys.append(value.decode())
            elif number == 3:
                records.append(value)
    made = []
    for record in records:
        members = dict(_fields(record))
        index, data = members[1], members.get(3, b"")
        if not isinstance(index, int) or not isinstance(data, bytes):
            raise ValueError("a record's members are of other types")
        made.append(Part(keys[index], b64encode(data).decode()))
    return made


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field in a message of Protocol Buffers. Raises ValueError and IndexError."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == _VARINT:
            yield tag >> 3, value
        elif tag & 7 == _BYTES and at + value <= len(message):
            yield tag >> 3, message[at : at + value]
            at += value
        else:
            raise ValueError("no such message")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7

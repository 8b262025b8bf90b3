"""Filtering SQS records through three patterns, parsing included, against an obvious interpreter of patterns.

    python -m tests.bench.filtering [--records N]

Both get the record's JSON as bytes and say whether it passes. They alternate in one process; the figure is the median.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from statistics import median
from time import process_time
from typing import Any

import msgspec

from bridge.filtering import compile_filter, decode_body

PATTERNS = (
    '{"body": {"kind": ["order", "refund"], "buyer": {"land": [{"prefix": "D"}]}, "total": [{"numeric": [">", 90]}]}}',
    '{"body": {"kind": ["invoice"], "lines": {"sku": [{"suffix": "-X"}], "count": [{"numeric": [">=", 2, "<", 9]}]}}}',
    '{"body": {"kind": [{"anything-but": ["order", "-"]}], "note": [{"exists": false}]}, "awsRegion": ["us-east-1"]}',
)
ROUNDS = 7

Filter = Callable[[bytes], bool]


def compiled(patterns: Sequence[str]) -> Filter:
    passes = compile_filter(patterns, "body")
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def judge(record: bytes) -> bool:
        view = decode(record)
        view["body"] = decode_body(view["body"])
        return passes(view)

    return judge


def interpreted(patterns: Sequence[str]) -> Filter:
    """What one would write first: the standard library's JSON, and a walk through each pattern for each record."""
    parsed = [json.loads(pattern) for pattern in patterns]

    def judge(record: bytes) -> bool:
        view = json.loads(record)
        view["body"] = json.loads(view["body"])
        return any(walk(pattern, view) for pattern in parsed)

    return judge


def walk(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, list):
        if isinstance(value, list):
            return any(walk(pattern, element) for element in value)
        return any(accepts(alternative, value) for alternative in pattern)
    if isinstance(value, list):
        return any(walk(pattern, element) for element in value)
    inner = value if isinstance(value, dict) else {}
    return all(walk(wanted, inner.get(key, MISSING)) for key, wanted in pattern.items())


MISSING = object()
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda one, other: one == other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def accepts(alternative: Any, value: Any) -> bool:
    if not isinstance(alternative, dict):
        return value is not MISSING and type(alternative) is type(value) and bool(alternative == value)
    name, operand = next(iter(alternative.items()))
    if name == "exists":
        return operand is not (value is MISSING)
    if value is MISSING:
        return False
    if name == "anything-but":
        return value not in operand
    if name == "numeric":
        pairs = zip(operand[::2], operand[1::2], strict=True)
        return isinstance(value, int | float) and all(OPERATORS[sign](value, bound) for sign, bound in pairs)
    if not isinstance(value, str):
        return False
    return value.startswith(operand) if name == "prefix" else value.endswith(operand)


def records(count: int) -> list[bytes]:
    """SQS records with bodies of about 400 bytes, of which some 40 % pass."""
    return [json.dumps(record(index), separators=(",", ":")).encode() for index in range(count)]


def record(index: int) -> dict[str, Any]:
    body = {
        "id": index,
        "kind": ("order", "invoice", "refund", "ping", "order")[index % 5],
        "buyer": {"id": index * 7, "name": "A customer", "land": ("DE", "FR", "DK")[index % 3]},
        "total": index % 200 + 0.5,
        "lines": [{"sku": f"sku-{line}-{'XY'[index % 2]}", "count": line, "price": 1.25} for line in range(4)],
        "note": "as usual",
    }
    if index % 7 == 0:
        del body["note"]
    return {
        "messageId": f"7f0c8a52-0c0e-4d9c-9d3e-{index:012x}",
        "receiptHandle": "AQEB" + "x" * 180,
        "body": json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1767607200123", "SenderId": "AIDAEXAMPLE"},
        "messageAttributes": {},
        "md5OfBody": "0" * 32,
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:orders",
        "awsRegion": "us-east-1",
    }


def measure(candidates: dict[str, Filter], work: Sequence[bytes]) -> dict[str, float]:
    """Records a CPU-second, the median of alternating rounds."""
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        for name, judge in candidates.items():
            before = process_time()
            for each in work:
                judge(each)
            rates[name].append(len(work) / (process_time() - before))
    return {name: median(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    work = records(parser.parse_args().records)
    candidates = {"compiled": compiled(PATTERNS), "interpreter": interpreted(PATTERNS)}
    passed = {name: sum(map(judge, work)) for name, judge in candidates.items()}
    if len(set(passed.values())) != 1:
        raise SystemExit(f"the candidates disagree: {passed}")
    rates = measure(candidates, work)
    print(f"{passed['compiled'] / len(work):.0%} of {len(work)} records pass; records a CPU-second:")
    for name, rate in rates.items():
        print(f"  {name:<12}{rate:>10,.0f}")
    print(f"  ratio       {rates['compiled'] / rates['interpreter']:>10.2f}   (goal 2)")


if __name__ == "__main__":
    main()

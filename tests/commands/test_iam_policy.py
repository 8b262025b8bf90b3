"""`bridge iam-policy`: what it prints, for whom, and its remarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.commands import main
from tests.configured import QUEUE, WORKER, mapped, write
from tests.servers import Server

pytestmark = pytest.mark.usefixtures("aws_keys")
ROLE = "arn:aws:iam::123456789012:role/there"
LETTERS = f"{QUEUE}-dlq"
RUN = [
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ReceiveMessage",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """Statements by Sid, and the remarks."""
    assert main(["iam-policy", *arguments]) == 0
    out, err = capsys.readouterr()
    return {statement["Sid"]: statement for statement in json.loads(out)["Statement"]}, err.splitlines()


def test_offline_and_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    statements, remarks = printed(capsys, "--offline")
    assert statements["BridgeQueues1"] == {
        "Sid": "BridgeQueues1", "Effect": "Allow", "Action": RUN, "Resource": [QUEUE],
    }  # fmt: skip
    assert statements.keys() == {"BridgeFunctions1", "BridgeQueues1"}
    assert statements["BridgeFunctions1"]["Action"] == ["lambda:ListEventSourceMappings"]
    assert remarks == [
        "remark: orders: its dead-letter queue is not known (--offline); --dlq orders=ARN adds it",
        "remark: what handlers call themselves, and mappings that are made through the API, are not in it",
    ]


def test_a_dead_letter_queue_that_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    statements, remarks = printed(capsys, "--offline", "--dlq", f"orders={LETTERS}")
    assert statements["BridgeQueues2"]["Action"] == ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
    assert statements["BridgeQueues2"]["Resource"] == [LETTERS]
    assert len(remarks) == 1


def test_it_asks_the_queue(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ministack_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack_server.url)
    letters = ministack_server.queue().arn
    redrive = json.dumps({"deadLetterTargetArn": letters, "maxReceiveCount": 5})
    queue = ministack_server.queue(RedrivePolicy=redrive, KmsMasterKeyId="alias/orders")
    write(tmp_path, mapped(queue=queue.arn))
    statements, remarks = printed(capsys)
    assert statements["BridgeQueues2"]["Resource"] == [letters]
    assert "remark: orders: the queue is encrypted with alias/orders: add kms:Decrypt on that key" in remarks


@pytest.mark.parametrize(
    ("task", "sources", "letters"),
    [
        ("run", RUN, []),
        ("doctor", ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"], ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]),
        (
            "replay",
            ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"],
            sorted(
                [
                    *RUN,
                    "sqs:ListDeadLetterSourceQueues",
                    "sqs:CancelMessageMoveTask",
                    "sqs:ListMessageMoveTasks",
                    "sqs:StartMessageMoveTask",
                ]
            ),
        ),
    ],
)
def test_for_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, sources: list[str], letters: list[str]
) -> None:
    write(tmp_path, mapped())
    statements, _ = printed(capsys, "--offline", "--for", task, "--dlq", f"orders={LETTERS}")
    allowed: dict[str, list[str]] = {}
    for statement in statements.values():
        for resource in statement["Resource"]:
            allowed[resource] = statement["Action"]
    assert allowed.get(QUEUE) == sources
    assert allowed.get(LETTERS, []) == letters


def test_streams_tables_and_destinations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
    table = "arn:aws:dynamodb:eu-west-1:123456789012:table/users/stream/2026-01-01T00:00:00.000"
    start = "StartingPosition: LATEST, FunctionName: worker"
    told = "DestinationConfig: {OnFailure: {Destination: 'arn:aws:s3:::failures'}}, MaximumRetryAttempts: 1"
    write(
        tmp_path,
        f"{WORKER}mappings:\n"
        f"  clicks: {{EventSourceArn: '{stream}', {start}, {told}}}\n"
        f"  pushed: {{EventSourceArn: '{stream}/consumer/own:17', {start}}}\n"
        f"  loose: {{EventSourceArn: '{stream}/consumer/other', {start}}}\n"
        f"  users: {{EventSourceArn: '{table}', {start}}}\n",
    )
    statements, remarks = printed(capsys, "--offline", "--for", "run")
    assert {(sid, tuple(it["Action"]), tuple(it["Resource"])) for sid, it in statements.items()} == {
        ("BridgeBuckets1", ("s3:PutObject",), ("arn:aws:s3:::failures/aws/lambda/*",)),
        (
            "BridgeStreams1",
            (
                "kinesis:DescribeStreamSummary",
                "kinesis:GetRecords",
                "kinesis:GetShardIterator",
                "kinesis:ListShards",
            ),
            (stream,),
        ),
        ("BridgeStreams2", ("kinesis:SubscribeToShard",), (f"{stream}/consumer/other:*", f"{stream}/consumer/own:17")),
        ("BridgeTables1", ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"), (table,)),
    }
    assert "remark: streams that are encrypted with a key of your own need kms:Decrypt on that key" in remarks
    assert any("kms:GenerateDataKey" in remark for remark in remarks)


def test_roles_have_policies_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped(f"aws: {{role_arn: '{ROLE}'}}"))
    assert main(["iam-policy", "--offline"]) == 0
    out, err = capsys.readouterr()
    (only,) = json.loads(out)["Statement"]
    assert (only["Action"], only["Resource"]) == (["sts:AssumeRole"], [ROLE])
    assert f"remark: somebody else calls, too: bridge iam-policy --role {ROLE}" in err
    statements, _ = printed(capsys, "--offline", "--role", ROLE)
    assert statements["BridgeQueues1"]["Resource"] == [QUEUE]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--role", ROLE], f'bridge: the configuration has no role_arn "{ROLE}"; it has none'),
        (["--profile", "other"], "bridge: nobody calls so in this configuration; try bridge iam-policy"),
        (
            ["--dlq", "orders=here"],
            'bridge: --dlq orders=here: expected MAPPING=ARN, with the ARN of a queue, got "here"',
        ),
        (["--dlq", f"oders={LETTERS}"], 'bridge: bridge.yaml has no mapping "oders"; did you mean "orders"?'),
        (["--for", "sleep"], "bridge: argument --for: invalid choice: 'sleep'"),
    ],
)
def test_usage(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, mapped())
    assert main(["iam-policy", "--offline", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(said)

"""Somebody moves a function to own machines: a mapping as AWS prints it, then validate, doctor and iam-policy."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.doctor.clinic import Clinic, Stream, redriven
from tests.doctor.test_places import on_lambda
from tests.servers import Server, unique

Made = Callable[[str], Clinic]


def test_a_function_moves(clinic: Made, ministack_server: Server) -> None:
    server = ministack_server
    queue = server.queue(name=unique("orders"), VisibilityTimeout="30", **redriven(server, 1))
    stream, function, api = Stream(server), on_lambda(server), server.client("lambda")
    there = [
        api.create_event_source_mapping(EventSourceArn=queue.arn, FunctionName=function, BatchSize=5),
        api.create_event_source_mapping(EventSourceArn=stream.arn, FunctionName=function, StartingPosition="LATEST"),
    ]
    listed = api.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    for mapping in there:
        api.delete_event_source_mapping(UUID=mapping["UUID"])
    it = clinic(server.url)
    it.function(function.rpartition(":")[2], Timeout=60)
    for mapping in listed:
        name = "orders" if mapping["EventSourceArn"] == queue.arn else "clicks"
        it.config["mappings"][name] = json.loads(json.dumps(mapping, default=lambda moment: moment.timestamp()))
    it.config["mappings"]["clicks"].setdefault("StartingPosition", "LATEST")

    status, out, err = it.run("validate")
    assert (status, out) == (0, "ok: 2 mappings, 1 functions\n"), err
    status, page, err = it.run("doctor")
    assert (status, err) == (1, "")
    for consequence in (
        "visibility 30 s < timeout 60 s: AWS would refuse this mapping; here the heartbeat covers it",
        "maxReceiveCount 1: each deploy sends running messages to the DLQ",
        "no age or retry bound: one bad record stops this shard for 24 h",
    ):
        assert consequence in page
    status, out, _ = it.run("iam-policy")
    assert status == 0
    resources = {resource for statement in json.loads(out)["Statement"] for resource in statement["Resource"]}
    assert {queue.arn, stream.arn, json.loads(queue.attributes()["RedrivePolicy"])["deadLetterTargetArn"]} < resources

"""The SQS source on two unrelated servers and, with the clock owned, on a queue in the test's own loop: all of them
pass the contract."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.aws import Aws
from bridge.record import Record
from bridge.sources.sqs import SqsSource
from tests.clock import SKIPPING
from tests.contracts.source import SourceContract
from tests.servers import Queue, Server
from tests.sources.faulty_sqs import FaultySqs
from tests.sources.near import LocalBroker, Near

pytestmark = pytest.mark.anyio


class ServedBroker:
    """A queue on a real server."""

    def __init__(self, queue: Queue, aws: Aws) -> None:
        self.queue = queue
        self.arn = queue.arn
        self.visibility = 2.0
        self.near = Near(aws)

    async def send(self, *bodies: str, group: str | None = None) -> list[str]:
        return self.queue.send(*bodies, group=group)

    def source(self, **options: Any) -> SqsSource:
        mapping = self.near.mapping(self.arn, aws=self.queue.server.settings, **options)
        return SqsSource(mapping, self.near.surroundings())

    async def count(self) -> int:
        return sum(self.queue.counts())

    async def steal(self, record: Record) -> None:
        handle = json.loads(record.json)["receiptHandle"]
        api = self.queue.api
        api.change_message_visibility(QueueUrl=self.queue.url, ReceiptHandle=handle, VisibilityTimeout=0)
        assert api.receive_message(QueueUrl=self.queue.url, VisibilityTimeout=600)["Messages"]

    async def vanish(self) -> None:
        self.queue.api.delete_queue(QueueUrl=self.queue.url)


class TestSqsInTheOwnLoop(SourceContract):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return SKIPPING

    @pytest.fixture
    def broker(self) -> LocalBroker:
        return LocalBroker(FaultySqs(visibility=10))

    @pytest.fixture
    def grouped(self) -> LocalBroker:
        return LocalBroker(FaultySqs("orders.fifo", visibility=10))


class ServedSqs(SourceContract):
    @pytest.fixture
    async def aws(self, aws_keys: None) -> AsyncIterator[Aws]:
        async with Aws() as aws:
            yield aws

    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, server: Server, aws: Aws) -> ServedBroker:
        return ServedBroker(server.queue(VisibilityTimeout="2"), aws)

    @pytest.fixture
    def grouped(self, server: Server, aws: Aws) -> ServedBroker:
        return ServedBroker(server.queue(fifo=True, VisibilityTimeout="2"), aws)


class TestSqsOnMinistack(ServedSqs):
    @pytest.fixture
    def server(self, ministack_server: Server) -> Server:
        return ministack_server


class TestSqsOnRoto(ServedSqs):
    loses = False  # it honours a receipt handle also after the next receive

    @pytest.fixture
    def server(self, roto_server: Server) -> Server:
        return roto_server

"""The sources of streams on servers of unrelated makers and, with the clock owned, on streams in the test's own loop:
all of them pass the contract."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from bridge.aws import Aws
from tests.clock import SKIPPING, owned_wall
from tests.contracts.stream import StreamContract, reading
from tests.servers import Server
from tests.sources.faulty_kinesis import FaultyKinesis
from tests.sources.faulty_table import FaultyTable
from tests.sources.near_streams import LocalKinesis, LocalTable
from tests.sources.served_streams import ServedKinesis, ServedTable

pytestmark = pytest.mark.anyio
__all__ = ["owned_wall"]


@pytest.mark.usefixtures("owned_wall")
class LocalContract(StreamContract):
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return SKIPPING


class TestKinesisInTheOwnLoop(LocalContract):
    @pytest.fixture
    def broker(self) -> LocalKinesis:
        return LocalKinesis(FaultyKinesis(shards=2))


class TestSmallNumbersInTheOwnLoop(LocalContract):
    """KIN-112 to KIN-114: like a server that many test with."""

    @pytest.fixture
    def broker(self) -> LocalKinesis:
        stream = FaultyKinesis(shards=2, small_numbers=True)
        stream.never_ends = stream.hides_children = stream.ignores_filters = True
        return LocalKinesis(stream)


class TestPushedInTheOwnLoop(LocalContract):
    """KIN-100."""

    @pytest.fixture
    def broker(self) -> LocalKinesis:
        return LocalKinesis(FaultyKinesis(shards=2), pushed=True)


class TestTablesInTheOwnLoop(LocalContract):
    times = False
    merges = False

    @pytest.fixture
    def broker(self) -> LocalTable:
        return LocalTable(FaultyTable(shards=2))


class ServedContract(StreamContract):
    @pytest.fixture
    async def aws(self, aws_keys: None) -> AsyncIterator[Aws]:
        async with Aws() as aws:
            yield aws

    @pytest.fixture
    def server(self) -> Server:
        raise NotImplementedError

    @pytest.fixture
    def broker(self, server: Server, aws: Aws) -> Any:
        return ServedKinesis(server, aws)


class TestKinesisOnKinesalite(ServedContract):
    @pytest.fixture
    def server(self, kinesalite_server: Server) -> Server:
        return kinesalite_server


class TestKinesisOnKinesisLocal(ServedContract):
    @pytest.fixture
    def server(self, kinesis_local_server: Server) -> Server:
        return kinesis_local_server


class TestKinesisOnMinistack(ServedContract):
    reshards = False  # it forgets a parent when it is split

    @pytest.fixture
    def server(self, ministack_server: Server) -> Server:
        return ministack_server


class TestConsumerOnMinistack(ServedContract):
    """KIN-100: records are pushed to a consumer."""

    reshards = False

    @pytest.fixture
    def broker(self, ministack_server: Server, aws: Aws) -> ServedKinesis:
        broker = ServedKinesis(ministack_server, aws)
        broker.register()
        return broker


class TestConsumerWhereNothingIsPushed:
    """KIN-105: one knows consumers, but what it pushes cannot be read; the other one knows none."""

    async def test_the_stream_is_read_on_kinesis_local(self, aws_keys: None, kinesis_local_server: Server) -> None:
        async with Aws() as aws:
            broker = ServedKinesis(kinesis_local_server, aws)
            broker.register()
            await self._read(broker)
        gc.collect()  # a connection that was forgotten complains now

    async def test_the_stream_is_read_on_kinesalite(self, aws_keys: None, kinesalite_server: Server) -> None:
        async with Aws() as aws:
            broker = ServedKinesis(kinesalite_server, aws)
            broker.arn += "/consumer/bridge:1768469400"
            await self._read(broker)

    async def _read(self, broker: ServedKinesis) -> None:
        with structlog.testing.capture_logs() as logs:
            await broker.put("a", "b", key="one")
            async with reading(broker) as reader:
                await reader.until(lambda: reader.settled == 2)
                await broker.put("c", key="one")
                await reader.until(lambda: reader.settled == 3)
                assert broker.bodies(reader.everything) == ["a", "b", "c"]
        assert "push_unavailable" in {entry["event"] for entry in logs}


class ServedTables(ServedContract):
    shards = 1
    times = False
    reshards = False  # none can be told to

    @pytest.fixture
    def broker(self, server: Server, aws: Aws) -> ServedTable:
        return ServedTable(server, aws)


class TestTablesOnMinistack(ServedTables):
    forgets = False  # DDB-10: the stream outlives its table

    @pytest.fixture
    def server(self, ministack_server: Server) -> Server:
        return ministack_server


class TestTablesOnDynamoDBLocal(ServedTables):
    coarse = 60.0
    forgets = False  # DDB-10: its shards have ended

    @pytest.fixture
    def server(self, dynamodb_local_server: Server) -> Server:
        return dynamodb_local_server

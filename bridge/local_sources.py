"""What a configuration needs at the embedded endpoint: queues, streams, tables, topics and buckets, planned without any
request, and made."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping as Dict
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import structlog

from bridge.errors import NotFound
from bridge.faults import persist
from bridge.function import AwsSettings, Function
from bridge.mapping import Mapping, SourceArn

if TYPE_CHECKING:
    from bridge.aws import Api, Aws

log = structlog.get_logger()

CREATE_LIMIT = 20.0
MOST_RECEIVES = 5
"""SQS-37 advises at least so many."""
DEFAULT_VISIBILITY, LONGEST_VISIBILITY = 30, 43_200  # SQS-82
SHARDS = 2
KEY = "id"
"""The partition key of a table, a string: its ARN does not tell."""


class Site(NamedTuple):
    """Where something is; what has no region or account in its ARN is where its user is."""

    account: str
    region: str


class Needs:
    """What has to be at one site."""

    def __init__(self) -> None:
        self.queues: dict[str, dict[str, str]] = {}
        """Name -> attributes; a dead-letter queue comes before the one that refers to it."""
        self.streams: dict[str, list[SourceArn]] = {}
        """Name -> the consumers of it, by the ARNs that the configuration has for them."""
        self.tables: dict[str, list[SourceArn]] = {}
        """Name -> the streams of it, likewise."""
        self.topics: dict[str, None] = {}
        self.buckets: dict[str, None] = {}

    def add(self, other: Needs) -> None:
        """These, too."""
        self.queues |= other.queues
        self.streams |= other.streams
        self.tables |= other.tables
        self.topics |= other.topics
        self.buckets |= other.buckets


Plan = dict[Site, Needs]
Found = dict[SourceArn, SourceArn]
"""What a source is called in the configuration -> at the endpoint, which invents the last part of these ARNs."""


def planned(mappings: Iterable[Mapping], functions: Dict[str, Function]) -> Plan:
    """What these mappings read from, and where their functions' records of failure and success go. Tables have streams
    of new and old images, streams the consumers that are named; what only is told something is made and no more."""
    plan: Plan = {}
    for mapping in mappings:
        needs = _at(plan, mapping.source_arn)
        match mapping.source:
            case "sqs":
                _plan_queue(needs, mapping.source_arn, functions[mapping.function].timeout)
            case "kinesis":
                _, name, *consumer = mapping.source_arn.resource.split("/", 2)
                needs.streams.setdefault(name, []).extend([mapping.source_arn] if consumer else [])
            case "dynamodb":
                name = mapping.source_arn.resource.split("/")[1]
                needs.tables.setdefault(name, []).append(mapping.source_arn)
        if mapping.stream and mapping.stream.on_failure:
            _plan_told(plan, mapping.stream.on_failure, functions[mapping.function])
    for function in functions.values():
        ends = function.event_invoke
        for target in (ends.on_success, ends.on_failure, function.dead_letter):
            if target:
                _plan_told(plan, target, function)
    return plan


def _at(plan: Plan, arn: SourceArn) -> Needs:
    return plan.setdefault(Site(arn.account, arn.region), Needs())


def _plan_queue(needs: Needs, arn: SourceArn, timeout: float) -> None:
    """Hidden for 6 x Timeout, at least 30 s (SQS-27), with a dead-letter queue after 5 receives (SQS-37), FIFO by
    suffix (SQS-62)."""
    visibility = min(max(DEFAULT_VISIBILITY, math.ceil(6 * timeout)), LONGEST_VISIBILITY)
    before = int(needs.queues.get(arn.resource, {}).get("VisibilityTimeout", 0))  # two mappings may share a queue
    letters = arn._replace(resource=_letters(arn.resource))
    redrive = {"deadLetterTargetArn": str(letters), "maxReceiveCount": str(MOST_RECEIVES)}
    needs.queues.setdefault(letters.resource, _kind(arn.resource))
    needs.queues[arn.resource] = {
        **_kind(arn.resource),
        "VisibilityTimeout": str(max(visibility, before)),
        "RedrivePolicy": json.dumps(redrive),
    }


def _plan_told(plan: Plan, target: str, function: Function) -> None:
    arn = SourceArn.parse(target)
    match arn.service:
        case "sqs":
            _at(plan, arn).queues.setdefault(arn.resource, {})
        case "sns":
            _at(plan, arn).topics[arn.resource] = None
        case "s3":
            _at(plan, SourceArn.parse(function.arn)).buckets[arn.resource.partition("/")[0]] = None


def _letters(queue: str) -> str:
    """The name of its dead-letter queue; that of a FIFO queue is FIFO, too."""
    name = queue.removesuffix(".fifo")
    return f"{name}-dlq{queue[len(name) :]}"


def _kind(queue: str) -> dict[str, str]:
    # Without deduplication by content each send would have to bring an id: a nuisance at a local endpoint.
    return {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if queue.endswith(".fifo") else {}


class Maker:
    """Makes what is planned; what is there stays, and gets the attributes. Raises RemoteError."""

    def __init__(self, aws: Aws, url: str) -> None:
        self._aws = aws
        self._url = url
        self._until = anyio.current_time() + CREATE_LIMIT

    async def make(self, plan: Plan) -> Found:
        """Returns when all of it is there."""
        found: Found = {}
        for site, needs in plan.items():
            sqs = await self._service("sqs", site)
            for name, attributes in needs.queues.items():
                await self._queue(sqs, name, attributes)
            for name, consumers in needs.streams.items():
                found |= await self._stream(site, name, consumers)
            for name, streams in needs.tables.items():
                found |= await self._table(site, name, streams)
            for name in needs.topics:
                fifo = {"Attributes": {"FifoTopic": "true"}} if name.endswith(".fifo") else {}
                await (await self._service("sns", site))("CreateTopic", {"Name": name, **fifo})
            for name in needs.buckets:
                await self._bucket(site, name)
        return found

    async def _service(self, service: str, site: Site) -> Call:
        api: Api = await self._aws.api(
            service, AwsSettings(endpoint_url=self._url, account_id=site.account), site.region
        )

        async def call(operation: str, params: dict[str, Any]) -> dict[str, Any]:
            return await persist(lambda: api.call(operation, params, timeout=10), trouble=_tell, until=self._until)

        return call

    async def _queue(self, sqs: Call, name: str, attributes: dict[str, str]) -> None:
        fifo = {"Attributes": {"FifoQueue": "true"}} if "FifoQueue" in attributes else {}
        made = await sqs("CreateQueue", {"QueueName": name, **fifo})
        changeable = {key: value for key, value in attributes.items() if key != "FifoQueue"}
        if changeable:
            await sqs("SetQueueAttributes", {"QueueUrl": made["QueueUrl"], "Attributes": changeable})

    async def _stream(self, site: Site, name: str, consumers: list[SourceArn]) -> Found:
        kinesis = await self._service("kinesis", site)
        summary = {"StreamName": name}
        try:
            told = await kinesis("DescribeStreamSummary", summary)
        except NotFound:
            await kinesis("CreateStream", {"StreamName": name, "ShardCount": SHARDS})
            told = await kinesis("DescribeStreamSummary", summary)
        arn = told["StreamDescriptionSummary"]["StreamARN"]
        found: Found = {}
        for consumer in consumers:
            there = {"StreamARN": arn, "ConsumerName": consumer.resource.split("/")[3].partition(":")[0]}
            try:
                answer = (await kinesis("DescribeStreamConsumer", there))["ConsumerDescription"]
            except NotFound:
                answer = (await kinesis("RegisterStreamConsumer", there))["Consumer"]
            found[consumer] = SourceArn.parse(answer["ConsumerARN"])
        return found

    async def _table(self, site: Site, name: str, streams: list[SourceArn]) -> Found:
        dynamodb = await self._service("dynamodb", site)
        try:
            told = (await dynamodb("DescribeTable", {"TableName": name}))["Table"]
        except NotFound:
            table = {
                "TableName": name,
                "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
                "BillingMode": "PAY_PER_REQUEST",
                "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            }
            told = (await dynamodb("CreateTable", table))["TableDescription"]
        return dict.fromkeys(streams, SourceArn.parse(told["LatestStreamArn"]))

    async def _bucket(self, site: Site, name: str) -> None:
        s3 = await self._service("s3", site)
        try:
            await s3("HeadBucket", {"Bucket": name})
        except NotFound:
            # us-east-1 is the one place that S3 does not want to be told
            place = {"CreateBucketConfiguration": {"LocationConstraint": site.region}}
            await s3("CreateBucket", {"Bucket": name, **(place if site.region != "us-east-1" else {})})


Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Operation and parameters -> answer."""


def _tell(line: str | None) -> None:
    log.debug("local_endpoint_waits", detail=line)

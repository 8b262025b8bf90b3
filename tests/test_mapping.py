"""ARNs of event sources, and the blocks of AWS settings over one another."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from bridge.function import AwsSettings
from bridge.mapping import Mapping, SourceArn

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:orders"


class TestSourceArn:
    def test_its_parts(self) -> None:
        assert SourceArn.parse(QUEUE) == ("aws", "sqs", "eu-west-1", "123456789012", "orders")
        assert SourceArn.parse("arn:aws:dynamodb:r:a:table/t/stream/2026-01-01T00:00:00.000").resource == (
            "table/t/stream/2026-01-01T00:00:00.000"
        )

    @pytest.mark.parametrize(
        "text", ["", "orders", "arn", "arn:aws:sqs", "arn:aws:sqs:r:a", "arn:aws:sqs:r:a:", "arn:aws::r:a:x"]
    )
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(ValueError):
            SourceArn.parse(text)

    @given(parts=st.tuples(*[st.text("abc-1", min_size=1)] * 4, st.text("abc-1:/.", min_size=1)))
    def test_it_reads_what_it_writes(self, parts: tuple[str, str, str, str, str]) -> None:
        arn = SourceArn(*parts)
        assert SourceArn.parse(str(arn)) == arn


def test_the_kind_of_source_is_the_service() -> None:
    mapping = Mapping(name="m", uuid="u", function="f", source_arn=SourceArn.parse(QUEUE))
    assert mapping.source == "sqs"


AWS = st.builds(
    AwsSettings,
    region=st.none() | st.sampled_from(["r1", "r2"]),
    endpoint_url=st.none() | st.sampled_from(["http://a", "http://b"]),
    endpoint_urls=st.dictionaries(st.sampled_from(["sqs", "sns"]), st.sampled_from(["http://c", "http://d"])),
    profile=st.none() | st.just("p"),
    role_arn=st.none() | st.just("role"),
)


class TestAwsSettings:
    @given(own=AWS, base=AWS)
    def test_what_is_given_wins_and_the_rest_is_inherited(self, own: AwsSettings, base: AwsSettings) -> None:
        merged = own.over(base)
        for name in ("region", "endpoint_url", "account_id", "profile", "role_arn"):
            assert getattr(merged, name) == (getattr(own, name) or getattr(base, name))
        assert merged.endpoint_urls.items() >= own.endpoint_urls.items()

    @given(own=AWS, base=AWS)
    def test_an_own_endpoint_leaves_no_service_at_another(self, own: AwsSettings, base: AwsSettings) -> None:
        inherited = {} if own.endpoint_url else base.endpoint_urls
        assert own.over(base).endpoint_urls == {**inherited, **own.endpoint_urls}

    @given(settings=AWS)
    def test_nothing_over_something_is_that(self, settings: AwsSettings) -> None:
        assert AwsSettings().over(settings) == settings == settings.over(AwsSettings())

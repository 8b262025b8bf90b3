"""Delivery: tried again for a bounded time, then counted, logged and given up."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bridge.destinations.delivery import PATIENCE, Delivery
from bridge.errors import AccessDenied, StateError, Throttled
from bridge.telemetry.metrics import FunctionMeter, Metrics
from tests.clock import SKIPPING
from tests.contracts.destination import failure
from tests.world import function

pytestmark = pytest.mark.anyio
OTHER = function("other")


@pytest.fixture
def anyio_backend() -> Any:
    return SKIPPING


class Scene:
    """A destination that is a function of this bridge, and refuses as the test says."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.accepted: list[tuple[str, str, str]] = []
        self.tries = 0
        self.metrics = Metrics()
        self._meter = self.metrics.function_meter("worker")
        functions = {"other": OTHER, "worker": function()}
        self.delivery = Delivery(None, functions.get, self._accept, self.meter)  # type: ignore[arg-type]

    def meter(self, name: str) -> FunctionMeter | None:
        return self._meter if name == "worker" else None

    async def _accept(self, name: str, qualifier: str, payload: bytes, request_id: str, trace: str) -> None:
        self.tries += 1
        if self.refusals:
            raise self.refusals.pop() if len(self.refusals) > 1 else self.refusals[0]
        self.accepted.append((name, qualifier, request_id))

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"bridge_{name}", {"function": "worker", **labels})


async def test_a_function_of_this_bridge_gets_an_event_with_an_id_of_its_own() -> None:  # DST-12
    it = Scene()
    await it.delivery.send(failure(OTHER.arn), function())
    await it.delivery.send(failure(f"{OTHER.arn}:prod"), function())
    (name, qualifier, first), (_, alias, second) = it.accepted
    assert (name, qualifier, alias) == ("other", "", "prod")
    assert len({first, second, failure("").record.id}) == 3


@pytest.mark.parametrize("refusal", [Throttled(), StateError("its disk is full")])
async def test_what_passes_is_waited_for_but_not_for_ever(refusal: Exception) -> None:  # DST-4
    it = Scene(refusal)
    began = anyio.current_time()
    await it.delivery.send(failure(OTHER.arn), function())
    assert PATIENCE / 2 < anyio.current_time() - began <= PATIENCE
    assert it.tries > 3
    assert it.counted("destination_delivery_failures_total", condition="RetriesExhausted") == 1
    assert it.counted("dead_letter_errors_total") == 0


async def test_what_does_not_pass_is_given_up_at_once() -> None:  # DST-4
    it = Scene(AccessDenied())
    await it.delivery.send(failure(OTHER.arn), function())
    assert it.tries == 1
    assert it.counted("destination_delivery_failures_total", condition="RetriesExhausted") == 1


async def test_a_dead_letter_that_is_lost_has_a_metric_of_its_own() -> None:  # DST-22
    it = Scene(AccessDenied())
    await it.delivery.send(failure(OTHER.arn, dead_letter=True), function())
    assert it.counted("dead_letter_errors_total") == 1
    assert it.counted("destination_delivery_failures_total", condition="RetriesExhausted") == 0


async def test_an_arn_of_no_known_kind_is_a_failure_too() -> None:
    it = Scene()
    await it.delivery.send(failure("arn:aws:kinesis:eu-west-1:123456789012:stream/s"), function())
    await it.delivery.send(failure("nonsense"), function())
    assert it.counted("destination_delivery_failures_total", condition="RetriesExhausted") == 2

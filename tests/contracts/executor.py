"""What every executor promises. Its tests begin by passing this suite, and then test what is peculiar to it.

A handler fixture shows these behaviours; ``seconds``, ``status`` and the like are members of its event:

========== =======================================================================================================
echo       answers with its event
nothing    returns nothing
raises     raises ValueError("no") (or what the language has), every time
picky      raises if the event's ``poison`` is true, else echo
leaves     ends its process with ``status`` if that is given, else echo
sleeps     sleeps for ``seconds``, then echo
large      answers with a JSON text of ``bytes`` bytes
prose      answers with bytes that are no JSON: ``not json``
meets      writes the file ``mine``, waits until the file ``theirs`` is there, then echo
counts     answers with how often this environment has been called
========== =======================================================================================================
"""

from __future__ import annotations

import json
import uuid
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from bridge.executors import Environments, Executor
from bridge.function import Function
from bridge.invocation import Failed, Invocation, Outcome, Succeeded

PATIENCE = 20.0
"""Seconds after which something that should have happened has not."""


def invocation(event: Any = None, *, mapping: str = "orders", payload: bytes | None = None) -> Invocation:
    """One with its own request id; ``payload`` instead of ``event`` for bytes as they are."""
    body = json.dumps({} if event is None else event).encode() if payload is None else payload
    return Invocation(body, str(uuid.uuid4()), mapping)


def answer(outcome: Outcome) -> Any:
    assert isinstance(outcome, Succeeded), outcome
    return json.loads(outcome.payload)


def error(outcome: Outcome) -> Any:
    assert isinstance(outcome, Failed), outcome
    return json.loads(outcome.error)


@pytest.mark.anyio
class ExecutorContract:
    """``features``: ``processes`` (code runs in processes of ours, which can end), ``warm`` (environments stay) and
    ``prose`` (a handler may answer with bytes of its own).
    """

    features: ClassVar[frozenset[str]] = frozenset({"processes", "warm", "prose"})

    def function(self, behaviour: str, **settings: Any) -> Function:
        """One whose handler behaves like that."""
        raise NotImplementedError

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        """Entered, it runs the function."""
        raise NotImplementedError

    def needs(self, feature: str) -> None:
        if feature not in self.features:
            pytest.skip(f"it has no {feature}")

    # Answers.

    @pytest.mark.parametrize("event", [{"a": [1, 2.5, None, True, "ü€𝄞"]}, [], "text", 7, None])
    async def test_the_handler_gets_the_event_and_its_answer_comes_back(self, event: Any) -> None:
        async with self.executor(self.function("echo")) as executor:
            asked = invocation(payload=json.dumps(event).encode())
            outcome = await executor.invoke(asked)
        assert answer(outcome) == event
        assert outcome.request_id == asked.request_id
        assert outcome.version == "$LATEST"
        assert outcome.duration > 0

    async def test_an_empty_payload_is_an_empty_object(self) -> None:  # INV-6
        async with self.executor(self.function("echo")) as executor:
            assert answer(await executor.invoke(invocation(payload=b""))) == {}

    async def test_no_answer_is_null(self) -> None:  # INV-5
        async with self.executor(self.function("nothing")) as executor:
            outcome = await executor.invoke(invocation())
        assert isinstance(outcome, Succeeded)
        assert outcome.payload == b"null"

    async def test_an_answer_is_not_judged(self) -> None:  # RT-4: any content type
        self.needs("prose")
        async with self.executor(self.function("prose")) as executor:
            outcome = await executor.invoke(invocation())
        assert isinstance(outcome, Succeeded)
        assert outcome.payload == b"not json"

    async def test_events_of_six_megabytes_pass_both_ways(self) -> None:  # INV-8, INV-9
        event = {"text": "x" * 6_000_000}
        async with self.executor(self.function("echo")) as executor:
            assert answer(await executor.invoke(invocation(event))) == event

    async def test_the_largest_answer_passes(self) -> None:  # RT-4
        async with self.executor(self.function("large")) as executor:
            outcome = await executor.invoke(invocation({"bytes": 6_291_556}))
        assert isinstance(outcome, Succeeded)
        assert len(outcome.payload) == 6_291_556

    # Failures are values.

    async def test_a_larger_answer_is_a_function_error(self) -> None:  # INV-9
        async with self.executor(self.function("large")) as executor:
            outcome = await executor.invoke(invocation({"bytes": 6_291_557}))
            assert error(outcome) == {
                "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
                "errorType": "Function.ResponseSizeTooLarge",
            }
            assert isinstance(outcome, Failed)
            assert outcome.kind == "function"
            assert outcome.ran
            assert isinstance(await executor.invoke(invocation({"bytes": 10})), Succeeded)

    async def test_what_a_handler_raises_is_a_function_error(self) -> None:  # INV-20, INV-21
        async with self.executor(self.function("raises")) as executor:
            asked = invocation()
            outcome = await executor.invoke(asked)
        assert error(outcome)["errorMessage"] == "no"
        assert error(outcome)["errorType"]
        assert isinstance(outcome, Failed)
        assert outcome.kind == "function"
        assert outcome.ran
        assert outcome.request_id == asked.request_id

    async def test_an_error_does_not_reset_the_environment(self) -> None:  # RT-34
        async with self.executor(self.function("picky")) as executor:
            assert isinstance(await executor.invoke(invocation({"poison": True})), Failed)
            assert isinstance(await executor.invoke(invocation({"poison": False})), Succeeded)
            if "warm" in self.features:
                assert executor.environments() == Environments(idle=1)

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (0, "Runtime exited without providing a reason"),  # RT-37
            (3, "Runtime exited with error: exit status 3"),
            (127, "Runtime exited with error: exit status 127"),
            (-9, "Runtime exited with error: signal: killed"),
            (-11, "Runtime exited with error: signal: segmentation fault"),
        ],
    )
    async def test_the_end_of_the_process_is_a_failure(self, status: int, text: str) -> None:  # INV-24
        self.needs("processes")
        async with self.executor(self.function("leaves")) as executor:
            asked = invocation({"status": status})
            outcome = await executor.invoke(asked)
            assert error(outcome) == {
                "errorType": "Runtime.ExitError",
                "errorMessage": f"RequestId: {asked.request_id} Error: {text}",
            }
            assert isinstance(outcome, Failed)
            assert outcome.kind == "exit"
            assert outcome.ran
            assert answer(await executor.invoke(invocation({"fine": True}))) == {"fine": True}  # RT-33

    async def test_a_handler_that_takes_too_long_is_timed_out(self) -> None:  # INV-23, RT-32
        async with self.executor(self.function("sleeps", timeout=0.3)) as executor:
            asked = invocation({"seconds": 60})
            with anyio.fail_after(PATIENCE):
                outcome = await executor.invoke(asked)
            assert error(outcome) == {
                "errorType": "Sandbox.Timedout",
                "errorMessage": f"RequestId: {asked.request_id} Error: Task timed out after 0.30 seconds",
            }
            assert isinstance(outcome, Failed)
            assert outcome.kind == "timeout"
            assert outcome.ran
            assert outcome.duration >= 0.3
            assert answer(await executor.invoke(invocation({"seconds": 0}))) == {"seconds": 0}  # RT-33

    # Environments.

    async def test_entering_starts_nothing(self) -> None:
        async with self.executor(self.function("echo")) as executor:
            assert executor.environments() == Environments()

    async def test_an_environment_stays_warm(self) -> None:  # RT-8
        self.needs("warm")
        async with self.executor(self.function("counts")) as executor:
            assert [answer(await executor.invoke(invocation())) for _ in range(3)] == [1, 2, 3]
            assert executor.environments() == Environments(idle=1)

    async def test_a_timed_out_environment_is_replaced(self) -> None:  # RT-33: memory does not stay
        self.needs("warm")
        async with self.executor(self.function("counts", timeout=0.5)) as executor:
            assert answer(await executor.invoke(invocation())) == 1
            assert isinstance(await executor.invoke(invocation({"seconds": 60})), Failed)
            assert answer(await executor.invoke(invocation())) == 1

    async def test_concurrent_invocations_run_at_the_same_time(self, tmp_path: Path) -> None:  # RT-60
        names = ["a", "b", "c"]
        outcomes: list[Outcome] = []
        async with self.executor(self.function("meets", timeout=PATIENCE, max_environments=3)) as executor:

            async def run(mine: str, theirs: str) -> None:
                event = {"mine": str(tmp_path / mine), "theirs": str(tmp_path / theirs)}
                outcomes.append(await executor.invoke(invocation(event)))

            async with anyio.create_task_group() as group:
                for mine, theirs in zip(names, [*names[1:], names[0]], strict=True):
                    group.start_soon(run, mine, theirs)
            if "warm" in self.features:
                assert executor.environments() == Environments(idle=3)
        assert [type(outcome) for outcome in outcomes] == [Succeeded] * 3

    async def test_a_cancelled_invocation_ends(self, tmp_path: Path) -> None:
        async with self.executor(self.function("meets", timeout=PATIENCE)) as executor:
            event = {"mine": str(tmp_path / "mine"), "theirs": str(tmp_path / "theirs")}
            async with anyio.create_task_group() as group:
                group.start_soon(executor.invoke, invocation(event))
                with anyio.fail_after(PATIENCE):
                    while not (tmp_path / "mine").exists():
                        await anyio.sleep(0.01)
                assert executor.environments().busy == 1
                group.cancel_scope.cancel()
            assert executor.environments() == Environments()
            (tmp_path / "theirs").touch()
            assert answer(await executor.invoke(invocation(event))) == event

    async def test_leaving_ends_what_still_runs(self, tmp_path: Path) -> None:
        event = {"mine": str(tmp_path / "mine"), "theirs": str(tmp_path / "theirs")}
        outcomes: list[Outcome] = []
        async with anyio.create_task_group() as group:
            async with self.executor(self.function("meets", timeout=PATIENCE)) as executor:

                async def run() -> None:
                    outcomes.append(await executor.invoke(invocation(event)))

                group.start_soon(run)
                with anyio.fail_after(PATIENCE):
                    while not (tmp_path / "mine").exists():
                        await anyio.sleep(0.01)
            with anyio.fail_after(PATIENCE):
                while not outcomes:
                    await anyio.sleep(0.01)
        assert isinstance(outcomes[0], Failed)
        assert executor.environments() == Environments()

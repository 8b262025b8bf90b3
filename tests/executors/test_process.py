"""Child processes: the contract first, then what is peculiar to them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from bridge.executors import Executor
from bridge.function import Function
from tests.contracts.executor import ExecutorContract
from tests.executors.surroundings import function, running


class TestContract(ExecutorContract):
    def function(self, behaviour: str, **settings: Any) -> Function:
        return function(f"behaviours.{behaviour}", **settings)

    def executor(self, function: Function) -> AbstractAsyncContextManager[Executor]:
        return running(function)

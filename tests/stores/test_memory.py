"""The store in memory."""

from __future__ import annotations

import pytest

from tests.contracts.store import StoreContract


class TestMemoryStore(StoreContract):
    durable = False

    @pytest.fixture
    def url(self) -> str:
        return "memory:"

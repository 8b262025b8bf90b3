"""Shared writes stay worth it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.checkpoints import measure


@pytest.mark.anyio
async def test_a_hundred_shards_share_their_writes(tmp_path: Path) -> None:
    """Twenty times as many, measured at leisure; a quarter of that however busy the machine and its disk."""
    ours, naive = await measure(tmp_path, 100, 0.2)
    assert ours > 5 * naive, f"{ours:,.0f} against {naive:,.0f}"

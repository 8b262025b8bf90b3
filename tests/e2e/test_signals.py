"""Signals."""

from __future__ import annotations

from tests.e2e.harness import Site

def test_first(site: Site) -> None:
    queue = site.queue()
    site.function()
    site.mapping(queue)
    with site.running() as bridge:
        (message,) = queue.send('{"prints": "hello"}')
        bridge.until(lambda: site.journal.ids() == [message] and queue.counts() == (0, 0))
        print(bridge.log())
        print(bridge.stop())

"""Who can reach what: every socket that the daemon, its handlers and the embedded endpoint listen on."""

from __future__ import annotations

import pytest

from tests.debuggers import free_port
from tests.e2e import processes
from tests.e2e.harness import Site


def test_only_this_machine_reaches_any_of_them(one_site: Site) -> None:
    pytest.importorskip("ministack")
    site = one_site
    site.config["api"] = {"listen": "127.0.0.1:0"}
    del site.config["aws"]["endpoint_url"]
    site.function("actor", ProvisionedConcurrentExecutions=1)
    site.function("watched", ProvisionedConcurrentExecutions=1, debug=free_port(), max_environments=1)
    site.mapping("arn:aws:sqs:eu-west-1:123456789012:orders")
    site.mapping("arn:aws:kinesis:eu-west-1:123456789012:stream/clicks", StartingPosition="LATEST")
    with site.running("--local") as bridge:

        def listening() -> list[int]:
            everybody = [it.pid for it in processes.marked(str(site.folder))]
            return [pid for pid in everybody if processes.listeners(pid)]

        bridge.until(lambda: len(listening()) >= 3)  # the daemon, its endpoint, and what waits for a debugger
        assert processes.hosts(*listening()) == {"127.0.0.1"}

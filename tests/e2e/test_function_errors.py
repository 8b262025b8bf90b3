"""Code that cannot run is a function error in AWS's shape (tests/spec/invocation.md): from ``bridge invoke``, and from
the daemon, which leaves the message to the queue's redrive."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from tests.e2e.harness import Site, receive


class Broken(NamedTuple):
    """A module's text, and what its failure looks like."""

    text: str
    kind: str
    message: str


BROKEN = {  # INV-21, INV-25
    "missing_attribute": Broken("", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
    "import_error": Broken("import no_such_module", "Runtime.ImportModuleError", "Unable to import module 'app': "),
    "syntax_error": Broken("def handler(:", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app': "),
    "raises_at_import": Broken("1 / 0", "ZeroDivisionError", "division by zero"),
    "raises": Broken("def handler(event, context):\n    raise KeyError('id')", "KeyError", "'id'"),
    "exits": Broken("import sys\ndef handler(event, context):\n    sys.exit(3)", "Runtime.ExitError", "exit status 3"),
    "no_json": Broken("def handler(event, context):\n    return object()", "Runtime.MarshalError", "Unable to marshal"),
}


@pytest.fixture
def broken_site(one_site: Site) -> Site:
    """Each of BROKEN is a function."""
    for name, broken in BROKEN.items():
        code = one_site.folder / name
        code.mkdir()
        (code / "app.py").write_text(broken.text)
        one_site.function(name, code=code, Handler="app.handler")
    return one_site


@pytest.mark.parametrize("name", BROKEN)
def test_invoke_prints_the_error(broken_site: Site, name: str) -> None:
    broken = BROKEN[name]
    done = broken_site.cli("invoke", name, "-c", str(broken_site.write()))
    assert done.status == 1
    error = json.loads(done.out)
    assert error["errorType"] == broken.kind
    assert broken.message in error["errorMessage"]
    if broken.kind == "Runtime.ExitError":
        assert error.keys() == {"errorType", "errorMessage"}  # INV-24
    else:
        assert isinstance(error["stackTrace"], list)
        assert isinstance(error["requestId"], str)
    assert broken_site.left() == []


def test_the_daemon_leaves_the_message_to_redrive(broken_site: Site) -> None:  # SQS-32, SQS-37
    queues = {name: broken_site.queue(visibility=1, dead_after=2) for name in BROKEN}
    for name, queue in queues.items():
        broken_site.mapping(queue, name, name=name)
    sent = {name: queue.send("{}")[0] for name, queue in queues.items()}
    with broken_site.running() as bridge:
        for name, queue in queues.items():
            letters = broken_site.letters_of(queue)
            bridge.until(lambda letters=letters: sum(letters.counts()) == 1)  # type: ignore[misc]
            assert [message["MessageId"] for message in receive(letters)] == [sent[name]]
            assert queue.counts() == (0, 0)
            failures = bridge.view(name).failures
            assert [failure.what for failure in failures] == [BROKEN[name].kind] * 2
            assert BROKEN[name].message in failures[0].message
            assert len(bridge.events("invocation_failed", mapping=name)) == 1, "a repeating error is said once"
        assert bridge.readiness()[0] == 200, "a handler's failure is not the bridge's"


def test_invoke_gives_the_answer(one_site: Site) -> None:
    code = one_site.folder / "code"
    code.mkdir()
    (code / "app.py").write_text(
        "def handler(event, context):\n    print('to the log')\n    return event['Records'][0]['body']"
    )
    one_site.function("echo", code=code, Handler="app.handler")
    file = str(one_site.write())
    event = one_site.cli("event", "sqs", "--body", '{"id": 1}').out
    done = one_site.cli("invoke", "echo", "-c", file, "-e", "-", given=event)
    assert (done.status, done.out) == (0, '"{\\"id\\": 1}"\n')
    assert "to the log" in done.err
    unknown = one_site.cli("invoke", "ecko", "-c", file)
    assert (unknown.status, len(unknown.lines)) == (2, 1)
    assert '"echo"' in unknown.err

"""Runs ``bridge`` as users do: a real process with a real configuration file, real handlers in real children, against a
real server; and looks at it from outside, by its log, its admin pages, its signals and what it leaves behind."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping as Dict, Sequence
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bridge.snapshot import MappingView, Snapshot
from tests.e2e import processes
from tests.e2e.journal import Journal
from tests.servers import ACCOUNT, REGION, Queue, Server, unique

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
HANDLERS = Path(__file__).parent / "handlers"
PATIENCE = 30.0
"""Seconds that anything may take before a test gives up. Far more than it takes."""
LOOK_EVERY = 0.05
ASK_EVERY = 0.25
"""The same for what costs a server something."""
BRIDGE = (sys.executable, "-m", "bridge")


def eventually(condition: Callable[[], T], *, within: float = PATIENCE, every: float = LOOK_EVERY) -> T:
    """What ``condition`` gives as soon as it is true. The one place where these tests wait."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within:g} s; it is {value!r}"
        time.sleep(every)
    return value


def say(**order: Any) -> str:
    """A message body that tells handlers/actor.py what to do."""
    return json.dumps(order)


def receive(queue: Queue) -> list[dict[str, Any]]:
    """What one receive from outside gives, at once."""
    answer = queue.api.receive_message(QueueUrl=queue.url, MaxNumberOfMessages=10, AttributeNames=["All"])
    return list(answer.get("Messages", ()))


class Endpoint(Protocol):
    """A server, real or not."""

    @property
    def url(self) -> str: ...


class AnyQueue(Protocol):
    """A queue on any of them."""

    @property
    def arn(self) -> str: ...

    def counts(self) -> tuple[int, int]: ...


class Finished(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it said on standard error."""
        return self.err.splitlines()


class Site:
    """A folder for one daemon: its configuration, state, temporary files, and the journal that its handlers keep."""

    def __init__(self, folder: Path, server: Endpoint | None = None) -> None:
        self.folder, self.server = folder, server
        self.journal = Journal(folder / "journal")
        self.home, self.temporary = folder / "home", folder / "tmp"
        for made in (self.home, self.temporary):
            made.mkdir(parents=True)
        self.env = environment(self)
        self.config: dict[str, Any] = {
            "aws": {"region": REGION, **({"endpoint_url": server.url} if server else {})},
            "state": f"sqlite:///{folder}/state.db",
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"level": "debug", "format": "json"},
            "functions": {},
            "mappings": {},
        }
        self._bridges: list[Bridge] = []

    def close(self) -> None:
        """Kills what a test that failed has left running."""
        for bridge in self._bridges:
            if bridge.process.poll() is None:
                bridge.process.kill()
                bridge.process.wait()

    def __repr__(self) -> str:
        return f"<Site {self.folder} at {self.server}>"

    @property
    def file(self) -> Path:
        """The configuration file, of which ``write`` makes the present configuration."""
        return self.folder / "bridge.yaml"

    def write(self) -> Path:
        self.file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        return self.file

    # What the configuration names.

    def queue(self, *, visibility: int = 2, fifo: bool = False, dead_after: int | None = None, **more: str) -> Queue:
        """A queue on a real server; with ``dead_after`` receives its messages go to ``letters_of`` it."""
        assert isinstance(self.server, Server)
        attributes = {"VisibilityTimeout": str(visibility), **more}
        if dead_after is not None:
            letters = self.server.queue(fifo=fifo)
            redrive = {"deadLetterTargetArn": letters.arn, "maxReceiveCount": str(dead_after)}
            attributes["RedrivePolicy"] = json.dumps(redrive)
        return self.server.queue(fifo=fifo, **attributes)

    def letters_of(self, queue: Queue) -> Queue:
        """Its dead-letter queue."""
        assert isinstance(self.server, Server)
        arn = json.loads(queue.attributes()["RedrivePolicy"])["deadLetterTargetArn"]
        name = arn.rpartition(":")[2]
        return Queue(self.server, name, queue.url.replace(queue.name, name))

    def function(
        self, name: str = "actor", *, partial: bool = False, setting: str = "", code: Path = HANDLERS, **options: Any
    ) -> str:
        """Declares a function; without more it is handlers/actor.py. Gives its name."""
        variables = {
            "JOURNAL": str(self.journal.file),
            "SETTING": setting,
            "PARTIAL": "1" if partial else "",
            "TMPDIR": str(self.temporary),  # else the journal might lie below a /tmp that it does not see
        }
        self.config["functions"][name] = {
            "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
            "Handler": "actor.handler",
            "CodeUri": str(code),
            "Timeout": 5,
            "Environment": {"Variables": variables},
            **options,
        }
        return name

    def mapping(
        self, queue: AnyQueue | str, function: str = "actor", *, name: str = "", partial: bool = False, **options: Any
    ) -> str:
        """Declares a mapping of a queue, or of its ARN. Gives its name."""
        arn = queue if isinstance(queue, str) else queue.arn
        name = name or unique("mapping")
        if partial:
            options["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
        self.config["mappings"][name] = {"FunctionName": function, "EventSourceArn": arn, **options}
        return name

    # What is run with it.

    def start(self, *arguments: str, env: Dict[str, str] | None = None) -> Bridge:
        """``bridge run``; returns at once. A context manager."""
        command = [*BRIDGE, "run", "-c", str(self.write()), *arguments]
        bridge = Bridge(self, command, {**self.env, **(env or {})}, self.folder / f"run-{len(self._bridges)}")
        self._bridges.append(bridge)
        return bridge

    def running(self, *arguments: str, env: Dict[str, str] | None = None) -> Bridge:
        """``start``, and it is ready."""
        return self.start(*arguments, env=env).ready()

    def cli(
        self, *arguments: str, env: Dict[str, str] | None = None, given: str = "", within: float = PATIENCE
    ) -> Finished:
        """Any other command, to its end."""
        began = time.monotonic()
        done = subprocess.run(
            [*BRIDGE, *arguments],
            input=given,
            capture_output=True,
            text=True,
            env={**self.env, **(env or {})},
            cwd=self.folder,
            timeout=within,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    # What is left of it.

    def left(self) -> list[str]:
        """Processes and temporary folders. Whatever runs for this site has its folder in its environment."""
        return [
            *(repr(it) for it in processes.marked(str(self.folder))),
            *(path.name for path in self.temporary.iterdir()),
        ]


class Bridge:
    """A daemon that runs. Leaving it ends it, if ``stop`` has not, and checks that nothing is left behind."""

    def __init__(self, site: Site, command: Sequence[str], env: Dict[str, str], output: Path) -> None:
        self.site = site
        self._log, self._out = output.with_suffix(".log"), output.with_suffix(".out")
        self._port = 0
        with self._log.open("wb") as log, self._out.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=dict(env), cwd=site.folder
            )

    def __repr__(self) -> str:
        return f"<Bridge {self.pid}, status {self.process.returncode}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self.process.returncode is None:
                self.end()
            return
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        error.add_note(self.last_words())

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self, about: str = "") -> str:
        """The end of its log, for people who look for what went wrong."""
        lines = [line for line in self._log.read_text().splitlines() if about in line]
        return "\n".join(["the end of the daemon's log:", *(line[:400] for line in lines[-40:])])

    # Waiting.

    def until(self, condition: Callable[[], T], *, within: float = PATIENCE, every: float = LOOK_EVERY) -> T:
        """``eventually``, as long as it runs."""
        ended = False

        def look() -> T | bool:
            nonlocal ended
            ended = self.process.poll() is not None
            return condition() or ended

        found = eventually(look, within=within, every=every)
        assert not ended or found is not True, f"the daemon ended with {self.process.returncode}"
        return found  # type: ignore[return-value]

    def ready(self) -> Self:
        """It is up, and every mapping polls."""
        try:
            self.until(lambda: self.readiness()[0] == 200)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def empties(self, *queues: AnyQueue, within: float = PATIENCE) -> None:
        """Waits until nothing is in these queues, neither visible nor in flight."""
        for queue in queues:
            self.until(lambda queue=queue: queue.counts() == (0, 0), within=within, every=ASK_EVERY)  # type: ignore[misc]

    def said(self, event: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Waits until it has logged this so often; gives these lines."""
        return self.until(lambda: len(found := self.events(event, **fields)) >= count and found) or []

    # Looking.

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines of this name with these fields, so far."""
        return [
            line for line in self.log() if line["event"] == event and all(line.get(k) == v for k, v in fields.items())
        ]

    def log(self) -> list[dict[str, Any]]:
        """Its log so far; each line has to be a JSON object (interfaces: section 7)."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @property
    def out(self) -> str:
        """Its standard output."""
        return self._out.read_text()

    @property
    def url(self) -> str:
        """Of its admin interface."""
        if not self._port:
            (started,) = self.said("started")
            self._port = int(started["admin"].rpartition(":")[2])
        return f"http://127.0.0.1:{self._port}"

    def get(self, path: str) -> tuple[int, str]:
        """An admin page."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self.url.rpartition(":")[2]), timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def readiness(self) -> tuple[int, dict[str, Any]]:
        status, body = self.get("/readyz")
        return status, json.loads(body)

    def state(self) -> Snapshot:
        return msgspec.json.decode(self.get("/state")[1], type=Snapshot)

    def view(self, mapping: str) -> MappingView:
        """One mapping of the state."""
        return next(view for view in self.state().mappings if view.name == mapping)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels. KeyError without any: a series exists from the start."""
        found = [
            value for sample, having, value in self.metrics() if sample == name and labels.items() <= having.items()
        ]
        if not found:
            raise KeyError(name)
        return sum(found)

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """All samples: name, labels, value."""
        status, page = self.get("/metrics")
        assert status == 200
        families = text_string_to_metric_families(page)
        return [(s.name, s.labels, s.value) for family in families for s in family.samples]

    # Acting.

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    def reload(self) -> dict[str, Any]:
        """Writes the configuration as it is now and has it read; the line that the daemon logs about it."""
        before = len(self.events("reloaded"))
        self.site.write()
        self.signal(Signals.SIGHUP)
        return self.said("reloaded", before + 1)[-1]

    def stop(self, number: Signals = Signals.SIGTERM, *, status: int = 0) -> float:
        """Drains it; seconds until it was gone."""
        began = time.monotonic()
        self.signal(number)
        assert self.wait() == status, self.last_words()
        took = time.monotonic() - began
        self.check_end()
        return took

    def end(self) -> None:
        """Ends it by a second signal, for tests that have seen what they are about: a drain takes its time."""
        drains = len(self.events("draining"))
        self.signal(Signals.SIGTERM)
        eventually(lambda: len(self.events("draining")) > drains or self.process.poll() is not None)
        self.signal(Signals.SIGTERM)
        assert self.wait() in (143, 0), self.last_words()  # it may be faster than we, and gone
        self.check_end()

    def check_end(self) -> None:
        """Nothing is left of it, and it told of no bug of ours."""
        assert not eventually_left(self.site), "something is left"
        bad = [line for line in self.log() if "exception" in line or line["event"] == "library"]
        assert not bad, bad

    def wait(self, within: float = PATIENCE) -> int:
        """Its exit status."""
        return self.process.wait(within)

    def kill(self) -> None:
        """Kill -9. Returns when all of its processes, listening sockets and temporary folders are gone."""
        family = processes.descendants(self.pid)
        sockets = processes.listeners(self.pid, *(it.pid for it in family))
        self.process.kill()
        self.process.wait()
        eventually(lambda: not any(it.alive for it in family))
        eventually(lambda: not sockets & processes.listening())
        assert not eventually_left(self.site), "something is left"


def eventually_left(site: Site) -> list[str]:
    """What is left of a site when killed processes have had the time to disappear."""
    deadline = time.monotonic() + PATIENCE
    while (left := site.left()) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
    return left


def environment(site: Site) -> dict[str, str]:
    """All that a daemon of this site inherits: no proxies, profiles or settings of whoever runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(site.home),
        "TMPDIR": str(site.temporary),
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": ACCOUNT,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }

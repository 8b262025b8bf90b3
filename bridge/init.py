"""Process 1 of a container: runs the daemon as its child, hands signals on to it, and collects every process that was
orphaned, for nobody else would."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

HANDED_ON = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
_WAITED_FOR = HANDED_ON | {signal.SIGCHLD}


def as_init(main: Callable[[], int]) -> int:
    """What ``main`` returns. As process 1, calls it in a child and returns the child's exit status: 128 + N when it was
    ended by signal N. Call it before there are threads."""
    if os.getpid() != 1:
        return main()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    child = os.fork()
    if child:
        return _attend(child)
    os.setsid()  # Ctrl-C reaches process 1 alone, so that each signal comes here once
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return main()


def _attend(child: int) -> int:
    while True:
        number = signal.sigwait(_WAITED_FOR)
        if number != signal.SIGCHLD:
            os.kill(child, number)  # it is there: only we collect it
        elif (status := _collect(child)) is not None:
            return status


def _collect(child: int) -> int | None:
    """Collects all that has ended. Gives the exit status of ``child`` when it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)  # never without any child: ours is among them until we return
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code

"""The end of an invocation's log, as Lambda gives it to a caller who asks: START, output, END, REPORT (INV-30)."""

from __future__ import annotations

from math import ceil

SIZE = 4096


class LogTail:
    """Collects the log of the invocation that runs, never more than a few kilobytes of it."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._request_id = ""

    def begin(self, request_id: str) -> None:
        """A new invocation starts with a new log (RT-50)."""
        self._request_id = request_id
        self._text = bytearray(f"START RequestId: {request_id} Version: $LATEST\n".encode())

    def write(self, data: bytes) -> None:
        text = self._text
        text += data[-SIZE:]
        if len(text) > 4 * SIZE:
            del text[:-SIZE]

    def end(self, report: str) -> bytes:
        """The newest bytes, with END and ``report`` behind them."""
        text = self._text
        if not text.endswith(b"\n"):
            text += b"\n"
        text += f"END RequestId: {self._request_id}\nREPORT RequestId: {self._request_id}\t{report}\n".encode()
        return bytes(text[-SIZE:])


def report(duration: float, init: float | None, memory_size: int, memory_used: int | None, status: str = "") -> str:
    """What stands on the REPORT line (RT-50..52). Seconds; MiB of ``memory_size``, bytes of ``memory_used``; ``init``
    only for a cold start; ``status``: ``timeout``, or ``error<TAB>Error Type: TYPE``.
    """
    taken = duration * 1000
    fields = [
        f"Duration: {taken:.2f} ms\tBilled Duration: {ceil(taken + (init or 0.0) * 1000)} ms",
        f"Memory Size: {memory_size} MB",
    ]
    if memory_used is not None:
        fields.append(f"Max Memory Used: {memory_used >> 20} MB")
    if init is not None:
        fields.append(f"Init Duration: {init * 1000:.2f} ms")
    if status:
        fields.append(f"Status: {status}")
    return "\t".join([*fields, ""])

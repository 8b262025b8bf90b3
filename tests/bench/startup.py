"""What `bridge --help` and `bridge validate` cost, against an interpreter that imports argparse and json.

    python -m tests.bench.startup

Prints medians of 15 alternating runs, and fails above the goal of 4 times.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

GOAL = 4.0
RUNS = 15
EXAMPLE = Path(__file__).parents[2] / "config" / "bridge.example.yaml"

CASES = {
    "python -c 'import argparse, json'": ["-c", "import argparse, json"],
    "bridge --help": ["-m", "bridge", "--help"],
    "bridge validate": ["-m", "bridge", "validate", "-c", str(EXAMPLE)],
}


def measure() -> dict[str, float]:
    """Median seconds of each case, compiled beforehand as an installation is."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as cache:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = cache
        for arguments in CASES.values():
            run(arguments, environ)
        for _ in range(RUNS):
            for name, arguments in CASES.items():
                times[name].append(run(arguments, environ))
    return {name: statistics.median(values) for name, values in times.items()}


def run(arguments: list[str], environ: Mapping[str, str]) -> float:
    """Seconds of one start."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environ, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> int:
    """Prints the table; 1 above the goal."""
    figures = measure()
    base = next(iter(figures.values()))
    for name, seconds in figures.items():
        print(f"{name:<36}{seconds * 1000:8.1f} ms{seconds / base:8.2f} x")
    return 0 if max(figures.values()) <= GOAL * base else 1


if __name__ == "__main__":
    sys.exit(main())

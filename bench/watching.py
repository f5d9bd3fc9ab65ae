"""Drives the watchers' process (watchers.py), as generator.py does the load generator; and what their samples say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from bench.process import ROOT
from bench.processors import LOAD_CPUS

#: (arrival, age) of a push, in microseconds; arrival since the epoch.
Sample = Sequence[int]


class Watching:
    """``with Watching(port, 20, ["edge0"]) as watchers``: they watch when the block begins; ended with it,
    at the latest. ``seconds`` None: until :meth:`stop`. ``stalled``: those of stalled.py."""

    def __init__(
        self,
        port: int,
        watchers: int,
        edges: Iterable[str],
        *options: str,
        seconds: float | None = None,
        stalled: bool = False,
    ) -> None:
        words = ["bench.stalled", str(port), str(watchers), *edges]
        if not stalled:
            words = ["bench.watchers", str(port), str(watchers), str(seconds or 0), *edges, *options]
            if seconds is None:
                words.append("--follow")
        self._process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        os.sched_setaffinity(self._process.pid, LOAD_CPUS)

    def __enter__(self) -> Watching:
        if self._read() != "ready":
            self._process.kill()
            self._process.wait()
            raise RuntimeError("the watchers did not get ready")
        return self

    def ask(self, word: str) -> dict[str, Any]:
        """What they say to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self.figures()

    def stop(self) -> dict[str, Any]:
        """The figures, ``samples`` among them."""
        return self.ask("stop")

    def figures(self) -> dict[str, Any]:
        """The next object they print; at its own time with ``seconds``."""
        result: dict[str, Any] = json.loads(self._read())
        return result

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._process.poll() is None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def latencies(samples: Iterable[Sample], begin: float, end: float, prefix: str = "") -> dict[str, Any]:
    """Of pushes of values that are of the time from ``begin`` to ``end`` (seconds since the epoch), whenever they came:
    ``pushes``, ``p50_ms``, ``p99_ms``, ``max_ms``, named with the prefix. None without any. Pure."""
    ages = sorted(age for arrival, age in samples if begin <= (arrival - age) / 1e6 <= end)

    def at(part: float) -> float | None:
        return round(ages[min(len(ages) - 1, int(len(ages) * part))] / 1000, 2) if ages else None

    return {
        f"{prefix}pushes": len(ages),
        f"{prefix}p50_ms": at(0.5),
        f"{prefix}p99_ms": at(0.99),
        f"{prefix}max_ms": at(1.0),
    }

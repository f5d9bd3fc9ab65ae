"""A server process and what it says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parent.parent


class Server:
    """``with Server("backend", edges=100) as server``: ``ports``, ``figures()``. Ends with the block."""

    def __init__(self, kind: str, *, cpus: set[int] | None = None, **options: Any) -> None:
        self._kind = kind
        self._cpus = cpus
        self._options = options
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Server:
        self._folder = tempfile.TemporaryDirectory(prefix="openems-bench-")
        self.begin()
        return self

    def begin(self) -> None:
        """Once more, after :meth:`kill`, with what is in the folder."""
        command = [sys.executable, "-m", "bench.server", self._kind, "--folder", self._folder.name]
        for name, value in self._options.items():
            if value is not None:
                command += [f"--{name}", str(value)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
        )
        if self._cpus:
            os.sched_setaffinity(self._process.pid, self._cpus)
        self.ports = self._read()

    def kill(self) -> None:
        """-9."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def figures(self, question: str = "now") -> dict[str, Any]:
        """``cpu_seconds`` of all its threads, ``rss_bytes``, ``metrics``; ``flush``: after history is written."""
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self._kind} server ended")
        result: dict[str, Any] = json.loads(line)
        if "error" in result:
            raise RuntimeError(f"the {self._kind} server: {result['error']}")
        return result

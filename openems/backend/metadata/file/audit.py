"""The audit log: one JSON object a line, append-only, the full file set aside (metadata.md 20.8)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.metadata.file.state import InThread
from openems.common.errors import short
from openems.common.instant import instant
from openems.common.jsonrpc import dumps

#: bytes of a file; with the old ones that are kept this bounds the disk.
MAX_SIZE = 10 << 20
KEEP = 3
#: lines that wait for the disk; more are dropped and counted.
MAX_WAITING = 1000


class AuditLog:
    _log = Logger()

    def __init__(self, path: str, *, now: Callable[[], int], in_thread: InThread, max_size: int = MAX_SIZE) -> None:
        self.path = path
        self.dropped = 0
        self._now = now
        self._in_thread = in_thread
        self._max_size = max_size
        self._waiting: list[bytes] = []
        self._writing = False
        #: The last write failed: said once, not for each line that a user can cause.
        self._failing = False
        self._idle: list[Deferred[None]] = []

    def flush(self) -> Deferred[None]:
        """Fires once nothing waits for the disk any more."""
        done: Deferred[None] = Deferred()
        if self._writing:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    def write(self, edge_id: str, login: str, teaser: str, values: dict[str, str]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        line = dumps(
            {
                "time": instant(self._now()),
                "edgeId": edge_id,
                "user": login,
                "teaser": teaser,
                # Whoever can send a command must not be able to fill the disk with it.
                "values": {name: _hidden(name, value) for name, value in values.items()},
            }
        )
        self._waiting.append(line + b"\n")
        if not self._writing:
            self._write()

    def _write(self) -> None:
        lines, self._waiting = self._waiting, []
        self._writing = True
        self._in_thread(lambda: self._append(b"".join(lines))).addBoth(self._written, len(lines))

    def _written(self, result: Any, lines: int) -> None:
        self._writing = False
        if isinstance(result, Failure):
            self.dropped += lines
            if not self._failing:
                self._log.failure("audit log {path} cannot be written", result, path=self.path)
        self._failing = isinstance(result, Failure)
        if self._waiting:
            self._write()
            return
        idle, self._idle = self._idle, []
        for done in idle:
            done.callback(None)

    def _append(self, data: bytes) -> None:
        try:
            if os.path.getsize(self.path) + len(data) > self._max_size:
                for number in range(KEEP - 1, 0, -1):
                    if os.path.exists(f"{self.path}.{number}"):
                        os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
                os.replace(self.path, f"{self.path}.1")
        except FileNotFoundError:
            pass
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)


def _hidden(name: str, value: Any) -> str:
    if value is None:
        return ""
    return "HIDDEN" if "password" in name.lower() or "token" in name.lower() else short(str(value), 10_000)

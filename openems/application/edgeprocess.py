"""One edge application as a child of a backend: ``python -m openems.application.edgeprocess``, never by hand.

Protocol: :mod:`openems.backend.edgeapplication.processes`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)

from openems.application.descriptors import raise_limit
from openems.application.service import settle_memory, steady
from openems.backend.edgeapplication.application import EdgeApplication
from openems.backend.edgeapplication.processes import STATUS_INTERVAL, Settings
from openems.websocket.proxies import TrustedProxies

#: Seconds until it ends whatever still hangs.
PATIENCE = 3.5
#: Looks at what changed, in one STATUS_INTERVAL.
TURNS = 10
#: To the backend on the same machine.
RECONNECT_WAIT = (0.2, 0.5)

#: What a child needs of the backend's environment: where programs, libraries and Python's modules are, its memory
#: allocator, time zone and language. Nothing else: secrets of the configuration may stand there, which edges, the side
#: that is open to the world, must not be near to; nor is a child a service of systemd.
ENVIRONMENT = frozenset(
    {
        "PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX",
        "MALLOC_CONF", "MALLOC_TRIM_THRESHOLD_", "VIRTUAL_ENV", "COVERAGE_PROCESS_START",
        *(f"PYTHON{name}" for name in (
            "HOME", "PATH", "HASHSEED", "MALLOC", "UTF8", "IOENCODING", "NOUSERSITE", "DONTWRITEBYTECODE",
            "PYCACHEPREFIX", "OPTIMIZE", "WARNINGS", "DEVMODE", "FAULTHANDLER", "UNBUFFERED", "TRACEMALLOC",
        )),
    }
)  # fmt: skip

_log = Logger()


def command(environ: Mapping[str, str] = os.environ) -> tuple[Sequence[str], dict[str, str]]:
    """How a backend with that environment starts a child: arguments and environment; the same code, wherever the
    backend was started."""
    home = str(Path(__file__).parents[2])
    path = environ.get("PYTHONPATH")
    passed = {name: value for name, value in environ.items() if name in ENVIRONMENT or name.startswith("LC_")}
    return (sys.executable, "-m", __name__), {**passed, "PYTHONPATH": f"{home}{os.pathsep}{path}" if path else home}


class Parent(Protocol):
    """Its end of stdin and stdout."""

    def __init__(self, process: EdgeProcess) -> None:
        self._process = process
        self._line = b""
        self._told = False

    def dataReceived(self, data: bytes) -> None:
        if not self._told:
            self._line += data
            line, newline, _ = self._line.partition(b"\n")
            if newline:
                self._told = True
                self._process.begin(msgspec.json.decode(line, type=Settings))

    def connectionLost(self, reason: Any = None) -> None:
        self._process.end()


class EdgeProcess:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._application: EdgeApplication | None = None
        self._parent = Parent(self)
        self._status = LoopingCall(self._tell)
        self._told: tuple[Any, ...] = ()
        self._turns = 0
        self._ending = False

    def run(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent gets it, too, and ends us
        self._reactor.callWhenRunning(signal.signal, signal.SIGTERM, self._terminated)
        StandardIO(self._parent)
        self._reactor.run(installSignalHandlers=False)

    def begin(self, settings: Settings) -> None:
        raise_limit()
        self._application = EdgeApplication(
            settings.id,
            settings.uri,
            reactor=self._reactor,
            port=settings.port,
            interface=settings.interface,
            shared=True,
            max_message_size=settings.max_message_size,
            headers=settings.headers,
            proxies=TrustedProxies(settings.trusted_proxies),
            reconnect_wait=RECONNECT_WAIT,
        )
        self._application.start()
        self._status.start(STATUS_INTERVAL / TURNS)
        settle_memory()

    def _tell(self) -> None:
        """Each second, and soon when something changed that the parent may wait for."""
        if self._application is None or self._parent.transport is None:
            return
        status = self._application.status()
        now = (status.connected, status.informed, status.listening, status.trouble)
        self._turns += 1
        if now != self._told or self._turns >= TURNS:
            self._told, self._turns = now, 0
            self._parent.transport.write(msgspec.json.encode(status) + b"\n")

    def _terminated(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self.end)

    def end(self) -> None:
        if self._ending:
            return
        self._ending = True
        if self._status.running:
            self._status.stop()
        ended = Deferred.fromCoroutine(self._application.stop()) if self._application else Deferred()
        if self._application is None:
            ended.callback(None)
        ended.addTimeout(PATIENCE, self._reactor)
        ended.addErrback(lambda failure: _log.failure("stop was not orderly", failure=failure))
        ended.addBoth(lambda _: self._reactor.stop())


def _line(event: Any) -> str:
    """``level text``: time and origin are added by the parent. A traceback is several lines."""
    text = formatEvent(event)
    if "log_failure" in event:
        text += "\n" + event["log_failure"].getTraceback().rstrip()
    level = getattr(event.get("log_level"), "name", "info")
    return "".join(f"{level} {part}\n" for part in text.splitlines()) if text else ""


def main() -> None:
    lines = FileLogObserver(sys.stderr, _line)
    wanted = FilteringLogObserver(lines, [LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)])
    globalLogBeginner.beginLoggingTo([wanted], redirectStandardIO=False)
    from twisted.internet import reactor

    steady(reactor)
    EdgeProcess(reactor).run()


if __name__ == "__main__":
    main()

"""``twistd -n openems-backend``: the backend as a Twisted service."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import time
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions

from openems.application import config, felix
from openems.application.config import BadConfiguration, Configuration
from openems.application.descriptors import raise_limit
from openems.application.selftest import self_test
from openems.application.systemd import Systemd

#: Seconds a stop may take; systemd and containers kill after ten.
PATIENCE = 9.0


class Options(UsageOptions):
    """Where the configuration comes from; without an option a default that needs nothing else and binds to loopback."""

    optParameters = [
        ["config", "c", None, "The configuration, a TOML file."],
        ["felix", "f", None, "A Felix configuration folder of OpenEMS, instead."],
    ]

    def configuration(self) -> tuple[Configuration, list[str]]:
        """And the notes to show at start. Raises :class:`BadConfiguration`."""
        if self["config"] is not None and self["felix"] is not None:
            raise BadConfiguration("", ["either --config or --felix, not both"])
        if self["felix"] is not None:
            return felix.load(self["felix"])
        if self["config"] is not None:
            return config.load(self["config"]), []
        notes = ["no --config: the embedded default, on loopback"]
        return config.parse(embedded("var", 0), "the embedded default"), notes


def embedded(state_dir: str, offset: int) -> str:
    """TOML of a backend that needs nothing but a directory: file metadata, SQLite history, loopback only."""
    return config.to_toml(
        {
            "backend": {"stateDir": state_dir, "offset": offset, "interface": "127.0.0.1"},
            "edge": {},
            "edge.manager": {},
            "ui.websocket": {},
            "metadata.file": {"path": os.path.join(state_dir, "metadata.json")},
            "timedata.sqlite": [{"id": "timedata0", "path": os.path.join(state_dir, "history.sqlite")}],
        }
    )


class SignalledService(Service):
    """A service that ends its process itself: 0 after SIGINT or SIGTERM, 1 when it could not start.

    twistd would end with the signal, which supervisors take for a crash. Subclasses have ``begin`` and ``end``.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._started: Deferred[None] | None = None
        self._stopping = False

    async def begin(self) -> None:
        raise NotImplementedError

    async def end(self) -> None:
        raise NotImplementedError

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        # After the reactor's own handlers were installed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        self._started = Deferred.fromCoroutine(self.begin())
        self._started.addErrback(self._failed)

    def _signalled(self, number: int, frame: Any) -> None:
        self.reactor.callFromThread(self._stop_reactor)

    def _stop_reactor(self) -> None:
        if not self._stopping:
            self._stopping = True
            self.reactor.stop()

    def _failed(self, failure: Any) -> None:
        if self._stopping:
            # A signal came first: what was waited for is cancelled.
            return
        reason = failure.value
        if isinstance(reason, OSError | BadConfiguration) or type(reason).__name__ in EXPECTED:
            self._log.critical("cannot start: {reason}", reason=str(reason))
            print(f"cannot start: {reason}", file=sys.__stderr__, flush=True)
        else:
            self._log.failure("cannot start", failure=failure)
            print(f"cannot start: {type(reason).__name__}: {reason}", file=sys.__stderr__, flush=True)
        self.reactor.addSystemEventTrigger("after", "shutdown", _exit, 1)
        self._stop_reactor()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        if self._started is not None:
            self._started.cancel()
        ended: Deferred[None] = Deferred.fromCoroutine(self.end())
        ended.addTimeout(PATIENCE, self.reactor)
        return ended.addErrback(lambda failure: self._log.failure("stop was not orderly", failure=failure))


#: Reasons to refuse a start that need no traceback: port in use, state locked by another backend or of a newer one.
EXPECTED = ("CannotListenError", "Locked", "NewerState", "SelfTestFailed")


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class BackendService(SignalledService):
    def __init__(self, configuration: Configuration, notes: list[str], reactor: Any) -> None:
        super().__init__(reactor)
        # Imported late: `openems-backend check-config` needs none of it.
        from openems.application.backend import Backend

        self._notes = notes
        self._backend = Backend(configuration, reactor=reactor, now=now_milliseconds)
        self._systemd = Systemd(os.environ, reactor=reactor)

    async def begin(self) -> None:
        for note in self._notes:
            self._log.warn("{note}", note=note)
        self._log.info("{files} files may be open at once", files=raise_limit())
        if sys.__stderr__ is not None:
            # Where memory ends a library may fall over: the log should say where.
            faulthandler.enable(sys.__stderr__)
        await self_test(self.reactor)
        await self._backend.start()
        await self._backend.listening()
        settle_memory()
        self._systemd.ready(self._backend.summary())

    async def end(self) -> None:
        self._systemd.stopping()
        await self._backend.stop()


def steady(reactor: Any) -> None:
    """Lets the reactor measure time by a clock that nobody sets. By its own, which is that of the wall, a step forward
    ends every wait at once and drops every connection as silent; a step back stops all timers for as long."""
    if not reactor.running and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def settle_memory() -> None:
    """What is there when everything listens stays: the garbage collector need not look at it again and again. What
    messages and connections leave behind is freed without it (tests/test_cycles.py), so it may come rarely; each of its
    full runs is a pause for everybody, about a tenth of a second for a million objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def now_milliseconds() -> int:
    return time.time_ns() // 1_000_000


def makeService(options: Options) -> BackendService:
    from twisted.internet import reactor

    steady(reactor)
    try:
        configuration, notes = options.configuration()
        return BackendService(configuration, notes, reactor)
    except BadConfiguration as e:
        # Of any other exception twistd would print where it came from, and the reason last.
        raise SystemExit("\n".join(e.problems)) from None

"""Several edge applications as processes of their own, behind one port, watched (``[edge] processes``).

Each has its own listening socket (SO_REUSEPORT): the kernel spreads new connections evenly, and one that dies takes
only its own edges along, which come back through the others. State stays with its one owner, the backend.

Between the two: the first line on the child's stdin is its :class:`Settings`; the child writes its
:class:`~openems.backend.edgeapplication.counters.Status` as lines to stdout, log lines (``level text``) to stderr. The
end of stdin is the child's sign to end, so that none outlives its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from openems.backend.edgeapplication.counters import Status
from openems.backend.interfaces import IDebugLoggable
from openems.common.errors import short
from openems.websocket import sharedport

#: Seconds between two status lines; without one for SILENCE the child is killed, START_PATIENCE for the first.
STATUS_INTERVAL = 1.0
SILENCE = 15.0
START_PATIENCE = 45.0
#: Seconds until a child that died is started again: doubled each time, from the beginning after it lived LONG_LIFE.
BACK_OFF = (0.5, 30.0)
LONG_LIFE = 60.0
#: Seconds a child has to end.
END_PATIENCE = 4.0
#: Seconds a start waits until the children are at work; what takes longer shows in the health page.
READY_PATIENCE = 20.0
#: Log lines of a child that are passed on in one LOG_INTERVAL; the rest is counted.
LOG_LINES, LOG_INTERVAL = 50, 10.0
MAX_LINE = 64 * 1024
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


class Settings(msgspec.Struct):
    """What a child is to do; see :class:`~openems.backend.edgeapplication.application.EdgeApplication`."""

    id: str
    uri: str
    port: int
    interface: str
    max_message_size: int
    headers: dict[str, str] = {}
    trusted_proxies: list[str] = []


class Child(ProcessProtocol):
    """One process and its successors."""

    _log = Logger()

    def __init__(self, settings: Settings, spawn: Callable[[Child], Any], *, reactor: Any) -> None:
        self.settings = settings
        self.status: Status | None = None
        self.restarts = 0
        self.running = False
        self._spawn = spawn
        self._reactor = reactor
        self._wait = BACK_OFF[0]
        self._born = 0.0
        self._heard = 0.0
        self._out = b""
        self._errors = b""
        self._lines = 0
        self._lines_since = 0.0
        self._again: Any = None
        self._stopping = False
        self._ended: Deferred[None] | None = None

    @property
    def at_work(self) -> bool:
        """Connected with the manager, and knows what edges there are."""
        return self.running and self.status is not None and self.status.connected and self.status.informed

    def start(self) -> None:
        self._again = None
        self._born = self._heard = self._reactor.seconds()
        self.status = None
        self.running = True
        self._out = self._errors = b""
        process = self._spawn(self)
        process.write(msgspec.json.encode(self.settings) + b"\n")

    async def stop(self) -> None:
        self._stopping = True
        if self._again is not None and self._again.active():
            self._again.cancel()
        if not self.running:
            return
        self._ended = Deferred()
        self.transport.closeStdin()  # type: ignore[union-attr]
        late = self._reactor.callLater(END_PATIENCE, self._kill, "does not end")
        await self._ended
        if late.active():
            late.cancel()

    def look(self) -> None:
        """Kill it if it is silent for too long: it hangs."""
        patience = START_PATIENCE if self.status is None else SILENCE
        if self.running and not self._stopping and self._reactor.seconds() - self._heard > patience:
            self._kill("is silent")

    def _kill(self, why: str) -> None:
        self._log.error("{id}: {why}, killed", id=self.settings.id, why=why)
        try:
            self.transport.signalProcess("KILL")  # type: ignore[union-attr]
        except Exception as e:  # it ended in this moment
            self._log.debug("{id}: {error}", id=self.settings.id, error=type(e).__name__)

    def outReceived(self, data: bytes) -> None:
        *lines, self._out = (self._out + data).split(b"\n")
        self._out = self._out[:MAX_LINE]
        for line in lines:
            try:
                self.status = msgspec.json.decode(line, type=Status)
            except msgspec.DecodeError:
                continue
            self._heard = self._reactor.seconds()

    def errReceived(self, data: bytes) -> None:
        *lines, self._errors = (self._errors + data).split(b"\n")
        self._errors = self._errors[:MAX_LINE]
        now = self._reactor.seconds()
        if now - self._lines_since > LOG_INTERVAL:
            if self._lines > LOG_LINES:
                self._log.warn("{id}: {n} lines left out", id=self.settings.id, n=self._lines - LOG_LINES)
            self._lines, self._lines_since = 0, now
        for line in lines:
            self._lines += 1
            if self._lines <= LOG_LINES:
                level, _, text = line.decode("utf-8", "replace").partition(" ")
                if level not in _LEVELS:
                    # Not of its log: the interpreter itself has something to say.
                    level, text = "warn", f"{level} {text}"
                self._log.emit(_LEVELS[level], "{id}: {text}", id=self.settings.id, text=short(text, 1000))

    def processEnded(self, reason: Failure) -> None:
        self.running = False
        self.status = None
        if self._ended is not None:
            ended, self._ended = self._ended, None
            ended.callback(None)
        if self._stopping:
            return
        self.restarts += 1
        if self._reactor.seconds() - self._born > LONG_LIFE:
            self._wait = BACK_OFF[0]
        ending = "by itself" if reason.check(ProcessDone) else str(reason.value)
        self._log.error(
            "{id}: ended {ending}; started again in {wait:g} s", id=self.settings.id, ending=ending, wait=self._wait
        )
        self._again = self._reactor.callLater(self._wait, self.start)
        self._wait = min(self._wait * 2, BACK_OFF[1])


@implementer(IDebugLoggable)
class EdgeProcesses:
    """``command`` starts a child, in ``environ``. ``port`` 0: any free one, see :attr:`port` after the start."""

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        *,
        port: int,
        interface: str,
        max_message_size: int,
        trusted_proxies: Sequence[str],
        environ: Mapping[str, str],
        reactor: Any,
    ) -> None:
        self.port = port
        self._count = count
        self._interface = interface
        self._max_message_size = max_message_size
        self._trusted_proxies = trusted_proxies
        self._command = list(command)
        self._environ = dict(environ)
        self._reactor = reactor
        self._reserved: Any = None
        self.children: list[Child] = []
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor

    async def start(self, uri: str, headers: Mapping[str, str]) -> None:
        """``uri``: where the manager listens; ``headers`` are for it. Returns when all are at work, or after some time.
        Raises CannotListenError."""
        self._reserved = sharedport.reserve(self.port, self._interface)
        self.port = self._reserved.getsockname()[1]
        for number in range(self._count):
            settings = Settings(
                id=f"edgeapplication{number}",
                uri=uri,
                port=self.port,
                interface=self._interface,
                max_message_size=self._max_message_size,
                headers=dict(headers),
                trusted_proxies=list(self._trusted_proxies),
            )
            self.children.append(Child(settings, self._spawn, reactor=self._reactor))
        for child in self.children:
            child.start()
        self._watch.start(STATUS_INTERVAL, now=False)
        await self._at_work()

    async def _at_work(self) -> None:
        ready: Deferred[None] = Deferred()
        end = self._reactor.seconds() + READY_PATIENCE

        def look() -> None:
            if (
                all(child.at_work for child in self.children)
                or self._reactor.seconds() > end
                or not self._watch.running
            ):
                ready.callback(None)
            else:
                self._reactor.callLater(0.05, look)

        look()
        await ready

    async def stop(self) -> None:
        if self._watch.running:
            self._watch.stop()
        await DeferredList([Deferred.fromCoroutine(child.stop()) for child in self.children])
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _spawn(self, child: Child) -> Any:
        return self._reactor.spawnProcess(
            child, self._command[0], self._command, env=self._environ, childFDs={0: "w", 1: "r", 2: "r"}
        )

    def _look(self) -> None:
        for child in self.children:
            child.look()

    # What it tells of itself

    def healthy(self) -> bool:
        """All run, and each has its port open or knows that there is no edge."""
        return all(child.at_work and child.status is not None and not child.status.trouble for child in self.children)

    def summary(self) -> str:
        at_work = sum(child.at_work for child in self.children)
        edges = self.total("edges")
        text = f"port {self.port}, {at_work} of {len(self.children)} processes at work, {edges} edges"
        restarts = sum(child.restarts for child in self.children)
        dropped = self.total("dropped_messages")
        troubles = [child.status.trouble for child in self.children if child.status and child.status.trouble]
        text += f", started again {restarts} times" if restarts else ""
        text += f", {dropped} messages dropped" if dropped else ""
        return "; ".join([text, *troubles])

    def total(self, field: str) -> int:
        return sum(getattr(child.status, field) for child in self.children if child.status is not None)

    def debug_log(self) -> str | None:
        return f"[Backend.Edge.Server] [monitor] {self.summary()}"

    def debug_metrics(self) -> Mapping[str, int | float]:
        metrics: dict[str, int | float] = {"edgeapplications0/Restarts": sum(c.restarts for c in self.children)}
        names = {
            "Connections": "connections",
            "Pending": "waiting_messages",
            "MessagesUp": "messages_up",
            "MessagesDown": "messages_down",
            "DroppedMessages": "dropped_messages",
            "RefusedEdges": "refused_edges",
        }
        for name, field in names.items():
            metrics[f"edgeapplications0/{name}"] = self.total(field)
        return metrics

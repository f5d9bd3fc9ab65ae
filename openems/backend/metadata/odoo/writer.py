"""What edges report, on its way into Odoo's database, in batches (metadata-odoo.md 5.2, 11.12).

At most one entry an edge waits, the newest of each value: the queue is as long as there are edges. Entries leave it
only when they are written; while the database is away they wait and grow newer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from openems.backend.events import EventBus, LastmessageSet, OnlineSet, ProducttypeSet, SumStateSet, VersionSet
from openems.backend.metadata.odoo.statements import STATUS, is_refused, reason_of, utc
from openems.common.jobs import Job
from openems.postgres.pool import Unavailable

#: Edges of one statement: it locks their rows until it is done, and Odoo waits for them.
CHUNK = 2_000
STATEMENT_SECONDS = 20.0
LOG_EVERY = 60.0


class Entry(msgspec.Struct):
    """None: nothing new. ``lastmessage`` in epoch milliseconds."""

    online: bool | None = None
    lastmessage: int | None = None
    sum_state: str | None = None
    version: str | None = None
    producttype: str | None = None


class StatusWriter:
    """``execute(sql, parameters)`` runs one statement; ``odoo_id`` tells Odoo's id of an edge, None if it is gone.

    Metrics: ``waiting``, ``written`` (edges), ``failures`` (statements), ``dropped`` (edges whose values the database
    refuses)."""

    _log = Logger()

    def __init__(
        self,
        execute: Callable[[str, Sequence[Any]], Awaitable[Any]],
        events: EventBus,
        *,
        odoo_id: Callable[[str], int | None],
        reactor: Any,
        now: Callable[[], int],
        interval: float,
    ) -> None:
        self.written = 0
        self.failures = 0
        self.dropped = 0
        #: Why the database, though it is there, does not take anything.
        self.problem: str | None = None
        self.job = Job("metadata_flush")
        self._now = now
        self._execute = execute
        self._events = events
        self._odoo_id = odoo_id
        self._reactor = reactor
        self._interval = interval
        self._waiting: dict[str, Entry] = {}
        self._lock = DeferredLock()
        self._loop: LoopingCall | None = None
        self._unsubscribe: list[Callable[[], None]] = []
        self._logged_at = -LOG_EVERY

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        subscribe = self._events.subscribe
        self._unsubscribe = [
            subscribe(OnlineSet, self._online),
            subscribe(LastmessageSet, self._lastmessage),
            subscribe(SumStateSet, self._sum_state),
            subscribe(VersionSet, self._version),
            subscribe(ProducttypeSet, self._producttype),
        ]
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self._reactor
        self._loop.start(self._interval, now=False)

    async def stop(self) -> None:
        """One more try; what cannot be written then is lost, and said so."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        await self.flush()
        if self._waiting:
            self._log.warn("status of {edges} edges could not be written to Odoo", edges=len(self._waiting))

    def _entry(self, edge_id: str) -> Entry:
        entry = self._waiting.get(edge_id)
        if entry is None:
            entry = self._waiting[edge_id] = Entry()
        return entry

    def _online(self, event: OnlineSet) -> None:
        self._entry(event.edge_id).online = event.online

    def _lastmessage(self, event: LastmessageSet) -> None:
        self._entry(event.edge_id).lastmessage = event.lastmessage

    def _sum_state(self, event: SumStateSet) -> None:
        self._entry(event.edge_id).sum_state = event.new.name.lower()

    def _version(self, event: VersionSet) -> None:
        self._entry(event.edge_id).version = str(event.new)

    def _producttype(self, event: ProducttypeSet) -> None:
        self._entry(event.edge_id).producttype = event.producttype

    def _tick(self) -> Deferred[None]:
        done = Deferred.fromCoroutine(self.flush())
        # Whatever goes wrong, the next run comes.
        done.addErrback(lambda failure: self._log.failure("writing status failed", failure))
        return done

    async def flush(self) -> None:
        """Write what waits now; what fails waits on."""
        await self._lock.acquire()
        began = self._reactor.seconds()
        try:
            taken, self._waiting = self._waiting, {}
            edges = list(taken)
            for start in range(0, len(edges), CHUNK):
                part = edges[start : start + CHUNK]
                if not await self._write(part, taken):
                    for edge_id in edges[start:]:
                        self._put_back(edge_id, taken[edge_id])
                    self.job.failed()
                    return
            self.job.succeeded(self._reactor.seconds() - began, self._now())
        finally:
            self._lock.release()

    async def _write(self, edges: list[str], taken: dict[str, Entry]) -> bool:
        """False: the database could not be asked. Entries that it refuses are found and left out."""
        try:
            self.written += await self._statement(edges, taken)
            self.problem = None
            return True
        except Unavailable as e:
            self.failures += 1
            self._complain("status of edges waits for Odoo's database: {reason}", reason=e.reason)
            return False
        except CancelledError:
            raise
        except Exception as e:
            if not is_refused(e):
                self.failures += 1
                self.problem = f"status of edges cannot be written to Odoo's database: {reason_of(e)}"
                self._complain("{problem}", problem=self.problem)
                return False
            if len(edges) == 1:
                self.dropped += 1
                reason = type(e).__name__
                self._complain("status of {edge_id} cannot be stored: {reason}", edge_id=edges[0], reason=reason)
                return True
        half = len(edges) // 2
        return await self._write(edges[:half], taken) and await self._write(edges[half:], taken)

    async def _statement(self, edges: list[str], taken: dict[str, Entry]) -> int:
        rows = [(odoo_id, taken[edge_id]) for edge_id in edges if (odoo_id := self._odoo_id(edge_id)) is not None]
        if not rows:
            return 0
        rows.sort(key=lambda item: item[0])
        parameters = (
            [odoo_id for odoo_id, _ in rows],
            [entry.online for _, entry in rows],
            [None if entry.lastmessage is None else utc(entry.lastmessage) for _, entry in rows],
            [entry.sum_state for _, entry in rows],
            [entry.version for _, entry in rows],
            [entry.producttype for _, entry in rows],
        )
        await self._execute(STATUS, parameters)
        return len(rows)

    def _complain(self, text: str, **more: Any) -> None:
        now = self._reactor.seconds()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            self._log.warn(text, **more)

    def _put_back(self, edge_id: str, old: Entry) -> None:
        newer = self._waiting.get(edge_id)
        if newer is None:
            self._waiting[edge_id] = old
            return
        for name in Entry.__struct_fields__:
            if getattr(newer, name) is None:
                setattr(newer, name, getattr(old, name))

"""Odoo's PostgreSQL: edges read and kept fresh, everything else of it under one roof (metadata-odoo.md 4, 5).

How a new or changed edge becomes known:

- by a notification, where the triggers of deploy/odoo/notify.sql are installed: within a moment;
- else by looking every ``poll`` seconds whether anything changed (one value is fetched);
- at once, but not more often than every :data:`SOON` seconds, when somebody asks for an edge that is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from openems.backend.metadata.odoo import statements
from openems.backend.metadata.odoo.edges import Changes, EdgeTable
from openems.backend.metadata.odoo.replies import OdooUnavailable
from openems.common.jobs import Job
from openems.postgres.listen import Listener
from openems.postgres.pool import Pool, Unavailable

READ_SECONDS = 60.0
#: Seconds between two reads that are asked for, and after which notifications are followed together.
SOON = 2.0
TOGETHER = 0.1
#: While notifications come, the look that misses nothing may be rare.
POLL_WITH_TRIGGER = 300.0
FIRST_RETRY = 1.0
LAST_RETRY = 30.0
#: Ids of one notification batch; more than these and everything is read.
MAX_IDS = 1_000


class EdgeReader:
    """``changed(changes, first)`` after each read that brought something, and after the first one.
    ``roles_changed(user id or None)`` for notifications about roles, None for: any."""

    _log = Logger()

    def __init__(
        self,
        pool: Pool,
        table: EdgeTable,
        *,
        changed: Callable[[Changes, bool], None],
        roles_changed: Callable[[int | None], None] = lambda user_id: None,
        mark_offline: bool = True,
        poll: float = 10.0,
        listen: bool = True,
        reactor: Any,
        now: Callable[[], int],
    ) -> None:
        self.problem: str | None = "edges have not been read from Odoo's database yet"
        self.job = Job("metadata_refresh")
        self.reads = 0
        self.has_trigger = False
        self._pool = pool
        self._table = table
        self._changed = changed
        self._roles_changed = roles_changed
        self._mark_offline = mark_offline
        self._poll = poll
        self._reactor = reactor
        self._now = now
        self._lock = DeferredLock()
        self._fingerprint: tuple[Any, ...] | None = None
        self._timer: IDelayedCall | None = None
        self._together: IDelayedCall | None = None
        self._soon: IDelayedCall | None = None
        self._ids: set[int] = set()
        self._retry = FIRST_RETRY
        self._first = True
        self._running = False
        self._last = -SOON
        self._problems: set[str] = set()
        self.listener: Listener | None = None
        if listen:
            self.listener = Listener(
                pool.name,
                pool.server,
                [statements.CHANNEL],
                notified=self._notified,
                missed=self._missed,
                reactor=reactor,
            )

    async def start(self) -> None:
        """Returns after the first try; further ones follow by themselves."""
        self._running = True
        await self._look()
        if self.listener is not None:
            await self.listener.start()

    async def stop(self) -> None:
        self._running = False
        for timer in (self._timer, self._together, self._soon):
            if timer is not None and timer.active():
                timer.cancel()
        if self.listener is not None:
            await self.listener.stop()

    @property
    def notified(self) -> bool:
        """Whether changes come by themselves."""
        return self.has_trigger and self.listener is not None and self.listener.connected

    # --- when

    def wanted(self) -> None:
        """Somebody asked for an edge that is not known: it may be new."""
        if self._running and not self._first and (self._soon is None or not self._soon.active()):
            wait = max(0.0, self._last + SOON - self._reactor.seconds())
            self._soon = self._reactor.callLater(wait, self._spawn, self._look)

    def _notified(self, channel: str, payload: str) -> None:
        """``device <id>``, ``role <user id>``; anything else: look at everything."""
        kind, _, number = payload.partition(" ")
        if kind == "role" and number.isdigit():
            self._roles_changed(int(number))
            return
        if kind != "device" or not number.isdigit() or len(self._ids) >= MAX_IDS:
            self.wanted()
            return
        self._ids.add(int(number))
        if self._together is None or not self._together.active():
            self._together = self._reactor.callLater(TOGETHER, self._spawn, self._some)

    def _missed(self) -> None:
        self._roles_changed(None)
        self.wanted()

    def _spawn(self, work: Callable[[], Any]) -> None:
        done: Deferred[None] = Deferred.fromCoroutine(work())
        done.addErrback(lambda failure: self._log.failure("reading edges failed", failure))

    def _again(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._running:
            self._timer = self._reactor.callLater(seconds, self._spawn, self._look)

    # --- what

    async def read(self) -> None:
        """Everything, now. Raises OpenemsError."""
        await self._lock.acquire()
        try:
            await self._read_all(None)
        except (Unavailable, psycopg2.Error) as e:
            raise OdooUnavailable(f"edges cannot be read: {statements.reason_of(e)}") from None
        finally:
            self._lock.release()

    async def _look(self) -> None:
        """Reads if anything changed; plans the next look."""
        pause = self._poll
        await self._lock.acquire()
        try:
            self._last = began = self._reactor.seconds()
            if self._first and self._mark_offline:
                await self._mark_all_offline()
            # First the fingerprint, then the edges: a change in between is found the next time.
            rows = await self._pool.query(statements.FINGERPRINT, timeout=READ_SECONDS)
            if self._first or rows[0] != self._fingerprint:
                await self._read_all(rows[0])
            triggers = await self._pool.query(statements.HAS_TRIGGER, timeout=READ_SECONDS)
            self.has_trigger = bool(triggers[0][0])
            if self.notified:
                pause = POLL_WITH_TRIGGER
            self._retry = FIRST_RETRY
            if self.problem is not None:
                self._log.info("edges are read from Odoo's database again")
            self.problem = None
            self.job.succeeded(self._reactor.seconds() - began, self._now())
        except (Unavailable, psycopg2.Error) as e:
            reason = f"edges cannot be read from Odoo's database: {statements.reason_of(e)}"
            if reason != self.problem:
                self._log.warn("{reason}", reason=reason)
            self.problem = reason
            self.job.failed()
            pause = self._retry
            self._retry = min(LAST_RETRY, self._retry * 2)
        finally:
            self._lock.release()
            self._again(pause)

    async def _mark_all_offline(self) -> None:
        try:
            await self._pool.execute(statements.MARK_OFFLINE, timeout=READ_SECONDS)
        except psycopg2.Error as e:
            # Edges can be read and connect all the same.
            self._log.warn("Unable to mark Edges offline. {reason}", reason=statements.reason_of(e))

    async def _read_all(self, fingerprint: tuple[Any, ...] | None) -> None:
        rows = await self._pool.query(statements.EDGES, timeout=READ_SECONDS)
        self._fingerprint = fingerprint
        self._accept(self._table.replace(rows))

    async def _some(self) -> None:
        await self._lock.acquire()
        try:
            ids, self._ids = self._ids, set()
            if self._first or not ids:
                return
            rows = await self._pool.query(statements.EDGES_BY_ID, (sorted(ids),), timeout=READ_SECONDS)
            self._accept(self._table.update(rows, ids))
        except (Unavailable, psycopg2.Error):
            self._again(FIRST_RETRY)
        finally:
            self._lock.release()

    def _accept(self, changes: Changes) -> None:
        self.reads += 1
        first, self._first = self._first, False
        if first:
            self.problem = None
        for problem in changes.problems:
            if problem not in self._problems and len(self._problems) < 1_000:
                self._problems.add(problem)
                self._log.warn("Unable to read Edge: {problem}", problem=problem)
        self._changed(changes, first)

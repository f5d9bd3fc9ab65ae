"""When users were last told of an edge, written into Odoo for mails that did not leave through Odoo (alerting.md 10).

Odoo's own mailer notes that itself. Here it is written behind the mailer's back, for an Odoo that is away a little
later: the newest of each user and edge waits, up to :data:`MAX_WAITING`. A time never goes back, so the same may come
again. Without a record of settings there is nothing to note it in.
"""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.partners import Models
from openems.backend.metadata.odoo.replies import OdooUnavailable
from openems.backend.metadata.odoo.times import milliseconds, odoo_time
from openems.common.errors import OpenemsError, short

MODEL = "openems.alerting"
INTERVAL = 5.0
MAX_WAITING = 10_000
LOG_EVERY = 60.0
#: Member of :class:`Stamp` -> field.
_FIELDS = {"offline": "offline_last_notification", "sum_state": "sum_state_last_notification"}


class Stamp(msgspec.Struct):
    """Epoch milliseconds; 0: nothing new."""

    offline: int = 0
    sum_state: int = 0


class Stamps:
    """Metrics: ``waiting`` (users of edges), ``written``, ``dropped`` (too many, or refused by Odoo)."""

    _log = Logger()

    def __init__(self, models: Models, table: EdgeTable, *, reactor: Any, interval: float = INTERVAL) -> None:
        self.written = 0
        self.dropped = 0
        self._models = models
        self._table = table
        self._reactor = reactor
        self._interval = interval
        #: Edge id -> login -> times.
        self._waiting: dict[str, dict[str, Stamp]] = {}
        self._lock = DeferredLock()
        self._loop: LoopingCall | None = None
        self._logged_at = -LOG_EVERY

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def start(self) -> None:
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self._reactor
        self._loop.start(self._interval, now=False)

    async def stop(self) -> None:
        """One more try."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        await self.flush()
        if self._waiting:
            self._log.warn("{n} last notifications could not be written to Odoo", n=self.waiting)

    def add(self, edge_id: str, login: str, stamp: Stamp) -> None:
        if self._table.odoo_id(edge_id) is None:
            return
        if self.waiting >= MAX_WAITING:
            self.dropped += 1
            return
        known = self._waiting.setdefault(edge_id, {}).setdefault(login, Stamp())
        known.offline = max(known.offline, stamp.offline)
        known.sum_state = max(known.sum_state, stamp.sum_state)

    def _tick(self) -> Deferred[None]:
        done = Deferred.fromCoroutine(self.flush())
        done.addErrback(lambda failure: self._log.failure("writing last notifications failed", failure))
        return done

    async def flush(self) -> None:
        """Edge by edge, until Odoo is away; the rest waits on."""
        await self._lock.acquire()
        try:
            for edge_id in tuple(self._waiting):
                users = self._waiting.pop(edge_id)
                try:
                    await self._write(edge_id, users)
                except (OdooUnavailable, CancelledError) as e:
                    self._back(edge_id, users)
                    if isinstance(e, CancelledError):
                        raise
                    return
                except OpenemsError as e:
                    self.dropped += len(users)
                    self._complain(edge_id, e.message)
        finally:
            self._lock.release()

    async def _write(self, edge_id: str, users: dict[str, Stamp]) -> None:
        device = self._table.odoo_id(edge_id)
        if device is None:
            return
        domain = [["device_id", "=", device], ["user_login", "in", sorted(users)]]
        for record in await self._models.search_read(MODEL, domain, ["user_login", *_FIELDS.values()]):
            stamp = users.get(str(record.get("user_login")))
            number = record.get("id")
            if stamp is None or not isinstance(number, int):
                continue
            values = {
                field: odoo_time(time)
                for name, field in _FIELDS.items()
                if (time := getattr(stamp, name)) and time > (milliseconds(record.get(field)) or 0) + 999
            }
            if values:
                await self._models.write(MODEL, number, values)
                self.written += 1

    def _back(self, edge_id: str, users: dict[str, Stamp]) -> None:
        for login, stamp in users.items():
            self.add(edge_id, login, stamp)

    def _complain(self, edge_id: str, reason: str) -> None:
        now = self._reactor.seconds()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            self._log.warn(
                "last notifications of {edge_id} cannot be written to Odoo: {reason}",
                edge_id=edge_id,
                reason=short(reason, 200),
            )

"""LISTEN: one session that waits for notifications of other processes, and comes back by itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import psycopg2
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from openems.postgres.connection import Connection, Server, Unavailable
from openems.postgres.pool import CONNECT_SECONDS, FIRST_RETRY, LAST_RETRY, LOG_EVERY

#: A session that cannot answer within CHECK_SECONDS is replaced: a dead network tells nothing by itself.
CHECK_EVERY = 30.0
CHECK_SECONDS = 10.0


class Listener:
    """``notified(channel, payload)`` for each notification, in order. ``missed()`` whenever the session is (again) in
    place: what was sent before it was lost, so whoever keeps a copy of something must read it anew then.

    Metrics: ``connected``, ``notifications``, ``connects``, ``connect_failures``.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        server: Server,
        channels: Sequence[str],
        *,
        notified: Callable[[str, str], None],
        missed: Callable[[], None],
        reactor: Any,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._server = server
        self._channels = tuple(channels)
        self._notified = notified
        self._missed = missed
        self._reactor = reactor
        self._chance = chance
        self._running = False
        self._connection: Connection | None = None
        self._timer: Any = None
        self._task: Deferred[None] | None = None
        self._retry_in = FIRST_RETRY
        self._logged_at = -LOG_EVERY
        self._count = 0
        self.notifications = self.connects = self.connect_failures = 0

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    async def start(self) -> None:
        """Returns when it listens, or the first try has failed; then it goes on trying."""
        if not self._running:
            self._running = True
            await self._connect()

    async def stop(self) -> None:
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if self._task is not None:
            self._task.cancel()

    async def _connect(self) -> None:
        self._count += 1
        label = f"{self.name}/listen/{self._count}"
        connection = Connection(self._server, label, reactor=self._reactor, lost=self._on_lost)
        connection.observe(self._on_notify)
        deadline = self._reactor.seconds() + CONNECT_SECONDS
        try:
            await connection.open(deadline)
            for channel in self._channels:
                await connection.execute(f"LISTEN {_quoted(channel)}", (), deadline)
        except (Unavailable, psycopg2.Error) as error:
            connection.close()
            self.connect_failures += 1
            if self._running:
                self._log_failure(self._server.reason(error))
                self._retry_later()
            return
        except CancelledError:
            connection.close()
            return
        if not self._running:
            connection.close()
            return
        self._connection = connection
        self._retry_in = FIRST_RETRY
        self._logged_at = -LOG_EVERY
        self.connects += 1
        self._timer = self._reactor.callLater(CHECK_EVERY, self._spawn, self._check)
        try:
            self._missed()
        except Exception:
            self._log.failure("{name}: the subscriber failed", name=self.name)

    def _log_failure(self, reason: str) -> None:
        now = self._reactor.seconds()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            self._log.warn(
                "{name}: cannot listen at {server}: {reason}", name=self.name, server=self._server, reason=reason
            )

    def _retry_later(self) -> None:
        pause = self._retry_in * (0.75 + 0.5 * self._chance())
        self._retry_in = min(LAST_RETRY, self._retry_in * 2)
        self._timer = self._reactor.callLater(pause, self._spawn, self._connect)

    def _spawn(self, work: Callable[[], Any]) -> None:
        task: Deferred[None] = Deferred.fromCoroutine(work())
        self._task = task

        def done(result: Any) -> None:
            if self._task is task:
                self._task = None

        task.addBoth(done)

    async def _check(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.query("SELECT 1", (), self._reactor.seconds() + CHECK_SECONDS)
        except (Unavailable, psycopg2.Error):
            connection.close()
            self._on_lost(connection)
            return
        except CancelledError:
            return
        if connection is self._connection:
            self._timer = self._reactor.callLater(CHECK_EVERY, self._spawn, self._check)

    def _on_lost(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._running:
            self._retry_later()

    def _on_notify(self, channel: str, payload: str) -> None:
        self.notifications += 1
        try:
            self._notified(channel, payload)
        except Exception:
            self._log.failure("{name}: the subscriber failed", name=self.name)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'

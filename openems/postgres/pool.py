"""A pool of PostgreSQL sessions.

- A caller gets a free session, a new one while there are fewer than ``size``, or waits its turn; the queue of waiting
  callers is bounded, and one deadline covers waiting and statement.
- A session that broke, ran into a deadline or is old is replaced. What a caller left running is cancelled at the
  server.
- While the server is away callers fail at once with the reason; the pool tries by itself, with growing pauses.
- A session that was idle for a while is tried before it is used: an address translation may have forgotten it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg2
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from openems.common.histogram import Histogram
from openems.postgres.connection import Connection, Server, TimedOut, Unavailable, cancel_at_server
from openems.postgres.transaction import Transaction, within

__all__ = ["Pool", "Server", "TimedOut", "Transaction", "Unavailable"]

T = TypeVar("T")

CONNECT_SECONDS = 10.0
#: Pauses between tries to reach a server that is away.
FIRST_RETRY = 0.5
LAST_RETRY = 10.0
#: A session idle for longer is tried before use, and closed after IDLE_SECONDS.
CHECK_AFTER = 30.0
CHECK_SECONDS = 3.0
IDLE_SECONDS = 600.0
MAX_AGE = 1_800.0
TIDY_EVERY = 60.0
LOG_EVERY = 60.0
#: Seconds that callers wait for a session.
WAITS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Pool:
    """``name`` is for logs and for application_name at the server; at most ``size`` sessions, ``queue`` callers that
    wait. ``options`` are libpq's (``sslmode``), ``settings`` the server's (``statement_timeout``);
    ``prepare``: statements for each new session.

    Every question raises :class:`Unavailable` where the server could not be asked or did not answer in time, and
    psycopg2.Error (or ValueError for parameters that cannot be sent) where the statement is at fault.

    Metrics: ``open``, ``idle``, ``busy``, ``waiting``, ``completed``, ``failed`` (Unavailable), ``timed_out``,
    ``refused`` (queue full), ``connects``, ``connect_failures``, ``lost``; ``waits``, how long callers waited for a
    session; ``down`` is the reason while it is away.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int = 5432,
        user: str,
        password: str = "",
        database: str,
        size: int = 10,
        reactor: Any,
        queue: int = 1_000,
        application: str = "openems-backend",
        options: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        prepare: Sequence[str] = (),
        chance: Callable[[], float] = random.random,
    ) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self.name = name
        self.size = size
        self.server = Server(
            host, port, user, password, database, application, options or {}, settings or {}, tuple(prepare)
        )
        self._reactor = reactor
        self._queue = queue
        self._chance = chance
        self._running = False
        self._count = 0
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._connecting = 0
        self._waiters: deque[Deferred[Connection]] = deque()
        self._retry: Any = None
        self._retry_in = FIRST_RETRY
        #: When a session last broke. What was not used since may have gone with it, and is not trusted unseen.
        self._broke_at = float("-inf")
        self._tidy: Any = None
        self._tasks: set[Deferred[Any]] = set()
        self._logged_at = -LOG_EVERY
        self.down: str | None = None
        self.waits = Histogram(WAITS)
        self.server_version = 0
        self.completed = self.failed = self.timed_out = self.refused = 0
        self.connects = self.connect_failures = self.lost = 0

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.server}>"

    @property
    def open(self) -> int:
        return len(self._idle) + len(self._busy)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def busy(self) -> int:
        return len(self._busy)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    # --- life

    async def start(self) -> None:
        """Returns when the first session is open or the first try has failed; then it goes on trying by itself."""
        if self._running:
            return
        self._running = True
        self._tidy = self._reactor.callLater(TIDY_EVERY, self._tidy_up)
        self._connecting += 1
        await self._connect()

    async def stop(self, patience: float = 5.0) -> None:
        """Who waits fails at once; what runs has ``patience`` seconds, then its session is closed."""
        if not self._running:
            return
        self._running = False
        for timer in (self._retry, self._tidy):
            if timer is not None and timer.active():
                timer.cancel()
        self._fail_waiters(Unavailable(f"{self.name} was stopped"))
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        until = self._reactor.seconds() + patience
        while self._busy and self._reactor.seconds() < until:
            await self._pause(0.02)
        for connection in list(self._busy):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await self._pause(0)

    def _pause(self, seconds: float) -> Deferred[None]:
        pause: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, pause.callback, None)
        return pause

    # --- questions

    async def query(
        self, sql: str, params: Sequence[Any] = (), *, timeout: float = 30.0, repeatable: bool = False
    ) -> list[tuple[Any, ...]]:
        """All rows. ``repeatable`` (it changes nothing): asked once more if its session broke under it."""
        return await self._with(lambda c, deadline: c.query(sql, params, deadline), timeout, 2 if repeatable else 1)

    async def execute(
        self, sql: str, params: Sequence[Any] = (), *, timeout: float = 30.0, repeatable: bool = False
    ) -> int:
        """The number of rows it touched."""
        return await self._with(lambda c, deadline: c.execute(sql, params, deadline), timeout, 2 if repeatable else 1)

    async def transaction(self, work: Callable[[Transaction], Awaitable[T]], *, timeout: float = 30.0) -> T:
        """``work`` between BEGIN and COMMIT; whatever it raises is raised after ROLLBACK. After :class:`Unavailable`
        at the very end the server may have committed all the same."""
        return await self._with(lambda connection, deadline: within(connection, deadline, work), timeout, 1)

    async def _with(self, work: Callable[[Connection, float], Awaitable[T]], timeout: float, tries: int) -> T:
        begun = self._reactor.seconds()
        deadline = begun + timeout
        while True:
            tries -= 1
            try:
                connection = await self._take(deadline)
                self.waits.observe(self._reactor.seconds() - begun)
                try:
                    result = await work(connection, deadline)
                finally:
                    self._give_back(connection)
            except TimedOut:
                self.timed_out += 1
                self.failed += 1
                raise
            except Unavailable:
                if tries and self.down is None and self._running:
                    continue
                self.failed += 1
                raise
            self.completed += 1
            return result

    # --- sessions

    async def _take(self, deadline: float) -> Connection:
        while True:
            connection = await self._next(deadline)
            trusted = connection.used_at > max(self._reactor.seconds() - CHECK_AFTER, self._broke_at)
            if trusted or await self._works(connection, deadline):
                return connection
            self._give_back(connection)

    def _works(self, connection: Connection, deadline: float) -> Awaitable[bool]:
        async def check() -> bool:
            try:
                await connection.query("SELECT 1", (), min(deadline, self._reactor.seconds() + CHECK_SECONDS))
                return True
            except (Unavailable, psycopg2.Error):
                connection.close()
                return False
            except CancelledError:
                self._give_back(connection)
                raise

        return check()

    async def _next(self, deadline: float) -> Connection:
        if not self._running:
            raise Unavailable(f"{self.name} is not running")
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._busy.add(connection)
                return connection
        if self.down is not None and not self._busy:
            raise Unavailable(self.down)
        if len(self._waiters) >= self._queue:
            self.refused += 1
            raise Unavailable(f"{len(self._waiters)} statements wait for {self.name} already")
        waiter: Deferred[Connection] = Deferred()
        self._waiters.append(waiter)
        self._grow()
        left = max(0.0, deadline - self._reactor.seconds())
        timer = self._reactor.callLater(left, self._expire, waiter)
        try:
            return await waiter
        finally:
            if timer.active():
                timer.cancel()
            if waiter in self._waiters:  # the caller was cancelled
                self._waiters.remove(waiter)

    def _expire(self, waiter: Deferred[Connection]) -> None:
        self._waiters.remove(waiter)
        waiter.errback(TimedOut(self.down or f"no session of {self.name} became free in time"))

    def _grow(self) -> None:
        """As many new sessions as callers wait for, within ``size``; none while the server is away."""
        while (
            self._running
            and self.down is None
            and self._connecting < len(self._waiters)
            and self.open + self._connecting < self.size
        ):
            self._connecting += 1
            self._spawn(self._connect())

    def _spawn(self, work: Any) -> None:
        task: Deferred[Any] = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(result: Any) -> None:
            self._tasks.discard(task)

        task.addBoth(done)

    async def _connect(self) -> None:
        """``_connecting`` was counted up by the caller."""
        self._count += 1
        connection = Connection(self.server, f"{self.name}/{self._count}", reactor=self._reactor, lost=self._on_lost)
        try:
            await connection.open(self._reactor.seconds() + CONNECT_SECONDS)
        except Unavailable as error:
            self._connecting -= 1
            self._connect_failed(error.reason)
            return
        except BaseException:
            self._connecting -= 1
            connection.close()
            raise
        self._connecting -= 1
        self.connects += 1
        self.server_version = connection.server_version
        self._retry_in = FIRST_RETRY
        if self.down is not None:
            self._log.info("{name}: {server} is back", name=self.name, server=self.server)
            self.down = None
            self._logged_at = -LOG_EVERY
        if not self._running:
            connection.close()
            return
        self._offer(connection)
        self._grow()

    def _connect_failed(self, reason: str) -> None:
        self.connect_failures += 1
        if not self._running:
            return
        if not self._busy:
            # Nobody has a session who could give it to those that wait.
            self.down = reason
            self._fail_waiters(Unavailable(reason))
        now = self._reactor.seconds()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            self._log.warn(
                "{name}: no connection to {server}: {reason}", name=self.name, server=self.server, reason=reason
            )
        self._try_later()

    def _try_later(self) -> None:
        if self._running and (self._retry is None or not self._retry.active()):
            pause = self._retry_in * (0.75 + 0.5 * self._chance())
            self._retry_in = min(LAST_RETRY, self._retry_in * 2)
            self._retry = self._reactor.callLater(pause, self._try_again)

    def _try_again(self) -> None:
        if self.down is not None and not self._connecting:
            self._connecting += 1
            self._spawn(self._connect())
        else:
            self._grow()

    def _fail_waiters(self, error: Unavailable) -> None:
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            waiter.errback(error)

    def _offer(self, connection: Connection) -> None:
        """A session that works goes to whoever waits longest."""
        if self._waiters:
            self._busy.add(connection)
            self._waiters.popleft().callback(connection)
        else:
            self._idle.append(connection)

    def _give_back(self, connection: Connection) -> None:
        self._busy.discard(connection)
        if connection.closed:
            self.lost += 1
            self._broke_at = self._reactor.seconds()
            if connection.abandoned and self._running:
                self._spawn(cancel_at_server(self.server, connection.pid, connection.label, reactor=self._reactor))
            self._grow()
            if self._running and not self.open and not self._connecting and self._waiters:
                self._try_later()
            return
        if not self._running or self._reactor.seconds() - connection.opened_at > MAX_AGE:
            connection.close()
            self._grow()
            return
        self._offer(connection)

    def _on_lost(self, connection: Connection) -> None:
        """The server ended a session that nobody used."""
        self.lost += 1
        self._broke_at = self._reactor.seconds()
        if connection in self._idle:
            self._idle.remove(connection)

    def _tidy_up(self) -> None:
        self._tidy = self._reactor.callLater(TIDY_EVERY, self._tidy_up)
        now = self._reactor.seconds()
        keep = []
        for connection in self._idle:
            if now - connection.used_at > IDLE_SECONDS or now - connection.opened_at > MAX_AGE:
                connection.close()
            else:
                keep.append(connection)
        self._idle = keep

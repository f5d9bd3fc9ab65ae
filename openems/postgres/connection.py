"""One session at a PostgreSQL server, over txpostgres, used by one caller at a time.

Everything that txpostgres 1.7 does not do well with today's Twisted is dealt with here and nowhere else:

- Cancelling one of its Deferreds asks libpq to cancel, which connects and waits **synchronously**: a server that hangs
  would stop the reactor. So its Deferreds are never cancelled; who is out of time closes the session, and a session of
  its own asks the server to cancel what still runs (:func:`cancel_at_server`).
- An idle session that the server ends shows as an exception out of ``doRead``, a traceback in the log. Here it is the
  call ``lost``.
- Closing with a statement under way leaves the cursor registered under a file descriptor that is closed; the next
  socket gets the same number and then the epoll reactor never listens to it. Here all of it is unregistered first.
- After a fatal error psycopg2 calls a session closed although its socket is still open until it is collected. Here
  ``close`` always closes the socket.
- libpq looks up host names synchronously. Here the reactor does, and libpq is given addresses.
- Notifications go through a global cooperator, a task for each arrival: order is lost and a timer left over. Here they
  are handed on in order, at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IResolutionReceiver
from twisted.python.failure import Failure
from txpostgres import txpostgres
from zope.interface import implementer

#: How often a server (14 and later) looks whether the client of a running statement is still there, in ms.
CHECK_CLIENT = 2_000
CANCEL_SECONDS = 5.0
MAX_ADDRESSES = 4
#: SQLSTATEs after which a session is of no use: connection trouble, the server shuts down or starts.
_FATAL_CLASSES = ("08",)
_FATAL = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})


class Unavailable(Exception):
    """The server could not be asked, or did not answer in time; a statement that was sent may still have been done.
    ``str`` is fit for logs and people: no password in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOut(Unavailable):
    """The deadline of the whole exchange is over."""


@dataclass(frozen=True)
class Server:
    """Where and as whom. ``host`` may be a folder with a Unix socket. ``options`` are libpq's own words, such as
    ``sslmode`` and ``sslrootcert``; ``settings`` are the server's, set for each session."""

    host: str = "localhost"
    port: int = 5432
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    application: str = "openems-backend"
    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Statements for each new session.
    prepare: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.database}"

    def reason(self, error: BaseException) -> str:
        """What a driver's error says, in one line, without the password."""
        text = " ".join(str(error).split()) or type(error).__name__
        return text.replace(self.password, "***") if len(self.password) > 3 else text


class _Wire(txpostgres.Connection):
    """txpostgres' connection with the mends that must be inside it."""

    #: Called without argument when the server ended the session while no statement ran.
    lost: Callable[[], None]
    notified: Callable[[str, str], None]

    def doRead(self) -> None:
        try:
            txpostgres.Connection.doRead(self)
        except (psycopg2.Error, txpostgres.UnexpectedPollResult, ValueError):
            # ValueError: the socket went while its notifications were looked at, and cannot be listened to any more.
            self.lost()

    def checkForNotifies(self) -> None:
        notifies = self._connection.notifies
        if notifies:
            arrived = notifies[:]
            del notifies[:]
            for notify in arrived:
                self.notified(notify.channel, notify.payload)

    def end(self) -> None:
        connection = self._connection
        if connection is None:
            return
        for selectable in (*self._cursors, self):
            self.reactor.removeReader(selectable)
            self.reactor.removeWriter(selectable)
        connection.close()
        self.close()


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects what the reactor's resolver finds."""

    def __init__(self, done: Deferred[list[str]]) -> None:
        self._done = done
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: Any) -> None: ...

    def addressResolved(self, address: Any) -> None:
        if address.host not in self._found:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        if not self._done.called:
            self._done.callback(self._found[:MAX_ADDRESSES])


class Connection:
    """``lost(connection)`` is called when the session ends by itself while nobody uses it. ``label`` names it at the
    server (application_name) and must be unique in this process."""

    def __init__(self, server: Server, label: str, *, reactor: Any, lost: Callable[[Connection], None]) -> None:
        self.server = server
        #: PostgreSQL cuts at 63 bytes.
        self.label = f"{server.application} {os.getpid()}/{label}"[:63]
        self.pid = 0
        self.server_version = 0
        self.opened_at = self.used_at = reactor.seconds()
        self.statements = 0
        self._reactor = reactor
        self._lost = lost
        self._notified: Callable[[str, str], None] | None = None
        self._wire: Any = None
        self._running = False

    @property
    def closed(self) -> bool:
        wire = self._wire
        return wire is None or wire._connection is None or bool(wire._connection.closed)

    def now(self) -> float:
        return float(self._reactor.seconds())

    async def open(self, deadline: float) -> None:
        """Raises :class:`Unavailable`. ``deadline`` and all others here are in the reactor's seconds."""
        addresses = await self._resolve(deadline)
        for index, address in enumerate(addresses):
            now = self._reactor.seconds()
            share = now + (deadline - now) / (len(addresses) - index)
            try:
                await self._connect(address, share)
                break
            except Unavailable:
                if index == len(addresses) - 1:
                    raise
        await self._set_up(deadline)

    async def _resolve(self, deadline: float) -> list[str]:
        """Addresses to try in this order; an empty text stands for a Unix socket."""
        host = self.server.host
        if host.startswith("/"):
            return [""]
        done: Deferred[list[str]] = Deferred()
        self._reactor.nameResolver.resolveHostName(_Addresses(done), host)
        found = await self._until(done, deadline, f"no address found for {host}")
        if not found:
            raise Unavailable(f"no address found for {host}")
        return found

    async def _connect(self, address: str, deadline: float) -> None:
        server = self.server
        where = {"hostaddr": address} if address else {}
        wire = _Wire(self._reactor)
        wire.lost = self._on_lost
        wire.notified = self._on_notify
        self._wire = wire
        work = wire.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=server.database,
            application_name=self.label,
            client_encoding="UTF8",
            # Kerberos would look up names synchronously.
            gssencmode="disable",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            tcp_user_timeout=60_000,
            **where,
            **server.options,
        )
        try:
            await self._until(work, deadline, f"no answer from {server.host}:{server.port}")
        except Unavailable:
            self.close()
            raise
        except CancelledError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise Unavailable(server.reason(error)) from None
        self.pid = wire._connection.get_backend_pid()
        self.server_version = wire._connection.server_version

    async def _set_up(self, deadline: float) -> None:
        settings = {"TimeZone": "UTC", **self.server.settings}
        try:
            if self.server_version >= 140_000:
                try:
                    await self.query(
                        "SELECT set_config('client_connection_check_interval', %s, false)",
                        (str(CHECK_CLIENT),),
                        deadline,
                    )
                except psycopg2.Error:
                    pass  # a server on an operating system that cannot tell
            for name, value in settings.items():
                await self.query("SELECT set_config(%s, %s, false)", (name, value), deadline)
            for statement in self.server.prepare:
                await self.query(statement, (), deadline)
        except psycopg2.Error as error:
            self.close()
            raise Unavailable(self.server.reason(error)) from None
        except BaseException:
            self.close()
            raise

    async def query(self, sql: str, params: Sequence[Any] = (), deadline: float = 0.0) -> list[tuple[Any, ...]]:
        """All rows. An error of the statement is raised as psycopg2 gives it; :class:`Unavailable` for the rest, and
        then the session is closed."""
        cursor = await self._run(sql, params, deadline)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description is not None else []
        return rows

    async def execute(self, sql: str, params: Sequence[Any] = (), deadline: float = 0.0) -> int:
        """The number of rows it touched."""
        cursor = await self._run(sql, params, deadline)
        return max(0, int(cursor.rowcount))

    async def _run(self, sql: str, params: Sequence[Any], deadline: float) -> Any:
        if self.closed:
            raise Unavailable("the session was closed")
        cursor = self._wire.cursor()
        self._running = True
        self.statements += 1
        try:
            await self._until(cursor.execute(sql, params or None), deadline, "no answer within its time")
        except (Unavailable, CancelledError):
            self.close()
            raise
        except psycopg2.Error as error:
            if not self._is_fatal(error):
                raise
            self.close()
            raise Unavailable(self.server.reason(error)) from None
        except Exception as error:
            # Not a word of the driver: the socket went away under it (a close of ours, or the reactor's).
            if self.closed:
                self.close()
                raise Unavailable("the session was lost") from None
            self._running = False
            raise error
        finally:
            self.used_at = self._reactor.seconds()
        self._running = False
        return cursor

    def _is_fatal(self, error: psycopg2.Error) -> bool:
        code = error.pgcode
        if self.closed or (code is not None and (code in _FATAL or code.startswith(_FATAL_CLASSES))):
            return True
        if code is None and isinstance(error, psycopg2.InterfaceError | psycopg2.OperationalError):
            return True
        if code is None and isinstance(error, psycopg2.ProgrammingError) and "underway" in str(error):
            # The driver's idea of the session is wrong (seen after a fail-over): it will never recover.
            return True
        self._running = False
        return False

    async def _until(self, work: Deferred[Any], deadline: float, text: str) -> Any:
        """The result of ``work``, which is never cancelled; :class:`TimedOut` at the deadline."""
        outcome: Deferred[Any] = Deferred()

        def done(result: Any) -> None:
            if outcome.called:
                return
            if isinstance(result, Failure):
                outcome.errback(result)
            else:
                outcome.callback(result)

        work.addBoth(done)
        if outcome.called:
            return await outcome
        left = max(0.0, deadline - self._reactor.seconds())
        timer = self._reactor.callLater(left, lambda: done(Failure(TimedOut(text))))
        try:
            return await outcome
        finally:
            if timer.active():
                timer.cancel()

    @property
    def abandoned(self) -> bool:
        """Closed while a statement ran: the server may still be at it."""
        return self.closed and self._running and bool(self.pid)

    def observe(self, notified: Callable[[str, str], None]) -> None:
        """``notified(channel, payload)`` for each NOTIFY this session listens to."""
        self._notified = notified

    def _on_notify(self, channel: str, payload: str) -> None:
        if self._notified is not None:
            self._notified(channel, payload)

    def _on_lost(self) -> None:
        self.close()
        self._lost(self)

    def close(self) -> None:
        """At once; a statement under way fails. May be called twice."""
        wire = self._wire
        if wire is not None:
            wire.end()


async def cancel_at_server(server: Server, pid: int, label: str, *, reactor: Any) -> bool:
    """Asks the server to cancel what the session ``pid`` with that ``label`` runs; True if it was told to.
    Never raises for a server that is away."""
    connection = Connection(server, "cancel", reactor=reactor, lost=lambda connection: None)
    deadline = reactor.seconds() + CANCEL_SECONDS
    try:
        await connection.open(deadline)
        rows = await connection.query(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s",
            (pid, label),
            deadline,
        )
        return bool(rows and rows[0][0])
    except (Unavailable, psycopg2.Error):
        return False
    finally:
        connection.close()

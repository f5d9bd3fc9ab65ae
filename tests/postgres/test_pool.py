from __future__ import annotations

import os
import signal
import socket
from typing import Any

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.postgres import pool as pool_module
from openems.postgres.listen import Listener
from openems.postgres.pool import Pool, Server, TimedOut, Transaction, Unavailable
from tests.postgres.databases import again, database, role, run_sql
from tests.real import fresh, real


def pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


async def until(condition: Any, seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await pause(0.02)
    raise AssertionError(f"not within {seconds} s")


class PoolCase(TestCase):
    timeout = 120  # type: ignore[assignment]

    def setUp(self) -> None:
        self.server = real("postgresql")

    async def pool(self, **changes: Any) -> Pool:
        arguments: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "user": "postgres",
            "password": "secret",
            "database": "postgres",
            "size": 3,
            "chance": lambda: 0.5,
        }
        pool = Pool("pool", reactor=reactor, **{**arguments, **changes})
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        await pool.start()
        return pool

    async def caught(self, kind: type[Exception], work: Any) -> Any:
        try:
            await work
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}")


class QueryTests(PoolCase):
    async def test_answers(self) -> None:
        pool = await self.pool()
        self.assertEqual([(7, "ä%")], await pool.query("SELECT %s + 3, %s", (4, "ä%")))
        self.assertEqual([("100%",)], await pool.query("SELECT '100%'"))
        self.assertEqual([], await pool.query("SET statement_timeout = 0"))
        self.assertEqual((3, 1, 0), (pool.completed, pool.open, pool.busy))

    async def test_rows_touched_and_transactions(self) -> None:
        pool = await self.pool(database=database(self, self.server))
        await pool.execute("CREATE TABLE t (a int)")

        async def insert(transaction: Transaction) -> str:
            self.assertEqual(2, await transaction.execute("INSERT INTO t VALUES (1), (2)"))
            self.assertEqual([(2,)], await transaction.query("SELECT count(*) FROM t"))
            return "done"

        async def broken(transaction: Transaction) -> None:
            await transaction.execute("DELETE FROM t")
            raise KeyError("mine")

        async def wrong(transaction: Transaction) -> None:
            await transaction.execute("DELETE FROM t")
            await transaction.execute("SELECT 1/0")

        self.assertEqual("done", await pool.transaction(insert))
        await self.caught(KeyError, pool.transaction(broken))
        await self.caught(psycopg2.Error, pool.transaction(wrong))
        self.assertEqual([(2,)], await pool.query("SELECT count(*) FROM t"))
        self.assertEqual((1, 1), (pool.open, pool.connects))

    async def test_a_wrong_statement_costs_no_session(self) -> None:
        pool = await self.pool()
        error = await self.caught(psycopg2.Error, pool.query("SELECT nothing"))
        self.assertEqual("42703", error.pgcode)
        await self.caught(ValueError, pool.query("SELECT %s", ("a\0b",)))
        self.assertEqual([(1,)], await pool.query("SELECT 1"))
        self.assertEqual(1, pool.connects)

    async def test_sessions_are_made_as_needed_and_no_more(self) -> None:
        pool = await self.pool()
        answers = await gatherResults(
            [Deferred.fromCoroutine(pool.query("SELECT %s, pg_sleep(0.05)", (i,))) for i in range(10)]
        )
        self.assertEqual(list(range(10)), [rows[0][0] for rows in answers])
        self.assertEqual((3, 0, 3), (pool.open, pool.busy, pool.connects))


class DeadlineTests(PoolCase):
    async def test_a_statement_is_cancelled_at_the_server(self) -> None:
        pool = await self.pool()
        await self.caught(TimedOut, pool.query("SELECT pg_sleep(61)", timeout=0.2))
        self.assertEqual([(1,)], await pool.query("SELECT 1"))
        running = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'"
        await until(lambda: not run_sql(self.server, running), 10)
        self.assertEqual((1, 1), (pool.timed_out, pool.lost))

    async def test_waiting_counts(self) -> None:
        pool = await self.pool(size=1)
        long = Deferred.fromCoroutine(pool.query("SELECT pg_sleep(1)"))
        error = await self.caught(TimedOut, pool.query("SELECT 1", timeout=0.1))
        self.assertIn("became free", str(error))
        await long
        self.assertEqual(0, pool.waiting)
        self.assertEqual((1, 1), (pool.waits.count, pool.waits.counts[0]))
        long = Deferred.fromCoroutine(pool.query("SELECT pg_sleep(0.3)"))
        await pool.query("SELECT 1")
        await long
        self.assertEqual(3, pool.waits.count)
        self.assertGreater(pool.waits.sum, 0.2)

    async def test_the_queue_is_bounded(self) -> None:
        pool = await self.pool(size=1, queue=2)
        work = [Deferred.fromCoroutine(pool.query("SELECT pg_sleep(0.2)")) for _ in range(3)]
        error = await self.caught(Unavailable, pool.query("SELECT 1"))
        self.assertIn("2 statements wait", str(error))
        await gatherResults(work)
        self.assertEqual((1, 3), (pool.refused, pool.completed))

    async def test_a_cancelled_caller_gives_its_session_back(self) -> None:
        pool = await self.pool(size=1)
        busy = Deferred.fromCoroutine(pool.query("SELECT pg_sleep(62)"))
        waiting = Deferred.fromCoroutine(pool.query("SELECT 1"))
        await pause(0.1)
        waiting.cancel()
        busy.cancel()
        for work in (waiting, busy):
            await self.caught(CancelledError, work)
        self.assertEqual([(1,)], await pool.query("SELECT 1"))
        running = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(62)' AND state = 'active'"
        await until(lambda: not run_sql(self.server, running), 10)

    async def test_a_server_that_says_nothing(self) -> None:
        silent = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(silent.stopListening)
        self.patch(pool_module, "CONNECT_SECONDS", 0.2)
        pool = await self.pool(port=silent.getHost().port)
        self.assertIn("no answer from 127.0.0.1", pool.down or "")

    async def test_stop_ends_everything(self) -> None:
        pool = await self.pool(size=1)
        work = [Deferred.fromCoroutine(pool.query("SELECT pg_sleep(63)")) for _ in range(2)]
        await pause(0.1)
        await pool.stop(patience=0.1)
        for each in work:
            await self.caught(Unavailable, each)
        await self.caught(Unavailable, pool.query("SELECT 1"))


class OutageTests(PoolCase):
    async def test_nobody_there(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            pool = await self.pool(port=probe.getsockname()[1])
        error = await self.caught(Unavailable, pool.query("SELECT 1"))
        self.assertIn("refused", str(error))

    async def test_unknown_host_and_localhost(self) -> None:
        pool = await self.pool(host="localhost")
        self.assertEqual([(1,)], await pool.query("SELECT 1"))
        pool = await self.pool(host="nobody.invalid")
        self.assertIn("nobody.invalid", pool.down or "")

    async def test_wrong_password_and_database_tell_no_secret(self) -> None:
        pool = await self.pool(password="my-own-secret")
        self.assertIn("authentication failed", pool.down or "")
        self.assertNotIn("my-own-secret", f"{pool.down} {pool!r} {pool.server!r} {pool.server}")
        pool = await self.pool(database="nope")
        self.assertIn('"nope" does not exist', pool.down or "")
        server = Server(password="my-own-secret")
        self.assertEqual("bad *** here", server.reason(ValueError("bad my-own-secret\n here")))

    async def test_killed_sessions_are_replaced(self) -> None:
        pool = await self.pool()
        await gatherResults([Deferred.fromCoroutine(pool.query("SELECT pg_sleep(0.05)")) for _ in range(3)])
        before = len(os.listdir("/proc/self/fd"))
        busy = Deferred.fromCoroutine(pool.query("SELECT pg_sleep(64)"))
        await pause(0.05)
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%/pool/%'"
        run_sql(self.server, kill)
        await self.caught(Unavailable, busy)
        for _ in range(20):
            self.assertEqual([(1,)], await pool.query("SELECT 1", repeatable=True))
        self.assertEqual(3, pool.lost)
        # The sockets of the dead ones are closed, not only forgotten.
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)

    async def test_all_sessions_killed_unnoticed(self) -> None:
        """The reactor has not yet heard of any of them; the second try does not take the next dead one."""
        pool = await self.pool()
        await gatherResults([Deferred.fromCoroutine(pool.query("SELECT pg_sleep(0.05)")) for _ in range(3)])
        self.assertEqual(3, pool.idle)
        # With its second argument the call returns when they have ended.
        kill = "SELECT pg_terminate_backend(pid, 9000) FROM pg_stat_activity WHERE application_name LIKE '%/pool/%'"
        run_sql(self.server, kill)
        self.assertEqual([(1,)], await pool.query("SELECT 1", repeatable=True))
        self.assertEqual(0, pool.failed)

    async def test_a_socket_can_be_used_after_a_session_closed_on_the_way(self) -> None:
        """File descriptors come again: whoever is left behind in the reactor would take the next one's events."""
        pool = await self.pool(size=1)
        for _ in range(3):
            await self.caught(TimedOut, pool.query("SELECT pg_sleep(5)", timeout=0.05))
            self.assertEqual([(1,)], await pool.query("SELECT 1", timeout=5))

    async def test_t079_restarts_under_load(self) -> None:
        """Killed with -9 and started again three times while statements come; everybody gets an answer in time."""
        self.server = fresh("postgresql")
        self.addCleanup(self.server.stop)
        run_sql(self.server, "CREATE TABLE t (a int)")
        self.patch(pool_module, "LAST_RETRY", 0.5)
        pool = await self.pool()
        begun = ended = 0
        going = True

        async def load() -> None:
            nonlocal begun, ended
            while going:
                begun += 1
                started = reactor.seconds()  # type: ignore[attr-defined]
                try:
                    await pool.execute("INSERT INTO t VALUES (1)", timeout=5)
                except Unavailable:
                    pass
                self.assertLess(reactor.seconds() - started, 6)  # type: ignore[attr-defined]
                ended += 1
                await pause(0.01)

        loads = [Deferred.fromCoroutine(load()) for _ in range(5)]
        for _ in range(3):
            await pause(0.2)
            self.server.signal(signal.SIGKILL)
            await pause(0.1)
            again(self.server)
            completed = pool.completed
            await until(lambda completed=completed: pool.completed > completed + 20)
        going = False
        await gatherResults(loads)
        self.assertEqual(begun, ended)
        self.assertGreater(pool.failed, 0)
        self.assertEqual([(1,)], await pool.query("SELECT 1"))
        self.assertEqual((0, 0), (pool.busy, pool.waiting))

    async def test_a_frozen_server_costs_no_more_than_the_deadline(self) -> None:
        self.server = fresh("postgresql")
        self.addCleanup(self.server.stop)
        pool = await self.pool()
        pids = [pid for (pid,) in await pool.query("SELECT pg_backend_pid()")]
        for pid in [*pids, self.server.pid]:
            os.kill(pid, signal.SIGSTOP)
        try:
            started = reactor.seconds()  # type: ignore[attr-defined]
            await self.caught(TimedOut, pool.query("SELECT 1", timeout=0.3))
            self.assertLess(reactor.seconds() - started, 2)  # type: ignore[attr-defined]
        finally:
            for pid in [*pids, self.server.pid]:
                os.kill(pid, signal.SIGCONT)
        self.assertEqual([(1,)], await pool.query("SELECT 1"))

    async def test_an_idle_session_is_tried_first(self) -> None:
        self.patch(pool_module, "CHECK_AFTER", 0.0)
        pool = await self.pool()
        for _ in range(3):
            self.assertEqual([(1,)], await pool.query("SELECT 1"))
        self.assertEqual(1, pool.connects)

    async def test_few_sessions_allowed(self) -> None:
        """What the server refuses beyond its own limit is no outage: the others go on."""
        user = role(self, self.server, "few")
        run_sql(self.server, f"ALTER ROLE {user} CONNECTION LIMIT 1")
        pool = await self.pool(user=user, password="role-secret")
        await gatherResults([Deferred.fromCoroutine(pool.query("SELECT pg_sleep(0.1)")) for _ in range(5)])
        self.assertEqual((5, 1, None), (pool.completed, pool.open, pool.down))


class ListenerTests(PoolCase):
    async def test_notifications_and_what_was_missed(self) -> None:
        events: list[tuple[str, str]] = []
        pool = await self.pool()
        listener = Listener(
            "pool",
            pool.server,
            ["a b", "other"],
            notified=lambda channel, payload: events.append((channel, payload)),
            missed=lambda: events.append(("missed", "")),
            reactor=reactor,
            chance=lambda: 0.0,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(listener.stop()))
        await listener.start()
        for number in range(5):
            await pool.query("SELECT pg_notify('a b', %s)", (str(number),))
        await until(lambda: len(events) == 6)
        self.assertEqual([("missed", ""), *[("a b", str(number)) for number in range(5)]], events)
        events.clear()
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%/listen/%'"
        run_sql(self.server, kill)
        await until(lambda: events == [("missed", "")])
        await pool.query("NOTIFY other, 'again'")
        await until(lambda: len(events) == 2)
        self.assertEqual((2, 6, True), (listener.connects, listener.notifications, listener.connected))

    async def test_starts_without_a_server(self) -> None:
        listener = Listener(
            "alone",
            Server("127.0.0.1", 1, "u", "my-own-secret", "d"),
            ["x"],
            notified=lambda channel, payload: None,
            missed=lambda: None,
            reactor=reactor,
        )
        await listener.start()
        self.assertEqual((False, 1), (listener.connected, listener.connect_failures))
        await listener.stop()

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from openems.backend.timedata import spoolretry
from openems.backend.timedata.plausibility import ChannelFilter
from openems.backend.timedata.timescaledb import migrations, rollup
from openems.backend.timedata.timescaledb import provider as module
from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.common.data import DataKind, DataNotification, Row
from openems.common.errors import OpenemsError
from openems.common.resolution import Resolution, Unit
from openems.postgres import pool as pool_module
from openems.postgres.pool import Pool
from tests.backend.timedata.conformance import DAY, HOUR, MINUTE, NOW, at, day
from tests.postgres.databases import again, database, role, run_sql
from tests.real import fresh, real

FIVE = Resolution(5, Unit.MINUTES)


def pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


class ProviderCase(TestCase):
    timeout = 180  # type: ignore[assignment]
    SERVICE = "postgresql"

    def setUp(self) -> None:
        self.server = real(self.SERVICE)
        self.now = NOW
        #: Of this run of the test: one that is repeated is the same object.
        self.name = ""

    def database(self) -> str:
        self.name = database(self, self.server, "history")
        if self.SERVICE == "timescaledb":
            self.sql("CREATE EXTENSION timescaledb")
        return self.name

    def sql(self, *statements: str) -> list[Any]:
        return run_sql(self.server, *statements, database=self.name)

    async def provider(self, *, start: bool = True, **changes: Any) -> TimescaledbTimedata:
        arguments: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "user": "postgres",
            "password": "secret",
            "batch_delay": 0.0,
            "lookback_days": 36_500,
            "reactor": reactor,
            "now": lambda: self.now,
            **changes,
        }
        if "database" not in arguments:
            arguments["database"] = self.name or self.database()
        folder = arguments.pop("spool_dir", None) or Path(self.mktemp())
        provider = TimescaledbTimedata("timedata0", folder, **arguments)
        if start:
            self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
            await provider.start()
        return provider

    def put(self, provider: TimescaledbTimedata, edge: str, rows: dict[int, Row]) -> None:
        provider.write(edge, DataNotification(DataKind.TIMESTAMPED, rows))

    async def means(
        self, provider: TimescaledbTimedata, edge: str, begin: Any, end: Any, *names: str
    ) -> dict[str, Any]:
        return dict((await provider.query_historic_data(edge, begin, end, names, FIVE)).data)


class TableTests(ProviderCase):
    async def test_a20_many_processes_make_the_same_channels(self) -> None:
        """Tables, partitions and channels, all at once, each made once."""
        self.database()
        providers = await gatherResults([Deferred.fromCoroutine(self.provider()) for _ in range(6)])
        base = at("2026-06-01")
        row: Row = {f"m{n}/X": n for n in range(300)}
        for number, provider in enumerate(providers):
            self.put(provider, "edge7", {base + number: row})
        await gatherResults([Deferred.fromCoroutine(provider.flush()) for provider in providers])
        self.assertEqual([(300, 1)], self.sql("SELECT count(*), count(DISTINCT edge_id) FROM ts_series"))
        self.assertEqual([(1800,)], self.sql("SELECT count(*) FROM ts_num"))

    async def test_a14_and_a18_repeated_values_and_broken_texts(self) -> None:
        provider = await self.provider()
        base = at("2026-06-01")
        rows: dict[int, Row] = {base + n: {"m0/T": "a\0b" if n == 7 else f"t{n}", "m0/N": n} for n in range(500)}
        for _ in range(2):
            self.put(provider, "edge7", rows)
            await provider.flush()
        self.assertEqual([(500, 499)], self.sql("SELECT (SELECT count(*) FROM ts_num), (SELECT count(*) FROM ts_txt)"))

    async def test_a_channel_of_another_process_is_seen(self) -> None:
        """LISTEN: the reader knew all channels of the edge, and learns that there is a new one."""
        self.database()
        one, other = await self.provider(), await self.provider()
        begin, end = day("2026-06-01"), day("2026-06-02")
        base = at("2026-06-01")
        self.put(one, "edge7", {base: {"m0/A": 1}})
        await one.flush()
        self.assertEqual(["m0/A"], list(await self.means(other, "edge7", begin, end, "m0/A", "m0/B")))
        self.put(one, "edge7", {base: {"m0/B": 2, "m0/C": "text"}})
        await one.flush()
        await pause(0.1)
        self.assertEqual(["m0/A", "m0/B"], sorted(await self.means(other, "edge7", begin, end, "m0/A", "m0/B")))
        self.assertEqual("text", (await self.means(other, "edge7", begin, end, "m0/C"))["m0/C"][0])

    async def test_nobody_listens(self) -> None:
        """While notifications may be missed the names are asked for each time."""
        self.database()
        one, other = await self.provider(), await self.provider()
        await other._listener.stop()
        begin, end = day("2026-06-01"), day("2026-06-02")
        for number in range(3):
            self.put(one, "edge7", {at("2026-06-01"): {f"m0/A{number}": 1}})
            await one.flush()
            names = [f"m0/A{n}" for n in range(number + 1)]
            self.assertEqual(names, sorted(await self.means(other, "edge7", begin, end, *names)))

    async def test_newer_tables_are_left_alone(self) -> None:
        first = await self.provider()
        await first.stop()
        self.sql("INSERT INTO ts_schema VALUES (99, 'plain')")
        provider = await self.provider()
        self.assertIn("version 99", provider.trouble or "")
        self.assertIn("CANNOT WRITE", provider.debug_log() or "")

    async def test_schema_of_its_own(self) -> None:
        self.database()
        self.sql("CREATE SCHEMA history")
        provider = await self.provider(schema="history")
        base = at("2026-06-01")
        self.put(provider, "edge7", {base: {"m0/A": 1}})
        await provider.flush()
        self.assertEqual([(1,)], self.sql("SELECT count(*) FROM history.ts_num"))
        self.assertEqual(
            [1], (await self.means(provider, "edge7", day("2026-06-01"), day("2026-06-02"), "m0/A"))["m0/A"][:1]
        )

    async def test_a_schema_that_is_not_there_is_no_other(self) -> None:
        """Tables of another provider in the same database are not taken for ours."""
        first = await self.provider()
        second = await self.provider(schema="history")
        self.assertIsNone(first.trouble)
        self.assertIn("CREATE SCHEMA history", second.trouble or "")
        self.sql("CREATE SCHEMA history")
        third = await self.provider(schema="history")
        self.assertIsNone(third.trouble)
        self.assertEqual(
            [("history",), ("public",)],
            self.sql("SELECT schemaname FROM pg_tables WHERE tablename = 'ts_edge' ORDER BY 1"),
        )

    async def test_files_are_numbered_without_gaps(self) -> None:
        for kind in ("plain", "hypertable"):
            numbers = list(migrations.files(kind))
            self.assertEqual(list(range(1, len(numbers) + 1)), numbers)


class RollupTests(ProviderCase):
    async def test_late_samples_make_a_bucket_anew(self) -> None:
        provider = await self.provider()
        base = at("2026-06-01")
        begin, end = day("2026-06-01"), day("2026-06-02")
        self.put(provider, "edge7", {base: {"m0/A": 1}, base + MINUTE: {"m0/A": 3}})
        await provider.flush()
        await provider.maintain()
        self.assertEqual([(2, 2.0)], self.sql("SELECT cnt, avg FROM ts_num_5m"))
        self.put(provider, "edge7", {base + 2 * MINUTE: {"m0/A": 8}})
        await provider.flush()
        self.assertEqual(4, (await self.means(provider, "edge7", begin, end, "m0/A"))["m0/A"][0])
        self.assertEqual([(2, 2.0)], self.sql("SELECT cnt, avg FROM ts_num_5m"))
        await provider.maintain()
        self.assertEqual([(3, 4.0)], self.sql("SELECT cnt, avg FROM ts_num_5m"))
        self.assertEqual([(0,)], self.sql("SELECT (SELECT count(*) FROM ts_dirty) + (SELECT count(*) FROM ts_rolling)"))

    async def test_the_running_five_minutes_are_left(self) -> None:
        provider = await self.provider()
        self.put(provider, "edge7", {NOW - 1000: {"m0/A": 1}, NOW - HOUR: {"m0/A": 2}})
        await provider.flush()
        await provider.maintain()
        self.assertEqual([(1,)], self.sql("SELECT count(*) FROM ts_num_5m"))
        self.now += 5 * MINUTE + rollup.GRACE
        await provider.maintain()
        self.assertEqual([(2,)], self.sql("SELECT count(*) FROM ts_num_5m"))

    async def test_what_a_killed_process_left_is_finished(self) -> None:
        provider = await self.provider()
        base = at("2026-06-01")
        self.put(provider, "edge7", {base: {"m0/A": 1}})
        await provider.flush()
        # It had taken the note, and was killed.
        self.sql("WITH m AS (DELETE FROM ts_dirty RETURNING *) INSERT INTO ts_rolling SELECT * FROM m")
        begin, end = day("2026-06-01"), day("2026-06-02")
        self.assertEqual(1, (await self.means(provider, "edge7", begin, end, "m0/A"))["m0/A"][0])
        await provider.maintain()
        self.assertEqual([(1,)], self.sql("SELECT count(*) FROM ts_num_5m"))

    async def test_writers_while_it_rolls(self) -> None:
        """Everything written at any moment is in the five-minute table in the end."""
        provider = await self.provider()
        base = at("2026-06-01")
        for turn in range(30):
            rows: dict[int, Row] = {base + s * 10_000 + turn: {"m0/A": s, "m0/B": turn} for s in range(60)}
            self.put(provider, f"edge{turn % 3}", rows)
            if turn % 3 == 0:
                await provider.maintain()
        await provider.flush()
        await provider.maintain()
        self.assertEqual([(3600,)], self.sql("SELECT count(*) FROM ts_num"))
        self.assertEqual([(3600,)], self.sql("SELECT sum(cnt) FROM ts_num_5m"))


class RetentionTests(ProviderCase):
    async def test_days_are_dropped_and_their_five_minutes_stay(self) -> None:
        self.database()
        provider = await self.provider(raw_retention_days=10, rollup_retention_days=400)
        times = [NOW - days * DAY for days in (1, 9, 12, 500)]
        for time in times[:3]:
            self.put(provider, "edge7", {time: {"m0/A": 5}})
        await provider.flush()
        self.now += 5 * DAY
        await provider.stop()
        provider = await self.provider(raw_retention_days=10, rollup_retention_days=400)
        await provider.maintain()
        self.assertEqual([(1,)], self.sql("SELECT count(*) FROM ts_num"))
        self.assertEqual([(3,)], self.sql("SELECT count(*) FROM ts_num_5m"))
        answer = await provider.query_first_value_before("edge7", day("2029-05-30"), ["m0/A"])
        self.assertEqual({"m0/A": 5}, answer)
        self.now += 450 * DAY
        await provider.stop()
        provider = await self.provider(raw_retention_days=10, rollup_retention_days=400)
        await provider.maintain()
        self.assertEqual([(0, 0)], self.sql("SELECT (SELECT count(*) FROM ts_num), (SELECT count(*) FROM ts_num_5m)"))

    async def test_a_year_of_wrong_clock_is_refused_and_counted(self) -> None:
        provider = await self.provider(lookback_days=100)
        self.put(provider, "edge7", {NOW - 200 * DAY: {"m0/A": 1}, NOW + DAY: {"m0/A": 1}, NOW: {"m0/A": 1}})
        await provider.flush()
        self.assertEqual(2, provider.debug_metrics()["timedata0/DroppedTime"])
        self.assertEqual([(1,)], self.sql("SELECT count(*) FROM ts_num"))


class TimescaledbRetentionTests(RetentionTests):
    """Chunks instead of partitions."""

    SERVICE = "timescaledb"

    async def test_they_are_hypertables(self) -> None:
        await self.provider()
        rows = self.sql("SELECT hypertable_name FROM timescaledb_information.hypertables ORDER BY 1")
        self.assertEqual([("ts_num",), ("ts_num_5m",), ("ts_txt",)], rows)


class FilterTests(ProviderCase):
    async def test_edges_channels_and_their_number(self) -> None:
        channels = ChannelFilter(["m0/Debug*"], strict=False)
        provider = await self.provider(edges=["edge7"], channels=channels, max_channels=2)
        base = at("2026-06-01")
        self.put(provider, "edge8", {base: {"m0/A": 1}})
        self.put(provider, "edge7", {base: {"m0/A": 1, "m0/DebugX": 1, "m0/B": 2}})
        self.put(provider, "edge7", {base + 1: {"m0/C": 1, "m0/A": 1, "m0/N": None, "m0/L": [1]}})
        await provider.flush()
        self.assertEqual([("m0/A",), ("m0/B",)], self.sql("SELECT address FROM ts_channel ORDER BY 1"))
        metrics = provider.debug_metrics()
        dropped = {name.partition("/Dropped")[2]: n for name, n in metrics.items() if "/Dropped" in name}
        self.assertEqual({"Address": 1, "Channels": 1, "Type": 1}, dropped)
        self.assertEqual((1, 3), (metrics["timedata0/LeftOut"], metrics["timedata0/Rows"]))
        self.assertEqual(metrics["timedata0/Batches"], provider.writes.durations.count)
        self.assertIsNotNone(provider.writes.last)


class TroubleTests(ProviderCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            self.lines.append(repr({k: v for k, v in event.items() if not k.startswith("log_")}))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    async def test_wrong_password(self) -> None:
        provider = await self.provider(password="my-own-secret")
        self.assertIn("password authentication failed", provider.trouble or "")
        self.assertIn("CANNOT WRITE", provider.debug_log() or "")
        self.put(provider, "edge7", {NOW: {"m0/A": 1}})
        try:
            await provider.query_historic_energy("edge7", day("2026-06-01"), day("2026-06-02"), ["m0/A"])
        except OpenemsError as error:
            self.assertNotIn("password", str(error))
        else:
            self.fail("answered")
        await provider.stop()
        text = "\n".join([*self.lines, provider.debug_log() or "", repr(provider.pool)])
        self.assertIn("authentication", text)
        self.assertNotIn("my-own-secret", text)

    async def test_no_right_to_make_tables(self) -> None:
        self.database()
        user = role(self, self.server, "nobody")
        provider = await self.provider(user=user, password="role-secret")
        self.assertIn("GRANT CREATE, USAGE ON SCHEMA public", provider.trouble or "")

    async def test_rights_that_come_later_and_go_again(self) -> None:
        """Values wait meanwhile; nothing is lost, nothing must be started anew."""
        self.patch(spoolretry, "MAX_RETRY", 0.2)
        writer = await self.provider()
        await writer.stop()
        user = role(self, self.server, "reader")
        self.sql(f"GRANT USAGE ON SCHEMA public TO {user}", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
        self.addCleanup(lambda: self.sql(f"DROP OWNED BY {user}"))
        provider = await self.provider(user=user, password="role-secret", start=False)
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        await provider.start()
        for n in range(10):
            self.put(provider, "edge7", {NOW + n: {"m0/A": n}})
        await pause(0.3)
        self.assertIn("permission denied", provider.trouble or "")
        self.assertIn("CANNOT WRITE", provider.debug_log() or "")
        # Partitions are made by whoever owns the tables.
        self.sql(f"GRANT postgres TO {user}")
        self.addCleanup(lambda: run_sql(self.server, f"REVOKE postgres FROM {user}"))
        await provider.flush()
        self.assertEqual([(10,)], self.sql("SELECT count(*) FROM ts_num"))
        self.assertIsNone(provider.trouble)

    async def test_read_only_user(self) -> None:
        writer = await self.provider()
        base = at("2026-06-01")
        self.put(writer, "edge7", {base: {"m0/A": 1}})
        await writer.flush()
        user = role(self, self.server, "reader")
        self.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
        self.addCleanup(lambda: self.sql(f"DROP OWNED BY {user}"))
        reader = await self.provider(user=user, password="role-secret", is_read_only=True)
        self.assertIsNone(reader.trouble)
        begin, end = day("2026-06-01"), day("2026-06-02")
        self.assertEqual(1, (await self.means(reader, "edge7", begin, end, "m0/A"))["m0/A"][0])
        self.put(reader, "edge7", {base + 1: {"m0/A": 9}})
        self.assertEqual(1, reader.debug_metrics()["timedata0/LeftOut"])

    async def test_read_only_without_tables(self) -> None:
        provider = await self.provider(is_read_only=True)
        self.assertIn("no history in this database yet", provider.trouble or "")
        self.assertIn("CANNOT READ", provider.debug_log() or "")

    async def test_database_that_only_reads(self) -> None:
        provider = await self.provider()
        self.sql(f"ALTER DATABASE {self.name} SET default_transaction_read_only = on")
        await provider.stop()
        provider = await self.provider()
        self.put(provider, "edge7", {NOW: {"m0/A": 1}})
        await pause(0.2)
        self.assertIn("read-only", provider.trouble or "")
        self.assertIn("isReadOnly", provider.trouble or "")


class OutageTests(ProviderCase):
    async def _under_load(self, provider: TimescaledbTimedata, seconds: float) -> dict[str, int]:
        """Counts what was taken: 20 edges, 25 values each 20 ms."""
        taken = 0
        number = 0
        until = reactor.seconds() + seconds  # type: ignore[attr-defined]
        while reactor.seconds() < until:  # type: ignore[attr-defined]
            number += 1
            row: Row = {f"m0/C{n}": number + n for n in range(25)}
            for edge in range(20):
                before = sum(provider._spool.dropped.values())
                self.put(provider, f"edge{edge}", {self.start + number: row})
                if sum(provider._spool.dropped.values()) == before:
                    taken += 25
            await pause(0.02)
        return {"taken": taken}

    async def _outage(self, service: str, number: int) -> None:
        self.server = fresh(service)
        self.addCleanup(self.server.stop)
        self.patch(spoolretry, "MAX_RETRY", 0.5)
        self.patch(pool_module, "LAST_RETRY", 0.5)
        run_sql(self.server, "CREATE DATABASE history")
        self.name = "history"
        if service == "timescaledb":
            self.sql("CREATE EXTENSION timescaledb")
        self.start = NOW - HOUR
        provider = await self.provider(batch_delay=0.05)
        load = Deferred.fromCoroutine(self._under_load(provider, 4))
        await pause(0.7)
        self.server.signal(number)
        await pause(1.5)
        try:
            await self.means(provider, "edge0", day("2029-06-01"), day("2029-06-02"), "m0/C0")
        except OpenemsError:
            pass
        else:
            self.fail("the server is still there")
        self.assertIn("CANNOT WRITE", provider.debug_log() or "")
        again(self.server)
        taken = (await load)["taken"]
        await provider.flush()
        self.assertEqual([(taken,)], self.sql("SELECT count(*) FROM ts_num"))
        self.assertNotIn("CANNOT WRITE", provider.debug_log() or "")
        self.assertGreater(provider.debug_metrics()["timedata0/Retries"], 0)
        await provider.maintain()
        self.assertEqual([(taken,)], self.sql("SELECT sum(cnt) FROM ts_num_5m"))
        await provider.stop()

    async def test_a17_killed_under_load(self) -> None:
        await self._outage("postgresql", signal.SIGKILL)

    async def test_a17_stopped_under_load(self) -> None:
        await self._outage("postgresql", signal.SIGINT)

    async def test_a17_killed_under_load_timescaledb(self) -> None:
        await self._outage("timescaledb", signal.SIGKILL)

    async def test_t079_restarted_five_times(self) -> None:
        self.server = fresh("postgresql")
        self.addCleanup(self.server.stop)
        self.patch(spoolretry, "MAX_RETRY", 0.5)
        self.patch(pool_module, "LAST_RETRY", 0.5)
        run_sql(self.server, "CREATE DATABASE history")
        self.name = "history"
        self.start = NOW - HOUR
        provider = await self.provider(batch_delay=0.05)
        load = Deferred.fromCoroutine(self._under_load(provider, 8))
        for _ in range(5):
            await pause(0.6)
            self.server.signal(signal.SIGKILL)
            again(self.server)
        taken = (await load)["taken"]
        await provider.flush()
        self.assertEqual([(taken,)], self.sql("SELECT count(*) FROM ts_num"))
        await provider.stop()

    async def test_a_server_that_comes_after_us(self) -> None:
        """Started first, and stopped without ever reaching it: what was taken is written by the next one."""
        self.database()
        folder = Path(self.mktemp())
        provider = await self.provider(port=1, spool_dir=folder)
        self.put(provider, "edge7", {NOW: {"m0/A": 1}})
        await provider.stop()
        provider = await self.provider(spool_dir=folder)
        await provider.flush()
        self.assertEqual([(1,)], self.sql("SELECT count(*) FROM ts_num"))


class StartTests(ProviderCase):
    async def test_a_server_that_says_nothing_holds_nobody_up(self) -> None:
        silent = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(silent.stopListening)
        self.patch(module, "START_SECONDS", 0.2)
        began = reactor.seconds()  # type: ignore[attr-defined]
        provider = await self.provider(port=silent.getHost().port, database="x")
        self.put(provider, "edge7", {NOW: {"m0/A": 1}})
        self.assertLess(reactor.seconds() - began, 2)  # type: ignore[attr-defined]
        await provider.stop()


class PoolSettingsTests(ProviderCase):
    async def test_questions_cannot_write(self) -> None:
        provider = await self.provider()
        pool: Pool = provider.pool
        try:
            await pool.execute("DELETE FROM ts_num")
        except Exception as error:
            self.assertIn("read-only", str(error))
        else:
            self.fail("written")

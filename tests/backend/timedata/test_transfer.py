from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.backend.timedata import transfer
from openems.backend.timedata.export import Digest, ITimedataExport, cells, samples_of, sharing_a_number
from openems.backend.timedata.sqlite.export import SqliteExport
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.timedata.timescaledb.javatables import JavaTables
from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.backend.timedata.transfer import Done, State, Transfer, load_state
from openems.common.data import DataKind, DataNotification, Row
from openems.common.energy import stretch
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.conformance import DAY, HOUR, MINUTE, NOW, at, day
from tests.postgres.databases import database, run_sql
from tests.real import real


class SamplesOfTests(SynchronousTestCase):
    @given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20))
    def test_first_last_rise_and_mean_are_kept(self, values: list[int]) -> None:
        part = stretch(values)
        assert part is not None
        ends = (0, (len(values) - 1) * 1000)
        mean = sum(values) / len(values)
        made = samples_of(0, len(values), mean, part.first, part.last, part.rise, ends)
        self.assertEqual((part.first, part.last), (next(iter(made.values())), list(made.values())[-1]))
        if part.rise == part.last - part.first:
            again = stretch(made.values())
            assert again is not None
            self.assertEqual(part.rise, again.rise)
        elif len(values) > 2:
            self.assertAlmostEqual(mean, sum(made.values()) / len(made))

    def test_digest_knows_no_order_and_no_kind_of_number(self) -> None:
        one, other = Digest(), Digest()
        for time, value in ((1, 5), (2, True), (3, "x")):
            one.add(time, "a/B", value)
        for time, value in ((3, "x"), (1, 5.0), (2, 1)):
            other.add(time, "a/B", value)
        self.assertEqual(one, other)
        other.add(4, "a/B", 1)
        self.assertNotEqual(one.checksum, other.checksum)

    def test_sharing(self) -> None:
        self.assertEqual({7: ["a7", "b7", "b07"]}, sharing_a_number(["a7", "b7", "b07", "7x", "b8"]))


class Copying(TestCase):
    timeout = 120  # type: ignore[assignment]

    async def sqlite(self, **changes: Any) -> tuple[SqliteTimedata, SqliteExport]:
        path = self.mktemp()
        days = {"retention_days_raw": 3_000, "retention_days_rollup": 3_660, **changes}
        provider = SqliteTimedata("lite", path, reactor=reactor, now=lambda: NOW, **days)
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        return provider, SqliteExport(path)

    async def postgres(self, **changes: Any) -> TimescaledbTimedata:
        server = real("postgresql")
        self.name = database(self, server, "copy")
        provider = TimescaledbTimedata(
            "big",
            Path(self.mktemp()),
            host="127.0.0.1",
            port=server.port,
            user="postgres",
            password="secret",
            database=self.name,
            batch_delay=0.0,
            reactor=reactor,
            now=lambda: NOW,
            **changes,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        await provider.start()
        return provider

    def data(self) -> dict[str, dict[int, Row]]:
        """Two edges: counters, powers, texts, a long gap in the middle."""
        chance = random.Random(5)
        result: dict[str, dict[int, Row]] = {}
        for edge in ("edge7", "edge8"):
            rows: dict[int, Row] = {}
            for start in (at("2026-06-01"), at("2029-05-01")):
                for minute in range(600):
                    rows[start + minute * MINUTE] = {
                        "_sum/Power": chance.randint(-5000, 5000) / 4,
                        "_sum/Energy": 1000 + minute,
                        "m0/Flag": minute % 2 == 0,
                        "m0/Text": f"t{minute % 7}",
                    }
            result[edge] = rows
        return result

    async def fill(self, provider: Any) -> int:
        total = 0
        for edge, rows in self.data().items():
            provider.write(edge, DataNotification(DataKind.TIMESTAMPED, rows))
            total += sum(map(len, rows.values()))
        await provider.flush()
        return total

    async def copy(self, source: Any, target: Any, target_export: Any, **changes: Any) -> State:
        state = changes.pop("state", None) or State("a", "b", None)
        work = Transfer(source, target, target_export, state, save=lambda state: None, flush=target.flush, **changes)
        await work.run(await source.export_edges())
        return state


class TransferTests(Copying):
    async def test_there_and_back(self) -> None:
        """SQLite to PostgreSQL to SQLite: every value as it was, and the same answers."""
        first, first_export = await self.sqlite()
        total = await self.fill(first)
        middle = await self.postgres()
        last, last_export = await self.sqlite()
        for source, target, export in ((first_export, middle, middle.export), (middle.export, last, last_export)):
            self.assertTrue(ITimedataExport.providedBy(source))
            state = await self.copy(source, target, export)
            self.assertEqual(total, sum(done.samples for done in state.edges.values()))
            self.assertTrue(all(done.verified and done.finished for done in state.edges.values()), state)
        await middle.maintain()
        span = day("2026-06-01"), day("2026-06-02")
        names = ["_sum/Energy", "_sum/Power", "m0/Flag", "m0/Text"]
        answers = [
            [
                await provider.query_historic_data("edge7", *span, names, Resolution(15, Unit.MINUTES)),
                await provider.query_historic_energy_per_period("edge7", *span, names, Resolution(1, Unit.HOURS)),
                await provider.query_first_value_before("edge8", day("2029-01-01"), names),
            ]
            for provider in (first, middle, last)
        ]
        self.assertEqual(msgspec.to_builtins(answers[0]), msgspec.to_builtins(answers[1]))
        self.assertEqual(msgspec.to_builtins(answers[0]), msgspec.to_builtins(answers[2]))

    async def test_stopped_and_gone_on(self) -> None:
        source, export = await self.sqlite()
        total = await self.fill(source)
        target = await self.postgres()
        spans = 0

        def progress(edge: str, part: float, samples: int) -> None:
            nonlocal spans
            spans += 1

        state = await self.copy(export, target, target.export, progress=progress, going=lambda: spans < 3)
        self.assertEqual(3, spans)
        self.assertFalse(all(done.finished for done in state.edges.values()))
        before = sum(done.samples for done in state.edges.values())
        self.assertTrue(0 < before < total)
        state = await self.copy(export, target, target.export, state=state)
        self.assertEqual(total, sum(done.samples for done in state.edges.values()))
        self.assertTrue(all(done.verified and done.finished for done in state.edges.values()))
        # And once more: nothing is left to do.
        state = await self.copy(export, target, target.export, state=state)
        self.assertEqual(total, sum(done.samples for done in state.edges.values()))

    async def test_what_the_target_lost_is_told(self) -> None:
        source, export = await self.sqlite()
        await self.fill(source)
        target = await self.postgres(max_channels=3)
        state = await self.copy(export, target, target.export)
        self.assertFalse(any(done.verified for done in state.edges.values()))
        self.assertEqual(3600, state.edges["edge7"].found)

    async def test_since(self) -> None:
        source, export = await self.sqlite()
        await self.fill(source)
        target = await self.postgres()
        state = await self.copy(export, target, target.export, state=State("a", "b", at("2029-05-01")))
        self.assertEqual(2400, state.edges["edge7"].samples)

    async def test_five_minute_values_of_what_is_gone(self) -> None:
        """The source keeps a day of samples; what is older goes over as few samples with the same energy and means."""
        source, export = await self.sqlite(retention_days_raw=1)
        await self.fill(source)
        target = await self.postgres()
        state = await self.copy(export, target, target.export)
        self.assertTrue(all(done.verified for done in state.edges.values()), state)
        span = day("2026-06-01"), day("2026-06-02")
        names = ["_sum/Energy"]
        for provider in (source, target):
            answer = await provider.query_historic_energy_per_period("edge7", *span, names, Resolution(1, Unit.HOURS))
            self.assertEqual([59, *[60] * 9, *[None] * 14], answer.data["_sum/Energy"])
        means = [
            (await p.query_historic_data("edge7", *span, ["_sum/Power"], Resolution(5, Unit.MINUTES))).data[
                "_sum/Power"
            ]
            for p in (source, target)
        ]
        for one, other in zip(*means, strict=True):
            self.assertTrue(one == other or abs(float(one or 0) - float(other or 0)) < 1e-6)

    async def test_into_a_target_that_keeps_less(self) -> None:
        source, export = await self.sqlite()
        await self.fill(source)
        target = await self.postgres(raw_retention_days=40)
        await target.maintain()
        state = await self.copy(export, target, target.export)
        self.assertEqual(2400 - 600, state.edges["edge7"].coarse - 600)
        self.assertTrue(state.edges["edge7"].verified)

    async def test_spans_follow_the_number_of_samples(self) -> None:
        self.patch(transfer, "AIM", 100)
        self.patch(transfer, "MOST", 250)
        source, export = await self.sqlite()
        await self.fill(source)
        target, target_export = await self.sqlite()
        sizes: list[int] = []
        write = target.write

        def counted(edge: str, data: DataNotification) -> None:
            sizes.append(sum(map(len, data.rows.values())))
            write(edge, data)

        target.write = counted  # type: ignore[method-assign]
        await self.copy(export, target, target_export)
        self.assertLessEqual(max(sizes), 250)
        self.assertEqual(9600, sum(sizes))


class StateTests(SynchronousTestCase):
    def test_another_copy_begins_anew(self) -> None:
        path = Path(self.mktemp())
        state = State("a", "b", None, {"edge7": Done(5)})
        path.write_bytes(msgspec.json.encode(state))
        self.assertEqual(state, load_state(path, "a", "b", None))
        for other in (("c", "b", None), ("a", "c", None), ("a", "b", 7)):
            self.assertEqual({}, load_state(path, *other).edges)
        path.write_bytes(b"{torn")
        self.assertEqual({}, load_state(path, "a", "b", None).edges)


_JAVA = """
CREATE TABLE edge (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE component (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE channel (id serial PRIMARY KEY, component_id int NOT NULL REFERENCES component, name text NOT NULL,
  priority int NOT NULL, UNIQUE (component_id, name));
CREATE TABLE edge_channel (id serial PRIMARY KEY, edge_id int NOT NULL REFERENCES edge,
  channel_id int NOT NULL REFERENCES channel, type int NOT NULL, available_since timestamptz);
CREATE TABLE data_float_low_raw (time timestamptz(3) NOT NULL, edge_channel_id int NOT NULL, value float8 NOT NULL);
CREATE TABLE data_integer_high_raw (time timestamptz(3) NOT NULL, edge_channel_id int NOT NULL, value bigint NOT NULL);
CREATE TABLE data_string_low_raw (time timestamptz(3) NOT NULL, edge_channel_id int NOT NULL, value text NOT NULL);
INSERT INTO edge (name) VALUES ('edge0'), ('edge1');
INSERT INTO component (name) VALUES ('_sum'), ('bms0');
INSERT INTO channel (component_id, name, priority) VALUES
  (1, 'GridActivePower', 1), (2, 'Version', 1), (1, 'EssSoc', 2);
INSERT INTO edge_channel (edge_id, channel_id, type) VALUES (1, 1, 2), (1, 2, 3), (1, 3, 1), (1, 1, 2);
INSERT INTO data_float_low_raw VALUES ('2026-01-15 00:00Z', 1, 100), ('2026-01-15 00:01Z', 1, 200.5),
  ('2026-01-15 00:01Z', 1, 200.5), ('2026-01-15 00:06Z', 4, 400);
INSERT INTO data_integer_high_raw VALUES ('2026-01-15 00:00Z', 3, 57);
INSERT INTO data_string_low_raw VALUES ('2026-01-15 00:02Z', 2, '1.10');
"""


class JavaTablesTests(Copying):
    async def test_an_existing_database_goes_on(self) -> None:
        """In the same database: doubles collapse, a channel with two numbers is one."""
        provider = await self.postgres()
        source = JavaTables(provider.pool)
        self.assertFalse(await source.exist())
        run_sql(real("postgresql"), _JAVA, database=self.name)
        self.assertTrue(await source.exist())
        self.assertEqual(["edge0"], await source.export_edges())
        state = await self.copy(source, provider, provider.export)
        self.assertTrue(state.edges["edge0"].verified)
        rows = await provider.export.export("edge0", NOW - 4 * 365 * DAY, NOW)
        base = at("2026-01-15T01:00")
        self.assertEqual(
            [
                (base, "_sum/EssSoc", 57),
                (base, "_sum/GridActivePower", 100),
                (base + MINUTE, "_sum/GridActivePower", 200.5),
                (base + 2 * MINUTE, "bms0/Version", "1.10"),
                (base + 6 * MINUTE, "_sum/GridActivePower", 400),
            ],
            sorted(cells(rows)),
        )
        provider.write("edge0", DataNotification(DataKind.TIMESTAMPED, {base + HOUR: {"_sum/EssSoc": 58}}))
        await provider.flush()
        answer = await provider.query_first_value_before("edge0", day("2026-01-16"), ["_sum/EssSoc"])
        self.assertEqual({"_sum/EssSoc": 58}, answer)

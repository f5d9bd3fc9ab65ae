"""Edges in memory, and what is written of them (metadata-odoo.md 5, 20)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.events import EventBus, OnlineSet
from openems.backend.metadata.odoo.edges import EdgeTable
from openems.backend.metadata.odoo.statements import STATUS, row
from openems.backend.metadata.odoo.writer import CHUNK, StatusWriter
from openems.common.role import Level
from openems.common.semver import SemanticVersion
from openems.postgres.pool import Unavailable
from openems.testing.services import now_of
from tests.backend.metadata.odoo.fakes import FakePool


def values(number: int, **more: Any) -> tuple[Any, ...]:
    name = more.get("name", f"edge{number}")
    return (
        number,
        more.get("apikey", f"key{number}"),
        more.get("setup_password"),
        name,
        more.get("comment"),
        None,
        more.get("lastmessage"),
        None,
        more.get("state"),
    )


class Table(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = EventBus()
        self.table = EdgeTable(self.events)

    def test_row(self) -> None:
        """20."""
        read = row((1, "key0", None, "edge0", None, None, "2026-04-20 11:22:33.456789", None, None))
        self.assertEqual((read.name, read.apikey, read.comment, read.producttype), ("edge0", "key0", "", ""))
        self.table.replace([(1, "key0", None, "edge0", None, None, "2026-04-20 11:22:33.456789", None, "Fault")])
        edge = self.table.edges["edge0"]
        self.assertEqual((edge.lastmessage, str(edge.version)), (1_776_684_120_000, "0.0.0"))
        self.assertIs(edge.sum_state, Level.FAULT)

    def test_bad_rows(self) -> None:
        changes = self.table.replace([values(1), values(2, apikey=None), values(3, name=None), ()])
        self.assertEqual(list(self.table.edges), ["edge1"])
        self.assertEqual(
            changes.problems[:2],
            ["device 2: Value of field [APIKEY] is null.", "device 3: Value of field [NAME] is null."],
        )

    def test_edges_stay_the_same_objects(self) -> None:
        self.table.replace([values(1, comment="a")])
        edge = self.table.edges["edge1"]
        edge.set_version(SemanticVersion.parse("1.2.3"))
        changes = self.table.replace([values(1, comment="b"), values(2)])
        self.assertIs(self.table.edges["edge1"], edge)
        self.assertEqual((edge.comment, str(edge.version)), ("b", "1.2.3"))
        self.assertEqual((changes.added, changes.removed, changes.keys), (1, 0, True))
        self.assertFalse(self.table.replace([values(1, comment="b"), values(2)]).keys)

    def test_gone(self) -> None:
        """Whoever listens hears that it is offline while it is still known."""
        heard = []
        self.table.replace([values(1), values(2)])
        self.table.edges["edge1"].set_online(True)
        self.events.subscribe(OnlineSet, lambda event: heard.append((event.edge_id in self.table.edges, event.online)))
        self.assertEqual(self.table.update([], [1, 99]).removed, 1)
        self.assertEqual(heard, [(True, False)])
        self.assertEqual(self.table.apikeys, {"key2": "edge2"})
        self.assertIsNone(self.table.odoo_id("edge1"))

    @given(st.lists(st.dictionaries(st.integers(1, 4), st.sampled_from("abcd"), max_size=4), max_size=5), st.booleans())
    def test_renamed(self, states: list[dict[int, str]], one_by_one: bool) -> None:
        """Other addons let names change, several at once, and a new edge may take an old one's: every edge is known
        afterwards as if it had been read for the first time. Rows come in any order."""
        table = EdgeTable(EventBus())
        for state in states:
            named = {name: number for number, name in state.items()}  # a name is unique
            rows = [values(number, name=name) for name, number in named.items()]
            if one_by_one:
                for number in range(1, 5):
                    table.update([row for row in rows if row[0] == number], [number])
            else:
                table.replace(rows)
            self.assertEqual(sorted(table.edges), sorted(named))
            self.assertEqual({name: table.odoo_id(name) for name in table.edges}, named)
            self.assertEqual(table.apikeys, {f"key{number}": name for name, number in named.items()})

    def test_renamed_while_connected(self) -> None:
        """Its link ends; Odoo shows it as offline until it comes back under its new name."""
        heard = []
        self.table.replace([values(1, name="old")])
        self.table.edges["old"].set_online(True)
        self.events.subscribe(OnlineSet, lambda event: heard.append((event.edge_id, event.edge_id in self.table.edges)))
        changes = self.table.replace([values(1, name="new")])
        self.assertEqual((heard, changes.keys), ([("old", True), ("new", True)], True))
        self.assertFalse(self.table.edges["new"].online)

    @given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.sampled_from(["", "p", "q"])), max_size=12))
    def test_nobody_gets_a_shared_key(self, rows: list[tuple[int, str, str]]) -> None:
        table = EdgeTable(EventBus())
        devices = {number: values(number, apikey=key, setup_password=password) for number, key, password in rows}
        for number, device in devices.items():
            table.update([device], [number])
        for kind, lookup in ((1, table.apikeys.get), (2, table.by_setup_password)):
            owners: dict[str, list[str]] = {}
            for device in devices.values():
                owners.setdefault(device[kind], []).append(device[3])
            for secret, names in owners.items():
                expected = names[0] if len(names) == 1 and secret else None
                self.assertEqual(lookup(secret), expected)


class Writer(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events = EventBus()
        self.table = EdgeTable(self.events)
        self.table.replace([values(number) for number in range(1, 4)])
        self.fail: Any = None
        self.pool = FakePool(self.answer)
        self.writer = StatusWriter(
            self.pool.execute, self.events, odoo_id=self.table.odoo_id, reactor=self.clock, now=lambda: 7, interval=5.0
        )
        self.writer.start()
        self.addCleanup(lambda: now_of(self.writer.stop()))

    def answer(self, sql: str, parameters: Any) -> Any:
        self.assertEqual(sql, STATUS)
        if isinstance(self.fail, Exception):
            raise self.fail
        return self.fail

    def statements(self) -> list[Any]:
        return [parameters for _, parameters in self.pool.asked]

    def test_last_value_wins(self) -> None:
        """20: online true then false within the interval: one entry."""
        edge = self.table.edges["edge1"]
        edge.set_online(True)
        edge.set_online(False)
        self.table.edges["edge2"].set_sum_state(Level.FAULT)
        self.clock.advance(5)
        self.assertEqual(
            self.statements(),
            [([1, 2], [False, None], [None, None], [None, "fault"], [None, None], [None, None])],
        )

    def test_nothing_queued(self) -> None:
        """20."""
        self.clock.advance(60)
        self.assertEqual(self.statements(), [])

    def test_away(self) -> None:
        """Q20: nothing is lost, newer values win, and the writer goes on."""
        edge = self.table.edges["edge1"]
        self.fail = Unavailable("away")
        edge.set_online(True)
        edge.set_sum_state(Level.INFO)
        self.clock.advance(5)
        edge.set_sum_state(Level.OK)
        self.clock.advance(5)
        self.assertEqual(self.writer.waiting, 1)
        self.assertEqual((self.writer.job.last_success, self.writer.job.failures), (None, 2))
        self.fail = None
        self.clock.advance(5)
        self.assertEqual(self.statements()[-1], ([1], [True], [None], ["ok"], [None], [None]))
        self.assertEqual((self.writer.waiting, self.writer.written), (0, 1))
        self.assertEqual((self.writer.job.last_success, self.writer.job.failures), (7, 2))

    def test_values_while_writing(self) -> None:
        edge = self.table.edges["edge1"]
        edge.set_online(True)
        self.fail = Deferred()
        self.clock.advance(5)
        edge.set_online(False)
        self.fail, writing = None, self.fail
        writing.errback(Unavailable("away"))
        self.clock.advance(5)
        self.assertEqual(self.statements()[-1][1], [False])

    def test_unexpected_error(self) -> None:
        """One bad value is found, the others are written, and the next run comes."""
        for edge in self.table.edges.values():
            edge.set_online(True)
        self.table.edges["edge2"].set_producttype("bad")

        def answer(sql: str, parameters: Any) -> Any:
            if "bad" in parameters[5]:
                raise ValueError("NUL")

        self.pool.answer = answer
        self.clock.advance(5)
        self.assertEqual((self.writer.written, self.writer.dropped, self.writer.waiting), (2, 1, 0))

    def test_chunks_and_gone_edges(self) -> None:
        self.table.replace([values(number) for number in range(CHUNK + 10)])
        for edge in self.table.edges.values():
            edge.set_online(True)
        self.table.update([], [3])
        self.clock.advance(5)
        self.assertEqual([len(parameters[0]) for parameters in self.statements()], [CHUNK - 1, 10])

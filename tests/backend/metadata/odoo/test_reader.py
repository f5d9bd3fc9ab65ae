"""How edges become and stay known (metadata-odoo.md 4; quirks Q1, Q19), with a Clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.events import EventBus
from openems.backend.metadata.odoo import statements
from openems.backend.metadata.odoo.edges import Changes, EdgeTable
from openems.backend.metadata.odoo.postgres import (
    FIRST_RETRY,
    LAST_RETRY,
    POLL_WITH_TRIGGER,
    SOON,
    TOGETHER,
    EdgeReader,
)
from openems.postgres.pool import Unavailable
from openems.testing.services import now_of
from tests.backend.metadata.odoo.fakes import FakePool
from tests.backend.metadata.odoo.test_edges import values


class Listening:
    """In place of the session that listens."""

    connected = True


class Reader(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rows = [values(1), values(2)]
        self.fingerprint = 1
        self.away = False
        self.triggers = 0
        self.changes: list[tuple[Changes, bool]] = []
        self.roles: list[int | None] = []
        self.pool: Any = FakePool(self.answer)
        self.table = EdgeTable(EventBus())
        self.reader = EdgeReader(
            self.pool,
            self.table,
            changed=lambda changes, first: self.changes.append((changes, first)),
            roles_changed=self.roles.append,
            poll=10.0,
            listen=False,
            reactor=self.clock,
            now=lambda: int(self.clock.seconds() * 1000),
        )
        self.addCleanup(lambda: now_of(self.reader.stop()))

    def answer(self, sql: str, parameters: Any) -> Any:
        if self.away:
            raise Unavailable("away")
        if sql == statements.FINGERPRINT:
            return [(len(self.rows), self.fingerprint)]
        if sql == statements.HAS_TRIGGER:
            return [(self.triggers,)]
        if sql == statements.EDGES:
            return self.rows
        if sql == statements.EDGES_BY_ID:
            return [row for row in self.rows if row[0] in parameters[0]]
        return 0

    def asked(self, sql: str) -> int:
        return [text for text, _ in self.pool.asked].count(sql)

    def test_start(self) -> None:
        now_of(self.reader.start())
        asked = [text for text, _ in self.pool.asked][:3]
        self.assertEqual(asked, [statements.MARK_OFFLINE, statements.FINGERPRINT, statements.EDGES])
        self.assertEqual([first for _, first in self.changes], [True])
        self.assertIsNone(self.reader.problem)

    def test_start_without_database(self) -> None:
        """Not initialised before the first success, with growing pauses."""
        self.away = True
        now_of(self.reader.start())
        self.assertEqual(self.changes, [])
        for pause in (FIRST_RETRY, 2.0, 4.0):
            before = len(self.pool.asked)
            self.clock.advance(pause - 0.1)
            self.assertEqual(len(self.pool.asked), before)
            self.clock.advance(0.1)
            self.assertEqual(len(self.pool.asked), before + 1)
        self.away = False
        self.clock.advance(LAST_RETRY)
        self.assertEqual([first for _, first in self.changes], [True])
        self.assertEqual(self.asked(statements.MARK_OFFLINE), 5)

    def test_poll(self) -> None:
        """Everything is read again only when something changed; offline marks are for the start."""
        now_of(self.reader.start())
        self.clock.advance(10)
        self.clock.advance(10)
        self.assertEqual((self.asked(statements.EDGES), self.asked(statements.FINGERPRINT)), (1, 3))
        self.rows.append(values(3))
        self.clock.advance(10)
        self.assertIn("edge3", self.table.edges)
        self.assertEqual(self.asked(statements.MARK_OFFLINE), 1)

    def test_away_later(self) -> None:
        now_of(self.reader.start())
        self.away = True
        self.clock.advance(10)
        self.assertIn("away", self.reader.problem or "")
        self.assertEqual(len(self.table), 2)
        self.assertEqual((self.reader.job.last_success, self.reader.job.failures), (0, 1))
        self.away = False
        self.clock.advance(FIRST_RETRY)
        self.assertIsNone(self.reader.problem)
        self.assertEqual((self.reader.job.last_success, self.reader.job.failures), (11_000, 1))

    def test_asked_for(self) -> None:
        """A thousand unknown keys are one look."""
        now_of(self.reader.start())
        self.rows.append(values(3))
        for _ in range(1000):
            self.reader.wanted()
        self.clock.advance(SOON)
        self.assertIn("edge3", self.table.edges)
        self.assertEqual(self.asked(statements.FINGERPRINT), 2)

    def test_notifications(self) -> None:
        self.triggers = 1
        self.reader.listener = Listening()  # type: ignore[assignment]
        now_of(self.reader._look())
        self.reader._running = True
        for number in (2, 3, 3):
            self.reader._notified("openems_backend", f"device {number}")
        self.rows = [values(1), values(3)]
        self.clock.advance(TOGETHER)
        self.assertEqual(sorted(self.table.edges), ["edge1", "edge3"])
        self.assertEqual(self.asked(statements.EDGES_BY_ID), 1)
        self.reader._notified("openems_backend", "role 7")
        self.reader._notified("openems_backend", "rubbish")
        self.assertEqual(self.roles, [7])
        # Looking is rare now.
        self.clock.advance(SOON)
        before = self.asked(statements.FINGERPRINT)
        self.clock.advance(POLL_WITH_TRIGGER - 1)
        self.assertEqual(self.asked(statements.FINGERPRINT), before)
        self.reader.listener = None

"""Last notifications on their way into Odoo (alerting.md 10, 14)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata.odoo import stamps as module
from openems.backend.metadata.odoo.partners import Models
from openems.backend.metadata.odoo.stamps import Stamp, Stamps
from openems.http.exchange import ExchangeError
from tests.backend.metadata.odoo.fakes import FakeExchange, fault, rpc_of, xml

READ, WRITE = "openems.alerting.search_read", "openems.alerting.write"
AWAY = ExchangeError("connection", "POST /x", "ConnectionRefusedError")
#: 2026-04-20 11:22:33
TIME = 1_776_684_153_000


class Table:
    def odoo_id(self, edge_id: str) -> int | None:
        return {"edge0": 7, "edge1": 8}.get(edge_id)


class StampsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exchange = FakeExchange()
        self.records = [{"id": 1, "user_login": "mia", "offline_last_notification": False}]
        self.exchange.answers[READ] = lambda asked: xml(self.records)
        self.exchange.answers[WRITE] = xml(True)
        self.stamps = Stamps(Models(rpc_of(self.exchange, self.clock)), Table(), reactor=self.clock)  # type: ignore[arg-type]
        self.stamps.start()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.stamps.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def written(self) -> list[Any]:
        return [asked[0] for path, asked, _ in self.exchange.asked if path == WRITE]

    def test_written_soon(self) -> None:
        self.stamps.add("edge0", "mia", Stamp(offline=TIME))
        self.assertEqual((self.stamps.waiting, self.exchange.asked), (1, []))
        self.clock.advance(5)
        self.assertEqual(self.written(), [[[1], {"offline_last_notification": "2026-04-20 11:22:33"}]])
        self.assertEqual((self.stamps.waiting, self.stamps.written), (0, 1))
        self.clock.advance(5)
        self.assertEqual(len(self.written()), 1)

    def test_both_and_the_newest(self) -> None:
        for stamp in (Stamp(offline=TIME), Stamp(sum_state=TIME + 1000), Stamp(offline=TIME - 60_000)):
            self.stamps.add("edge0", "mia", stamp)
        self.clock.advance(5)
        values = {
            "offline_last_notification": "2026-04-20 11:22:33",
            "sum_state_last_notification": "2026-04-20 11:22:34",
        }
        self.assertEqual(self.written(), [[[1], values]])

    def test_never_back(self) -> None:
        self.records[0]["offline_last_notification"] = "2026-04-20 11:22:33"
        for time in (TIME, TIME - 60_000):
            self.stamps.add("edge0", "mia", Stamp(offline=time))
            self.clock.advance(5)
        self.assertEqual(self.written(), [])

    def test_no_record_no_edge(self) -> None:
        self.stamps.add("edge0", "jan", Stamp(offline=TIME))
        self.stamps.add("edge9", "mia", Stamp(offline=TIME))
        self.clock.advance(5)
        self.assertEqual((self.written(), self.stamps.waiting, self.stamps.dropped), ([], 0, 0))

    def test_odoo_away(self) -> None:
        self.exchange.answers[WRITE] = AWAY
        self.stamps.add("edge0", "mia", Stamp(offline=TIME))
        self.stamps.add("edge1", "mia", Stamp(offline=TIME))
        self.clock.advance(5)
        self.assertEqual((self.stamps.waiting, self.stamps.written), (2, 0))
        self.stamps.add("edge0", "mia", Stamp(offline=TIME - 60_000))
        self.exchange.answers[WRITE] = xml(True)
        for _ in range(20):
            self.clock.advance(5)
        self.assertEqual((self.stamps.waiting, self.stamps.written), (0, 2))
        self.assertEqual(self.written()[-1][1], {"offline_last_notification": "2026-04-20 11:22:33"})

    def test_refused(self) -> None:
        self.exchange.answers[WRITE] = [fault(2, "AccessError"), xml(True)]
        self.stamps.add("edge0", "mia", Stamp(offline=TIME))
        self.stamps.add("edge1", "mia", Stamp(offline=TIME))
        self.clock.advance(5)
        self.assertEqual((self.stamps.waiting, self.stamps.written, self.stamps.dropped), (0, 1, 1))

    def test_bounded(self) -> None:
        self.patch(module, "MAX_WAITING", 3)
        for n in range(5):
            self.stamps.add("edge0", f"u{n}", Stamp(offline=TIME))
        self.assertEqual((self.stamps.waiting, self.stamps.dropped), (3, 2))

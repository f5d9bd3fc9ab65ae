"""Configurations and the system log while the database is away (metadata-odoo.md 11.10, 11.11; Q8)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.events import ConfigReceived, EventBus
from openems.backend.metadata.configurations import QUIET, Configurations
from openems.backend.metadata.odoo import configs as module
from openems.backend.metadata.odoo import statements
from openems.backend.metadata.odoo.configs import RETRY, OdooConfigs, SystemLog, compact, pretty
from openems.backend.metadata.odoo.once import Once, TooMany
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import dumps
from openems.postgres.pool import Unavailable
from openems.testing.services import now_of
from tests.backend.metadata.odoo.fakes import FakePool

NOW = 1_776_684_153_000


class World(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.away = False
        self.stored: str | None = None
        self.log: list[Any] = []
        self.pool: Any = FakePool(self.answer)

    def answer(self, sql: str, parameters: Any) -> Any:
        if self.away:
            raise Unavailable("away")
        if sql == statements.CONFIG:
            return [(self.stored,)]
        if sql == statements.CONFIG_FOR_UPDATE:
            return [(7, self.stored)]
        if sql == statements.STORE_CONFIG:
            self.stored = parameters[0]
        if sql == statements.LOG:
            self.log.append(parameters)
        return 1


class Configs(World):
    def setUp(self) -> None:
        super().setUp()
        self.configs = OdooConfigs(self.pool, reactor=self.clock, now=lambda: NOW)

    def test_away_and_back(self) -> None:
        """It waits, is read from memory meanwhile, and is stored afterwards."""
        self.away = True
        with self.assertRaises(OpenemsError):
            now_of(self.configs.load("edge0"))
        saving = self.configs.save("edge0", b'{"components":{}}')
        self.assertEqual(now_of(self.configs.load("edge0")), b'{"components":{}}')
        self.clock.advance(RETRY)
        self.assertNoResult(saving)
        self.away = False
        self.clock.advance(RETRY)
        self.successResultOf(saving)
        self.assertEqual(self.stored, '{\n  "components": {}\n}')
        self.assertEqual((self.configs.waiting, self.configs._size), (0, 0))
        self.away = True
        self.assertEqual(now_of(self.configs.load("edge0")), b'{"components":{}}')

    def test_bounds(self) -> None:
        self.patch(module, "MAX_WAITING", 50)
        self.away = True
        savings = [self.configs.save(f"edge{number}", b'{"components":{}}') for number in range(5)]
        for saving in savings[2:]:
            self.failureResultOf(saving, OpenemsError)
        self.assertEqual((self.configs.waiting, self.configs.dropped), (2, 3))
        self.configs.stop()
        for saving in savings[:2]:
            self.failureResultOf(saving, OpenemsError)
        self.assertEqual((self.configs.waiting, self.configs._size, self.clock.getDelayedCalls()), (0, 0, []))

    def test_received_while_away(self) -> None:
        """The whole way from an edge: what it sent while the database was away is stored when that is back."""
        events = EventBus()
        configurations = Configurations(events, self.configs, reactor=self.clock, is_known=lambda edge_id: True)
        configurations.start()
        self.addCleanup(lambda: now_of(configurations.stop()))
        self.away = True
        config = b'{"components":{"_sum":{"properties":{"a":1}}}}'
        for number in range(10):
            events.publish(ConfigReceived(f"edge{number}", Raw(config)))
        self.clock.advance(QUIET)
        self.clock.pump([RETRY] * 5)
        self.assertEqual((self.configs.waiting, self.stored), (10, None))
        self.assertEqual(bytes(now_of(configurations.get("edge9"))), config)
        self.away = False
        self.clock.pump([RETRY] * 3)
        self.assertEqual((self.configs.waiting, self.configs.dropped), (0, 0))
        self.assertEqual(len(self.log), 1)
        self.assertIn('"_sum"', self.stored or "")

    def test_diff(self) -> None:
        """20."""
        properties = b'{"enabled":true,"meter.id":"meter0"}'
        first = b'{"components":{"ctrl0":{"factoryId":"Controller.X","properties":%b}}}' % properties
        now_of(self.configs.save("edge0", first))
        self.assertEqual(self.log[0][2], 'Created ctrl0 (Controller.X): enabled=true, meter.id="meter0"\n')
        now_of(self.configs.save("edge0", first))
        self.assertEqual(len(self.log), 1)
        now_of(self.configs.save("edge0", first.replace(b"true", b"false")))
        self.assertEqual(self.log[1][2], "Updated ctrl0 (Controller.X): enabled=false [was:true]\n")
        self.assertIn("</table>", self.log[1][3])

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
    def test_verbatim(self, value: Any) -> None:
        """R1: what was stored for people is the edge's own text again."""
        config = dumps({"components": {}, "x": value})
        self.assertEqual(compact(pretty(config)), config)

    def test_number_texts(self) -> None:
        config = b'{"b":12345678901234567890,"a":1.50,"e":1E3,"s":"\\u00e4 \xc3\xa4"}'
        self.assertEqual(compact(pretty(config)), config)
        self.assertEqual(pretty(b"{broken"), "{broken")


class Log(World):
    def setUp(self) -> None:
        super().setUp()
        self.system_log = SystemLog(self.pool, reactor=self.clock, now=lambda: NOW)

    def test_order_and_outage(self) -> None:
        self.away = True
        for number in range(3):
            self.system_log.add(7, "u: U", f"entry {number}", {})
        self.assertEqual((self.system_log.waiting, self.log), (3, []))
        self.away = False
        self.clock.advance(RETRY)
        self.assertEqual([entry[2] for entry in self.log], ["entry 0", "entry 1", "entry 2"])
        self.system_log.add(7, "u: U", "entry 3\x00", {})
        self.assertEqual(self.log[-1][2], "entry 3")

    def test_bound_and_stop(self) -> None:
        self.patch(module, "MAX_ENTRIES", 2)
        self.away = True
        for _ in range(3):
            self.system_log.add(7, "u: U", "entry", {})
        self.assertEqual((self.system_log.waiting, self.system_log.dropped), (2, 1))
        self.successResultOf(Deferred.fromCoroutine(self.system_log.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AskedOnce(SynchronousTestCase):
    def test_shared(self) -> None:
        once: Once[str, int] = Once(limit=3)
        answer: Deferred[int] = Deferred()
        asked: list[int] = []

        async def work() -> int:
            asked.append(1)
            return await answer

        waiting = [Deferred.fromCoroutine(once.run("a", work)) for _ in range(3)]
        self.failureResultOf(Deferred.fromCoroutine(once.run("a", work)), TooMany)
        waiting[0].cancel()
        self.failureResultOf(waiting[0])
        answer.callback(7)
        self.assertEqual([self.successResultOf(each) for each in waiting[1:]], [7, 7])
        self.assertEqual((asked, len(once)), ([1], 0))

    def test_failure(self) -> None:
        once: Once[str, int] = Once()

        async def work() -> int:
            raise ValueError("x")

        self.failureResultOf(Deferred.fromCoroutine(once.run("a", work)), ValueError)
        self.assertNotIn("a", once)

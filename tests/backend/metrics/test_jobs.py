"""Work that is done again and again, and what metadata has yet to write (metrics.md 17)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.alerting.scheduler import Scheduler
from openems.backend.core.debugcycle import DebugCycle
from openems.backend.metrics import metadata
from openems.backend.metrics.components import Applications, Components
from openems.backend.metrics.jobs import Jobs
from tests.backend.core.test_debugcycle import Component
from tests.backend.metrics.test_components import Part
from tests.backend.metrics.test_process import values

NAMES = ("job_last_success_timestamp_seconds", "job_duration_seconds_count", "job_failures_total")


class JobsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)

    def now(self) -> int:
        return int(self.clock.seconds() * 1000)

    def told(self, part: Any, job: str) -> tuple[float | None, ...]:
        got = values(Jobs([None, Part({}), part]).collect())
        return tuple(got.get((name, job)) for name in NAMES)

    def test_the_debug_cycle(self) -> None:
        component = Component({"a/b": 1})
        cycle = DebugCycle([component], [], reactor=self.clock, now=self.now)
        self.assertEqual(self.told(cycle, "debug_cycle"), (None, 0, 0))
        cycle.run()
        self.assertEqual(self.told(cycle, "debug_cycle"), (1000, 1, 0))
        component.error = RuntimeError("x")
        self.clock.advance(5)
        cycle.run()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.told(cycle, "debug_cycle"), (1000, 1, 1))

    def test_alerting(self) -> None:
        scheduler = Scheduler(reactor=self.clock, now=self.now)
        waiting: list[Deferred[None]] = []

        async def work(now: int) -> None:
            waiting.append(Deferred())
            await waiting[-1]

        scheduler.add("alerting_offline", work)
        scheduler.start()
        self.clock.advance(7)
        self.assertEqual(self.told(scheduler, "alerting_offline"), (None, 0, 0))
        waiting[0].callback(None)
        self.assertEqual(self.told(scheduler, "alerting_offline"), (1007, 1, 0))
        self.assertEqual(scheduler.jobs[0].durations.sum, 7)
        self.clock.advance(60)
        waiting[1].errback(RuntimeError("y"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.told(scheduler, "alerting_offline"), (1007, 1, 1))
        self.assertEqual(scheduler.busy, 0)
        scheduler.stop()


class PendingTest(SynchronousTestCase):
    def test_what_metadata_has_yet_to_write(self) -> None:
        numbers = {"metadata0/StatusWaiting": 3, "metadata0/ConfigsWaiting": 1, "metadata0/Users": 5}
        part = Part({**numbers, "x/StatusWaiting": 9})
        got = values(Components([part], Applications(list)).collect())
        self.assertEqual(got[("metadata_pending_writes", "status")], 3)
        self.assertEqual(got[("metadata_pending_writes", "config")], 1)
        self.assertNotIn(("metadata_pending_writes", "state"), got)
        # Told once, under that name; those of others are theirs.
        self.assertEqual(got[("component_users", "metadata0")], 5)
        self.assertNotIn(("component_status_waiting", "metadata0"), got)
        self.assertEqual(got[("component_status_waiting", "x")], 9)
        self.assertTrue(metadata.claims("Metadata.File", "StateWaiting"))

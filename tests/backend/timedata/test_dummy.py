from __future__ import annotations

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.timedata.dummy import DummyTimedata
from openems.common.data import DataKind, DataNotification
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.conformance import day


class DummyTests(TestCase):
    async def test_it_takes_all_and_knows_nothing(self) -> None:
        dummy = DummyTimedata("timedata0")
        verifyObject(ITimedata, dummy)
        verifyObject(IDebugLoggable, dummy)
        dummy.write("edge0", DataNotification(DataKind.TIMESTAMPED, {1: {"m/P": 1}}))
        span = day("2026-06-01"), day("2026-06-02")
        answer = await dummy.query_historic_data("edge0", *span, ["m/P"], Resolution(12, Unit.HOURS))
        self.assertEqual((2, {}), (len(answer.timestamps), answer.data))
        self.assertEqual({}, await dummy.query_historic_energy("edge0", *span, ["m/P"]))
        self.assertEqual({}, await dummy.query_first_value_before("edge0", span[0], ["m/P"]))
        self.assertEqual({"timedata0/Notifications": 1}, dummy.debug_metrics())

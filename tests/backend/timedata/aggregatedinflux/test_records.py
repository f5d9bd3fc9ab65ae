from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.aggregatedinflux import records
from openems.backend.timedata.aggregatedinflux.allowed import DEFAULT, AllowedChannels, expanded
from openems.backend.timedata.influx.lineprotocol import Encoder
from openems.common.data import DataKind, Row
from openems.common.resolution import Resolution, Unit, midnight, milliseconds, periods

BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")
ALLOWED = AllowedChannels()


def utc(text: str) -> int:
    return milliseconds(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC))


class AllowedTests(SynchronousTestCase):
    def test_timedata_15_allowed_channels(self) -> None:
        self.assertEqual((1390, 846), (len(ALLOWED.averages), len(ALLOWED.counters)))
        self.assertEqual(set(), set(ALLOWED.averages) & set(ALLOWED.counters))
        self.assertIn("_sum/ConsumptionActiveEnergy", ALLOWED.counters)
        for name in ("_sum/EssSoc", "ess30/Soc", "io9/Relay8"):
            self.assertIn(name, ALLOWED.averages)
        for name in ("ess31/Soc", "io9/Relay9", "ctrlEnerixControl1/RemoteControlMode"):
            self.assertNotIn(name, ALLOWED.averages)
        floats = {name for name, is_float in ALLOWED.averages.items() if is_float}
        self.assertEqual({"_sum/GridBuyPrice", "ctrlEssTimeOfUseTariff0/QuarterlyPrices"}, floats)
        self.assertNotIn(True, ALLOWED.counters.values())

    def test_lists_of_ones_own(self) -> None:
        own = AllowedChannels([DEFAULT, "my{0..2}/Power=double"], ["my0/Energy"])
        self.assertEqual(1393, len(own.averages))
        self.assertTrue(own.averages["my2/Power"])
        self.assertEqual({"my0/Energy": False}, own.counters)
        for wrong in ("noaddress", "a0/B=text", "/B", "a0/"):
            self.assertRaises(ValueError, AllowedChannels, [wrong])
        self.assertRaises(ValueError, AllowedChannels, ["a{0..999}/b{0..999}"])
        self.assertEqual(["a/b"], list(expanded("a/b")))


class RecordTests(SynchronousTestCase):
    def lines(self, time: int, row: Row) -> tuple[str, str]:
        items = [("edge7", DataKind.AGGREGATED, records.kept({time: row}, ALLOWED, [BERLIN]))]
        averages = Encoder("avg", "edge").encode(records.averages(items, ALLOWED))
        readings = Encoder("max", "edge").encode(records.readings(items, ALLOWED, BERLIN))
        return averages, readings

    def test_timedata_15_aggregated_write(self) -> None:
        row: Row = {"_sum/GridActivePower": 12.9, "_sum/ProductionActiveEnergy": 5000, "foo0/Bar": 1}
        average = "avg,edge=7 _sum/GridActivePower=12i 1685656620"
        self.assertEqual(
            (average, "max,edge=7 _sum/ProductionActiveEnergy=5000i 1685570400"),
            self.lines(utc("2023-06-01T21:57:00"), row),
        )
        self.assertEqual(
            ("avg,edge=7 _sum/GridActivePower=12i 1685656440", ""), self.lines(utc("2023-06-01T21:54:00"), row)
        )
        self.assertEqual(("", ""), self.lines(utc("2023-06-01T10:00:00"), {"_sum/ProductionActiveEnergy": 5000}))

    def test_only_numbers(self) -> None:
        row: Row = {
            "_sum/EssSoc": "5",
            "_sum/GridMode": True,
            "ess0/Soc": None,
            "_sum/GridBuyPrice": 5,
            "ess1/Soc": -1.9,
        }
        averages, _ = self.lines(utc("2023-06-01T10:00:00"), row)
        self.assertEqual("avg,edge=7 _sum/GridBuyPrice=5.0,ess1/Soc=-1i 1685613600", averages)

    def test_the_day_of_a_reading(self) -> None:
        for time, zone, expected in (
            ("2023-06-01T21:55:00", BERLIN, "2023-05-31T22:00:00"),
            ("2023-06-01T21:54:59", BERLIN, None),
            ("2023-06-01T22:00:00", BERLIN, None),
            ("2023-03-26T21:55:00", BERLIN, "2023-03-25T23:00:00"),  # a day of 23 hours
            ("2023-10-29T22:55:00", BERLIN, "2023-10-28T22:00:00"),  # of 25
            ("2023-06-01T18:25:00", KOLKATA, "2023-05-31T18:30:00"),
        ):
            day = records.day_of_reading(utc(time), zone)
            self.assertEqual(None if expected is None else utc(expected), day, time)

    def test_whole_days(self) -> None:
        begin, end = midnight(datetime.date(2026, 3, 28), BERLIN), midnight(datetime.date(2026, 4, 2), BERLIN)
        for resolution, whole in ((Resolution(1, Unit.DAYS), True), (Resolution(1, Unit.HOURS), False)):
            self.assertEqual(whole, records.whole_days(periods(begin, end, resolution), BERLIN))
        self.assertFalse(records.whole_days(periods(begin, end, Resolution(1, Unit.DAYS)), KOLKATA))

"""The spreadsheet: wire.md 9.6, ui.md T15, every language, gaps, the clock change."""

from __future__ import annotations

import datetime
import io
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core import xlsx
from openems.backend.models import History
from openems.common import jsonrpc
from openems.common.edgeconfig import EdgeConfig
from openems.common.resolution import Resolution, Unit, periods
from openems.common.role import Language

BERLIN = ZoneInfo("Europe/Berlin")
METER = "io.openems.edge.meter.api.ElectricityMeter"
CHARGER = "io.openems.edge.ess.dccharger.api.EssDcCharger"


def house() -> EdgeConfig:
    def component(factory: str, kind: str | None = None) -> dict[str, Any]:
        return {"alias": f"My {factory}", "factoryId": factory, "properties": {"type": kind} if kind else {}}

    return EdgeConfig(
        jsonrpc.raw(
            {
                "components": {
                    "charger0": component("Charger"),
                    "meter0": component("Meter", "CONSUMPTION_METERED"),
                    "meter1": component("Meter", "CONSUMPTION_NOT_METERED"),
                    "meter2": component("Meter", "PRODUCTION"),
                    "meter3": component("Meter", "MANAGED_CONSUMPTION_METERED"),
                    "meter4": component("Meter", "GRID"),
                    "tariff0": component("Tariff"),
                },
                "factories": {
                    "Charger": {"natureIds": [CHARGER]},
                    "Meter": {"natureIds": [METER]},
                    "Tariff": {"natureIds": ["io.openems.edge.timeofusetariff.api.TimeOfUseTariff"]},
                },
            }
        )
    )


class Spreadsheet(SynchronousTestCase):
    def sheet(
        self,
        power: Any,
        *,
        energy: Any = None,
        first: str = "2020-07-01",
        last: str = "2020-07-01",
        language: Any = None,
    ) -> Any:
        begin = datetime.datetime.fromisoformat(first).replace(tzinfo=BERLIN)
        end = (datetime.datetime.fromisoformat(last) + datetime.timedelta(days=1)).replace(tzinfo=BERLIN)
        grid = periods(begin, end, Resolution(15, Unit.MINUTES))
        self.rows = len(grid)
        details = xlsx.details_of(house())
        channels = (*xlsx.POWER_CHANNELS, *(item.channel for item in details.items))
        history = History(grid.starts, {channel: [power] * len(grid) for channel in channels})
        data = xlsx.workbook("edge0", begin, begin, end, history, energy or {}, details, language or Language.EN)
        return openpyxl.load_workbook(io.BytesIO(data))["Export"]

    def test_details(self) -> None:
        details = xlsx.details_of(house())
        self.assertEqual([i.channel for i in details.of("production")], ["charger0/ActualPower", "meter2/ActivePower"])
        self.assertEqual(
            [i.channel for i in details.of("consumption")],
            ["meter0/ActivePower", "meter1/ActivePower", "meter3/ActivePower"],
        )
        # a tariff without its controller is left out, where the Java program fails
        self.assertEqual(details.of("timeOfUse"), [])

    def test_values(self) -> None:
        energies = dict(zip(xlsx.ENERGY_CHANNELS, (500, 0, 300, 100, 80, None), strict=True))
        sheet = self.sheet(50, energy=energies)
        self.assertEqual([sheet.cell(7, c).value for c in range(2, 8)], [0.5, 0, 0.3, 0.1, 0.08, "not available"])
        self.assertEqual([sheet.cell(11, c).value for c in range(2, 9)], [50, 0, 50, 0, 50, 50, 50])
        self.assertEqual(sheet.cell(10, 11).value, "My Charger [W]")
        sheet = self.sheet(-50)
        self.assertEqual([sheet.cell(11, c).value for c in range(2, 7)], [0, 50, -50, 50, 0])

    def test_gaps(self) -> None:
        sheet = self.sheet(None)
        self.assertEqual([sheet.cell(11, c).value for c in range(2, 9)], ["-"] * 7)

    def test_period(self) -> None:
        self.assertEqual(self.sheet(1).cell(3, 2).value, "01.07.2020")
        # the last day as asked for, where the Java program shows the day after
        self.assertEqual(self.sheet(1, last="2020-07-02").cell(3, 2).value, "01.07.2020 - 02.07.2020")

    def test_clock_change(self) -> None:
        sheet = self.sheet(1, first="2026-10-25", last="2026-10-25")
        self.assertEqual((self.rows, sheet.max_row), (100, 110))
        self.assertEqual(sheet.cell(11, 1).value, "25.10.2026 00:00:00 +0200")
        self.assertEqual(sheet.cell(110, 1).value, "25.10.2026 23:45:00 +0100")

    def test_every_language(self) -> None:
        for language in Language:
            sheet = self.sheet(1, language=language)
            self.assertTrue(all(sheet.cell(10, c).value for c in range(1, 9)), language)
        self.assertEqual(self.sheet(1, language=Language.DE).cell(6, 2).value, "Netzbezug [kWh]")

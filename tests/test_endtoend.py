"""The whole main job with real processes over real sockets: a newcomer's demo, and what a user does with it."""

from __future__ import annotations

import base64
import datetime
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import openpyxl
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.common.errors import OpenemsError
from openems.testing.uiclient import UiClient
from tests.application.ports import free_offset

ROOT = Path(__file__).parent.parent


class Demo(ProcessProtocol):
    def __init__(self) -> None:
        self.output = ""
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        if "\nready\n" in self.output and not self.ready.called:
            self.ready.callback(None)

    errReceived = outReceived

    def processEnded(self, reason: Any) -> None:
        if not self.ready.called:
            self.ready.errback(RuntimeError(f"the demo ended: {self.output}"))
        self.ended.callback(0 if isinstance(reason.value, ProcessDone) else reason.value.exitCode or -1)


class EndToEnd(TestCase):
    timeout = 150

    def setUp(self) -> None:
        self.state = tempfile.mkdtemp(dir=self.mktemp_parent())
        self.offset = free_offset()

    def mktemp_parent(self) -> str:
        path = self.mktemp()
        os.makedirs(path)
        return path

    async def start(self, *more: str) -> Demo:
        demo = Demo()
        reactor.spawnProcess(
            demo,
            sys.executable,
            [sys.executable, "-m", "openems.application", "demo", "--offset", str(self.offset),
             "--state", self.state, *more],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.addCleanup(self.stop, demo)
        await demo.ready
        return demo

    def stop(self, demo: Demo) -> Deferred[int]:
        if not demo.ended.called:
            demo.transport.signalProcess("INT")
        return demo.ended.addTimeout(20, reactor)

    async def tab(self) -> UiClient:
        ui = UiClient(f"ws://127.0.0.1:{8082 + self.offset}", reactor)
        await ui.connect()
        self.addCleanup(lambda: ensureDeferred(ui.close()))
        return ui

    async def online(self, ui: UiClient, edge_id: str) -> None:
        for _ in range(100):
            status = await ui.request("getEdgesStatus", {"edgeIds": [edge_id]})
            if status[edge_id]["online"]:
                return
            await deferLater(reactor, 0.1)
        self.fail(f"{edge_id} does not come online")

    async def test_a_users_day(self) -> None:
        demo = await self.start("--admin-password", "secret", "--edges", "2")
        ui = await self.tab()
        with self.assertRaises(OpenemsError) as refused:
            await ui.login("admin", "wrong")
        self.assertEqual(refused.exception.code, 1003)
        login = await ui.login("admin", "secret")
        self.assertEqual(login["user"]["globalRole"], "admin")
        await self.online(ui, "edge0")
        edges = (await ui.request("getEdges", {"page": 0, "limit": 20, "searchParams": {}}))["edges"]
        self.assertEqual([edge["id"] for edge in edges], ["edge0", "edge1"])

        await self.watch(ui)
        await self.history(ui)
        await self.steer(ui)
        await self.export(ui)

        # A second start: the history and the password of the first, and the token of the tab.
        self.assertEqual(await self.stop(demo), 0)
        await self.start()
        ui = await self.tab()
        again = await ui.request("authenticateWithToken", {"token": login["token"]})
        self.assertEqual(again["user"]["id"], "admin")
        config = await ui.edge_rpc("edge0", "getEdgeConfig")
        self.assertEqual(config["components"]["ctrlLimit0"]["properties"]["minSoc"], 33)
        await self.history(ui)

    async def watch(self, ui: UiClient) -> None:
        """Live values, one push a second with all channels."""
        await ui.request("subscribeEdges", {"edges": ["edge0"]})
        channels = ["_sum/EssSoc", "_sum/GridActivePower", "_sum/ProductionActivePower", "_sum/ConsumptionActivePower",
                    "_sum/EssDischargePower", "no/Such"]  # fmt: skip
        await ui.edge_rpc("edge0", "subscribeChannels", {"count": 0, "channels": channels})
        values = await ui.push("currentData", where=lambda p: p.get("_sum/EssSoc") is not None)
        self.assertEqual(list(values), sorted(channels))
        self.assertIsNone(values["no/Such"])
        self.assertEqual(
            values["_sum/GridActivePower"],
            values["_sum/ConsumptionActivePower"]
            - values["_sum/ProductionActivePower"]
            - values["_sum/EssDischargePower"],
        )
        await ui.push("currentData")

    async def history(self, ui: UiClient) -> None:
        """A day in five minutes, a year in months: the back-filled month is there, and the months add up."""
        yesterday = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)).date()
        span = {"timezone": "Europe/Berlin", "fromDate": str(yesterday), "toDate": str(yesterday)}
        for _ in range(300):
            try:
                day = await ui.edge_rpc(
                    "edge0",
                    "queryHistoricTimeseriesData",
                    {**span, "channels": ["_sum/EssSoc"], "resolution": {"value": 5, "unit": "Minutes"}},
                )
                if None not in day["data"]["_sum/EssSoc"]:
                    break
            except OpenemsError:
                pass
            await deferLater(reactor, 0.2)
        self.assertEqual(len(day["timestamps"]), 288)
        self.assertTrue(all(10 <= soc <= 100 for soc in day["data"]["_sum/EssSoc"]), day["data"])
        counters = ["_sum/ConsumptionActiveEnergy", "_sum/GridBuyActiveEnergy"]
        year = {**span, "fromDate": str(yesterday - datetime.timedelta(days=365)), "channels": counters}
        energy = (await ui.edge_rpc("edge0", "queryHistoricTimeseriesEnergy", year))["data"]
        months = await ui.edge_rpc(
            "edge0", "queryHistoricTimeseriesEnergyPerPeriod", {**year, "resolution": {"value": 1, "unit": "Months"}}
        )
        for counter in counters:
            self.assertGreater(energy[counter], 0)
            self.assertAlmostEqual(sum(v for v in months["data"][counter] if v is not None), energy[counter], 3)

    async def steer(self, ui: UiClient) -> None:
        """A property changes on the edge, its new configuration comes back; the system log; a refusal of the edge."""
        ui.forget_pushes()
        result = await ui.edge_rpc(
            "edge0",
            "updateComponentConfig",
            {"componentId": "ctrlLimit0", "properties": [{"name": "minSoc", "value": 33}]},
        )
        self.assertEqual(result, {})
        config = await ui.push("edgeConfig")
        properties = config["components"]["ctrlLimit0"]["properties"]
        self.assertEqual((properties["minSoc"], properties["_lastChangeBy"].partition(":")[0]), (33, "admin"))
        stored = await ui.edge_rpc("edge0", "getEdgeConfig")
        self.assertEqual(stored["components"]["ctrlLimit0"]["properties"]["minSoc"], 33)
        nested = await ui.edge_rpc("edge0", "subscribeSystemLog", {"subscribe": True})
        self.assertEqual(nested["payload"]["result"], {})
        line = (await ui.push("systemLog", timeout=15))["line"]
        self.assertEqual(line["level"], "INFO")
        with self.assertRaises(OpenemsError) as refused:
            await ui.edge_rpc("edge0", "updateComponentConfig", {"componentId": "noSuch0", "properties": []})
        self.assertEqual((refused.exception.code, refused.exception.data), (2000, ["noSuch0"]))

    async def export(self, ui: UiClient) -> None:
        day = str((datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)).date())
        result = await ui.edge_rpc(
            "edge0",
            "queryHistoricTimeseriesExportXlxs",
            {"timezone": "Europe/Berlin", "fromDate": day, "toDate": day},
        )
        sheet = openpyxl.load_workbook(io.BytesIO(base64.b64decode(result["payload"])))["Export"]
        self.assertEqual(sheet.cell(1, 2).value, "edge0")
        self.assertEqual(sheet.max_row, 10 + 96)
        self.assertGreater(sheet.cell(7, 7).value, 0)

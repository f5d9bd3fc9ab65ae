from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openems.backend.timedata.export import ITimedataExport
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.backend.timedata.sqlite.export import SqliteExport
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.timedata.transfer import State, Transfer
from openems.common.data import DataKind, DataNotification, Row
from tests.backend.timedata.conformance import MINUTE, NOW, at
from tests.backend.timedata.influx.servers import bucket


class InfluxExportTests(TestCase):
    timeout = 120  # type: ignore[assignment]
    SERVICE = "influxdb2"

    async def test_there_and_back(self) -> None:
        place = bucket(self.SERVICE)
        influx = InfluxTimedata("influx", Path(self.mktemp()), reactor=reactor, now=lambda: NOW, **place.options)
        await influx.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(influx.stop()))
        export = influx.export
        verifyObject(ITimedataExport, export)
        paths = [self.mktemp(), self.mktemp()]
        lite = []
        for path in paths:
            provider = SqliteTimedata("lite", path, reactor=reactor, now=lambda: NOW, retention_days_raw=3_000)
            await provider.start()
            self.addCleanup(lambda provider=provider: Deferred.fromCoroutine(provider.stop()))
            lite.append(provider)
        base = at("2029-05-01")
        rows: dict[int, Row] = {
            base + n * MINUTE: {"_sum/Power": n * 3, "_sum/Soc": n / 4 + 0.1, "_sum/Text": f"X{n}"} for n in range(300)
        }
        for edge in ("edge3", "edge4"):
            lite[0].write(edge, DataNotification(DataKind.TIMESTAMPED, rows))
        await lite[0].flush()
        # Texts have no place there, and that is told; all the rest comes back.
        for source, target, target_export, samples in (
            (SqliteExport(paths[0]), influx, export, 900),
            (export, lite[1], SqliteExport(paths[1]), 600),
        ):
            state = State("a", "b", None)
            work = Transfer(source, target, target_export, state, save=lambda state: None, flush=target.flush)
            self.assertEqual(["edge3", "edge4"], await source.export_edges())
            await work.run(["edge3", "edge4"])
            for done in state.edges.values():
                self.assertEqual(
                    (samples, 600, samples == 600, True), (done.samples, done.found, done.verified, done.finished)
                )


class Influx1ExportTests(InfluxExportTests):
    SERVICE = "influxdb1"
